"""How good a swap is, as plain functions on arrays: one formula each, its range, and which way is better.

Images are frames or crops of one size, uint8 or float on the scale 0 to 255; a mask weighs pixels, 1 = face, and is the
same for everything that is compared. Where nothing can be compared (an empty mask, a truth that equals the target) the
answer is NaN.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal

import cv2
import numpy as np

PSNR_MAX = 100.0  # dB; identical images have no finite PSNR, and 8 bits cannot show more
SSIM_RADIUS = 5  # pixels an SSIM window reaches from its centre
_GREY = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as in Wang's reference code


@dataclass(frozen=True)
class Metric:
    """What a metric is called and how it reads.

    ``unit`` may be empty; ``better`` says which way; ``meaning`` is one sentence for people; ``needs_truth`` whether it
    exists only against a truth; ``perfect`` is the value of a perfect swap where that is fixed.
    """

    title: str
    unit: str
    better: Literal["higher", "lower", "near 0", "near 1"]
    meaning: str
    needs_truth: bool = False
    perfect: float | None = None
    digits: int = 3

    def text(self, value: float | None) -> str:
        """Return a value as people read it, without the unit; a dash where there is none."""
        if value is None or np.isnan(value):
            return "–"
        if self.unit == "%":
            return f"{100 * value:.0f}"
        return f"{value + 0.0:.{self.digits}f}".replace("-", "\N{MINUS SIGN}")


METRICS: dict[str, Metric] = {
    "closure": Metric(
        "Closure", "", "higher",
        "Share of the untouched footage's squared error to the truth, in the face, that the swap removes; below 0 is "
        "worse than doing nothing.", True, 1.0,
    ),
    "leak": Metric(
        "Leak", "", "near 0",
        "How much of what sets the replaced person apart is left in the face: 0 nothing, 1 everything; below 0 it "
        "overshoots.",
        True, 0.0,
    ),
    "identity_gap_closed": Metric(
        "Identity gap closed", "", "higher",
        "Share of the distance between the untouched face and the true one that is gone, for a face recogniser.",
        True, 1.0,
    ),
    "psnr": Metric(
        "PSNR", "dB", "higher",
        "Pixel accuracy of the face on a logarithmic scale; 6 dB more is half the error.", True, PSNR_MAX, 1,
    ),
    "ssim": Metric(
        "SSIM", "", "higher",
        "How alike face and truth are in local structure; lost detail lowers it more than a colour cast does.",
        True, 1.0,
    ),
    "sharpness": Metric(
        "Sharpness", "× truth", "near 1",
        "Fine detail in the face as a share of the truth's; below 1 is soft, above 1 noisy or over-sharpened.",
        True, 1.0, 2,
    ),
    "band_error": Metric(
        "Error at the edge", "grey levels", "lower",
        "Mean difference from the truth along the outline of the face, where a bad paste shows as a seam.",
        True, 0.0, 2,
    ),
    "flicker": Metric(
        "Flicker", "grey levels", "lower",
        "How much the face changes from frame to frame in ways the truth does not.", True, 0.0, 2,
    ),
    "flicker_relative": Metric(
        "Flicker, relative", "× untouched", "lower",
        "Flicker as a share of what the untouched footage scores by the same formula.", True, 0.0, 2,
    ),
    "identity_source": Metric(
        "Distance to the source", "", "lower",
        "How far the face is from the person put in, for a face recogniser; its usual threshold for one person is 0.6.",
    ),
    "identity_target": Metric(
        "Distance to the target", "", "higher",
        "How far the face is from the person replaced, for a face recogniser; near 0 it still sees them.",
    ),
    "pose_error": Metric(
        "Pose error", "degrees", "lower",
        "Mean difference of yaw, pitch and roll between the swapped face and the footage.", digits=2,
    ),
    "mouth_error": Metric(
        "Mouth error", "eye spans", "lower",
        "Difference in how far the mouth is open, as a share of the distance between the outer eye corners.",
    ),
    "eyes_error": Metric(
        "Eyes error", "eye widths", "lower",
        "Difference in how far the eyes are open, as a share of an eye's width.",
    ),
    "unsteadiness": Metric(
        "Unsteadiness", "× footage", "near 1",
        "Trembling of the face from frame to frame as a share of the footage's own; above 1 the swap trembles, below 1 "
        "it is too smooth.", digits=2,
    ),
    "share_swapped": Metric(
        "Frames swapped", "%", "higher", "Share of the frames with a face in which that face was changed."
    ),
}  # fmt: skip


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


def gaussian_ssim_map(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the structural similarity at each pixel, ``(H, W)`` float32 in [-1, 1]; 1 = alike.

    Wang et al. (2004), IEEE TIP 13(4), eq. 13: Gaussian window 11 x 11, sigma 1.5, K1 = 0.01, K2 = 0.03, on grey.

    Args:
        a: ``(H, W, 3)`` or grey ``(H, W)``.
        b: the same shape.
    """

    def blur(x: np.ndarray) -> np.ndarray:
        size = 2 * SSIM_RADIUS + 1
        return cv2.GaussianBlur(x, (size, size), 1.5, borderType=cv2.BORDER_REFLECT)

    a, b = (np.asarray(x, np.float32) for x in (a, b))
    a, b = (x @ _GREY if x.ndim == 3 else x for x in (a, b))
    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    covariance = blur(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    return ((2 * mean_a * mean_b + c1) * (2 * covariance + c2)) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))


def ssim(swap: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> float:
    """Return the mean of `gaussian_ssim_map` in the mask, in [-1, 1]; higher is better.

    The windows reach `SSIM_RADIUS` pixels beyond the mask: give the images that margin.
    """
    return masked_mean(gaussian_ssim_map(swap, truth), mask)


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


def flicker(
    swap: np.ndarray, swap_before: np.ndarray, truth: np.ndarray, truth_before: np.ndarray, mask: np.ndarray
) -> float:
    """Return how much the swap changes between frames in ways the truth does not, grey levels, >= 0; lower is better.

    ``mean |(s_t - s_t-1) - (g_t - g_t-1)|`` in the mask of frame t. A constant error does not flicker.
    """
    weights, s, s1, g, g1 = _inside(mask, swap, swap_before, truth, truth_before)
    return _mean(np.abs((s - s1) - (g - g1)), weights)


def second_difference(now: np.ndarray, before: np.ndarray, earlier: np.ndarray, mask: np.ndarray) -> float:
    """Return ``mean |x_t - 2 x_t-1 + x_t-2|`` in the mask of frame t, grey levels, >= 0.

    Even motion cancels to first order, trembling does not. As a ratio to the footage's own it is *unsteadiness*: 1 as
    the footage, above 1 trembling, below 1 smoother than life.
    """
    weights, x, x1, x2 = _inside(mask, now, before, earlier)
    return _mean(np.abs(x - 2 * x1 + x2), weights)


def identity_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the Euclidean distance of embeddings ``(..., 128)``, >= 0; below 0.6 dlib takes two for one person."""
    return np.linalg.norm(np.asarray(a, np.float64) - np.asarray(b, np.float64), axis=-1)


def identity_gap_closed(swap: np.ndarray, target: np.ndarray, truth: np.ndarray) -> float:
    """Return the share of the identity distance between target and truth that the swap closes.

    ``1 - mean d(s, g) / mean d(t, g)`` over the frames. 1 perfect, 0 the untouched target; higher is better.

    Args:
        swap: ``(N, 128)`` embeddings of N frames.
        target: of the same frames, untouched.
        truth: of the same frames of the truth.
    """
    return 1 - _divide(float(identity_distance(swap, truth).mean()), float(identity_distance(target, truth).mean()))


def pose_error(a: tuple[float, float, float], b: tuple[float, float, float]) -> float:
    """Return the mean absolute difference of (yaw, pitch, roll), degrees, in [0, 180]; lower is better."""
    difference = (np.subtract(a, b) + 180) % 360 - 180  # 179 and -179 degrees are 2 apart
    return float(np.abs(difference).mean())


def mouth_error(a: Mapping[str, float], b: Mapping[str, float]) -> float:
    """Return the absolute difference of two expressions' ``mouth_open``, eye spans, >= 0; lower is better."""
    return abs(a["mouth_open"] - b["mouth_open"])


def eyes_error(a: Mapping[str, float], b: Mapping[str, float]) -> float:
    """Return the mean absolute difference of both eyes' opening; eye widths, >= 0, lower is better."""
    return (abs(a["eye_left_open"] - b["eye_left_open"]) + abs(a["eye_right_open"] - b["eye_right_open"])) / 2


def polygon_mask(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return ``(H, W)`` bool, true in the polygon ``(N, 2)``, pixels; what lies outside the image is cut off."""
    mask = np.zeros(size, np.uint8)
    cv2.fillPoly(mask, [np.round(np.asarray(points, np.float64) * 16).astype(np.int32)], 1, shift=4)
    return mask.astype(bool)
