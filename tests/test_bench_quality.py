"""The whole benchmark on a small case: rows, resuming, refusals. The pair is made of packaged clips, not rendered."""

import json
import shutil
from dataclasses import replace
from functools import partial

import pytest
from pairs import make_pair

from fslab.bench import trial
from fslab.bench.case import Case, Tier, pair_config
from fslab.bench.classic import ClassicConfig
from fslab.bench.quality import run_quality, run_tier
from fslab.bench.trial import ARMS, Trial, Watch
from fslab.errors import FslabError, OutputError
from fslab.metrics import METRICS
from fslab.provenance import verify

CASE = Case("small", "Small and quick.", 3, 4, n_frames=16)
TIER = Tier("small", 128, 64, "tiny", 1.0, 6, (CASE,), "cpu")


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return make_pair(tmp_path_factory.mktemp("made") / "pair", pair_config(CASE, TIER))


@pytest.fixture(scope="module")
def done(tmp_path_factory, pair):
    """A finished benchmark: its folder, what it returned, what it told."""
    out, notes, patch = tmp_path_factory.mktemp("bench") / "out", [], pytest.MonkeyPatch()
    patch.setattr(
        trial, "ClassicConfig", partial(ClassicConfig, batch=1)
    )  # a step of 16 faces takes half a minute here
    Trial(TIER, CASE, out / "cases" / CASE.name)
    (out / "quality.json").write_text(json.dumps({"schema": 1, "tier": TIER.to_dict()}))
    shutil.copytree(pair, out / "cases" / CASE.name / "pair")
    body = run_tier(TIER, out, watch=Watch(on_note=notes.append))
    patch.undo()
    return out, body, notes


def test_every_arm_has_every_metric_and_the_ends_of_the_scale_are_right(done):
    _, body, _ = done
    rows = body["rows"]["small"]
    assert tuple(rows) == ARMS
    assert all(set(row) == set(METRICS) for row in rows.values())
    assert (rows["target"]["closure"], rows["target"]["leak"]) == (0.0, 1.0)
    assert (rows["truth"]["closure"], rows["truth"]["leak"]) == (1.0, 0.0)
    for arm in ("colour", "nearest", "classic", "fslab", "ceiling"):
        assert rows[arm]["share_swapped"] == 1.0
        assert rows[arm]["closure"] < 1
    assert body["means"]["fslab"]["closure"] == rows["fslab"]["closure"]


def test_the_last_point_of_a_curve_is_the_row_in_the_table(done):
    _, body, _ = done
    for arm, points in body["curves"]["small"].items():
        seconds = [p["seconds"] for p in points]
        assert seconds == sorted(seconds)
        assert seconds[-1] >= TIER.budget
        assert points[-1]["metrics"] == body["rows"]["small"][arm]


def test_the_json_holds_what_was_returned_and_says_on_what_it_was_made(done):
    out, body, _ = done
    assert json.loads((out / "quality.json").read_text()) == json.loads(json.dumps(body))
    assert body["complete"]
    assert body["command"] == "fslab bench quality --tier small --budget 1s"
    assert body["cases"]["small"]["hash"] == "0" * 64
    assert body["cases"]["small"]["source_seed"] == 3
    assert body["hardware"]["cores"] >= 1
    assert {"fslab", "torch", "mitsuba"} <= set(body["versions"])


def test_everything_swapped_that_was_written_is_marked(done):
    out, _, _ = done
    clips = sorted((out / "cases" / "small" / "swaps").glob("*.mp4"))
    assert len(clips) >= 4
    assert {verify(path).state for path in (*clips, out / "pictures" / "small.jpg")} == {"marked"}


def test_what_training_needed_is_gone_and_the_page_stands(done):
    out, _, _ = done
    assert sorted(p.name for p in (out / "cases" / "small").iterdir() if p.is_dir()) == ["pair", "swaps"]
    assert "fslab" in (out / "index.html").read_text(encoding="utf-8")


def test_a_finished_case_is_kept(done):
    out, body, notes = done
    assert any("training fslab" in note for note in notes)
    again, quiet = run_tier(TIER, out, watch=Watch(on_note=(told := []).append)), told
    assert again["rows"] == body["rows"]
    assert quiet == ["case 1 of 1: small"]


def test_an_interrupted_case_goes_on_with_what_it_has(done, tmp_path):
    out, body, _ = done
    shutil.copytree(out, tmp_path / "out")
    (tmp_path / "out" / "cases" / "small" / "result.json").unlink()
    told = []
    again = run_tier(TIER, tmp_path / "out", watch=Watch(on_note=told.append))
    assert not any("training" in note or "converting" in note or "baseline" in note for note in told)
    assert again["rows"]["small"] == body["rows"]["small"]


def test_another_tiers_folder_is_refused_and_may_be_replaced(done, tmp_path):
    out, _, _ = done
    shutil.copytree(out, tmp_path / "out")
    other = replace(TIER, name="other", cases=())
    with pytest.raises(OutputError, match=r"tier 'other'.*one of tier 'small'.*--overwrite"):
        run_tier(other, tmp_path / "out")
    assert run_tier(other, tmp_path / "out", overwrite=True)["rows"] == {}
    assert not (tmp_path / "out" / "cases").exists()


def test_a_case_of_another_configuration_is_refused(done, tmp_path):
    out, _, _ = done
    shutil.copytree(out / "cases" / "small", tmp_path / "small")
    with pytest.raises(OutputError, match="another configuration"):
        Trial(TIER, replace(CASE, n_frames=17), tmp_path / "small")


def test_a_pair_of_another_configuration_is_refused(pair, tmp_path):
    case = replace(CASE, n_frames=17)
    shutil.copytree(pair, tmp_path / "small" / "pair")
    with pytest.raises(OutputError, match=r"pair of the case 'small'.*another configuration"):
        Trial(TIER, case, tmp_path / "small").run()


def test_missing_labels_are_told_in_one_sentence(pair, tmp_path):
    shutil.copytree(pair, tmp_path / "small" / "pair")
    (tmp_path / "small" / "pair" / "truth.labels.npz").unlink()
    with pytest.raises(FslabError, match=r"truth\.labels.npz"):
        Trial(TIER, CASE, tmp_path / "small").run()


@pytest.mark.parametrize("overwrite", [False, True])
def test_somebody_elses_folder_is_left_alone(tmp_path, overwrite):
    (tmp_path / "diary.txt").write_text("mine")
    with pytest.raises(OutputError, match="other files"):
        run_tier(TIER, tmp_path, overwrite)
    assert (tmp_path / "diary.txt").read_text() == "mine"


def test_a_place_that_cannot_be_written_to_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        run_tier(TIER, tmp_path / "file" / "out")


def test_an_unknown_tier_is_refused(tmp_path):
    with pytest.raises(ValueError, match="ci, lab, full"):
        run_quality("huge", tmp_path / "out")
