"""Ways to vary faces, on whole batches: turns, warps and light; and what cameras, codecs and hands do to a picture.

Pictures are ``(B, C, S, S)`` in [0, 1]; arguments are left alone; randomness comes from a generator on their device.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

BLOCK, MIDDLE = 8, 128 / 255  # side of a JPEG block, pixels; the grey that its coefficients are counted from
# Luminance quantisation of JPEG (ITU-T T.81, table K.1), levels of 255; quality 50 takes it as it is.
QUANTISATION = (
    (16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55), (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62), (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99),
)  # fmt: skip
Amounts = tuple[float, float, float, float]  # see `spoil`


def uniform(shape: tuple[int, ...], low: float, high: float, generator: torch.Generator) -> torch.Tensor:
    """Return uniform numbers in [low, high) on the generator's device."""
    return torch.rand(shape, generator=generator, device=generator.device) * (high - low) + low


@dataclass(frozen=True)
class Poses:
    """How far faces are turned (degrees), scaled and shifted (shares of the side), and how many are mirrored."""

    rotation: float
    scale: float
    shift: float
    flip: float


def affine_grid(n: int, size: int, poses: Poses, generator: torch.Generator) -> torch.Tensor:
    """Return a random flip, turn, scale and shift a face as sampling positions ``(n, size, size, 2)`` in [-1, 1]."""
    angle = uniform((n,), -poses.rotation, poses.rotation, generator) * (torch.pi / 180)
    scale = 1 + uniform((n,), -poses.scale, poses.scale, generator)
    shift = uniform((n, 2), -2 * poses.shift, 2 * poses.shift, generator)
    mirror = 1 - 2 * (uniform((n,), 0, 1, generator) < poses.flip).float()
    cos, sin = scale * torch.cos(angle), scale * torch.sin(angle)
    rows = [torch.stack([cos * mirror, -sin, shift[:, 0]], 1), torch.stack([sin * mirror, cos, shift[:, 1]], 1)]
    return F.affine_grid(torch.stack(rows, 1), [n, 3, size, size], align_corners=False)


def warp_field(n: int, size: int, sigma: float, generator: torch.Generator) -> torch.Tensor:
    """Return smooth random displacements ``(n, size, size, 2)`` in grid units.

    Gaussian noise on a coarse and a finer lattice, enlarged with cubic interpolation (after the 5 x 5 lattice warp of
    the first open face swappers). The noise is drawn even where ``sigma`` is 0, so that the strength of the warp does
    not change which faces and turns come next.

    Args:
        n: faces.
        size: side, pixels.
        sigma: standard deviation, share of the side; 1 share is 2 grid units.
        generator: source of the noise.
    """
    device = generator.device
    field = torch.zeros(n, 2, size, size, device=device)
    for lattice, share in ((5, 0.8), (9, 0.4)):
        noise = torch.randn((n, 2, lattice, lattice), generator=generator, device=device)
        if sigma:
            # Cubic interpolation is linear and separable: two products with its matrix are faster than enlarging.
            eye = torch.eye(lattice, device=device)[None]  # (1, lattice, lattice)
            basis = F.interpolate(eye[:, :, :, None], (size, 1), mode="bicubic", align_corners=True)[0, :, :, 0]
            field += basis.T @ noise @ basis * (share * 2 * sigma)  # (n, 2, S, S)
    return field.permute(0, 2, 3, 1)


def light_field(n: int, size: int, amount: float, generator: torch.Generator) -> torch.Tensor:
    """Return a random gain a pixel, ``(n, 3, size, size)``: level, slope across and down, and a third as much tint."""
    level = uniform((n, 3, 1, 1), -amount / 3, amount / 3, generator) + uniform(
        (n, 1, 1, 1), -amount, amount, generator
    )
    slope = uniform((n, 2, 1, 1), -amount, amount, generator)
    ramp = torch.linspace(-1, 1, size, device=generator.device)
    across, down = slope[:, :1] * ramp.view(1, 1, 1, size), slope[:, 1:] * ramp.view(1, 1, size, 1)
    return torch.exp(level + across + down)


def jitter(images: torch.Tensor, amount: float, generator: torch.Generator) -> torch.Tensor:
    """Change contrast about the mean, brightness and tint by up to ``amount``; stays in [0, 1]."""
    n = len(images)
    contrast = 1 + uniform((n, 1, 1, 1), -amount, amount, generator)
    offset = uniform((n, 1, 1, 1), -amount, amount, generator) * 0.5
    tint = 1 + uniform((n, 3, 1, 1), -amount, amount, generator)
    mean = images.mean(dim=(2, 3), keepdim=True)
    return (((images - mean) * contrast + mean) * tint + offset).clamp(0, 1)


def blur(images: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Blur each picture with a Gaussian of its own.

    Args:
        images: ``(B, C, S, S)``.
        sigma: ``(B,)`` pixels, >= 0; nothing is left beyond three of the largest.
    """
    radius = max(1, math.ceil(3 * float(sigma.max())))
    at = torch.arange(-radius, radius + 1, device=images.device).float()
    kernel = torch.exp(-0.5 * (at / sigma.clamp_min(1e-3)[:, None]) ** 2)  # (B, K)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(images.shape[1], 0)[
        :, None, None
    ]  # (BC, 1, 1, K)
    flat = images.reshape(1, -1, *images.shape[2:])  # (1, BC, S, S)
    flat = F.conv2d(F.pad(flat, (radius, radius, 0, 0), mode="replicate"), kernel, groups=flat.shape[1])
    flat = F.conv2d(F.pad(flat, (0, 0, radius, radius), mode="replicate"), kernel.transpose(2, 3), groups=flat.shape[1])
    return flat.reshape(images.shape)


def add_noise(images: torch.Tensor, sigma: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Add grain of deviation ``sigma`` ``(B,)``, the same for all channels by two thirds, clipped to [0, 1]."""
    size = (len(images), 1, *images.shape[2:])
    grey = torch.randn(size, generator=generator, device=images.device)
    tint = torch.randn(images.shape, generator=generator, device=images.device)
    return (images + sigma.view(-1, 1, 1, 1) * (0.8 * grey + 0.6 * tint)).clamp(0, 1)


def compress(images: torch.Tensor, strength: torch.Tensor) -> torch.Tensor:
    """Quantise the cosine transform of each 8 x 8 block, as JPEG does; no gradient passes.

    Args:
        images: ``(B, C, S, S)``, S a multiple of 8.
        strength: ``(B,)`` >= 0, multiplies the table of quality 50; 0 leaves a picture as it is.
    """
    b, c, s, _ = images.shape
    n = torch.arange(BLOCK, device=images.device).float()
    basis = torch.cos((2 * n[None] + 1) * n[:, None] * torch.pi / (2 * BLOCK)) * math.sqrt(2 / BLOCK)  # (8, 8)
    basis[0] /= math.sqrt(2)
    table = torch.tensor(QUANTISATION, device=images.device) / 255  # (8, 8)
    step = (table * strength.view(-1, 1, 1)).clamp_min(1e-6).view(b, 1, 1, 1, BLOCK, BLOCK)
    blocks = images.reshape(b, c, s // BLOCK, BLOCK, s // BLOCK, BLOCK).transpose(3, 4)  # (B, C, S/8, S/8, 8, 8)
    levels = basis @ (blocks - MIDDLE) @ basis.T
    back = basis.T @ ((levels / step).round() * step) @ basis + MIDDLE
    return back.transpose(3, 4).reshape(images.shape).clamp(0, 1)


def occlude(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Put a soft-edged bar or disc of one colour, as wide as a finger or a hand, somewhere into each picture."""
    b, _, s, _ = images.shape
    at = torch.linspace(-1, 1, s, device=images.device)
    x, y = at.view(1, 1, 1, s), at.view(1, 1, s, 1)
    middle, angle = uniform((b, 2, 1, 1, 1), -0.9, 0.9, generator), uniform((b, 1, 1, 1), 0, torch.pi, generator)
    cos, sin, dx, dy = angle.cos(), angle.sin(), x - middle[:, 0], y - middle[:, 1]
    half = torch.stack([uniform((b, 1, 1, 1), 0.15, 1.2, generator), uniform((b, 1, 1, 1), 0.06, 0.4, generator)])
    far = ((cos * dx + sin * dy) / half[0]) ** 4 + ((cos * dy - sin * dx) / half[1]) ** 4  # (B, 1, S, S), 1 on the edge
    cover = ((1.1 - far) / 0.2).clamp(0, 1)
    colour = uniform((b, 3, 1, 1), 0.02, 0.9, generator) * (0.4 + 0.6 * uniform((b, 1, 1, 1), 0, 1, generator))
    shade = (1 + 0.3 * dx * uniform((b, 1, 1, 1), -1, 1, generator)).clamp_min(0)
    return images + cover * ((colour * shade).clamp(0, 1) - images)


def spoil(images: torch.Tensor, amounts: Amounts, generator: torch.Generator) -> torch.Tensor:
    """Spoil some pictures with an occluder, some with blur, some with grain, some with compression.

    Args:
        images: ``(B, 3, S, S)`` in [0, 1].
        amounts: (occlude, blur, noise, jpeg): the share of pictures occluded, in [0, 1]; the largest blur, share of the
            side; the largest grain, in [0, 1]; the largest `compress` strength. Half the pictures get each of the last
            three, at random; the others stay free of it.
        generator: source of all randomness.
    """
    covered, softest, grain, jpeg = amounts
    draws = uniform((7, len(images)), 0, 1, generator).to(images.device)
    out = images
    if covered:
        chosen = draws[0] < covered
        out = torch.where(chosen.view(-1, 1, 1, 1), occlude(out, generator), out)
    for share, strength, most, change in (
        (draws[1], draws[2], softest * images.shape[-1], blur),
        (draws[3], draws[4], grain, lambda x, s: add_noise(x, s, generator)),
        (draws[5], draws[6], jpeg, compress),
    ):
        chosen = torch.nonzero(share < 0.5).flatten()
        if most and len(chosen):
            out = out.index_copy(0, chosen, change(out[chosen], strength[chosen] ** 2 * most))
    return out
