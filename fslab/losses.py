"""What training minimises: pixels, structure, edges, features, masks, and how alike the people's codes are.

Image losses take ``(B, C, S, S)`` in [0, 1] and a pixel weight ``(B, 1, S, S)`` >= 0, and return a weighted mean.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Annotated

import timm
import torch
import torch.nn.functional as F
from torch import nn
from typing_extensions import Doc

from fslab.encoders import load_pretrained


@dataclass(frozen=True)
class LossConfig:
    """Weights of the parts of the training loss; 0 switches a part off."""

    l1: Annotated[float, Doc("weight of the absolute difference of pixels")] = 1.0
    mse: Annotated[float, Doc("weight of the squared difference of pixels")] = 0.0
    dssim: Annotated[float, Doc("weight of the structural difference")] = 1.0
    gradient: Annotated[float, Doc("weight of the difference of edges")] = 1.0
    perceptual: Annotated[float, Doc("weight of the difference of a pretrained network's features")] = 0.0
    perceptual_net: Annotated[str, Doc("timm name of that network")] = "mobilenetv2_100"
    adversarial: Annotated[float, Doc("weight of a patch critic's judgement; sharpens long trainings")] = 0.0
    adversarial_from: Annotated[float, Doc("share of the training after which the critic joins in")] = 0.75
    mask: Annotated[float, Doc("weight of the mask's cross-entropy")] = 0.1
    match: Annotated[float, Doc("weight of matching the moments of the people's codes; keeps identity out of them")] = (
        0.1
    )

    def __post_init__(self):
        for f in fields(self):
            if f.name != "perceptual_net" and getattr(self, f.name) < 0:
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


class PerceptualLoss(nn.Module):
    """Difference of a pretrained network's features, at strides 2, 4 and 8 or the first three it has.

    Features are scaled to unit length over their channels at each place, as in Zhang et al. (2018), "The unreasonable
    effectiveness of deep features", CVPR, eq. 1, but without learned channel weights: this is not LPIPS.
    ``weights`` says where the network's weights came from, see `fslab.encoders.load_pretrained`.
    """

    def __init__(self, name: str = "mobilenetv2_100"):
        super().__init__()
        self.net = timm.create_model(name, pretrained=False, features_only=True, out_indices=(0, 1, 2))
        self.weights = load_pretrained(self.net, name, (0, 1, 2))
        settings = timm.get_pretrained_cfg(name)
        self.register_buffer("mean", torch.tensor(settings.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(settings.std).view(1, 3, 1, 1))
        self.eval().requires_grad_(False)

    def forward(self, x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Return the weighted mean squared distance of unit features, >= 0, summed over channels."""
        maps = self.net((torch.cat([x, y]) - self.mean) / self.std)  # 3 x (2B, C, S/2^i, S/2^i)
        total = x.new_zeros(())
        for features in maps:
            a, b = F.normalize(features, dim=1, eps=1e-6).chunk(2)
            resized = F.adaptive_avg_pool2d(weight, features.shape[-2:])  # (B, 1, S/2^i, S/2^i)
            total = total + weighted_mean((a - b).square().sum(dim=1, keepdim=True), resized)
        return total / len(maps)


class PatchCritic(nn.Module):
    """Judges small patches of a picture: high for photographs, low for drawn ones.

    Isola et al. (2017), "Image-to-image translation with conditional adversarial networks", CVPR, section 3.2.2.
    """

    def __init__(self, width: int = 32):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, width, 4, 2, 1), nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 4, 2, 1), nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 4 * width, 3, 1, 1), nn.LeakyReLU(0.2),
            nn.Conv2d(4 * width, 1, 3, 1, 1),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Judge ``(B, 3, S, S)`` in [0, 1]: ``(B, 1, S/4, S/4)``, unbounded."""
        return self.layers(x * 2 - 1)  # (B, 1, S/4, S/4)


def critic_loss(real: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
    """Return the critic's hinge loss on its scores, >= 0.

    Lim & Ye (2017), "Geometric GAN", arXiv:1705.02894, eq. 14.
    """
    return F.relu(1 - real).mean() + F.relu(1 + drawn).mean()


def image_loss(rgb: torch.Tensor, target: torch.Tensor, weight: torch.Tensor, config: LossConfig) -> torch.Tensor:
    """Return the weighted sum of the image parts of the loss."""
    parts = {"l1": l1_loss, "mse": mse_loss, "dssim": dssim_loss, "gradient": gradient_loss}
    used = [getattr(config, name) * part(rgb, target, weight) for name, part in parts.items() if getattr(config, name)]
    return sum(used, rgb.new_zeros(()))
