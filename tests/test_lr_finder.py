"""The learning-rate range test: what a curve says, against curves that are known; and on a real, small training."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from drawn_people import drawn_faceset

from fslab import lr_finder as module
from fslab.cli import main
from fslab.consent import Consent
from fslab.errors import ConsentError, FaceSetError, RunError
from fslab.lr_finder import FinderConfig, LrCurve, find_learning_rate, plot_learning_rates, smooth
from fslab.model import ModelConfig
from fslab.schedule import TrainConfig
from fslab.viz import to_rgb

MODEL = ModelConfig(size=32, width=8, latent_channels=16)
CONFIG = TrainConfig(batch=2, device="cpu")
FINDER = FinderConfig(steps=40)


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    folder = tmp_path_factory.mktemp("people")
    return [drawn_faceset(folder / name, name) for name in ("ada", "dan")]


def drawn_curve(noise=0.0, blow_up=True):
    """A loss of 1 up to 1e-4, falling to 0.2 at 1e-2, steepest at 1e-3, and from 1e-1 on rising by 10 a decade."""
    rates = np.geomspace(1e-6, 1, 121)
    place = np.log10(rates)
    losses = 0.6 - 0.4 * np.sin(np.clip((place + 3) / 1, -1, 1) * np.pi / 2)
    if blow_up:
        losses += np.clip(place + 1, 0, None) * 10
    losses = losses + noise * np.random.default_rng(0).normal(size=len(rates))
    return LrCurve(tuple(rates), tuple(losses), smooth(losses))


def test_a_known_curve_is_read():
    curve = drawn_curve()
    assert curve.steepest == pytest.approx(1e-3, rel=0.2)
    assert curve.blow_up == pytest.approx(10 ** (-1 + 0.02), rel=0.3)  # 0.2 above the lowest, a fiftieth of a decade on
    assert curve.suggestion == pytest.approx(0.105 / 4, rel=0.3)
    assert 1e-2 < curve.rates[curve.lowest] < 1e-1


def test_noise_moves_it_little():
    still, noisy = drawn_curve(), drawn_curve(noise=0.03)
    assert abs(np.log10(noisy.blow_up / still.blow_up)) < 0.1
    assert abs(np.log10(noisy.steepest / still.steepest)) < 0.6
    assert np.std(np.subtract(noisy.smoothed, still.smoothed)) < 0.6 * 0.03


def test_without_a_blow_up_the_steepest_place_counts():
    curve = drawn_curve(blow_up=False)
    assert curve.blow_up is None
    assert curve.suggestion == curve.steepest


def test_a_loss_that_only_rises_suggests_nothing_higher_than_its_start_allows():
    rates = tuple(np.geomspace(1e-4, 1, 40))
    losses = tuple(np.linspace(1, 3, 40))
    curve = LrCurve(rates, losses, losses)
    assert curve.lowest == 0
    assert curve.suggestion == rates[0]


def test_smoothing_keeps_straight_lines_and_sums_to_one():
    assert smooth([2.0] * 30) == pytest.approx([2.0] * 30)
    assert smooth(list(range(50)), 2)[10:40] == pytest.approx(list(range(10, 40)))
    peak = smooth([0.0] * 20 + [1.0] + [0.0] * 20, 3)
    assert int(np.argmax(peak)) == 20  # nothing is shifted
    assert sum(peak) == pytest.approx(1, abs=0.01)


def test_rates_rise_by_a_factor_and_further_for_sgd():
    rates = FinderConfig(1e-4, 1, 10).rates("adamw")
    assert rates[0] == pytest.approx(1e-4)
    assert rates[-1] == pytest.approx(1)
    assert np.ptp(np.divide(rates[1:], rates[:-1])) < 1e-9
    assert FinderConfig(1e-4, 1, 10).rates("sgd") == pytest.approx([1000 * r for r in rates])


@pytest.mark.parametrize("change", [{"low": 0}, {"high": 1e-6}, {"steps": 9}])
def test_impossible_ranges_are_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        replace(FinderConfig(), **change)


def test_a_training_learns_then_blows_up_and_what_is_suggested_learns(people):
    told = []
    curve = find_learning_rate(people, MODEL, CONFIG, FINDER, lambda *now: told.append(now))
    assert told[-1] == (len(curve.rates), 40)
    assert min(curve.smoothed) < 0.8 * curve.smoothed[0]
    assert 1e-5 < curve.suggestion < 0.3
    assert len(curve.rates) < 40 or curve.blow_up


def test_the_rates_are_those_that_the_optimiser_gets(people, monkeypatch):
    seen, real = [], module.Trainer.step

    def step(self, progress):
        real(self, progress)
        seen.append(self.optimizers["optimizer"].param_groups[0]["lr"])

    monkeypatch.setattr(module.Trainer, "step", step)
    curve = find_learning_rate(people, MODEL, replace(CONFIG, lr=0.3, warmup=0.2), FINDER)
    assert seen[: len(curve.rates)] == pytest.approx(curve.rates)


def test_nothing_is_left_behind_and_randomness_is_left_alone(people, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first = find_learning_rate(people, MODEL, CONFIG, FINDER)
    assert torch.equal(torch.rand(1), expected)
    assert not list(tmp_path.iterdir())
    assert find_learning_rate(people, MODEL, CONFIG, FinderConfig(steps=40)) == first


def test_nobody_is_trained_without_consent_or_alone(people):
    closed = Consent("ada", "drawn", "2020-01-01", expires="2020-02-01", synthetic=True)
    with pytest.raises(ConsentError, match="ada"):
        find_learning_rate([replace(people[0], consent=closed), people[1]], MODEL, CONFIG, FINDER)
    with pytest.raises(FaceSetError, match="two or more people"):
        find_learning_rate(people[:1], MODEL, CONFIG, FINDER)


def test_a_loss_that_is_never_a_number_is_told(people, monkeypatch):
    monkeypatch.setattr(module, "_step", lambda *_: float("nan"))
    with pytest.raises(RunError, match="lower rate"):
        find_learning_rate(people, MODEL, CONFIG, FINDER)


def test_the_plot_shows_the_curve_and_its_marks():
    figure = plot_learning_rates(drawn_curve())
    axes = figure.axes[0]
    assert axes.get_xscale() == "log"
    assert {t.get_text().split()[0] for t in axes.texts} == {"suggestion", "blow-up"}
    assert to_rgb(figure).shape[2] == 3
    assert len(plot_learning_rates(drawn_curve(blow_up=False)).axes[0].texts) == 1


def test_the_command_prints_a_rate_and_writes_nothing(people, tmp_path, capsys):
    out = tmp_path / "run"
    small = ["--size", "32", "--width", "8", "--latent-channels", "16", "--batch", "2", "--device", "cpu"]
    small += ["--base", "none"]
    folders = [str(p.folder) for p in people]
    assert main(["train", *folders, "--out", str(out), "--find-lr", *small]) == 0
    assert "--lr " in capsys.readouterr().out
    assert not out.exists()
