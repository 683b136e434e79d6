"""What training measures on held-out faces, and the weights it keeps for it."""

import json
from dataclasses import replace

import pytest
from drawn_people import drawn_faceset
from training import equal, read_log

from fslab.model import ModelConfig
from fslab.run import Run, load_tensors
from fslab.schedule import TrainConfig
from fslab.train import TrainHooks, train
from fslab.verdict import judge_run
from fslab.watch import Measurement, Watch

MODEL = ModelConfig(size=32, width=8, latent_channels=16, blocks=1)
CONFIG = TrainConfig(steps=4, batch=4, device="cpu", measure_every=1e-9)


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    folder = tmp_path_factory.mktemp("people")
    return [drawn_faceset(folder / name, name) for name in ("ada", "dan")]


@pytest.fixture
def scored(monkeypatch):
    """Let every measurement return the next of these scores, and keep the weights it saw."""
    scores, seen = [], []

    def measure(self, model):
        seen.append({k: v.clone() for k, v in model.state_dict().items()})
        return Measurement({n: {"l1": 0.1, "ssim": 0.5} for n in self.names}, {}, scores.pop(0))

    monkeypatch.setattr(Watch, "measure", measure)
    return scores, seen


def test_the_log_tells_both_sides_of_every_measurement(people, tmp_path):
    run = train(people, tmp_path / "run", MODEL, replace(CONFIG, measure_every=1e9))
    row = [r for r in read_log(run.folder) if "score" in r][-1]
    assert row["step"] == 4
    assert set(row["held_out"]) == {"ada", "dan"}
    assert set(row["swaps"]) == {"ada as dan", "dan as ada"}
    assert set(row["swaps"]["ada as dan"]) == {"identity", "follows", "detail", "score"}
    assert 0 <= row["score"] <= 1
    assert judge_run(run).kind == "early"


def test_the_best_weights_are_kept_beside_the_last(people, tmp_path, scored):
    scores, seen = scored
    scores += [0.2, 0.6, 0.4, 0.5]
    run = train(people, tmp_path / "run", MODEL, CONFIG)
    best = Run.load(run.folder)
    assert (best.step, best.best.score) == (2, 0.6)
    assert equal(best.model.state_dict(), seen[1])
    assert equal(load_tensors(run.folder / "model.safetensors")[0], seen[3])
    assert Run.load(run.folder, newest=True).step == 4
    assert json.loads((run.folder / "config.json").read_text())["best"]["step"] == 2


def test_a_training_that_goes_on_keeps_its_best_until_it_is_beaten(people, tmp_path, scored):
    scores, seen = scored
    scores += [0.2, 0.6, 0.4, 0.5, 0.3, 0.55, 0.7]
    folder = tmp_path / "run"
    train(people, folder, MODEL, CONFIG)
    train(people, folder, MODEL, replace(CONFIG, steps=6))
    assert equal(Run.load(folder).model.state_dict(), seen[1])
    train(people, folder, MODEL, replace(CONFIG, steps=7))
    assert Run.load(folder).step == 7


def test_a_stopped_training_is_measured_where_it_stopped(people, tmp_path, scored):
    scored[0].append(0.3)
    hooks, config = TrainHooks(should_stop=lambda: True), replace(CONFIG, measure_every=1e9)
    run = train(people, tmp_path / "run", MODEL, config, hooks)
    assert not run.finished
    assert Run.load(run.folder).best.step == 1


def test_scores_of_other_faces_are_not_compared(people, tmp_path, scored):
    scored[0].extend([0.9] * 4 + [0.1])
    folder = tmp_path / "run"
    train(people, folder, MODEL, CONFIG)
    other = drawn_faceset(tmp_path / "dan", "dan", n=44)
    train([people[0], other], folder, MODEL, replace(CONFIG, steps=5))
    assert Run.load(folder).best.score == 0.1


def test_damaged_best_weights_cost_a_warning_and_training_goes_on(people, tmp_path, scored, caplog):
    scored[0].extend([0.9] * 4 + [0.1])
    folder = tmp_path / "run"
    train(people, folder, MODEL, CONFIG)
    (folder / "best.safetensors").write_bytes(b"rubbish")
    assert Run.load(folder).step == 4
    assert "best.safetensors" in caplog.text
    train(people, folder, MODEL, replace(CONFIG, steps=5))
    assert Run.load(folder).best.step == 5


def test_weights_that_score_no_number_are_never_the_best(people, tmp_path, scored):
    scored[0].extend([float("nan")] * 4)
    run = train(people, tmp_path / "run", MODEL, CONFIG)
    assert not (run.folder / "best.safetensors").exists()
    assert Run.load(run.folder).step == 4
