"""The table of encoders: its rows, what they say of their weights, and two encoders run on a made-up, smallest case."""

import pytest
import torch
from pairs import make_pair

from fslab.bench import variants as rig
from fslab.bench.case import TIERS, Case, Tier, pair_config
from fslab.bench.encoders import BACKBONES, ENCODERS, OWN, encoder_variants, find_weights, run_encoders
from fslab.bench.trial import Watch
from fslab.bench.variants import Study, find_study, table_of
from fslab.cli import main
from fslab.encoders import TimmEncoder, probe_encoder
from fslab.model import PRESETS, SwapAutoencoder
from fslab.provenance import verify
from fslab.storage import write_json

CASE = Case("small", "Small and quick.", 3, 4, n_frames=16)
TIER = Tier("small", 128, 64, "tiny", 0.5, 6, (CASE,), "cpu")
STUDY = Study("encoders", TIER, CASE)
MOBILENET = "mobilenetv2_100"


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """Weights are those that ship, on every machine."""
    monkeypatch.setattr("fslab.encoders._hub_answers", lambda: False)
    monkeypatch.setattr("fslab.encoders._is_cached", lambda _: False)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished table of the small encoder and of one backbone that cannot be used."""
    out, patch, notes = tmp_path_factory.mktemp("bench") / "out", pytest.MonkeyPatch(), []
    out.mkdir()
    write_json(out / STUDY.marker, {"schema": rig.SCHEMA, "study": STUDY.to_dict(), "rows": {}})
    make_pair(out / "case" / "pair", pair_config(CASE, TIER))
    patch.setattr(rig, "peak_memory", lambda *_: 1.0)  # a process of its own for each row
    patch.setattr("fslab.encoders._hub_answers", lambda: False)
    asked = ["small", "regnety_002", "vit_tiny_patch16_224"]
    body = run_encoders(STUDY, out, watch=Watch(on_note=notes.append), encoders=asked)
    yield out, body, notes
    patch.undo()


def test_the_table_covers_the_classic_one_ours_and_eight_of_timms_or_more():
    assert ENCODERS[:2] == ("classic", "small")
    assert len(BACKBONES) >= 8
    assert len({name.split("_")[0].rstrip("0123456789") for name in BACKBONES}) >= 8  # designs, not sizes of one


@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_works_at_the_sizes_of_the_tiers_and_of_tiny(name):
    for size in (TIERS["lab"].model_size, PRESETS["tiny"][0].size):
        assert probe_encoder(name, size).stride in (8, 16)
    torch.manual_seed(0)
    encoder = TimmEncoder(name, 64, 8, pretrained=False).train()
    code = encoder(torch.rand(2, 3, 64, 64))
    assert code.shape == (2, 8, 64 // encoder.stride, 64 // encoder.stride)
    code.square().mean().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in encoder.parameters())


def test_a_backbone_with_its_weights_has_four_rows_and_one_without_has_one():
    rows = {v.name: v for v in encoder_variants(STUDY, [*OWN, MOBILENET, "timm:resnet18", "resnet18"])}
    about = {name: tuple(v.about.values()) for name, v in rows.items()}
    assert about == {
        "classic": ("random", "all"),
        "small": ("random", "all"),
        f"{MOBILENET}-full": ("packaged", "all"),
        f"{MOBILENET}-last": ("packaged", "last stage"),
        f"{MOBILENET}-frozen": ("packaged", "nothing"),
        f"{MOBILENET}-random": ("random", "all"),
        "resnet18-random": ("random", "all"),
    }
    assert [rows[f"{MOBILENET}-{how}"].train.encoder_train for how in ("full", "last", "frozen")] == [
        "full", "last", "frozen",
    ]  # fmt: skip
    assert rows["classic"].model.encoder == "fakeapp"


def test_only_the_encoder_differs():
    for v in encoder_variants(STUDY, ENCODERS[:4]):
        model, train = PRESETS["tiny"]
        ours = {k for k in vars(model) if getattr(model, k) != getattr(v.model, k)}
        assert ours <= {"encoder", "pretrained"}
        assert {k for k in vars(train) if getattr(train, k) != getattr(v.train, k)} <= {"encoder_train", "base"}
        assert v.train.base == "none"


def test_a_row_says_truly_which_weights_it_had():
    for v in encoder_variants(STUDY, [MOBILENET]):
        model = SwapAutoencoder(STUDY.fit(v).model, ["ada"])
        assert model.encoder_weights == v.about["weights"]


def test_weights_that_cannot_be_had_are_no_error(caplog):
    assert find_weights(MOBILENET, 64) == "packaged"
    assert find_weights("resnet10t", 64) == "random"
    assert find_weights("no_such_net", 64) == "random"
    assert find_weights("vit_tiny_patch16_224", 64) == "random"
    assert not caplog.text


def test_two_encoders_are_trained_scored_and_told_apart(done):
    _, body, _ = done
    small, regnet = body["rows"]["small"], body["rows"]["regnety_002-random"]
    assert small["encoder_weights"] == regnet["encoder_weights"] == regnet["about"]["weights"] == "random"
    assert small["parameters"] != regnet["parameters"]
    assert small["settings"]["model"]["encoder"] == "small"
    for row in (small, regnet):
        assert row["metrics"]["closure"] < 1
        assert row["faces_per_second"] > 0
        assert row["learning"] == row["parameters"]


def test_an_encoder_that_cannot_be_used_says_why_and_the_table_has_all_rows(done):
    out, body, _ = done
    assert "vit_tiny" in body["rows"]["vit_tiny_patch16_224-random"]["failed"]
    columns, rows = table_of(body)
    assert columns[:3] == ["encoder", "weights", "learns"]
    assert [row[0] for row in rows] == ["small", "regnety_002-random", "vit_tiny_patch16_224-random"]
    assert rows[1][1:3] == ["random", "all"]
    text = (out / "encoders.md").read_text()
    assert text.startswith("| encoder | weights | learns | Closure |")
    assert len(text.splitlines()) == 5


def test_the_picture_is_marked(done):
    out, _, _ = done
    assert verify(out / "encoders.jpg").state == "marked"


def test_rows_that_are_done_are_kept_and_others_are_added(done):
    out, body, _ = done
    told = []
    again = run_encoders(STUDY, out, watch=Watch(on_note=told.append), encoders=["small", "regnety_002"])
    assert again["rows"] == body["rows"]
    assert not told


def test_the_command_runs_the_encoders_asked_for(tmp_path, monkeypatch, capsys, done):
    asked = []
    monkeypatch.setattr("fslab.bench.encoders.run_encoders", lambda *args: asked.append(args) or done[1])
    command = ["bench", "encoders", "--tier", "lab", "--case", "glasses", "--budget", "45s", "--out", str(tmp_path)]
    assert main([*command, "--encoders", "small", MOBILENET]) == 0
    study, out, overwrite, _, encoders = asked[0]
    assert study == find_study("encoders", "lab", "glasses", 45.0)
    assert (out, overwrite, encoders) == (tmp_path, False, ("small", MOBILENET))
    said = capsys.readouterr().out
    assert "encoders.md" in said
    assert "regnety_" in said
    assert main(["bench", "encoders", "--case", "nowhere", "--out", str(tmp_path)]) == 2


@pytest.mark.parametrize("words", [["losses", "--encoders", "small"], ["quality", "--case", "matched"]])
def test_options_of_another_benchmark_are_refused_not_ignored(words, capsys, tmp_path):
    with pytest.raises(SystemExit) as stopped:
        main(["bench", *words, "--out", str(tmp_path / "out")])
    assert stopped.value.code == 2
    assert words[1] in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
