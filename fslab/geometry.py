"""Similarity transforms between a frame and an aligned crop, and the warp both ways."""

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from fslab.media import Frame

# Eyes, nose tip, mouth corners of a frontal mean face inside the unit square that `coverage` scales
# (proportions: the five-point template shared by DeepFaceLab's "whole face" readers, re-centred on the face).
TEMPLATE_5 = np.array(
    [[0.2490, 0.2745], [0.7510, 0.2745], [0.4925, 0.5440], [0.3130, 0.8135], [0.6965, 0.8135]], np.float64
)


def umeyama(src: np.ndarray, dst: np.ndarray) -> np.ndarray:
    """Fit the similarity transform (rotation, one scale, translation) taking ``src`` to ``dst``.

    Least squares in closed form: Umeyama (1991), IEEE TPAMI 13(4), eqs. 38-43.

    Args:
        src: ``(N, 2)`` points (x, y), pixels; N >= 2 and not all equal.
        dst: ``(N, 2)`` points (x, y), pixels.

    Returns:
        ``(2, 3)`` float64 matrix ``M``, src -> dst: ``dst ~ src @ M[:, :2].T + M[:, 2]``.

    Raises:
        ValueError: if the shapes differ or all points of ``src`` coincide.
    """
    src, dst = np.asarray(src, np.float64), np.asarray(dst, np.float64)
    if src.shape != dst.shape or src.ndim != 2 or src.shape[1] != 2:
        raise ValueError(f"src and dst must both be (N, 2), got {src.shape} and {dst.shape}")
    src_mean, dst_mean = src.mean(axis=0), dst.mean(axis=0)
    spread = ((src - src_mean) ** 2).sum(axis=1).mean()  # sigma_x^2
    if spread == 0:
        raise ValueError("all points of src coincide: scale and rotation are undefined")

    covariance = (dst - dst_mean).T @ (src - src_mean) / len(src)  # (2, 2), eq. 38
    u, d, vt = np.linalg.svd(covariance)  # NumPy returns V transposed
    sign = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])  # eqs. 39, 43: no mirror
    rotation = u @ np.diag(sign) @ vt  # eq. 40
    scale = (d * sign).sum() / spread  # eq. 42
    return np.column_stack([scale * rotation, dst_mean - scale * rotation @ src_mean])  # eq. 41


def crop_template(size: int, coverage: float) -> np.ndarray:
    """Return where the five template points lie in a crop, ``(5, 2)`` pixels.

    Args:
        size: side of the crop, pixels.
        coverage: share of the side that the template's unit square spans, in (0, 1].
    """
    if size < 2 or not 0 < coverage <= 1:
        raise ValueError(f"size must be >= 2 and coverage in (0, 1], got {size} and {coverage}")
    return ((TEMPLATE_5 - 0.5) * coverage + 0.5) * size - 0.5


def align_matrix(landmarks: np.ndarray, size: int, coverage: float) -> np.ndarray:
    """Return the ``(2, 3)`` similarity frame -> crop that puts five landmarks on the template.

    Args:
        landmarks: ``(5, 2)`` left eye, right eye, nose tip, left and right mouth corner, frame pixels.
        size: side of the crop, pixels.
        coverage: see `crop_template`.
    """
    return umeyama(landmarks, crop_template(size, coverage))


def invert(matrix: np.ndarray) -> np.ndarray:
    """Return the ``(2, 3)`` inverse of a similarity: crop -> frame ("unalign")."""
    return cv2.invertAffineTransform(np.asarray(matrix, np.float64))


def transform_points(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Apply a ``(2, 3)`` matrix to ``(N, 2)`` points; returns float32 ``(N, 2)``."""
    matrix = np.asarray(matrix, np.float64)
    return (np.asarray(points, np.float64) @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)


def matrix_scale(matrix: np.ndarray) -> float:
    """Return the scale of a similarity: crop pixels per frame pixel."""
    return float(np.hypot(matrix[0][0], matrix[1][0]))


def rescale_matrix(matrix: np.ndarray, old_size: int, new_size: int) -> np.ndarray:
    """Return the matrix to a crop of another size that shows the same part of the frame."""
    factor = new_size / old_size
    shift = (factor - 1) / 2  # pixel centres, not corners, are at whole numbers
    return np.asarray(matrix, np.float64) * factor + np.array([[0, 0, shift], [0, 0, shift]])


def crop_bounds(
    matrix: np.ndarray, part: int | tuple[int, int, int, int], frame_size: tuple[int, int], margin: int = 2
) -> tuple[int, int, int, int]:
    """Return the frame box ``(x0, y0, x1, y1)`` that holds a crop, clipped to the frame.

    Args:
        matrix: ``(2, 3)`` frame -> crop.
        part: side of the crop, pixels, or a box of whole crop pixels in it, its far edges exclusive.
        frame_size: (height, width) of the frame.
        margin: extra pixels for interpolation.

    Returns:
        Whole pixels, ``x1`` and ``y1`` exclusive; at least 2 x 2 even where the crop lies outside the frame.
    """
    left, top, right, bottom = (0, 0, part, part) if isinstance(part, int) else part
    corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]]) - 0.5
    points = transform_points(corners, invert(matrix))
    height, width = frame_size
    x0, y0 = np.floor(points.min(axis=0)).astype(int) - margin
    x1, y1 = np.ceil(points.max(axis=0)).astype(int) + 1 + margin
    x0, y0 = int(np.clip(x0, 0, max(width - 2, 0))), int(np.clip(y0, 0, max(height - 2, 0)))
    return x0, y0, int(np.clip(x1, min(x0 + 2, width), width)), int(np.clip(y1, min(y0 + 2, height), height))


def shift_matrix(matrix: np.ndarray, x0: int, y0: int) -> np.ndarray:
    """Return ``matrix`` for a frame whose origin was moved to pixel ``(x0, y0)``."""
    matrix = np.array(matrix, np.float64)
    matrix[:, 2] += matrix[:, :2] @ [x0, y0]
    return matrix


def shrink_factor(matrix: np.ndarray) -> int:
    """Return the largest power of two by which a picture can be shrunk before a ``(2, 3)`` warp that shrinks it."""
    return 2 ** max(int(np.floor(np.log2(1 / max(matrix_scale(matrix), 1e-6)))), 0)


def warp(image: np.ndarray, matrix: np.ndarray, size: int | tuple[int, int], smooth: bool = False) -> np.ndarray:
    """Resample ``image`` through ``matrix``; outside the image its border is repeated.

    Shrinking by more than two is done in two steps, an area average first, so that fine texture does not alias.

    Args:
        image: ``(H, W)`` or ``(H, W, C)``, uint8 or float32.
        matrix: ``(2, 3)`` image -> result, pixels.
        size: side of the square result, or its (height, width).
        smooth: interpolate with cubics, which keeps detail, instead of straight lines.

    Returns:
        ``(size, size[, C])`` of the input's type.
    """
    height, width = (size, size) if isinstance(size, int) else size
    shrink = shrink_factor(matrix)
    if shrink >= 2 and min(image.shape[:2]) >= 2 * shrink:
        small = cv2.resize(image, (image.shape[1] // shrink, image.shape[0] // shrink), interpolation=cv2.INTER_AREA)
        fx, fy = image.shape[1] / small.shape[1], image.shape[0] / small.shape[0]
        up = np.array([[fx, 0, (fx - 1) / 2], [0, fy, (fy - 1) / 2], [0, 0, 1]])  # small -> image, pixel centres
        image, matrix = small, np.asarray(matrix, np.float64) @ up
    how = cv2.INTER_CUBIC if smooth else cv2.INTER_LINEAR
    matrix = np.asarray(matrix, np.float64)
    return cv2.warpAffine(image, matrix, (width, height), flags=how, borderMode=cv2.BORDER_REPLICATE)


def crop_from_frame(frame: "Frame", matrix: np.ndarray, size: int) -> np.ndarray:
    """Cut an aligned crop out of a frame, converting only the pixels it needs.

    Args:
        frame: where to cut.
        matrix: ``(2, 3)`` frame -> crop, pixels.
        size: side of the crop, pixels.

    Returns:
        ``(size, size, 3)`` uint8 RGB.
    """
    x0, y0, x1, y1 = crop_bounds(matrix, size, frame.size)
    shrink, (height, width) = shrink_factor(matrix), frame.size
    step = 2 * shrink
    if shrink >= 2 and min(height, width) >= step:
        x0, y0 = min(x0, width - step) // step * step, min(y0, height - step) // step * step
        x1, y1 = min(-(-x1 // step), width // step) * step, min(-(-y1 // step), height // step) * step
        up = np.array([[shrink, 0, (shrink - 1) / 2], [0, shrink, (shrink - 1) / 2], [0, 0, 1]])
        return warp(frame.crop(x0, y0, x1, y1, shrink), shift_matrix(matrix, x0, y0) @ up, size, smooth=True)
    return warp(frame.crop(x0, y0, x1, y1), shift_matrix(matrix, x0, y0), size, smooth=True)
