"""What training minimises: pixels, structure, edges, masks, and how alike the people's codes are.

Image losses take ``(B, C, S, S)`` in [0, 1] and a pixel weight ``(B, 1, S, S)`` >= 0, and return a weighted mean.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Annotated

import torch
import torch.nn.functional as F
from typing_extensions import Doc


@dataclass(frozen=True)
class LossConfig:
    """Weights of the parts of the training loss; 0 switches a part off."""

    l1: Annotated[float, Doc("weight of the absolute difference of pixels")] = 1.0
    mse: Annotated[float, Doc("weight of the squared difference of pixels")] = 0.0
    dssim: Annotated[float, Doc("weight of the structural difference")] = 1.0
    gradient: Annotated[float, Doc("weight of the difference of edges")] = 1.0
    mask: Annotated[float, Doc("weight of the mask's cross-entropy")] = 0.1
    match: Annotated[float, Doc("weight of matching the moments of the people's codes; keeps identity out of them")] = (
        0.1
    )

    def __post_init__(self):
        for f in fields(self):
            if getattr(self, f.name) < 0:
                raise ValueError(f"the loss weight {f.name} must be >= 0, got {getattr(self, f.name)}")


def weighted_mean(values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return ``sum(w * v) / sum(w)`` with the weight spread over channels: ``(B, C, S, S), (B, 1, S, S) -> ()``."""
    return (values * weight).sum() / (weight.sum() * values.shape[1]).clamp_min(1e-8)


def l1_loss(x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return the weighted mean absolute difference, >= 0."""
    return weighted_mean((x - y).abs(), weight)


def mse_loss(x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return the weighted mean squared difference, >= 0."""
    return weighted_mean((x - y).square(), weight)


def _smooth(x: torch.Tensor, window: int) -> torch.Tensor:
    """Average over ``window`` x ``window`` pixels, no padding; in two 1-D passes, as 2-D pooling is slow on CPUs."""
    channels = x.shape[1]
    kernel = x.new_full((channels, 1, 1, window), 1 / window)
    return F.conv2d(F.conv2d(x, kernel, groups=channels), kernel.transpose(2, 3), groups=channels)


def ssim_map(x: torch.Tensor, y: torch.Tensor, window: int = 7) -> torch.Tensor:
    """Return the structural similarity at each place, in [-1, 1], 1 = equal; higher is better.

    Wang et al. (2004), "Image quality assessment", IEEE TIP 13(4), eq. 13, with a uniform window, sample covariance
    and C1 = 0.01^2, C2 = 0.03^2, as scikit-image's `structural_similarity` for data in [0, 1].

    Args:
        x: ``(B, C, S, S)`` in [0, 1].
        y: the same shape.
        window: side of the window, pixels, odd.

    Returns:
        ``(B, C, S - window + 1, S - window + 1)``.
    """
    n = window * window
    mu_x, mu_y, xx, yy, xy = _smooth(torch.cat([x, y, x * x, y * y, x * y], 1), window).chunk(5, dim=1)
    unbias = n / (n - 1)
    var_x, var_y, cov = (xx - mu_x * mu_x) * unbias, (yy - mu_y * mu_y) * unbias, (xy - mu_x * mu_y) * unbias
    c1, c2 = 0.01**2, 0.03**2
    return (2 * mu_x * mu_y + c1) * (2 * cov + c2) / ((mu_x * mu_x + mu_y * mu_y + c1) * (var_x + var_y + c2))


def dssim_loss(x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, window: int = 7) -> torch.Tensor:
    """Return the weighted mean of ``(1 - SSIM) / 2`` of the grey pictures, in [0, 1]; colour is left to the others."""
    edge = window // 2
    x, y = x.mean(dim=1, keepdim=True), y.mean(dim=1, keepdim=True)
    return weighted_mean((1 - ssim_map(x, y, window)) / 2, weight[:, :, edge:-edge, edge:-edge])


def gradient_loss(x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return the weighted mean absolute difference of neighbour differences, across plus down, >= 0."""
    error = x - y
    across = weighted_mean((error[..., :, 1:] - error[..., :, :-1]).abs(), weight[..., :, 1:])
    down = weighted_mean((error[..., 1:, :] - error[..., :-1, :]).abs(), weight[..., 1:, :])
    return across + down


def mask_loss(mask: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the mean binary cross-entropy of masks in [0, 1], >= 0."""
    return F.binary_cross_entropy(mask.clamp(1e-6, 1 - 1e-6), target)


def moment_matching(codes: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return how far the people's codes are from having the same mean and spread, >= 0; 0 for one person.

    For every two people: the mean over channels and places of ``(mean_a - mean_b)^2 + (std_a - std_b)^2``, in units of
    the codes' common variance so that shrinking the codes does not help. People seen with like poses, expressions and
    light must then have like codes, which leaves their identity to the decoders (CORAL: Sun & Saenko, 2016,
    arXiv:1607.01719, with the diagonal of eq. 1 and the mean).

    Args:
        codes: ``(B, C, h, w)`` of each person.
    """
    if len(codes) < 2:
        return codes[0].new_zeros(())
    spread = torch.cat([c.detach() for c in codes]).var(dim=(0, 2, 3), keepdim=True).clamp_min(1e-6)  # (1, C, 1, 1)
    means = [c.mean(dim=0, keepdim=True) for c in codes]
    stds = [(c.var(dim=(0, 2, 3), keepdim=True) + 1e-6).sqrt() for c in codes]
    total, pairs = codes[0].new_zeros(()), 0
    for i in range(len(codes)):
        for j in range(i):
            gap = (means[i] - means[j]).square() / spread + (stds[i] - stds[j]).square() / spread
            total, pairs = total + gap.mean(), pairs + 1
    return total / pairs


def image_loss(rgb: torch.Tensor, target: torch.Tensor, weight: torch.Tensor, config: LossConfig) -> torch.Tensor:
    """Return the weighted sum of the image parts of the loss."""
    parts = {"l1": l1_loss, "mse": mse_loss, "dssim": dssim_loss, "gradient": gradient_loss}
    used = [getattr(config, name) * part(rgb, target, weight) for name, part in parts.items() if getattr(config, name)]
    return sum(used, rgb.new_zeros(()))
