"""Snapshots of the package's recipe: their moments, going on after a stop, the clips made of them."""

from dataclasses import replace

import pytest
import torch
from drawn_people import drawn_faceset

from fslab.bench import curve
from fslab.bench.curve import convert, moments, recipe_snapshots
from fslab.errors import NoFaceFound, RunError
from fslab.model import ModelConfig
from fslab.run import Run, load_tensors, save_tensors
from fslab.schedule import TrainConfig
from fslab.train import TrainHooks, train

MODEL = ModelConfig(size=32, width=8, latent_channels=8)
CONFIG = TrainConfig(budget="2s", batch=2, device="cpu")


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    folder = tmp_path_factory.mktemp("people")
    return [drawn_faceset(folder / name, name) for name in ("ada", "dan")]


@pytest.fixture(scope="module")
def trained(people, tmp_path_factory):
    """The folder of a training, and what its snapshots were."""
    folder = tmp_path_factory.mktemp("arm")
    told = []
    seen = [
        (run.step, run.seconds, run.weights_sha256)
        for run in recipe_snapshots(people, folder, MODEL, CONFIG, lambda done, total: told.append((done, total)))
    ]
    return folder, seen, told


def test_each_snapshot_has_twice_the_training_of_the_one_before():
    assert moments(8.0) == (1.0, 2.0, 4.0, 8.0)


def test_snapshots_come_at_the_first_step_that_reaches_their_moment(trained):
    _, seen, _ = trained
    steps, seconds, hashes = zip(*seen)
    assert 1 <= len(seen) <= 4  # fewer where a busy machine took a step across two moments
    assert seconds[-1] >= 2.0
    for before, now in zip((0.0, *seconds), seconds):
        assert any(before < m <= now for m in moments(2.0))
    assert list(steps) == sorted(set(steps))
    assert len(set(hashes)) == len(seen)


def test_the_last_snapshot_is_the_trained_run(trained):
    folder, seen, _ = trained
    run = Run.load(folder / "run")
    assert run.finished
    assert seen[-1][0::2] == (run.step, run.weights_sha256)


def test_progress_is_told_in_seconds_of_the_budget(trained):
    _, _, told = trained
    assert told[-1] == (2, 2)


def test_a_finished_training_is_not_trained_again(people, trained):
    folder, seen, _ = trained
    again = [(r.step, r.seconds, r.weights_sha256) for r in recipe_snapshots(people, folder, MODEL, CONFIG)]
    assert [a[0::2] for a in again] == [s[0::2] for s in seen]


def test_lost_snapshots_are_told(people, trained, tmp_path):
    (tmp_path / "run").symlink_to(trained[0] / "run", target_is_directory=True)
    with pytest.raises(RunError, match="snapshots"):
        next(recipe_snapshots(people, tmp_path, MODEL, CONFIG))


def test_a_stopped_training_goes_on_and_takes_no_moment_twice(people, tmp_path):
    keeper, config = tmp_path / "snapshots", replace(CONFIG, preview_every=1e-3)
    keeper.mkdir()
    hooks = TrainHooks(on_preview=curve._Keeper(keeper, moments(2.0)).look, should_stop=lambda: any(keeper.iterdir()))
    stopped = train(people, tmp_path / "run", MODEL, config, hooks)
    assert not stopped.finished
    first = {p.name: p.read_bytes() for p in keeper.iterdir()}
    stale = keeper / f"{stopped.step + 5:08d}.safetensors"  # of steps that were lost with a crash
    save_tensors(stale, stopped.model.state_dict(), {"step": str(stopped.step + 5), "seconds": "1.9"})
    runs = [(r.step, r.seconds) for r in recipe_snapshots(people, tmp_path, MODEL, CONFIG)]
    assert runs[0][0] == stopped.step
    assert runs[-1][1] >= 2.0
    assert not (stale.exists() and load_tensors(stale)[1]["seconds"] == "1.9")
    assert all((keeper / name).read_bytes() == data for name, data in first.items())


def test_stopping_ends_everything(people, tmp_path, monkeypatch):
    def stopped(*args):
        return replace(train(*args[:3], replace(args[3], steps=1), TrainHooks()), finished=False)

    monkeypatch.setattr(curve, "train", stopped)
    with pytest.raises(KeyboardInterrupt):
        next(recipe_snapshots(people, tmp_path, MODEL, CONFIG))


def test_a_target_in_which_nobody_is_found_comes_back_untouched(people, trained, tmp_path, monkeypatch):
    def nobody(*args, **kwargs):
        raise NoFaceFound("a face", "none", "look elsewhere")

    monkeypatch.setattr(curve, "swap_video", nobody)
    run = Run.load(trained[0] / "run")
    snapshot = convert(run, "fslab", "dan", tmp_path / "target.mp4", tmp_path)
    assert (snapshot.arm, snapshot.step, snapshot.clip) == ("fslab", run.step, "")


def test_averaged_weights_are_what_a_snapshot_holds(people, tmp_path):
    keeper = curve._Keeper(tmp_path, (0.0,))
    run = train(people, tmp_path / "run", MODEL, replace(CONFIG, steps=2), TrainHooks())
    keeper.due = [0.0]
    keeper.look(run, tmp_path)
    (path, about), *_ = curve._kept(tmp_path)
    kept, _ = load_tensors(path)
    assert about["step"] == "2"
    assert all(torch.equal(kept[k], v) for k, v in run.model.state_dict().items())
