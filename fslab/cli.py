"""The command line: one subcommand a stage. It parses, calls one function, prints and exits; nothing else.

Exit codes: 0 done; 2 something the user can mend (one line on standard error); `verify` also 1 broken and 3 no mark.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

import tyro
from typing_extensions import Doc
from tyro.conf import OmitArgPrefixes, OmitSubcommandPrefixes, Positional, subcommand

from fslab import console
from fslab.cli_app import App
from fslab.cli_labs import Labs
from fslab.cli_pretrain import Pretrain
from fslab.cli_space import SpaceCommand
from fslab.cli_synth import SynthCommand
from fslab.distribute import n_processes
from fslab.errors import FslabError, OutputError
from fslab.evaluate import EvalConfig
from fslab.extract import ExtractConfig
from fslab.model import PRESETS, ModelConfig
from fslab.schedule import parse_duration
from fslab.search import TuneConfig, flatten
from fslab.swap import SwapConfig
from fslab.train import TrainConfig
from fslab.video import VideoConfig
from fslab.webapp.settings import AppSettings

Overwrite = Annotated[bool, Doc("replace what stands at the output")]
Preset = Literal[tuple(PRESETS)]


ABOUT = "Swap faces of people who agreed. In order: doctor, consent, extract, dataset, train, swap, evaluate, verify."


@dataclass(frozen=True)
class Demo:
    """Extract, train, swap and evaluate the packaged synthetic people, ada and dan."""

    out: Annotated[Path, Doc("folder for everything the demo makes")] = Path("demo_out")
    budget: Annotated[str, Doc("training time, such as 90s, 5m or 1h")] = "4m"
    overwrite: Overwrite = False

    def __post_init__(self):
        parse_duration(self.budget)

    def run(self) -> int:
        """Run the command."""
        from fslab.demo import run_demo

        return run_demo(self.out, self.budget, self.overwrite)


@dataclass(frozen=True)
class Extract:
    """Turn footage of a person into a face set: aligned crops and what is known of each."""

    footage: Annotated[Positional[Path], Doc("a video, an image, or a folder of them")]
    out: Annotated[Positional[Path], Doc("face set folder to make")]
    identity: Annotated[str, Doc("name of the person")]
    consent: Annotated[Path, Doc("the person's consent record (made by `fslab consent new`)")]
    config: OmitArgPrefixes[ExtractConfig] = field(default_factory=ExtractConfig)
    overwrite: Overwrite = False

    def run(self) -> int:
        """Run the command."""
        from fslab.stages import extract

        extract(self.footage, self.out, self.identity, self.consent, self.config, self.overwrite)
        return 0


@dataclass(frozen=True)
class Dataset:
    """Look face sets over before training: what one shows and the other never does, what to film, what to drop."""

    facesets: Annotated[Positional[tuple[Path, ...]], Doc("face set folders")]
    out: Annotated[Path, Doc("folder for dataset.png and dataset.json")] = Path("dataset")
    overwrite: Overwrite = False

    def run(self) -> int:
        """Run the command."""
        from fslab.stages import dataset

        dataset(list(self.facesets), self.out, self.overwrite)
        return 0


@dataclass(frozen=True)
class Train:
    """Train a swap between two or more people; run it again to go on where it stopped."""

    facesets: Annotated[Positional[tuple[Path, ...]], Doc("face set folders of two or more people")]
    out: Annotated[Path, Doc("run folder to make or to go on with")]
    preset: Annotated[
        Preset, Doc("sets everything below: tiny for a CPU, small, full for a GPU, fakeapp the classic")
    ] = "tiny"
    model: OmitArgPrefixes[ModelConfig] = field(default_factory=ModelConfig)
    train: OmitArgPrefixes[TrainConfig] = field(default_factory=TrainConfig)
    find_lr: Annotated[bool, Doc("try rising learning rates for a minute, print which fits, and stop")] = False

    def run(self) -> int:
        """Run the command."""
        from fslab.stages import find_rate, train

        if self.find_lr:
            find_rate(list(self.facesets), self.model, self.train)
            return 0
        train(list(self.facesets), self.out, self.model, self.train)
        return 0


@dataclass(frozen=True)
class Tune:
    """Search the settings that train best in a given time; run it again, or beside itself, to go on."""

    facesets: Annotated[Positional[tuple[Path, ...]], Doc("face set folders of two or more people")]
    out: Annotated[Path, Doc("folder for the study, the best run, tune.json and tune.png")]
    config: OmitArgPrefixes[TuneConfig] = field(default_factory=TuneConfig)
    model: OmitArgPrefixes[ModelConfig] = field(default_factory=ModelConfig)
    train: OmitArgPrefixes[TrainConfig] = field(default_factory=TrainConfig)

    def __post_init__(self):
        self.config.names(flatten(self.model, self.train))

    def run(self) -> int:
        """Run the command."""
        from fslab.stages import tune

        tune(self)
        return 0


@dataclass(frozen=True)
class Swap:
    """Put one person's face on another's in a video or a picture, marked as what it is."""

    run_dir: Annotated[Positional[Path], Doc("run folder")]
    target: Annotated[Positional[Path], Doc("video or picture to change")]
    output: Annotated[Positional[Path], Doc("file to make: .mp4 or .mov, or .png, .jpg, .webp for a picture")]
    identity: Annotated[str, Doc("whose face is put in")]
    replace: Annotated[str | None, Doc("who is replaced; may be left out if the run knows two people")] = None
    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], Doc("where the network runs")] = "auto"
    config: OmitArgPrefixes[SwapConfig] = field(default_factory=SwapConfig)
    video: OmitArgPrefixes[VideoConfig] = field(default_factory=VideoConfig)
    overwrite: Overwrite = False

    def run(self) -> int:
        """Run the command."""
        from fslab.stages import swap

        swap(self)
        return 0


@dataclass(frozen=True)
class Evaluate:
    """Measure a swapped video, against the truth where there is one, and write a report."""

    swapped: Annotated[Positional[Path], Doc("the swapped video")]
    target: Annotated[Path, Doc("the footage it was made from")]
    truth: Annotated[Path | None, Doc("what a perfect swap looks like, where that is known")] = None
    source: Annotated[Path | None, Doc("face set of the person whose face was put in")] = None
    out: Annotated[Path, Doc("folder for index.html and report.json")] = Path("report")
    config: OmitArgPrefixes[EvalConfig] = field(default_factory=EvalConfig)
    overwrite: Overwrite = False

    def run(self) -> int:
        """Run the command."""
        from fslab.stages import evaluate

        evaluate(self)
        return 0


@dataclass(frozen=True)
class Verify:
    """Read back the marks of a file. Exit code 0 marked and intact, 1 a mark is broken, 3 no mark found."""

    file: Annotated[Positional[Path], Doc("a picture or a video")]

    def run(self) -> int:
        """Run the command."""
        from fslab.stages import verify

        return verify(self.file)


@dataclass(frozen=True)
class ConsentNew:
    """Write the record of a person's consent."""

    person: Annotated[Positional[str], Doc("name of the person")]
    out: Annotated[Path, Doc("file to make, such as consents/ada.json")]
    confirmed_by: Annotated[str, Doc("who confirmed the consent, and how")]
    scope: Annotated[
        tuple[Literal["training", "swapping", "publishing"], ...], Doc("what the person agreed to")
    ] = ("training", "swapping", "publishing")  # fmt: skip
    expires: Annotated[str | None, Doc("last day it holds, YYYY-MM-DD; none if left out")] = None
    synthetic: Annotated[bool, Doc("the person is rendered or drawn: nobody real")] = False
    note: Annotated[str, Doc("anything else worth recording")] = ""
    overwrite: Overwrite = False

    def run(self) -> int:
        """Run the command."""
        from fslab.stages import new_consent

        new_consent(self)
        return 0


@dataclass(frozen=True)
class ConsentShow:
    """Check a consent record and show it."""

    file: Annotated[Positional[Path], Doc("a consent record")]

    def run(self) -> int:
        """Run the command."""
        from fslab.stages import show_consent

        show_consent(self.file)
        return 0


@dataclass(frozen=True)
class ConsentCommand:
    """Make or show a consent record."""

    command: OmitSubcommandPrefixes[
        Annotated[ConsentNew, subcommand("new")] | Annotated[ConsentShow, subcommand("show")]
    ]

    def run(self) -> int:
        """Run the command."""
        return self.command.run()


@dataclass(frozen=True)
class Bench:
    """Train and score swaps between synthetic people against the exact truth, beside baselines; goes on if stopped."""

    what: Annotated[
        Positional[Literal["quality", "curves", "losses", "encoders"]],
        Doc(
            "quality: the recipe beside baselines; on one case, curves: against minutes, with and without the base; "
            "losses, encoders: what each is worth"
        ),
    ]
    tier: Annotated[
        Literal["ci", "lab", "full"], Doc("ci: 2 small cases in minutes; lab: 6 cases; full: 12 large cases, for a GPU")
    ] = "ci"
    out: Annotated[Path | None, Doc("folder for figures, page and cases; named after what is measured if left out")] = (
        None
    )
    case: Annotated[str | None, Doc("the one case that tables are made on; the tier's first if left out")] = None
    budget: Annotated[str | None, Doc("training time of each network, such as 90s; the tier's if left out")] = None
    encoders: Annotated[tuple[str, ...], Doc("classic, small, or timm's names; a dozen if left out")] = ()
    overwrite: Overwrite = False

    def __post_init__(self):
        if self.budget:
            parse_duration(self.budget)
        if self.encoders and self.what != "encoders":
            raise ValueError(f"--encoders is of `bench encoders`, got `bench {self.what}`")
        if self.case and self.what == "quality":
            raise ValueError(f"`bench quality` runs every case of its tier, got --case {self.case}")

    def run(self) -> int:
        """Run the command."""
        from fslab import stages

        out = self.out or Path(self.what)
        if self.what == "quality":
            stages.bench_quality(self.tier, out, self.overwrite, self.budget)
        else:
            stages.bench_table(self, out)
        return 0


@dataclass(frozen=True)
class Doctor:
    """Check that this machine is ready, and say what to do where it is not."""

    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], Doc("device to check")] = "auto"

    def run(self) -> int:
        """Run the command."""
        from fslab.stages import doctor

        return doctor(self.device)


def _commands(argv: Sequence[str]) -> object:
    """Return the union of all subcommands; the preset named in ``argv`` sets the defaults of `train` and `tune`."""
    names = [b for a, b in pairwise(argv) if a == "--preset"]
    names += [a.split("=", 1)[1] for a in argv if a.startswith("--preset=")]
    preset = names[-1] if names and names[-1] in PRESETS else "tiny"
    model, train = PRESETS[preset]
    defaults = Train(facesets=tyro.MISSING, out=tyro.MISSING, preset=preset, model=model, train=train)
    short = replace(train, budget="2m")  # of each of many trials
    pretraining = Pretrain(faces=tyro.MISSING, out=tyro.MISSING, preset=preset, model=model)
    search = Tune(facesets=tyro.MISSING, out=tyro.MISSING, config=TuneConfig(preset), model=model, train=short)
    app = App(AppSettings.for_public() if "--public" in argv else AppSettings())
    return (
        Annotated[Demo, subcommand("demo")]
        | Annotated[Extract, subcommand("extract")]
        | Annotated[Dataset, subcommand("dataset")]
        | Annotated[Pretrain, subcommand("pretrain", default=pretraining)]
        | Annotated[Train, subcommand("train", default=defaults)]
        | Annotated[Tune, subcommand("tune", default=search)]
        | Annotated[Swap, subcommand("swap")]
        | Annotated[Evaluate, subcommand("evaluate")]
        | Annotated[Verify, subcommand("verify")]
        | Annotated[ConsentCommand, subcommand("consent")]
        | Annotated[SynthCommand, subcommand("synth")]
        | Annotated[Bench, subcommand("bench")]
        | Annotated[Doctor, subcommand("doctor")]
        | Annotated[App, subcommand("app", default=app)]
        | Annotated[SpaceCommand, subcommand("space")]
        | Annotated[Labs, subcommand("labs")]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal or file without UTF-8 gets '?', not a crash
    try:
        command = tyro.cli(
            OmitSubcommandPrefixes[_commands(argv)],
            args=argv,
            prog="fslab",
            description=ABOUT,
        )
    except ValueError as error:  # a value that a configuration refuses
        console.complain(str(error))
        return console.finish(2)
    try:
        if n_processes() > 1 and not isinstance(command, Train):
            raise FslabError("one process", str(n_processes()), "launch several for `fslab train` alone")
        return console.finish(command.run())
    except FslabError as error:
        reason = error
    except PermissionError as error:
        reason = OutputError(f"permission for '{error.filename}'", "none", "choose a place you own")
    except KeyboardInterrupt:
        console.complain("stopped; nothing half-written was left behind")
        return console.finish(130)
    console.complain(str(reason))
    return console.finish(2, reason)
