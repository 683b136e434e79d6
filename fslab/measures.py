"""How near a picture is to the truth: plain functions on pixels, each with its formula, range and better way.

Images are frames or crops of one size, uint8 or float on the scale 0 to 255; a mask weighs pixels, 1 = face, and is the
same for everything that is compared. Where nothing can be compared (an empty mask, a truth that equals the target) the
answer is NaN.
"""

from dataclasses import dataclass, fields

import cv2
import numpy as np

PSNR_MAX = 100.0  # dB; identical images have no finite PSNR, and 8 bits cannot show more
SSIM_RADIUS = 5  # pixels an SSIM window reaches from its centre
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # fine to coarse: Wang, Simoncelli and Bovik (2003)
_GREY = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as in Wang's reference code
_XYZ = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
_WHITE = np.array([0.95047, 1.0, 1.08883])  # D65, 2 degrees, the white of sRGB
_TO_XYZ = (_XYZ / _WHITE[:, None]).T.astype(np.float32)


def masked_mean(values: np.ndarray, mask: np.ndarray) -> float:
    """Return ``sum(m v) / sum(m)`` of values and mask ``(..., H, W)``; NaN if the mask is empty."""
    return _divide(_total(values, mask), float(np.sum(mask, dtype=np.float64)))


def _inside(mask: np.ndarray, *images: np.ndarray) -> list[np.ndarray]:
    """Return weights ``(n, 1)`` and, of each image, pixels ``(n, 3)``, where the mask is not 0; float32."""
    if wrong := [image.shape for image in images if image.shape != (*mask.shape, 3)]:
        raise ValueError(f"images must be the mask's {mask.shape} with 3 channels, got {wrong[0]}")
    weights = np.asarray(mask, np.float32).reshape(-1)
    there = np.flatnonzero(weights)
    pixels = (image.reshape(-1, 3).take(there, axis=0).astype(np.float32) for image in images)
    return [weights[there, None], *pixels]


def _total(values: np.ndarray, weights: np.ndarray) -> float:
    return float(np.sum(values * weights, dtype=np.float64))


def _mean(values: np.ndarray, weights: np.ndarray) -> float:
    return _divide(_total(values, weights), 3 * float(np.sum(weights, dtype=np.float64)))


def _divide(a: float, b: float) -> float:
    return a / b if b > 0 else float("nan")


@dataclass(frozen=True)
class TruthSums:
    """What closure, leak, PSNR and sharpness add up over pixels; sums of frames are the sums of their clip.

    With swap s, target t, truth g and mask m: ``weight`` = 3 sum m, ``error`` = sum m (s - g)^2, ``gap`` =
    sum m (t - g)^2, ``cross`` = sum m (s - g)(t - g), ``detail`` and ``truth_detail`` the gradient energies of s and g.
    """

    weight: float = 0.0
    error: float = 0.0
    gap: float = 0.0
    cross: float = 0.0
    detail: float = 0.0
    truth_detail: float = 0.0

    @classmethod
    def of(cls, swap: np.ndarray, target: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> "TruthSums":
        """Add up one frame or a stack: images ``(..., H, W, 3)``, mask ``(..., H, W)``."""
        weights, s, t, g = _inside(mask, swap, target, truth)
        off, gap = s - g, t - g
        return cls(
            3 * float(np.sum(weights, dtype=np.float64)),
            _total(off * off, weights), _total(gap * gap, weights), _total(off * gap, weights),
            gradient_power(swap, mask), gradient_power(truth, mask),
        )  # fmt: skip

    def __add__(self, other: "TruthSums") -> "TruthSums":
        return TruthSums(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def closure(self) -> float:
        """See `closure`."""
        return 1 - _divide(self.error, self.gap)

    @property
    def leak(self) -> float:
        """See `leak`."""
        return _divide(self.cross, self.gap)

    @property
    def psnr(self) -> float:
        """See `psnr`."""
        mse = _divide(self.error, self.weight)
        return min(10 * np.log10(255**2 / mse), PSNR_MAX) if mse != 0 else PSNR_MAX

    @property
    def sharpness(self) -> float:
        """See `sharpness_ratio`."""
        return _divide(self.detail, self.truth_detail)


def closure(swap: np.ndarray, target: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> float:
    """Return the share of the gap between target and truth that the swap closes.

    ``1 - sum m (s - g)^2 / sum m (t - g)^2``, over all frames and pixels. 1 perfect, 0 the untouched target, below 0
    worse than that, without bound. Higher is better. It is regression's R^2 with the target as the null model.

    Args:
        swap: ``(..., H, W, 3)``, what is judged.
        target: the footage, untouched.
        truth: the right answer.
        mask: ``(..., H, W)`` in [0, 1].
    """
    return TruthSums.of(swap, target, truth, mask).closure


def leak(swap: np.ndarray, target: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> float:
    """Return how much of the target is left in the swap.

    The least-squares weight w in ``s - g = w (t - g)``: ``sum m (s - g)(t - g) / sum m (t - g)^2``. 0 nothing is left,
    1 all of it, below 0 the swap overshoots; near 0 is better. Blur alone also counts as leak where target and truth
    differ in detail. Arguments as in `closure`.
    """
    return TruthSums.of(swap, target, truth, mask).leak


def psnr(swap: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio in the mask, dB, at most `PSNR_MAX`; higher is better.

    ``10 log10(255^2 / MSE)``; over a clip the squared error is averaged first, then the logarithm is taken.
    """
    return TruthSums.of(swap, truth, truth, mask).psnr


def gradient_power(image: np.ndarray, mask: np.ndarray) -> float:
    """Return ``sum m (gx^2 + gy^2)`` of the grey ``(..., H, W, 3)`` image, central differences, squared grey levels."""
    grey = np.asarray(image, np.float32) @ _GREY
    gx = (grey[..., 1:-1, 2:] - grey[..., 1:-1, :-2]) / 2
    gy = (grey[..., 2:, 1:-1] - grey[..., :-2, 1:-1]) / 2
    return float(np.sum((gx * gx + gy * gy) * mask[..., 1:-1, 1:-1], dtype=np.float64))


def sharpness_ratio(swap: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> float:
    """Return the swap's gradient energy over the truth's: 1 as sharp, below softer, above noisier; near 1 is better.

    Blur that PSNR rewards cannot hide here. Gradient energy as a focus measure: Subbarao, Choi and Nikzad (1993),
    Optical Engineering 32(11).
    """
    return TruthSums.of(swap, truth, truth, mask).sharpness


def _ssim_terms(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return SSIM's two factors at each pixel of grey images: luminance, and contrast times structure."""

    def blur(x: np.ndarray) -> np.ndarray:
        size = 2 * SSIM_RADIUS + 1
        return cv2.GaussianBlur(x, (size, size), 1.5, borderType=cv2.BORDER_REFLECT)

    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    covariance = blur(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return luminance, (2 * covariance + c2) / (var_a + var_b + c2)


def _grey(image: np.ndarray) -> np.ndarray:
    image = np.asarray(image, np.float32)
    return image @ _GREY if image.ndim == 3 else image


def gaussian_ssim_map(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the structural similarity at each pixel, ``(H, W)`` float32 in [-1, 1]; 1 = alike.

    Wang et al. (2004), IEEE TIP 13(4), eq. 13: Gaussian window 11 x 11, sigma 1.5, K1 = 0.01, K2 = 0.03, on grey.

    Args:
        a: ``(H, W, 3)`` or grey ``(H, W)``.
        b: the same shape.
    """
    luminance, structure = _ssim_terms(_grey(a), _grey(b))
    return luminance * structure


def ssim(swap: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> float:
    """Return the mean of `gaussian_ssim_map` in the mask, in [-1, 1]; higher is better.

    The windows reach `SSIM_RADIUS` pixels beyond the mask: give the images that margin.
    """
    return masked_mean(gaussian_ssim_map(swap, truth), mask)


def ms_ssim(swap: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> float:
    """Return the multi-scale SSIM in the mask, in [0, 1]; higher is better.

    ``prod_j c_j^w_j``, with c_j the mean in the mask of contrast times structure after j halvings, and of the whole
    SSIM at the coarsest scale; a negative mean counts as 0. Wang, Simoncelli and Bovik (2003), "Multiscale structural
    similarity for image quality assessment", Asilomar, eq. 7 and their weights. All five scales need a face of 176
    pixels: of a smaller one only the finer scales are used, as many as leave the mask's box one window (11 pixels)
    wide, and their weights are scaled to sum to 1.

    Args:
        swap: ``(H, W, 3)`` or grey ``(H, W)``, with some margin around the mask.
        truth: the same shape.
        mask: ``(H, W)`` in [0, 1].
    """
    a, b, weights = _grey(swap), _grey(truth), np.asarray(mask, np.float32)
    rows, columns = (np.flatnonzero(weights.max(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return float("nan")
    side = 1 + min(rows[-1] - rows[0], columns[-1] - columns[0])
    n_scales = int(np.clip(1 + np.log2(side / (2 * SSIM_RADIUS + 1)), 1, len(MS_SSIM_WEIGHTS)))
    exponents = np.array(MS_SSIM_WEIGHTS[:n_scales]) / sum(MS_SSIM_WEIGHTS[:n_scales])
    product = 1.0
    for scale, exponent in enumerate(exponents, start=1):
        luminance, structure = _ssim_terms(a, b)
        mean = masked_mean(structure if scale < n_scales else luminance * structure, weights)
        product *= float(np.clip(mean, 0, 1)) ** exponent  # rounding may lift it above 1 by a hair
        a, b, weights = (_halved(x) for x in (a, b, weights))
    return float(product)


def _halved(x: np.ndarray) -> np.ndarray:
    """Return the means of 2 x 2 blocks of ``(H, W)``; an odd last row or column is left out."""
    x = x[: x.shape[0] // 2 * 2, : x.shape[1] // 2 * 2]
    return (x[::2, ::2] + x[1::2, ::2] + x[::2, 1::2] + x[1::2, 1::2]) / 4


def mean_difference(a: np.ndarray, b: np.ndarray, mask: np.ndarray) -> float:
    """Return ``mean |a - b|`` over mask and channels, grey levels, >= 0; images ``(..., H, W, 3)``."""
    weights, a, b = _inside(mask, a, b)
    return _mean(np.abs(a - b), weights)


def edge_band(mask: np.ndarray, width: float) -> np.ndarray:
    """Return where the mask's edge is at most ``width`` pixels away, inside or outside, ``(H, W)`` bool.

    Where the mask runs out of the image it has no edge.
    """
    hard = (np.asarray(mask) > 0.5).astype(np.uint8)
    if not hard.any() or hard.all():
        return np.zeros(hard.shape, bool)
    inside, outside = (cv2.distanceTransform(x, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) for x in (hard, 1 - hard))
    return np.maximum(inside, outside) <= width


def band_error(swap: np.ndarray, truth: np.ndarray, mask: np.ndarray, width: float = 8) -> float:
    """Return ``mean |s - g|`` within ``width`` pixels of the mask's edge, grey levels, >= 0; lower is better.

    A test of the paste more than of the network: seams, halos and colour steps lie here.
    """
    return mean_difference(swap, truth, edge_band(mask, width))


def lab(pixels: np.ndarray) -> np.ndarray:
    """Return CIE L*a*b* of sRGB ``(..., 3)`` on the scale 0 to 255, white D65; L in [0, 100], a and b within 130 of 0.

    IEC 61966-2-1 to linear light, then CIE 15:2004, section 8.2.1.
    """
    share = np.clip(np.asarray(pixels, np.float32) / 255, 0, 1)
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    xyz = linear @ _TO_XYZ
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack(
        [116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1
    )  # fmt: skip


def ciede2000(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the colour difference of L*a*b* values ``(..., 3)``, >= 0; about 1 can just be seen side by side.

    CIEDE2000 with k_L = k_C = k_H = 1: Sharma, Wu and Dalal (2005), Color Research and Application 30(1), eqs. 2-22.
    """
    (l1, a1, b1), (l2, a2, b2) = (np.moveaxis(np.asarray(x), -1, 0) for x in (a, b))
    chroma7 = ((np.hypot(a1, b1) + np.hypot(a2, b2)) / 2) ** 7
    stretch = 1 + 0.5 * (1 - np.sqrt(chroma7 / (chroma7 + 25.0**7)))
    c1, c2 = np.hypot(stretch * a1, b1), np.hypot(stretch * a2, b2)
    h1, h2 = np.degrees(np.arctan2(b1, stretch * a1)) % 360, np.degrees(np.arctan2(b2, stretch * a2)) % 360
    both = c1 * c2 > 0  # grey has no hue
    turn = np.where(both, h2 - h1 - 360 * np.sign(h2 - h1) * (np.abs(h2 - h1) > 180), 0)
    mean_h = np.where(both, h1 + turn / 2, h1 + h2) % 360
    mean_l, mean_c = (l1 + l2) / 2, (c1 + c2) / 2
    hue = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn / 2))

    def cos(degrees: np.ndarray) -> np.ndarray:
        return np.cos(np.radians(degrees))

    t = 1 - 0.17 * cos(mean_h - 30) + 0.24 * cos(2 * mean_h) + 0.32 * cos(3 * mean_h + 6) - 0.2 * cos(4 * mean_h - 63)
    s_l = 1 + 0.015 * (mean_l - 50) ** 2 / np.sqrt(20 + (mean_l - 50) ** 2)
    s_c, s_h = 1 + 0.045 * mean_c, 1 + 0.015 * mean_c * t
    blue = np.radians(60 * np.exp(-(((mean_h - 275) / 25) ** 2)))
    rotate = -2 * np.sqrt(mean_c**7 / (mean_c**7 + 25.0**7)) * np.sin(blue)
    dl, dc, dh = (l2 - l1) / s_l, (c2 - c1) / s_c, hue / s_h
    return np.sqrt(np.clip(dl**2 + dc**2 + dh**2 + rotate * dc * dh, 0, None))


def colour_difference(swap: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    """Return how far the swap's colours are off, CIEDE2000 units, >= 0; lower is better.

    Images ``(H, W, 3)``, mask ``(H, W)``.

    Returns:
        The *shift*, between the two means of L*a*b* over the mask: a cast or a wrong exposure, which no detail hides;
        and the *error*, the mean over pixels, which wrong detail raises as well. The shift is hardly ever the larger.
    """
    weights, s, g = _inside(mask, swap, truth)
    total = float(np.sum(weights, dtype=np.float64))
    if total == 0:
        return float("nan"), float("nan")
    s, g = lab(s), lab(g)
    means = [np.sum(weights * x, axis=0, dtype=np.float64) / total for x in (s, g)]
    return float(ciede2000(*means)), _total(ciede2000(s, g), weights[:, 0]) / total


def flicker(
    swap: np.ndarray, swap_before: np.ndarray, truth: np.ndarray, truth_before: np.ndarray, mask: np.ndarray
) -> float:
    """Return how much the swap changes between frames in ways the truth does not, grey levels, >= 0; lower is better.

    ``mean |(s_t - s_t-1) - (g_t - g_t-1)|`` in the mask of frame t. A constant error does not flicker.
    """
    weights, s, s1, g, g1 = _inside(mask, swap, swap_before, truth, truth_before)
    return _mean(np.abs((s - s1) - (g - g1)), weights)


def warping_error(now: np.ndarray, after: np.ndarray, flow: np.ndarray, mask: np.ndarray) -> float:
    """Return how much a surface point changes its colour from one frame to the next, grey levels, >= 0.

    ``mean |x_t+1(p + flow(p)) - x_t(p)|`` over the pixels p of the mask whose flow is known and stays in the picture,
    x_t+1 read bilinearly. Light and rounding change the truth too: compare with its own; less than that is blur. With
    exact instead of estimated flow: Lai et al. (2018), "Learning blind video temporal consistency", ECCV, eq. 7.

    Args:
        now: ``(H, W, 3)``, frame t.
        after: the same box of frame t + 1.
        flow: ``(H, W, 2)`` pixels (x, y) from t to t + 1; NaN where not known.
        mask: ``(H, W)`` in [0, 1], of frame t.
    """
    height, width = mask.shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    to_x, to_y = x + flow[..., 0].astype(np.float32), y + flow[..., 1].astype(np.float32)
    known = (to_x >= 0) & (to_x <= width - 1) & (to_y >= 0) & (to_y <= height - 1)  # false where NaN
    to_x, to_y = (np.where(known, to, 0) for to in (to_x, to_y))
    warped = cv2.remap(np.asarray(after, np.float32), to_x, to_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return mean_difference(now, warped, np.where(known, mask, 0))


def second_difference(now: np.ndarray, before: np.ndarray, earlier: np.ndarray, mask: np.ndarray) -> float:
    """Return ``mean |x_t - 2 x_t-1 + x_t-2|`` in the mask of frame t, grey levels, >= 0.

    Even motion cancels to first order, trembling does not. As a ratio to the footage's own it is *unsteadiness*: 1 as
    the footage, above 1 trembling, below 1 smoother than life.
    """
    weights, x, x1, x2 = _inside(mask, now, before, earlier)
    return _mean(np.abs(x - 2 * x1 + x2), weights)


def polygon_mask(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return ``(H, W)`` bool, true in the polygon ``(N, 2)``, pixels; what lies outside the image is cut off."""
    mask = np.zeros(size, np.uint8)
    cv2.fillPoly(mask, [np.round(np.asarray(points, np.float64) * 16).astype(np.int32)], 1, shift=4)
    return mask.astype(bool)
