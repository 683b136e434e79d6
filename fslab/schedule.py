"""What training is asked to do, and how its rates follow the share of the budget that is used up."""

import math
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Literal

from typing_extensions import Doc

from fslab.dataset import DataConfig
from fslab.devices import Compile, Precision, check_device
from fslab.losses import LossConfig

LOG_EVERY = 1.0  # seconds between rows of log.jsonl; the only moments at which the loop waits for the device
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def parse_duration(text: str) -> float:
    """Return the seconds in "90s", "10m", "1h", "1h30m" or "90" (seconds).

    Raises:
        ValueError: if it is not a duration, or not longer than 0.
    """
    text = text.strip().lower()
    if not re.fullmatch(r"\d+(\.\d+)?|(\d+(\.\d+)?[smh])+", text):
        raise ValueError(f"a duration such as 90s, 10m or 1h wanted, got {text!r}")
    parts = re.findall(r"(\d+(?:\.\d+)?)([smh]?)", text)
    seconds = sum(float(n) * _UNITS.get(u, 1.0) for n, u in parts)
    if seconds <= 0:
        raise ValueError(f"a duration longer than 0 wanted, got {text!r}")
    return seconds


@dataclass(frozen=True)
class TrainConfig:
    """How long and how to train."""

    budget: Annotated[str, Doc("training time, such as 90s, 10m or 1h")] = "10m"
    steps: Annotated[int | None, Doc("number of steps; replaces the budget where given")] = None
    batch: Annotated[int, Doc("faces of each person in a step; with several processes, in each of them")] = 8
    micro_batch: Annotated[
        int, Doc("how many of them are computed at once, 0 = all; halved by itself where memory runs out")
    ] = 0
    optimizer: Annotated[Literal["adamw", "adam", "sgd", "muon"], Doc("rule by which weights are changed")] = "adamw"
    lr: Annotated[float, Doc("highest learning rate; adamw, adam and muon take about the same, sgd far more")] = 2e-3
    momentum: Annotated[float, Doc("Nesterov momentum of sgd, 0 to 1")] = 0.9
    encoder_train: Annotated[
        Literal["frozen", "last", "full"], Doc("what of a pretrained encoder learns: nothing, its last stage, all")
    ] = "full"
    encoder_lr: Annotated[float, Doc("a pretrained encoder's learning rate, share of lr; 0 = frozen")] = 0.1
    layer_decay: Annotated[float, Doc("factor on that rate for each stage towards the pictures, 0 to 1")] = 0.75
    weight_decay: Annotated[float, Doc("decoupled weight decay, not of biases and norms; none with adam")] = 0.01
    warmup: Annotated[float, Doc("share of the training in which the learning rate rises")] = 0.05
    warp_until: Annotated[float, Doc("share of the training with the full random warp; it fades out after")] = 0.7
    clip: Annotated[float, Doc("largest gradient norm")] = 1.0
    ema: Annotated[float, Doc("decay of the averaged weights that swaps use, 0 to 1")] = 0.998
    precision: Annotated[Precision, Doc("auto takes half precision where the processor is fast at it")] = "auto"
    device: Annotated[str, Doc("auto, cpu, cuda, cuda:1 or mps")] = "auto"
    compile: Annotated[Compile, Doc("compile the network; auto does on a GPU, for budgets of 20 minutes or more")] = (
        "auto"
    )
    seed: Annotated[int, Doc("seed of all randomness")] = 0
    save_every: Annotated[float, Doc("time between checkpoints, seconds")] = 60.0
    preview_every: Annotated[float, Doc("time between previews, seconds")] = 60.0
    measure_every: Annotated[float, Doc("time between measurements on held-out faces, seconds")] = 20.0
    disguise: Annotated[
        float, Doc("share of the faces that are drawn as another person first, for the network to undo, 0 to 1")
    ] = 0.0
    disguise_from: Annotated[float, Doc("share of the training after which that begins")] = 0.1
    base: Annotated[str, Doc("base model to start from: tiny, small, a file of `fslab pretrain`, or none")] = "none"
    losses: Annotated[LossConfig, Doc("what is minimised")] = field(default_factory=LossConfig)
    data: Annotated[DataConfig, Doc("how faces are varied")] = field(default_factory=DataConfig)

    def __post_init__(self):
        parse_duration(self.budget)
        if (self.steps is not None and self.steps < 1) or self.batch < 1 or self.micro_batch < 0:
            found = f"{self.steps}, {self.batch} and {self.micro_batch}"
            raise ValueError(f"steps and batch must be >= 1, micro_batch >= 0, got {found}")
        if not (self.lr > 0 and self.clip > 0 and self.encoder_lr >= 0 and self.weight_decay >= 0):
            raise ValueError("lr and clip must be > 0, encoder_lr and weight_decay >= 0")
        if not (0 <= self.momentum < 1 and 0 < self.layer_decay <= 1):
            raise ValueError(
                f"momentum must lie in [0, 1), layer_decay in (0, 1], got {self.momentum}, {self.layer_decay}"
            )
        for name in ("warmup", "warp_until", "ema", "disguise", "disguise_from"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        check_device(self.device)
        if min(self.save_every, self.preview_every, self.measure_every) <= 0:
            raise ValueError("save_every, preview_every and measure_every must be > 0 seconds")

    def progress(self, step: int, seconds: float) -> float:
        """Return the share of the training that is done, in [0, 1]; by steps where they are given, else by time."""
        done = step / self.steps if self.steps else seconds / parse_duration(self.budget)
        return min(done, 1.0)


def learning_rate(progress: float, warmup: float, floor: float = 0.02) -> float:
    """Return the learning rate's factor: a linear rise over ``warmup``, then a cosine down to ``floor``.

    Loshchilov & Hutter (2017), "SGDR", arXiv:1608.03983, eq. 5, driven by the share of the budget instead of steps.
    """
    if progress < warmup:
        return max(progress / warmup, floor)
    fall = (progress - warmup) / max(1 - warmup, 1e-9)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(fall, 1.0)))


def warp_strength(progress: float, until: float) -> float:
    """Return the warp's factor: 1 up to ``until``, then falling to 0 half-way through the rest."""
    if progress < until:
        return 1.0
    return max(0.0, 1 - (progress - until) / max((1 - until) / 2, 1e-9))


def ema_decay(step: int, decay: float) -> float:
    """Return the averaged weights' decay at a step: it rises with training, so early weights are soon forgotten."""
    return min(decay, (1 + step) / (10 + step))


class Clock:
    """Says what is due: rows, measurements, checkpoints, previews."""

    def __init__(self, config: TrainConfig):
        self.every = {
            "log": LOG_EVERY,
            "measure": config.measure_every,
            "save": config.save_every,
            "preview": config.preview_every,
        }
        start = time.perf_counter()
        self.next = {what: start + seconds for what, seconds in self.every.items()}

    def due(self, last: bool) -> list[str]:
        """Return what is due now; everything at the ``last`` step, except the checkpoint that follows anyway."""
        due = []
        for what, when in self.next.items():
            if time.perf_counter() >= when or (last and what != "save"):
                due.append(what)
                self.next[what] = time.perf_counter() + self.every[what]
        return due


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """Yield an event that SIGINT and SIGTERM set, in the main thread; elsewhere signals are left alone."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(number: int, _: object) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt  # asked twice: don't wait for the step
        stop.set()

    old = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
