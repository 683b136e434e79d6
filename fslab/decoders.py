"""Decoders: a code to one person's face and its mask. One decoder belongs to one person."""

import math

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


class ResBlock(nn.Module):
    """Two 3 x 3 convolutions beside an identity; starts as the identity."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.act = nn.LeakyReLU(0.1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Keep the shape ``(B, C, h, w)``."""
        return self.act(x + self.conv2(self.act(self.conv1(x))))


class Decoder(nn.Module):
    """Enlarges a code step by step to four planes: red, green, blue and mask, before their sigmoid.

    Channels double with every step towards the code, from ``width`` at the last step. With "shuffle" the head
    draws blocks of 4 x 4 pixels at a quarter of the size: the costly convolutions at full and half size fall away, and
    its 64 outputs a block hold as much detail as the pixels do.
    """

    def __init__(self, kind: str, latent_channels: int, doublings: int, width: int, blocks: int, dropout: float):
        super().__init__()
        steps = doublings - 2 if kind == "shuffle" else doublings
        widths = [width * 2**i for i in reversed(range(steps))]
        ups: list[nn.Module] = [ResBlock(latent_channels) for _ in range(blocks)]
        for i, (c_in, c_out) in enumerate(zip([latent_channels, *widths], widths)):
            ups += [Upsample(kind, c_in, c_out), nn.LeakyReLU(0.1)]
            ups += [nn.Dropout2d(dropout)] if dropout and i == 0 else []
        self.ups = nn.Sequential(*ups)
        last = widths[-1] if widths else latent_channels
        self.head = Upsample("shuffle", last, 4, factor=4) if kind == "shuffle" else nn.Conv2d(last, 4, 1)
        with torch.no_grad():
            self.head_conv.weight.mul_(0.3)  # start near mid-grey, where the sigmoid is steep
            self.head_conv.bias.zero_()

    @property
    def head_conv(self) -> nn.Conv2d:
        """The convolution that draws the four planes."""
        return self.head.conv if isinstance(self.head, Upsample) else self.head

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Decode ``(B, latent, h, w)`` as ``(B, 4, h * 2^doublings, w * 2^doublings)``."""
        x = self.ups(z)  # (B, width, S/4, S/4) for "shuffle", (B, width, S, S) otherwise
        return self.head(x)  # (B, 4, S, S)


def count_doublings(stride: int) -> int:
    """Return how many doublings undo ``stride``.

    Raises:
        ValueError: if it is not a power of two.
    """
    doublings = round(math.log2(stride))
    if 2**doublings != stride:
        raise ValueError(f"the encoder's stride must be a power of two, got {stride}")
    return doublings
