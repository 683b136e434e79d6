"""Variants of a training on one case: equal seconds, rows that are kept, failures in words. No pair is rendered."""

import json
import shutil
from dataclasses import replace

import pytest
from pairs import make_pair

from fslab.bench import variants as module
from fslab.bench.case import TIERS, Case, Tier, pair_config
from fslab.bench.trial import Watch
from fslab.bench.variants import SCORES, Study, Variant, find_study, markdown_table, run_variants, table_of
from fslab.errors import OutputError
from fslab.faceset import FaceSet
from fslab.metrics import METRICS
from fslab.model import ModelConfig
from fslab.provenance import verify
from fslab.schedule import TrainConfig
from fslab.storage import write_json

CASE = Case("small", "Small and quick.", 3, 4, n_frames=16)
TIER = Tier("small", 128, 32, "tiny", 0.5, 6, (CASE,), "cpu")
STUDY = Study("things", TIER, CASE)
MODEL = ModelConfig(width=8, latent_channels=8)
NARROW = Variant("narrow", MODEL, TrainConfig(batch=2, steps=None), {"weight": 0.5, "from": "scratch"})
WIDE = Variant("wide", replace(MODEL, width=16), TrainConfig(batch=2), {"weight": None})
BROKEN = Variant("broken", replace(MODEL, encoder="timm:no_such_net"), TrainConfig(batch=2))


def place(out, pair):
    """Put the made pair where the study looks for its own."""
    out.mkdir()
    write_json(out / STUDY.marker, {"schema": module.SCHEMA, "study": STUDY.to_dict(), "rows": {}})
    shutil.copytree(pair, out / "case" / "pair")
    return out


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return make_pair(tmp_path_factory.mktemp("made") / "pair", pair_config(CASE, TIER))


@pytest.fixture(scope="module")
def done(tmp_path_factory, pair):
    out = place(tmp_path_factory.mktemp("bench") / "out", pair)
    return out, run_variants(STUDY, [NARROW, BROKEN, WIDE], out)


def test_every_variant_is_trained_as_long_and_scored_with_every_metric(done):
    _, body = done
    for name in ("narrow", "wide"):
        row = body["rows"][name]
        assert set(row["metrics"]) == set(METRICS)
        assert TIER.budget <= row["seconds"] < TIER.budget + 1.5
        assert row["faces_per_second"] == pytest.approx(row["step"] * 4 / row["seconds"], rel=0.02)
        assert row["settings"]["model"]["size"] == TIER.model_size
        assert row["settings"]["train"]["budget"] == "0.5s"
    assert body["complete"]
    assert body["pair"] == "0" * 64


def test_sizes_are_those_of_the_networks(done):
    from fslab.model import SwapAutoencoder

    row = done[1]["rows"]["narrow"]
    model = SwapAutoencoder(replace(MODEL, size=32), ["ada", "dan"])
    assert row["parameters"] == row["learning"] == sum(p.numel() for p in model.parameters())
    assert done[1]["rows"]["wide"]["parameters"] > row["parameters"]


def test_memory_is_measured_in_a_process_of_its_own_and_grows_with_the_batch(done):
    out, body = done
    facesets = [FaceSet.load(out / "case" / "faces" / name) for name in "ab"]
    large = replace(STUDY.fit(WIDE), train=replace(STUDY.fit(WIDE).train, batch=400))
    assert 100 < body["rows"]["wide"]["peak_memory_mb"] < module.peak_memory(facesets, large) - 50


def test_a_variant_that_cannot_be_built_says_so_and_the_others_go_on(done):
    out, body = done
    assert "no_such_net" in body["rows"]["broken"]["failed"]
    assert list(body["rows"]) == ["narrow", "broken", "wide"]
    assert "no_such_net" in (out / "things.md").read_text()


def test_swaps_are_marked_and_what_training_needed_is_gone(done):
    out, body = done
    clips = [out / "case" / "swaps" / body["rows"][name]["clip"] for name in ("narrow", "wide")]
    assert {verify(clip).state for clip in clips} == {"marked"}
    assert not (out / "variants").exists()


def test_rows_that_are_done_are_kept_and_changed_ones_made_anew(done, tmp_path):
    out, body = done
    shutil.copytree(out, tmp_path / "out")
    told = []
    changed = replace(WIDE, train=replace(WIDE.train, lr=1e-3))
    again = run_variants(STUDY, [NARROW, changed], tmp_path / "out", watch=Watch(on_note=told.append))
    assert again["rows"]["narrow"] == body["rows"]["narrow"]
    assert again["rows"]["wide"]["settings"]["train"]["lr"] == 1e-3
    assert [n for n in told if n.startswith("things")] == ["things 2 of 2: wide"]
    assert "broken" in again["rows"]  # asked for before, and not in the way
    assert json.loads((tmp_path / "out" / "things.json").read_text()) == json.loads(json.dumps(again))


def test_a_stopped_variant_goes_on(pair, tmp_path, monkeypatch):
    out, real = place(tmp_path / "out", pair), module.train

    def stopped(facesets, folder, model, config, hooks):
        return real(facesets, folder, model, config, replace(hooks, should_stop=lambda: True))

    with monkeypatch.context() as patch:
        patch.setattr(module, "train", stopped)
        with pytest.raises(KeyboardInterrupt):
            run_variants(STUDY, [NARROW], out)
    seen = []
    monkeypatch.setattr(module, "train", lambda *args: seen.append(real(*args)) or seen[-1])
    monkeypatch.setattr(module, "peak_memory", lambda *_: None)
    body = run_variants(STUDY, [NARROW], out)
    rows = (out / "case" / "faces").exists(), body["rows"]["narrow"]["seconds"]
    assert rows == (True, round(seen[0].seconds, 2))
    assert body["rows"]["narrow"]["peak_memory_mb"] is None
    assert "–" in (out / "things.md").read_text()


def test_another_studys_folder_is_refused_and_may_be_replaced(done, tmp_path):
    out, _ = done
    shutil.copytree(out, tmp_path / "out")
    other = Study("things", replace(TIER, budget=9.0), CASE)
    with pytest.raises(OutputError, match="another case, budget"):
        run_variants(other, [NARROW], tmp_path / "out")
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "a.txt").write_text("dear")
    with pytest.raises(OutputError, match="other files"):
        run_variants(STUDY, [NARROW], tmp_path / "letters", overwrite=True)
    assert module.open_folder(other, tmp_path / "out", "rows", overwrite=True)["rows"] == {}
    assert not (tmp_path / "out" / "case").exists()


def test_the_table_says_what_a_variant_says_of_itself(done):
    columns, rows = table_of(done[1])
    assert columns[:3] == ["thing", "weight", "from"]
    assert columns[3 : 3 + len(SCORES)] == [METRICS[m].title for m in SCORES]
    assert rows[0][:3] == ["narrow", "0.5", "scratch"]
    assert rows[2][:3] == ["wide", "–", "–"]
    assert {len(row) for row in rows} == {len(columns)}
    assert markdown_table(["a", "b"], [["x|y", "1"]]) == "| a | b |\n| --- | ---: |\n| x\\|y | 1 |\n"


def test_studies_are_found_by_name():
    study = find_study("things", "lab", "glasses", 30.0)
    assert (study.case.name, study.tier.budget, study.marker) == ("glasses", 30.0, "things.json")
    first = find_study("things", "ci")
    assert (first.case, first.tier) == (TIERS["ci"].cases[0], TIERS["ci"])
    with pytest.raises(ValueError, match="ci, lab, full"):
        find_study("things", "huge")
    with pytest.raises(ValueError, match="matched, never-left"):
        find_study("things", "ci", "glasses")


@pytest.mark.parametrize("name", ["", "a b", "a/b", "timm:x"])
def test_names_that_are_no_file_names_are_refused(name):
    with pytest.raises(ValueError, match="name"):
        replace(NARROW, name=name)


def test_names_must_differ(tmp_path):
    with pytest.raises(ValueError, match="their own"):
        run_variants(STUDY, [NARROW, NARROW], tmp_path / "out")
