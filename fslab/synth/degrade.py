"""What a camera does to a picture: noise, blur, JPEG and too little light, the same for every frame with the same seed.

Light adds up in linear values, so noise and blur are applied there. Noise is Poissonian-Gaussian, variance
``gain * signal + floor``: Foi et al. (2008), "Practical Poissonian-Gaussian noise modeling and fitting for single-image
raw-data", IEEE TIP 17(10), eq. 3. The draws do not depend on the picture: where two pictures agree, so do their
degraded versions.
"""

from typing import Literal, get_args

import cv2
import numpy as np

from fslab.media import decode_image, encode_image
from fslab.synth.studio import to_linear, to_srgb

Degradation = Literal["none", "noise", "blur", "jpeg", "low-light"]
DEGRADATIONS = get_args(Degradation)

_TAG = 0xDE6
_GRAIN = 0.7  # pixels; demosaicing correlates neighbours
# (exposure, gain, floor): the share of the light that is left once the camera has turned its gain up, and the noise of
# the linear signal, 1 = white. Indoors without a lamp, and in a dim room.
_NOISE = {"noise": (1.0, 0.002, 1e-5), "low-light": (0.35, 0.006, 1e-4)}
_DEFOCUS, _STREAK = 0.006, 0.02  # radius of the disc and length of the streak, in picture heights
_TURN = 0.15  # radians a frame by which the streak's direction wanders
_JPEG_QUALITY = 18


def degrade(frame: np.ndarray, kind: Degradation, seed: int, index: int, grain: bool = True) -> np.ndarray:
    """Return a picture as a poorer camera would have taken it.

    Args:
        frame: ``(H, W, 3)`` uint8 sRGB; not changed.
        kind: one of `DEGRADATIONS`: "noise" as indoors without a lamp; "blur" of a lens out of focus and a hand that
            shakes, half a per cent and two per cent of the height; "jpeg" compressed to quality 18; "low-light" with
            a third of the light and the noise of a gain turned up.
        seed: of the clip.
        index: of the frame in its clip.
        grain: with noise; without it the picture is what noise would be added to, which is all that anybody could
            know of it.

    Returns:
        ``(H, W, 3)`` uint8, a new array.
    """
    if kind not in DEGRADATIONS:
        raise ValueError(f"kind must be one of {', '.join(DEGRADATIONS)}, got {kind!r}")
    if kind in _NOISE:
        exposure, *levels = _NOISE[kind]
        linear = exposure * to_linear(frame)
        return to_srgb(linear + _noise(linear, *levels, (seed, index)) if grain else linear)
    if kind == "blur":
        return to_srgb(
            cv2.filter2D(to_linear(frame), -1, _kernel(frame.shape[0], seed, index), borderType=cv2.BORDER_REFLECT)
        )
    if kind == "jpeg":
        return decode_image(encode_image(frame, ".jpg", _JPEG_QUALITY))
    return frame.copy()


def _noise(linear: np.ndarray, gain: float, floor: float, seeds: tuple[int, int]) -> np.ndarray:
    """Return zero-mean noise of variance ``gain * signal + floor``, grainy as after demosaicing."""
    grain = np.random.default_rng([*seeds, _TAG]).standard_normal(linear.shape, np.float32)
    grain = cv2.GaussianBlur(grain, (0, 0), _GRAIN)
    kernel = cv2.getGaussianKernel(9, _GRAIN)
    grain /= float((kernel**2).sum())  # what the blur took from the standard deviation, in two dimensions
    return grain * np.sqrt(gain * linear + floor)


def _kernel(height: int, seed: int, index: int) -> np.ndarray:
    """Return the point spread: a disc moved along a streak whose direction wanders slowly; it sums to 1."""
    start = np.random.default_rng([seed, _TAG]).uniform(0, np.pi)
    angle, radius, reach = start + _TURN * index, max(_DEFOCUS * height, 0.5), _STREAK * height / 2
    half = int(np.ceil(radius + reach)) + 1
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float32)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    beyond = np.maximum(np.abs(along) - reach, 0)
    kernel = np.clip(radius + 0.5 - np.hypot(beyond, across), 0, 1)
    return kernel / kernel.sum()
