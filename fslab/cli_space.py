"""``fslab space``: the app as a Hugging Face Space, or as a folder for Docker."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from typing_extensions import Doc
from tyro.conf import OmitArgPrefixes, OmitSubcommandPrefixes, Positional, subcommand

from fslab import console
from fslab.space import MEGABYTE, PushConfig, StagedFile, check_repo, plan_push, push_space, stage_space

Packaged = Annotated[
    Path | None, Doc("finished run of synthetic people that visitors may swap with, instead of the one that ships")
]


@dataclass(frozen=True)
class SpaceBuild:
    """Stage the app in a folder that is a ready Space, and that `docker build` takes too."""

    out: Annotated[Positional[Path], Doc("folder to make")]
    packaged: Packaged = None
    overwrite: Annotated[bool, Doc("replace an earlier Space at the output")] = False

    def run(self) -> int:
        """Run the command."""
        staged = stage_space(self.out, self.packaged, self.overwrite)
        console.say(f"  {self.out}: {_describe(staged)}; try it with `python {self.out / 'app.py'}`")
        return 0


@dataclass(frozen=True)
class SpacePush:
    """Stage the app and upload it to Hugging Face; a new Space is private unless --public."""

    repo: Annotated[Positional[str], Doc("USER/NAME of the Space")]
    packaged: Packaged = None
    dry_run: Annotated[bool, Doc("list what would be uploaded, and touch no network")] = False
    config: OmitArgPrefixes[PushConfig] = field(default_factory=PushConfig)

    def run(self) -> int:
        """Run the command."""
        check_repo(self.repo)
        if self.dry_run:
            staged = plan_push(self.packaged)
            for file in staged:
                console.say(f"{file.size:>10}  {file.name}")
            console.say(f"  would go to {self.repo}: {_describe(staged)}; nothing was sent")
            return 0
        console.say(f"  {push_space(self.repo, self.packaged, self.config)}")
        return 0


def _describe(staged: Sequence[StagedFile]) -> str:
    return f"{len(staged)} files, {sum(file.size for file in staged) / MEGABYTE:.1f} MB"


@dataclass(frozen=True)
class SpaceCommand:
    """Make a Hugging Face Space of the app."""

    command: OmitSubcommandPrefixes[
        Annotated[SpaceBuild, subcommand("build")] | Annotated[SpacePush, subcommand("push")]
    ]

    def run(self) -> int:
        """Run the command."""
        return self.command.run()
