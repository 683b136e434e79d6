"""The subcommands of ``fslab synth``: options, one call each, and a line or two about what was made."""

import shlex
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

from typing_extensions import Doc
from tyro.conf import OmitArgPrefixes, OmitSubcommandPrefixes, Positional, arg, subcommand

from fslab import console
from fslab.synth.clip import ClipConfig, person_name, render_clip
from fslab.synth.faces import FacesConfig, render_faces
from fslab.synth.pair import PairConfig, render_pair
from fslab.synth.portrait import PortraitConfig, render_portrait

Overwrite = Annotated[bool, Doc("replace what stands at the output")]


@dataclass(frozen=True)
class SynthPerson:
    """Render one synthetic person: a portrait sheet, the identity and a consent record."""

    config: OmitArgPrefixes[PortraitConfig]
    out: Annotated[Positional[Path], Doc("folder to make")]
    overwrite: Overwrite = False

    def run(self) -> int:
        """Run the command."""
        with console.stage(f"render {person_name(self.config.seed)}", "pictures") as progress:
            render_portrait(self.config, self.out, self.overwrite, progress)
        console.say(f"  {self.out / 'portrait.png'}, identity.json and consent.json beside it")
        return 0


@dataclass(frozen=True)
class SynthClip:
    """Render a talking head with a voice, its exact labels and a consent record beside it."""

    config: OmitArgPrefixes[ClipConfig]
    out: Annotated[Positional[Path], Doc("video to make, ending in .mp4 or .mov")]
    overwrite: Overwrite = False

    def run(self) -> int:
        """Run the command."""
        with console.stage(f"render {person_name(self.config.person)}") as progress:
            files = render_clip(self.config, self.out, self.overwrite, progress)
        console.say(f"  {files.video}; beside it: " + ", ".join(path.name for path in files.all()[:-1]))
        return 0


@dataclass(frozen=True)
class PairOptions(PairConfig):
    """Who is swapped with whom, what each shows, and how it is rendered."""

    source_seed: Annotated[Positional[int], arg(metavar="SOURCE"), Doc("seed of the person who gives the face")]
    target_seed: Annotated[
        Positional[int], arg(metavar="TARGET"), Doc("seed of the person who gets it and keeps head, pose and light")
    ]


@dataclass(frozen=True)
class PairOutput:
    """Where a pair goes."""

    out: Annotated[Positional[Path], arg(metavar="OUT"), Doc("folder to make")]
    overwrite: Overwrite = False


@dataclass(frozen=True)
class SynthPair:
    """Render footage of two people, a target clip and the exact truth of its swap: SOURCE's face in TARGET's head."""

    options: OmitArgPrefixes[PairOptions]
    output: OmitArgPrefixes[PairOutput]

    @property
    def config(self) -> PairConfig:
        """What is rendered."""
        return PairConfig(**asdict(self.options))

    def run(self) -> int:
        """Run the command."""
        from fslab.synth.identity import draw_identity, similar_tone

        config = self.config
        people = config.source_seed, config.target_seed
        source, target = map(person_name, people)
        with console.stage(f"render {source} into {target}") as progress:
            pair = render_pair(config, self.output.out, self.output.overwrite, progress)
        console.say(f"  {pair.folder}: a is {target}, b is {source}; {config.n_frames} frames, hash {pair.hash[:12]}")
        if not similar_tone(*map(draw_identity, people)):
            console.say("  their skin tones differ much: fine to measure on, but show this swap to nobody")
        console.say("  next:")
        for line in next_commands(pair.folder, source, target):
            console.say(f"    {line}")
        return 0


def next_commands(folder: Path, source: str, target: str) -> list[str]:
    """Return the commands that turn a pair into a measured swap."""
    end = "" if (folder / "a_train").is_dir() else ".mp4"

    def at(name: str) -> str:
        return shlex.quote(str(folder / name))

    return [
        f"fslab extract {at(f'a_train{end}')} {at('faces/a')} --identity {target} --consent {at('a.consent.json')}",
        f"fslab extract {at(f'b_train{end}')} {at('faces/b')} --identity {source} --consent {at('b.consent.json')}",
        f"fslab train {at('faces/a')} {at('faces/b')} --out {at('run')} --budget 10m",
        f"fslab swap {at('run')} {at('target.mp4')} {at('swap.mp4')} --identity {source} --replace {target}",
        f"fslab evaluate {at('swap.mp4')} --target {at('target.mp4')} --truth {at('truth.mp4')} --out {at('report')}",
    ]


@dataclass(frozen=True)
class SynthFaces:
    """Render labelled, aligned faces of many people, to train a base model on."""

    out: Annotated[Positional[Path], Doc("folder to make")]
    config: OmitArgPrefixes[FacesConfig] = field(default_factory=FacesConfig)
    overwrite: Overwrite = False

    def run(self) -> int:
        """Run the command."""
        with console.stage(f"render {self.config.people} people", "faces") as progress:
            render_faces(self.config, self.out, self.overwrite, progress)
        console.say(f"  {self.out}: faces/, labels.npz, images.jsonl, people.jsonl, index.json")
        return 0


@dataclass(frozen=True)
class SynthCommand:
    """Render synthetic people, with everything about them known exactly."""

    command: OmitSubcommandPrefixes[
        Annotated[SynthPerson, subcommand("person")]
        | Annotated[SynthClip, subcommand("clip")]
        | Annotated[SynthPair, subcommand("pair")]
        | Annotated[SynthFaces, subcommand("faces")]
    ]

    def run(self) -> int:
        """Run the command."""
        return self.command.run()
