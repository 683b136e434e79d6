"""Learning-rate range test: train a throw-away copy at rates that rise from step to step, and see where it blows up."""

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from matplotlib.figure import Figure
from typing_extensions import Doc

from fslab.consent import require_consent
from fslab.devices import choose_device
from fslab.errors import RunError
from fslab.faceset import FaceSet, check_people
from fslab.model import ModelConfig
from fslab.schedule import TrainConfig
from fslab.train import Trainer
from fslab.viz import COLOURS, GRID, INK, MUTED

BLOWN_UP = 3.0  # times the lowest loss so far: the test ends
RISEN = 0.25  # share of what the loss fell by; so much above its lowest it has blown up
MARGIN = 4.0  # the blow-up's rate divided by this trained best; where the loss falls fastest is often too careful
FASTER = 1000.0  # rates of SGD, which does not divide by the size of gradients, over those of the others


@dataclass(frozen=True)
class FinderConfig:
    """How the rates rise."""

    low: Annotated[float, Doc("first rate; 1000 times as much with sgd")] = 1e-5
    high: Annotated[float, Doc("last rate, likewise")] = 1.0
    steps: Annotated[int, Doc("how many rates are tried, one a step")] = 120

    def __post_init__(self):
        if not 0 < self.low < self.high or self.steps < 10:
            raise ValueError(f"low must be > 0 and < high, steps >= 10, got {self.low}, {self.high}, {self.steps}")

    def rates(self, optimizer: str) -> list[float]:
        """Return the rates, each the same factor above the one before."""
        factor = FASTER if optimizer == "sgd" else 1.0
        return [float(r) * factor for r in np.geomspace(self.low, self.high, self.steps)]


@dataclass(frozen=True)
class LrCurve:
    """Losses against rates.

    ``rates`` rise; ``losses`` are those of the steps taken at them, ``smoothed`` the same without their noise.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]

    @property
    def lowest(self) -> int:
        """The place of the lowest smoothed loss."""
        return int(np.argmin(self.smoothed))

    @property
    def steepest(self) -> float:
        """The rate at which the loss falls fastest with the logarithm of the rate."""
        slopes = np.gradient(np.asarray(self.smoothed), np.log(self.rates))
        return self.rates[int(np.argmin(slopes[: self.lowest + 1]))]

    @property
    def blow_up(self) -> float | None:
        """The rate at which the loss, after its lowest, has risen by a quarter of its fall; None if it never does."""
        smoothed = np.asarray(self.smoothed)
        level = smoothed[self.lowest] + RISEN * (smoothed[0] - smoothed[self.lowest])
        risen = np.flatnonzero(smoothed[self.lowest :] > level)
        return self.rates[self.lowest + int(risen[0])] if len(risen) else None

    @property
    def suggestion(self) -> float:
        """The rate to train with: a quarter of the blow-up's, or where the loss falls fastest if that is higher."""
        return max(self.steepest, (self.blow_up or 0.0) / MARGIN)


def smooth(losses: Sequence[float], width: float | None = None) -> tuple[float, ...]:
    """Return losses averaged with their neighbours by a Gaussian, which shifts nothing; ends count their own side only.

    Args:
        losses: finite.
        width: standard deviation in steps; a fortieth of their number where left out.
    """
    n = len(losses)
    width = width or max(n / 40, 0.5)
    weight = np.exp(-0.5 * ((np.arange(n)[:, None] - np.arange(n)) / width) ** 2)
    return tuple(float(v) for v in weight @ np.asarray(losses, float) / weight.sum(1))


def find_learning_rate(
    facesets: list[FaceSet],
    model_config: ModelConfig | None = None,
    train_config: TrainConfig | None = None,
    finder: FinderConfig | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> LrCurve:
    """Try rising learning rates on a copy of a training that is thrown away; nothing is kept on disk.

    Smith (2017), "Cyclical Learning Rates for Training Neural Networks", arXiv:1506.01186, section 3.3, with rates that
    rise geometrically. It ends early where the loss is three times its lowest or no number. The test sees the first
    steps only: a long training often bears less at its end, which the schedule sees to.

    Args:
        facesets: one a person, cut with the same coverage.
        model_config: see `ModelConfig`.
        train_config: see `TrainConfig`; its ``lr`` does not matter.
        finder: see `FinderConfig`.
        on_step: called with (steps done, steps in all).

    Raises:
        ConsentError: without everybody's valid consent to training.
        FaceSetError: if the face sets do not fit together.
        RunError: if the loss is no number before ten steps are done.
    """
    model_config, config = model_config or ModelConfig(), train_config or TrainConfig()
    for faceset in facesets:
        require_consent(faceset.consent, faceset.identity, "training")
    check_people(facesets)
    device = choose_device(config.device)
    rates, losses = (finder or FinderConfig()).rates(config.optimizer), []
    with (
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        tempfile.TemporaryDirectory() as folder,
    ):
        torch.manual_seed(config.seed)
        trainer = Trainer(facesets, Path(folder) / "run", model_config, config, device)
        for i, rate in enumerate(rates):
            loss = _step(trainer, rate)
            if not math.isfinite(loss) or loss > BLOWN_UP * min([*losses, loss]):
                break
            losses.append(loss)
            if on_step:
                on_step(i + 1, len(rates))
    if len(losses) < 10:
        raise RunError("a loss that stays a number", f"none after {len(losses)} steps", "start with a lower rate")
    return LrCurve(tuple(rates[: len(losses)]), tuple(losses), smooth(losses))


def _step(trainer: Trainer, rate: float) -> float:
    """Take a step at a rate and return its loss, the mean over the people before the step."""
    trainer.recovery.rate = rate / trainer.config.lr
    trainer.sums.zero_()
    trainer.step(trainer.config.warmup)  # where the schedule's own factor is 1
    trainer.run.step += 1
    return float(trainer.sums[: len(trainer.data)].mean())  # waits for the device


def plot_learning_rates(curve: LrCurve) -> Figure:
    """Return the losses against the rates, with the suggestion and the blow-up marked."""
    figure = Figure(figsize=(6.4, 3.4), dpi=150, layout="constrained")
    figure.suptitle("Loss against learning rate", x=0.02, ha="left", fontsize=13, color=INK, fontweight="bold")
    axes = figure.add_subplot()
    axes.plot(curve.rates, curve.losses, color=COLOURS["target"], linewidth=0.8, alpha=0.7)
    axes.plot(curve.rates, curve.smoothed, color=COLOURS["swap"], linewidth=2)
    marks = {"suggestion": curve.suggestion, "blow-up": curve.blow_up}
    for name, rate in marks.items():
        if rate is not None:
            axes.axvline(rate, color=COLOURS["truth"], linewidth=1.2, linestyle=(0, (4, 3)))
            place = (rate, 0.98)
            text = f" {name} {rate:.1e}"
            axes.annotate(text, place, xycoords=("data", "axes fraction"), va="top", fontsize=9, color=MUTED)
    axes.set_xscale("log")
    axes.set_xlabel("learning rate", fontsize=10, color=MUTED)
    axes.tick_params(colors=MUTED, labelsize=9, length=0)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(GRID)
    return figure
