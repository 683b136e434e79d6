"""Differences of pictures, point by point: values, structure, edges, masks."""

from functools import partial

import torch
import torch.nn.functional as F

from fslab.losses.config import LossConfig


def weighted_mean(values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return ``sum(w * v) / sum(w)`` with the weight spread over channels: ``(B, C, S, S), (B, 1, S, S) -> ()``."""
    return (values * weight).sum() / (weight.sum() * values.shape[1]).clamp_min(1e-8)


def l1_loss(x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return the weighted mean of ``|x - y|``, in [0, 1].

    Its minimum is the median of what a pixel may be, so it draws sharper edges than squares do: Zhao et al. (2017),
    "Loss functions for image restoration with neural networks", IEEE TCI 3(1), eq. 2.
    """
    return weighted_mean((x - y).abs(), weight)


def mse_loss(x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return the weighted mean of ``(x - y)^2``, in [0, 1]; PSNR is ``-10 log10`` of it.

    Its minimum is the mean of what a pixel may be: blur, where that is uncertain (Zhao et al. 2017, section III.A).
    """
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


def dssim_loss(
    x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, window: int = 7, scales: int = 1
) -> torch.Tensor:
    """Return the weighted mean of ``(1 - SSIM) / 2`` of the grey pictures, in [0, 1]; colour is left to the others.

    With more than one scale, the mean of that over the picture and its halves, quarters and so on: the pyramid of Wang,
    Simoncelli & Bovik (2003), "Multi-scale structural similarity", Asilomar, section 3, but averaged alike and not
    multiplied (eq. 7), so that every pixel keeps its weight and one bad scale does not hide the others. A coarse scale
    sees shading that a window of 7 pixels takes for flat.

    Args:
        x: ``(B, C, S, S)`` in [0, 1].
        y: the same shape.
        weight: ``(B, 1, S, S)`` >= 0.
        window: side of the window, pixels, odd.
        scales: sizes to compare at; the smallest, ``S / 2^(scales - 1)``, must hold a window.

    Raises:
        ValueError: if it does not.
    """
    if min(x.shape[-2:]) >> (scales - 1) < window:
        raise ValueError(f"{scales} scales of a picture of {min(x.shape[-2:])} pixels leave no window of {window}")
    edge, total = window // 2, x.new_zeros(())
    x, y = x.mean(dim=1, keepdim=True), y.mean(dim=1, keepdim=True)
    for scale in range(scales):
        if scale:
            x, y, weight = (F.avg_pool2d(planes, 2) for planes in (x, y, weight))  # (B, 1, S / 2^scale, S / 2^scale)
        total = total + weighted_mean((1 - ssim_map(x, y, window)) / 2, weight[:, :, edge:-edge, edge:-edge])
    return total / scales


def gradient_loss(x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return the weighted mean absolute difference of neighbour differences, across plus down, in [0, 4].

    Mathieu, Couprie & LeCun (2016), "Deep multi-scale video prediction beyond mean square error", arXiv:1511.05440,
    eq. 6 with alpha = 1, but of the differences themselves and not of their sizes.
    """
    error = x - y
    across = weighted_mean((error[..., :, 1:] - error[..., :, :-1]).abs(), weight[..., :, 1:])
    down = weighted_mean((error[..., 1:, :] - error[..., :-1, :]).abs(), weight[..., 1:, :])
    return across + down


def mask_loss(mask: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the mean binary cross-entropy ``-t log m - (1 - t) log(1 - m)`` of masks in [0, 1], in [0, 13.9].

    NaN where a mask is NaN; torch's own stops the program there, and on a GPU for good.
    """
    mask = mask.clamp(1e-6, 1 - 1e-6)
    return -(target * mask.log() + (1 - target) * (-mask).log1p()).mean()


def image_loss(rgb: torch.Tensor, target: torch.Tensor, weight: torch.Tensor, config: LossConfig) -> torch.Tensor:
    """Return the weighted sum of the parts of the loss that compare pixels."""
    structure = partial(dssim_loss, scales=config.dssim_scales)
    parts = {"l1": l1_loss, "mse": mse_loss, "dssim": structure, "gradient": gradient_loss}
    used = [getattr(config, name) * part(rgb, target, weight) for name, part in parts.items() if getattr(config, name)]
    return sum(used, rgb.new_zeros(()))
