"""A base model: a shared encoder and one decoder that draws anybody, told whom by a vector.

Trained on many people (`fslab.pretrain`), it gives a personal training its start: each person's vector is fitted to
their faces, worked into a decoder of their own, and trained on.
"""

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import nn

from fslab.dataset import Batch
from fslab.decoders import Style
from fslab.devices import amp_type, half_precision
from fslab.errors import RunError
from fslab.losses import LossConfig, image_loss
from fslab.model import ModelConfig, SwapAutoencoder, build_decoder, build_encoder, encode, to_picture
from fslab.run import load_tensors, save_tensors
from fslab.weights import weights_path

SCHEMA = 1
FIT_STEPS, FIT_RATE = 60, 3e-2  # how a new person's vector is fitted


class BaseModel(nn.Module):
    """Encoder, decoder, and a vector for each person that scales and shifts the decoder's channels (see `restyle`).

    With ``style`` 0 there are no vectors: the decoder draws everybody from the code alone.
    """

    def __init__(self, config: ModelConfig, style: int, n_people: int):
        super().__init__()
        self.config, self.style = config, style
        self.encoder = build_encoder(config)
        self.decoder = build_decoder(config, self.encoder.stride)
        if style:
            self.people = nn.Parameter(torch.randn(n_people, style) * 0.5)
            self.to_style = nn.Linear(style, 2 * sum(self.decoder.style_widths))
            nn.init.normal_(self.to_style.weight, std=0.02)
            nn.init.zeros_(self.to_style.bias)

    def styles(self, vectors: torch.Tensor) -> Style:
        """Return the scales and shifts of each of the decoder's layers for vectors ``(B, style)``."""
        flat = self.to_style(vectors)[..., None, None]  # (B, 2 * channels of all layers, 1, 1)
        parts = flat.split([w for width in self.decoder.style_widths for w in (width, width)], dim=1)
        return list(zip(parts[::2], parts[1::2]))

    def draw(self, z: torch.Tensor, vectors: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw codes as the people of ``vectors`` ``(B, style)``: pictures ``(B, 3, S, S)``, masks ``(B, 1, S, S)``."""
        return to_picture(self.decoder(z, self.styles(vectors) if self.style else None), self.config)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Encode ``(B, 3, S, S)`` in [0, 1] as ``(B, C, h, w)``."""
        return encode(self.encoder, x, self.config)

    def average(self) -> torch.Tensor | None:
        """Return the vector of nobody in particular, ``(style,)``."""
        return self.people.detach().mean(0) if self.style else None


@dataclass(frozen=True)
class Base:
    """A base model as it is stored: ``card`` says what it was trained on and how it did."""

    model: BaseModel
    coverage: float
    card: dict

    def save(self, path: Path) -> None:
        """Write the model in half precision with its configuration and card; read back before it replaces a file."""
        head = {
            "schema": SCHEMA, "model": asdict(self.model.config), "style": self.model.style,
            "coverage": self.coverage, "card": self.card,
        }  # fmt: skip
        tensors = {k: v.half() for k, v in self.model.state_dict().items()}
        save_tensors(Path(path), tensors, {"base": json.dumps(head)})

    @classmethod
    def load(cls, name: str | Path) -> "Base":
        """Read a base by the name of one that ships, such as "tiny", or from a file.

        Raises:
            RunError: if there is none, or it is damaged or of another version.
        """
        packaged = weights_path(f"base_{name}.safetensors")
        path = packaged if packaged.exists() else Path(name)
        what, fix = f"a base model at '{path}'", "name a packaged one (tiny, small) or a file made by `fslab pretrain`"
        if not path.exists():
            raise RunError(what, "none", fix)
        tensors, metadata = load_tensors(path)
        try:
            head = json.loads(metadata["base"])
            if head["schema"] != SCHEMA:
                raise RunError(what, f"one of version {head['schema']}", "update fslab")
            config = ModelConfig(**head["model"])
            n_people = len(tensors["people"]) if head["style"] else 0
            model = BaseModel(replace(config, pretrained=False), head["style"], n_people)
            model.load_state_dict({k: v.float() for k, v in tensors.items()})
        except (KeyError, TypeError, ValueError, RuntimeError) as reason:
            raise RunError(what, "something else", fix) from reason
        return cls(model.eval().requires_grad_(False), float(head["coverage"]), head["card"])


def misfits(base: Base, config: ModelConfig, coverage: float) -> dict[str, tuple[object, object]]:
    """Return the settings in which a network differs from a base: name -> (the base's, the network's); {} if none."""
    ignored = ("pretrained", "dropout", "draw_mask")
    theirs, ours = ({**asdict(c), "coverage": v} for c, v in ((base.model.config, base.coverage), (config, coverage)))
    return {name: (theirs[name], ours[name]) for name in ours if name not in ignored and ours[name] != theirs[name]}


def fit_vectors(
    base: BaseModel,
    batches: Sequence[Callable[[int, torch.Generator], Batch]],
    losses: LossConfig,
    generator: torch.Generator,
    n_faces: int = 8,
) -> torch.Tensor | None:
    """Fit a vector to each person's faces, everything else held still.

    Args:
        base: in evaluation mode, its weights frozen.
        batches: of each person, a function ``(n, generator) -> Batch``.
        losses: what is minimised.
        generator: source of the batches' randomness.
        n_faces: of each person in a step.

    Returns:
        ``(people, style)``, None for a base without vectors.
    """
    if not base.style:
        return None
    amp = amp_type("auto", generator.device)
    amp = None if amp is torch.float16 else amp  # which would need its gradients scaled
    vectors = nn.Parameter(base.average().repeat(len(batches), 1))
    optimizer = torch.optim.Adam([vectors], FIT_RATE, (0.9, 0.99))
    for step in range(FIT_STEPS):
        optimizer.param_groups[0]["lr"] = FIT_RATE * (1 - step / FIT_STEPS)
        drawn = [b(n_faces, generator) for b in batches]
        with half_precision(generator.device, amp):
            with torch.no_grad():
                z = base.encode(torch.cat([b.input for b in drawn]))
            rgb, _ = base.draw(z, vectors.repeat_interleave(n_faces, 0))
        target, weight = (torch.cat([getattr(b, name) for b in drawn]) for name in ("target", "weight"))
        image_loss(rgb, target, weight, losses).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return vectors.detach()


@torch.no_grad()
def start_from_base(model: SwapAutoencoder, base: BaseModel, vectors: torch.Tensor | None) -> None:
    """Give a network the base's encoder, and each person the base's decoder with their vector worked in.

    Args:
        model: changed in place.
        base: of the same shape, see `misfits`.
        vectors: ``(people, style)`` from `fit_vectors`.
    """
    model.encoder.load_state_dict(base.encoder.state_dict())
    for i, decoder in enumerate(model.decoders):
        own = copy.deepcopy(base.decoder)
        if vectors is not None:
            own.fold(base.styles(vectors[i : i + 1]))
        decoder.load_state_dict(own.state_dict())


def begin_with(
    model: SwapAutoencoder,
    name: str,
    coverage: float,
    batches: Sequence[Callable[[int, torch.Generator], Batch]],
    losses: LossConfig,
    generator: torch.Generator,
) -> None:
    """Give a network the encoder of a base, and each person its decoder with their own vector, fitted to their faces.

    Args:
        model: changed in place.
        name: of the base, see `Base.load`.
        coverage: of the faces.
        batches: see `fit_vectors`.
        losses: what the fit minimises.
        generator: source of the batches' randomness.

    Raises:
        RunError: if the base cannot be read, or is of another shape or coverage.
    """
    base = Base.load(name)
    if differs := misfits(base, model.config, coverage):
        wanted, found = (", ".join(f"{k} {v[i]}" for k, v in differs.items()) for i in (0, 1))
        fix = "use a preset that has this base, or pass --base none to train from scratch"
        raise RunError(f"the shape of the base '{name}' ({wanted})", found, fix)
    whole = base.model.to(generator.device)
    start_from_base(model, whole, fit_vectors(whole, batches, losses, generator))
