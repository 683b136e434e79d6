"""Decoders: a code to one person's face and its mask. One decoder belongs to one person."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


def icnr_(weight: torch.Tensor, factor: int = 2) -> torch.Tensor:
    """Initialise a convolution before pixel shuffle so that it starts as nearest-neighbour enlargement, in place.

    Aitken et al. (2017), "Checkerboard artifact free sub-pixel convolution", arXiv:1707.02937, section 3.

    Args:
        weight: ``(C * factor^2, C_in, k, k)``; the ``factor^2`` filters of an output channel become equal.
        factor: enlargement of the pixel shuffle.
    """
    with torch.no_grad():
        first = torch.empty_like(weight[:: factor**2])
        nn.init.kaiming_normal_(first, a=0.1)
        return weight.copy_(first.repeat_interleave(factor**2, dim=0))


class Upsample(nn.Module):
    """Enlarges the side: "shuffle" (convolution, pixel shuffle), "bilinear" (enlarge, convolution) or "transpose".

    ``factor`` is 2, or any number of times for "shuffle".
    """

    def __init__(self, kind: str, c_in: int, c_out: int, factor: int = 2):
        super().__init__()
        self.kind, self.factor = kind, factor
        if kind == "transpose":
            self.conv = nn.ConvTranspose2d(c_in, c_out, 4, stride=2, padding=1)
        else:
            self.conv = nn.Conv2d(c_in, c_out * (factor**2 if kind == "shuffle" else 1), 3, padding=1)
        if kind == "shuffle":
            icnr_(self.conv.weight, factor)
            nn.init.zeros_(self.conv.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Enlarge ``(B, c_in, h, w)`` to ``(B, c_out, factor * h, factor * w)``."""
        if self.kind == "shuffle":
            return F.pixel_shuffle(self.conv(x), self.factor)  # (B, c_out, factor * h, factor * w)
        if self.kind == "bilinear":
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)  # (B, c_in, 2h, 2w)
        return self.conv(x)  # (B, c_out, 2h, 2w)


Style = Sequence[tuple[torch.Tensor, torch.Tensor]]  # a scale and a shift (B, C, 1, 1) of each styled layer


def restyle(x: torch.Tensor, style: tuple[torch.Tensor, torch.Tensor] | None) -> torch.Tensor:
    """Scale and shift the channels of ``(B, C, h, w)``: ``x * (1 + scale) + shift``; None leaves them.

    Perez et al. (2018), "FiLM", AAAI, eq. 2, with the scale counted from 1.
    """
    return x if style is None else x * (1 + style[0]) + style[1]


class ResBlock(nn.Module):
    """Two 3 x 3 convolutions beside an identity; starts as the identity."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.act = nn.LeakyReLU(0.1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: torch.Tensor, style: Style = (None, None)) -> torch.Tensor:
        """Keep the shape ``(B, C, h, w)``; ``style`` of the two convolutions."""
        inner = self.act(restyle(self.conv1(x), style[0]))
        return self.act(x + restyle(self.conv2(inner), style[1]))


class Decoder(nn.Module):
    """Enlarges a code step by step to four planes: red, green, blue and mask, before their sigmoid.

    Channels double with every step towards the code, from ``width`` at the last step. With "shuffle" the head
    draws blocks of ``patch`` x ``patch`` pixels at once: the costly convolutions at full and half size fall away, and
    the features of a block hold as much detail as its pixels do.
    """

    def __init__(self, shape: "DecoderShape"):
        super().__init__()
        kind, factor = shape.kind, shape.patch if shape.kind == "shuffle" else 1
        steps = count_doublings(shape.stride // factor)
        widths = [shape.width * 2**i for i in reversed(range(steps))]
        self.blocks = nn.ModuleList(ResBlock(shape.latent_channels) for _ in range(shape.blocks))
        self.ups = nn.ModuleList(
            Upsample(kind, c_in, c_out) for c_in, c_out in zip([shape.latent_channels, *widths], widths)
        )
        self.act, self.dropout = nn.LeakyReLU(0.1), nn.Dropout2d(shape.dropout)
        last = widths[-1] if widths else shape.latent_channels
        self.head = Upsample("shuffle", last, 4, factor) if kind == "shuffle" else nn.Conv2d(last, 4, 1)
        self.style_widths = [shape.latent_channels] * (2 * shape.blocks) + widths
        with torch.no_grad():
            self.head_conv.weight.mul_(0.3)  # start near mid-grey, where the sigmoid is steep
            self.head_conv.bias.zero_()

    @property
    def head_conv(self) -> nn.Conv2d:
        """The convolution that draws the four planes."""
        return self.head.conv if isinstance(self.head, Upsample) else self.head

    def forward(self, z: torch.Tensor, style: Style | None = None) -> torch.Tensor:
        """Decode ``(B, latent, h, w)`` as ``(B, 4, h * stride, w * stride)``.

        Args:
            z: the code.
            style: a scale and a shift for each layer, as many channels each as ``style_widths`` says; None for none.
        """
        styles = style or [None] * len(self.style_widths)
        for i, block in enumerate(self.blocks):
            z = block(z, styles[2 * i : 2 * i + 2])  # (B, latent, h, w)
        for i, (up, own) in enumerate(zip(self.ups, styles[2 * len(self.blocks) :])):
            z = self.act(restyle(up(z), own))  # (B, width * 2^k, 2h, 2w)
            z = self.dropout(z) if i == 0 else z
        return self.head(z)  # (B, 4, S, S)

    @torch.no_grad()
    def fold(self, style: Style) -> None:
        """Work a style into the weights, in place: the decoder then draws without it what it drew with it.

        Args:
            style: of one person, ``(1, C, 1, 1)`` each.
        """
        convs = [conv for block in self.blocks for conv in (block.conv1, block.conv2)] + [up.conv for up in self.ups]
        for conv, (scale, shift) in zip(convs, style, strict=True):
            is_transposed = isinstance(conv, nn.ConvTranspose2d)
            times = (conv.weight.shape[1 if is_transposed else 0]) // scale.shape[1]  # channels a shuffle makes one of
            gain = (1 + scale.flatten()).repeat_interleave(times)
            conv.weight.mul_(gain.view((1, -1, 1, 1) if is_transposed else (-1, 1, 1, 1)))
            conv.bias.copy_(conv.bias * gain + shift.flatten().repeat_interleave(times))


@dataclass(frozen=True)
class DecoderShape:
    """How a decoder is built: ``stride`` of the encoder whose code it enlarges; the rest as in `ModelConfig`."""

    stride: int
    latent_channels: int
    kind: str = "shuffle"
    width: int = 64
    blocks: int = 1
    dropout: float = 0.0
    patch: int = 4


def count_doublings(stride: int) -> int:
    """Return how many doublings undo ``stride``.

    Raises:
        ValueError: if it is not a power of two.
    """
    doublings = round(math.log2(max(stride, 1)))
    if 2**doublings != stride:
        raise ValueError(f"the encoder's stride must be a power of two, got {stride}")
    return doublings
