"""A study's proposals, its comparisons, and the importance that it finds."""

from dataclasses import replace

import optuna
import pytest

from fslab import study, tune
from fslab.model import ModelConfig
from fslab.run import append_log
from fslab.schedule import TrainConfig
from fslab.tune import TuneHooks

MODEL = ModelConfig(size=32, width=8, latent_channels=8)
CONFIG = TrainConfig(steps=3, batch=4, device="cpu")


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")
def test_each_trial_draws_from_a_seed_of_its_own(tmp_path):
    about = {"people": {}, "search": ["x"], "settings": {}}

    def propose(name, seed, n):
        url, values = f"sqlite:///{tmp_path / name}", []
        for _ in range(n):  # each time in what might be another process
            trial = study.open_study(url, about, {"x": 0.5}, seed).ask()
            values.append(trial.suggest_float("x", 0, 1))
        return values

    first = propose("a.db", 0, 3)
    assert first == propose("b.db", 0, 3)
    assert first[1] != propose("c.db", 1, 2)[1]
    assert first[0] == 0.5
    assert len(set(first)) == 3


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")
def test_a_training_worse_than_the_median_is_given_up_early(tmp_path):
    about = {"people": {}, "search": ["lr"], "settings": {}}
    made = study.open_study("sqlite://", about, {"lr": 1e-3}, 0)
    tuner = tune.Tuner(made, [], tmp_path, (MODEL, replace(CONFIG, steps=16)), TuneHooks())

    def follow(name, scores):
        """Follow a training that measures these scores, step by step; return where it ended, and its trial."""
        trial = made.ask()
        watch = tune._Watch(trial, tmp_path / name, tuner.configs[1], tuner)
        (tmp_path / name).mkdir()
        for step, score in scores.items():
            append_log(tmp_path / name, {"step": step, "seconds": 0.1, "loss": {"ada": 1.0}})
            assert watch.should_stop() is False
            ssim = None if score is None else 0.0
            row = {"step": step, "seconds": 0.1, "held_out": {"ada": {"l1": 0.1, "ssim": ssim}}, "score": score}
            append_log(tmp_path / name, row)
            if watch.should_stop():
                made.tell(trial, state=optuna.trial.TrialState.PRUNED)
                return step, trial
        made.tell(trial, watch.score)
        return step, trial

    def rising(slope):
        return {k: slope * k for k in range(1, 17)}

    for i in range(study.STARTUP):
        assert follow(f"good{i}", rising(0.02))[0] == 16
    assert follow("better", rising(0.03))[0] == 16
    assert follow("worse", rising(0.01))[0] == 8  # half of the way is waited for
    assert follow("lost", {1: 0.5, 2: None})[0] == 2
    late, trial = follow("late", rising(0.02) | {16: 0.0})
    assert (late, made.trials[trial.number].state.name) == (16, "COMPLETE")  # at its end nothing is saved by giving up
    assert made.trials[trial.number].value == pytest.approx(0.3)  # the best of its measurements
    assert set(made.trials[0].intermediate_values) == set(range(1, study.RUNGS + 1))
    _, trial = follow("slow", {5: 0.1, 12: 0.3, 16: 0.4})
    assert made.trials[trial.number].intermediate_values == {2: 0.1, 3: 0.1, 4: 0.1, 5: 0.1, 6: 0.3, 7: 0.3, 8: 0.4}


def test_importance_finds_what_decides():
    made = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    floats = optuna.distributions.FloatDistribution(0, 1)

    def add(n):
        for i in range(n):
            x, y = (i * 0.618) % 1, (i * 0.414) % 1
            made.add_trial(
                optuna.create_trial(params={"x": x, "y": y}, distributions={"x": floats, "y": floats}, value=x)
            )

    add(2 * study.TARGETS - 1)
    assert study.find_importance(made, ["x", "y"]) == {}
    add(40)
    found = study.find_importance(made, ["x", "y"])
    assert sum(found.values()) == pytest.approx(1)
    assert found["x"] > 0.8
