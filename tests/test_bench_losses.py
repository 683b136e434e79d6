"""The table of losses: which rows it has, what each changes, and two rows run on a small case. No pair is rendered."""

import json
import shutil
from dataclasses import asdict, replace

import pytest
from pairs import make_pair

from fslab.bench import losses as module
from fslab.bench import variants as rig
from fslab.bench.case import Case, Tier, pair_config
from fslab.bench.losses import LOSSES, loss_variants, run_losses
from fslab.bench.trial import Watch
from fslab.bench.variants import Study, find_study, settings, write_variants_sheet
from fslab.cli import main
from fslab.losses import LossConfig
from fslab.media import read_image
from fslab.model import PRESETS
from fslab.provenance import verify
from fslab.storage import write_json

CASE = Case("small", "Small and quick.", 3, 4, n_frames=16)
TIER = Tier("small", 128, 32, "tiny", 0.4, 6, (CASE,), "cpu")
STUDY = Study("losses", TIER, CASE)


def few():
    """Return two rows of the table, with a network that learns in no time."""
    rows = {v.name: v for v in loss_variants("tiny")}
    small = [replace(rows[name].model, width=8, latent_channels=8) for name in ("mse", "default")]
    return [
        replace(rows[name], model=model, train=replace(rows[name].train, batch=2))
        for name, model in zip(("mse", "default"), small)
    ]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished table of two rows: its folder, what it returned, what it told."""
    out, notes, patch = tmp_path_factory.mktemp("bench") / "out", [], pytest.MonkeyPatch()
    out.mkdir()
    write_json(out / STUDY.marker, {"schema": rig.SCHEMA, "study": STUDY.to_dict(), "rows": {}})
    make_pair(out / "case" / "pair", pair_config(CASE, TIER))
    patch.setattr(rig, "peak_memory", lambda *_: None)  # a process of its own for each row
    body = run_losses(STUDY, out, watch=Watch(on_note=notes.append), variants=few())
    yield out, body, notes
    patch.undo()


def test_the_table_has_a_row_for_each_part_of_the_loss_and_each_differs_from_the_others():
    rows = {v.name: v for v in loss_variants("tiny")}
    asked = {"mse", "l1", "l1+dssim", "default", "multi-scale", "perceptual", "adversarial", "identity", "no-match"}
    assert asked | {"no-mask", "no-eyes-mouth"} <= set(rows)
    kinds = [json.dumps(settings(v), sort_keys=True) for v in rows.values()]
    assert len(set(kinds)) == len(kinds)


def test_every_row_is_the_presets_training_but_for_what_it_says():
    model, train = PRESETS["tiny"]
    for row in loss_variants("tiny"):
        changed = {k for k, v in asdict(row.train.losses).items() if v != asdict(train.losses)[k]}
        changed |= {k for k, v in asdict(row.train.data).items() if v != asdict(train.data)[k]}
        said = {word[2:].replace("-", "_") for word in row.about["changed"].split() if word.startswith("--")}
        assert said == changed
        assert replace(row.train, losses=train.losses, data=train.data) == train
        assert replace(row.model, draw_mask=True) == model
        assert row.model.draw_mask == (row.name != "no-mask")
    assert {v.name: v for v in loss_variants("tiny")}["default"].train == train


def test_what_a_row_says_can_be_typed():
    rows = {v.name: v.about["changed"] for v in loss_variants("tiny")}
    assert rows["mse"] == "--l1 0 --mse 1 --dssim 0 --gradient 0"
    assert rows["multi-scale"] == "--dssim-scales 3"
    assert rows["no-eyes-mouth"] == "--eyes 1 --mouth 1"
    assert rows["default"] == "–"


def test_only_one_pixel_loss_is_left_in_the_rows_named_after_one():
    for name, left in (
        ("mse", {"mse"}),
        ("l1", {"l1"}),
        ("l1+dssim", {"l1", "dssim"}),
        ("l1+gradient", {"l1", "gradient"}),
    ):
        config = replace(LossConfig(), **LOSSES[name])
        assert {k for k in ("l1", "mse", "dssim", "gradient") if getattr(config, k)} == left


def test_rows_are_trained_with_their_losses_as_long_as_each_other_and_scored(done):
    _, body, _ = done
    assert list(body["rows"]) == ["mse", "default"]
    for row in body["rows"].values():
        assert TIER.budget <= row["seconds"] < TIER.budget + 1.5
        assert row["metrics"]["share_swapped"] == 1.0
        assert row["metrics"]["closure"] < 1
        assert row["step"] > 0
    assert body["rows"]["mse"]["settings"]["train"]["losses"]["mse"] == 1
    assert body["rows"]["default"]["settings"]["train"]["losses"] == asdict(LossConfig())
    assert body["complete"]
    assert body["command"].startswith("fslab bench losses --tier small --case small --budget 0.4s")


def test_figures_table_and_pictures_are_written_and_the_pictures_are_marked(done):
    out, body, _ = done
    assert json.loads((out / "losses.json").read_text()) == json.loads(json.dumps(body))
    table = (out / "losses.md").read_text(encoding="utf-8").splitlines()
    assert table[0].startswith("| loss | changed | ")
    assert [line.split(" | ")[0] for line in table[2:]] == ["| mse", "| default"]
    assert verify(out / "losses.jpg").state == "marked"


def test_the_sheet_has_a_strip_a_row_and_leaves_failed_rows_out(done, tmp_path):
    out, body, _ = done
    shutil.copytree(out, tmp_path / "out")
    two = read_image(tmp_path / "out" / "losses.jpg").shape
    write_variants_sheet(STUDY, tmp_path / "out", {**body["rows"], "broken": {"failed": "of no use"}})
    assert read_image(tmp_path / "out" / "losses.jpg").shape == two
    write_variants_sheet(STUDY, tmp_path / "out", {"mse": body["rows"]["mse"]})
    one = read_image(tmp_path / "out" / "losses.jpg").shape
    assert two[0] - one[0] > 150


def test_rows_that_are_done_are_kept(done, tmp_path):
    out, body, notes = done
    assert any("mse" in note for note in notes)
    shutil.copytree(out, tmp_path / "out")
    (tmp_path / "out" / "losses.jpg").unlink()
    told = []
    again = run_losses(STUDY, tmp_path / "out", watch=Watch(on_note=told.append), variants=few())
    assert again["rows"] == body["rows"]
    assert not any("losses" in note or "training" in note for note in told)
    assert (tmp_path / "out" / "losses.jpg").exists()


def test_the_command_runs_the_case_and_budget_asked_for_and_prints_the_table(done, capsys, monkeypatch, tmp_path):
    _, body, _ = done
    asked = []
    monkeypatch.setattr(module, "run_losses", lambda study, *rest: asked.append((study, rest)) or body)
    command = ["bench", "losses", "--tier", "lab", "--case", "glasses", "--budget", "2m", "--out", str(tmp_path / "o")]
    assert main(command) == 0
    study, (out, overwrite, _) = asked[0]
    assert (study.case.name, study.tier.name, study.tier.budget) == ("glasses", "lab", 120.0)
    assert (out, overwrite) == (tmp_path / "o", False)
    printed = capsys.readouterr().out
    assert "--l1 0 --mse 1" in printed
    assert "losses.json" in printed


def test_a_case_that_is_not_there_or_a_budget_that_is_none_is_one_sentence(capsys):
    assert main(["bench", "losses", "--case", "glasses"]) == 2
    assert "matched, never-left" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        main(["bench", "losses", "--budget", "soon"])
    assert stopped.value.code == 2
    assert "duration" in capsys.readouterr().err


def test_the_study_is_the_tiers_first_case_for_the_tiers_seconds():
    study = find_study("losses", "ci")
    assert (study.case.name, study.tier.budget, study.marker) == ("matched", 8.0, "losses.json")
