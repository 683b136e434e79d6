"""What a search over settings varies, what it calls better, and settings as a table and as a command line."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from typing_extensions import Doc

from fslab.model import PRESETS, ModelConfig
from fslab.schedule import TrainConfig

Config = TypeVar("Config")


@dataclass(frozen=True)
class Dial:
    """A setting that can be searched: from ``low`` to ``high``, or one of ``choices``.

    Whole numbers where ``low`` is one, in steps of ``step``; evenly on a logarithmic scale with ``log``.
    """

    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: int = 1
    choices: tuple = ()

    def __str__(self):
        if self.choices:
            return ", ".join(str(c) for c in self.choices)
        return f"{self.low} to {self.high}" + (f" in steps of {self.step}" if self.step > 1 else "")

    def holds(self, value: Any) -> bool:
        """Say whether ``value`` is one that the dial can be set to."""
        if self.choices:
            return value in self.choices
        if isinstance(value, str) or not self.low <= value <= self.high:
            return False
        return not isinstance(self.low, int) or (value - self.low) % self.step == 0

    def suggest(self, trial: Any, name: str) -> Any:
        """Ask an Optuna trial for a value; three digits are enough of a float, and fit a command line."""
        if self.choices:
            return trial.suggest_categorical(name, list(self.choices))
        if isinstance(self.low, int):
            return trial.suggest_int(name, self.low, self.high, step=self.step, log=self.log)
        value = trial.suggest_float(name, self.low, self.high, log=self.log)
        return float(f"{value:.3g}")


# Field of ModelConfig, TrainConfig or LossConfig -> where to look for it. Everything else stays as it was given.
# The identity loss is no dial: it listens to the network that the score asks, which would be teaching to the test.
DIALS: dict[str, Dial] = {
    "optimizer": Dial(choices=("adamw", "adam", "muon")),  # those that want about the same learning rate
    "lr": Dial(5e-5, 1e-2, log=True),
    "batch": Dial(4, 32, log=True),
    "weight_decay": Dial(1e-4, 0.3, log=True),
    "dropout": Dial(0.0, 0.3),
    "dssim": Dial(0.0, 3.0),
    "gradient": Dial(0.0, 3.0),
    "perceptual": Dial(choices=(0.0, 0.1, 0.3, 1.0)),
    "match": Dial(0.01, 1.0, log=True),
    "width": Dial(32, 96, step=16),
    "latent_channels": Dial(64, 256, step=64),
    "blocks": Dial(0, 3),
    "decoder": Dial(choices=("shuffle", "bilinear", "transpose")),
    "encoder": Dial(choices=("small", "fakeapp")),
}
SHAPE = ("width", "latent_channels", "blocks", "decoder", "encoder")  # fixed by the base a training starts from
LOST = -1.0  # the score of a network that draws no numbers
HOUSEKEEPING = ("save_every", "preview_every", "measure_every")  # change nothing that is learned


@dataclass(frozen=True)
class TuneConfig:
    """How long and among what to search."""

    preset: Annotated[Literal[tuple(PRESETS)], Doc("where the search starts; sets every option below")] = "tiny"
    trials: Annotated[int, Doc("trainings in all, those of earlier calls and of other processes included")] = 20
    search: Annotated[str, Doc(f"settings to search, with commas between: {','.join(DIALS)}; or all")] = "all"
    study: Annotated[
        str | None, Doc("database that several processes or machines share, such as sqlite:///DIR/study.db")
    ] = None

    def __post_init__(self):
        if self.trials < 1:
            raise ValueError(f"trials must be >= 1, got {self.trials}")
        names = [] if self.search == "all" else self.search.split(",")
        unknown = [name for name in names if name.strip() not in DIALS]
        if unknown:
            raise ValueError(
                f"search must be all or names out of {', '.join(DIALS)}, got {', '.join(map(repr, unknown))}"
            )

    def names(self, settings: dict[str, Any]) -> list[str]:
        """Return the settings to search.

        Args:
            settings: where the search starts, as `flatten` gives them.

        Raises:
            ValueError: if a setting was asked for that starts outside of what its dial covers, or that the base fixes.
        """
        fixed = () if settings["base"] == "none" else SHAPE
        if self.search == "all":
            return [name for name, dial in DIALS.items() if name not in fixed and dial.holds(settings[name])]
        names = [name for name in DIALS if name in [n.strip() for n in self.search.split(",")]]
        if held := [name for name in names if name in fixed]:
            raise ValueError(f"{', '.join(held)} can be searched with --base none alone: a base is of one shape")
        for name in names:
            if not DIALS[name].holds(settings[name]):
                raise ValueError(f"to be searched, {name} must start within {DIALS[name]}, got {settings[name]}")
        return names


def flatten(*configs: Any) -> dict[str, Any]:
    """Return every setting of configurations and those inside them, by its option's name."""
    found: dict[str, Any] = {}
    for config in configs:
        for field in fields(config):
            value = getattr(config, field.name)
            found |= flatten(value) if is_dataclass(value) else {field.name: value}
    return found


def with_settings(config: Config, settings: dict[str, Any]) -> Config:
    """Return a configuration with the settings it, or one inside it, has a field for."""
    changes = {}
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            changes[field.name] = with_settings(value, settings)
        elif field.name in settings:
            changes[field.name] = settings[field.name]
    return replace(config, **changes)


def held_out_score(row: dict) -> float | None:
    """Return how good a training's swaps of held-out faces are; higher is better.

    The score of `fslab.watch`, plus a hundredth of the mean SSIM of redrawing, which tells trainings apart that are too
    short for any swap. No loss weight enters, so trainings with different ones compare. This is the one place that says
    what a search calls better.

    Args:
        row: a row of ``log.jsonl``.

    Returns:
        A score in [0, 1.01], or `LOST` where the network drew no numbers; None where the row holds no measurement.
    """
    if "score" not in row:
        return None
    ssim = [person["ssim"] for person in row["held_out"].values()]
    if row["score"] is None or None in ssim:
        return LOST
    return row["score"] + 0.01 * max(sum(ssim) / len(ssim), 0.0)


def train_command(
    folders: Sequence[Path], out: Path, preset: str, model_config: ModelConfig, train_config: TrainConfig
) -> str:
    """Return the `fslab train` command line that trains with these configurations."""
    usual = flatten(*PRESETS[preset])
    words = ["fslab", "train", *map(str, folders), "--out", str(out), "--preset", preset]
    for name, value in flatten(model_config, train_config).items():
        flag = name.replace("_", "-")
        if name in HOUSEKEEPING or (value == usual[name] and name != "budget"):
            continue
        words += [f"--{flag}" if value else f"--no-{flag}"] if isinstance(value, bool) else [f"--{flag}", str(value)]
    return shlex.join(words)


def describe_row(row: dict) -> str:
    """Return a trial as a line: its number, its score and its settings."""
    score = "no score" if row["value"] is None else f"{row['value']:.4f}"
    state = "" if row["state"] == "done" else f", {row['state']}" + (f" ({row['reason']})" if "reason" in row else "")
    values = ", ".join(f"{k} {v:g}" if isinstance(v, float) else f"{k} {v}" for k, v in row["settings"].items())
    return f"trial {row['number']}: {score}{state}; {values}"
