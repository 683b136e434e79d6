"""The straight-line maths between Y'CbCr planes and RGB, for every matrix and range that H.26x can name.

Recommendation ITU-T H.273, section 8.3: with luma weights Kr, Kb and Kg = 1 - Kr - Kb,

    Y = Kr R + Kg G + Kb B        Cb = (B - Y) / (2 - 2 Kb)        Cr = (R - Y) / (2 - 2 Kr)

scaled to 16..235 and 16..240 (limited range) or to 0..255 (full range).
"""

from functools import cache

import cv2
import numpy as np

BT709 = 1  # matrix, transfer and primaries all have the code 1 (H.273, tables 2-4)
HDR_TRANSFERS = (16, 18)  # SMPTE ST 2084 (PQ), ARIB STD-B67 (HLG)
LIMITED, FULL = 1, 2  # AVColorRange

_LUMA_WEIGHTS = {  # H.273 table 4: code -> (Kr, Kb)
    1: (0.2126, 0.0722),  # BT.709
    4: (0.30, 0.11),  # FCC
    7: (0.212, 0.087),  # SMPTE 240M
    9: (0.2627, 0.0593),  # BT.2020
    10: (0.2627, 0.0593),
}
_BT601 = (0.299, 0.114)  # codes 5 and 6, and whatever is not said: FFmpeg's own choice, whatever the picture's height


@cache
def to_ycc(matrix: int, full_range: bool) -> np.ndarray:
    """Return the ``(3, 4)`` float32 matrix RGB -> Y'CbCr, all in 0..255, for an H.273 matrix code."""
    kr, kb = _LUMA_WEIGHTS.get(matrix, _BT601)
    y = np.array([kr, 1 - kr - kb, kb])
    cb = (np.array([0, 0, 1]) - y) / (2 - 2 * kb)
    cr = (np.array([1, 0, 0]) - y) / (2 - 2 * kr)
    y_gain, c_gain, y_offset = (1, 1, 0) if full_range else (219 / 255, 224 / 255, 16)
    ycc = np.vstack([y * y_gain, cb * c_gain, cr * c_gain])
    return np.column_stack([ycc, [y_offset, 128, 128]]).astype(np.float32)


@cache
def to_rgb(matrix: int, full_range: bool) -> np.ndarray:
    """Return the ``(3, 4)`` float32 inverse of `to_ycc`."""
    forward = to_ycc(matrix, full_range).astype(np.float64)
    inverse = np.linalg.inv(forward[:, :3])
    return np.column_stack([inverse, -inverse @ forward[:, 3]]).astype(np.float32)


def planes_to_rgb(y: np.ndarray, cb: np.ndarray, cr: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Convert three planes of one size to ``(H, W, 3)`` uint8 RGB with a matrix of `to_rgb`."""
    return cv2.transform(cv2.merge((y, cb, cr)), matrix)


def double(plane: np.ndarray) -> np.ndarray:
    """Repeat every sample of a chroma plane over its 2 x 2 block of pixels."""
    return cv2.resize(plane, (plane.shape[1] * 2, plane.shape[0] * 2), interpolation=cv2.INTER_NEAREST)


def halve(plane: np.ndarray) -> np.ndarray:
    """Average every 2 x 2 block; the inverse of `double`, exactly."""
    return cv2.resize(plane, (plane.shape[1] // 2, plane.shape[0] // 2), interpolation=cv2.INTER_AREA)


def shrink(plane: np.ndarray, width: int, height: int) -> np.ndarray:
    """Scale a plane or image to ``(height, width)``: halved while that is exact, then interpolated.

    The halvings average over areas as a slow area filter would, at a quarter of its cost.
    """
    while plane.shape[0] >= 2 * height and plane.shape[1] >= 2 * width and not (plane.shape[0] | plane.shape[1]) & 1:
        plane = halve(plane)
    if plane.shape[:2] == (height, width):
        return plane
    return cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR)
