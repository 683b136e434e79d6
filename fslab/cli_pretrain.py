"""``fslab pretrain``: a base model from many people's faces."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

from typing_extensions import Doc
from tyro.conf import OmitArgPrefixes, Positional

from fslab import console
from fslab.model import PRESETS, ModelConfig
from fslab.pretrain import PretrainConfig, pretrain


@dataclass(frozen=True)
class Pretrain:
    """Train a base model on many people, for `fslab train --base` to start from; run it again to go on."""

    faces: Annotated[
        Positional[tuple[Path, ...]], Doc("folders of `fslab synth faces`, face sets, or pictures beside a LICENSE")
    ]
    out: Annotated[Path, Doc("folder to make or to go on with; the base is base.safetensors in it")]
    preset: Annotated[Literal[tuple(PRESETS)], Doc("whose network is trained; sets the model below")] = "tiny"
    start: Annotated[str, Doc("base to begin with: tiny, small, a file, or none")] = "none"
    model: OmitArgPrefixes[ModelConfig] = field(default_factory=lambda: PRESETS["tiny"][0])
    config: OmitArgPrefixes[PretrainConfig] = field(default_factory=PretrainConfig)

    def run(self) -> int:
        """Run the command."""
        with console.stage(f"pretrain {self.preset}", "%") as progress:
            base = pretrain(
                self.faces,
                self.out,
                replace(self.model, pretrained=False),
                self.config,
                lambda s: progress(round(100 * s.progress), 100, f"step {s.step} loss {s.loss:.3f}"),
                None if self.start == "none" else self.start,
            )
        closure, people = base.card["held_out"]["closure"], len(base.card["held_out_people"])
        console.say(f"  step {base.card['step']}: closure {closure:.3f} on {people} people held out")
        console.say(f"  {self.out / 'base.safetensors'}; use it with --base")
        return 0
