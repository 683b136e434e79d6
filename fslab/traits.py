"""Who a face is, what it does, and how a training went: plain functions on vectors, meshes and curves.

Each says its formula, its range and which way is better. Meshes are those of `fslab.mesh`. What a mesh or a centroid
tells of a face is an estimate with an error of its own; the same estimate of the truth has much the same error, so
their difference is nearer to what the swap did than either is to the fact.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from fslab.mesh import EYES, expression, five_points

EYE_CORNERS = ((33, 133), (362, 263))  # of the left and right eye, left corner first
DEGREES_PER_EYE_WIDTH = 143.0  # an eyeball of 12 mm radius behind an opening 30 mm wide: 1 / sin(1 degree) * 30 / 12
MIN_OPEN = 0.2  # eye widths between the lids; a mesh hardly goes below 0.15
MIN_SHOWN = 0.06  # eye widths squared of eyeball; less is a closed eye


@dataclass(frozen=True)
class Gallery:
    """People to find one among.

    Attributes:
        seeds: ``(N,)`` whole numbers, each person's own.
        embeddings: ``(N, 128)``, a row a person.
        source: seed of the person put in; one of ``seeds``.

    Raises:
        ValueError: if they do not fit together.
    """

    seeds: np.ndarray
    embeddings: np.ndarray
    source: int

    def __post_init__(self):
        if np.shape(self.embeddings)[:1] != np.shape(self.seeds) or np.ndim(self.embeddings) != 2:
            shapes = f"{np.shape(self.seeds)} and {np.shape(self.embeddings)}"
            raise ValueError(f"seeds must be (N,) and embeddings (N, 128), got {shapes}")
        if np.count_nonzero(np.asarray(self.seeds) == self.source) != 1:
            raise ValueError(f"source must be one of the {len(self.seeds)} seeds, got {self.source}")

    @property
    def index(self) -> int:
        """Row of the person put in."""
        return int(np.flatnonzero(np.asarray(self.seeds) == self.source)[0])


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
    gap = float(identity_distance(target, truth).mean())
    return 1 - float(identity_distance(swap, truth).mean()) / gap if gap > 0 else float("nan")


def top1(embeddings: np.ndarray, gallery: np.ndarray, index: int) -> float:
    """Return the share of faces whose nearest person in a gallery is the right one, in [0, 1]; higher is better.

    ``mean [argmin_k |e - g_k| = index]``: rank-1 identification. By chance it is one over the size of the gallery.

    Args:
        embeddings: ``(M, 128)`` or ``(128,)``, the faces.
        gallery: ``(N, 128)``, a row a person.
        index: row of the right person.

    Raises:
        ValueError: if ``index`` is not a row of the gallery.
    """
    if not 0 <= index < len(gallery):
        raise ValueError(f"index must be in [0, {len(gallery)}), got {index}")
    distances = identity_distance(np.atleast_2d(embeddings)[:, None], np.asarray(gallery)[None])  # (M, N)
    return float((distances.argmin(axis=1) == index).mean())


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


def landmark_error(mesh: np.ndarray, exact: np.ndarray) -> float:
    """Return the mean distance of landmarks from where they are, as a share of the eye distance, >= 0; lower is better.

    ``mean_i |p_i - e_i| / |right eye - left eye|``, in the picture's plane, eyes as in `five_points` of the exact ones:
    the inter-ocular normalised mean error of Sagonas et al. (2016), "300 faces in-the-wild challenge", section 4, with
    eye centres for corners. The mesh network's own error on the truth is its floor.

    Args:
        mesh: ``(468, 2)`` or ``(468, 3)`` points found in the picture.
        exact: ``(468, 2)`` or ``(468, 3)``, where they are.
    """
    mesh, exact = np.asarray(mesh, np.float64)[:, :2], np.asarray(exact, np.float64)[:, :2]
    eyes = five_points(exact)[:2]
    return float(np.linalg.norm(mesh - exact, axis=1).mean() / np.linalg.norm(eyes[1] - eyes[0]))


def iris_offset(image: np.ndarray, mesh: np.ndarray) -> float:
    """Return how far the irises stand to the picture's right of the middle of their eyes, eye widths, in [-0.5, 0.5].

    The centroid of darkness, squared, within the polygon of each eye, along the line of its corners; the mean of both.
    Darkness counts from the brightest tenth of the eye. NaN if both eyes are closed or out of the picture.

    A turn of the head moves it too, and so does the shape of the eye: compare faces of one pose, as `gaze_error` does.
    Up and down cannot be told like this, because the lids follow the gaze.

    Args:
        image: ``(H, W, 3)`` uint8 RGB that holds the eyes.
        mesh: ``(468, 2)`` or ``(468, 3)``, points in the pixels of ``image``.
    """
    look, points, found = expression(mesh), np.asarray(mesh, np.float64)[:, :2], []
    for eye, corners, side in zip(EYES, EYE_CORNERS, ("left", "right")):
        x0, y0, x1, y1 = _eye_box(points[list(eye)], image.shape[:2])
        if look[f"eye_{side}_open"] >= MIN_OPEN and x0 < x1 and y0 < y1:
            inside = _coverage(points[list(eye)] - (x0, y0), (y1 - y0, x1 - x0))
            found.append(_along(points[list(corners)] - (x0, y0), _dark_centre(image[y0:y1, x0:x1], inside)))
    return _mean_of_seen(found)


def exact_iris_offset(image: np.ndarray, mesh: np.ndarray, shown: np.ndarray, moved: np.ndarray) -> float:
    """Return `iris_offset` where it is known which pixels show an eyeball: lashes and lids then cannot be mistaken.

    Args:
        image: ``(H, W, 3)`` uint8 RGB.
        mesh: ``(468, 2)`` or ``(468, 3)``, exact points of the face that is known, in the pixels of ``image``.
        shown: ``(H, W)`` bool, where its eyeballs are seen.
        moved: ``(2, 2)`` pixels by which the left and the right eye of ``image`` stand elsewhere than those.
    """
    points, found = np.asarray(mesh, np.float64)[:, :2], []
    for eye, corners, shift in zip(EYES, EYE_CORNERS, moved):
        x0, y0, x1, y1 = _eye_box(points[list(eye)], image.shape[:2])
        inside = shown[y0:y1, x0:x1].astype(np.float32)
        ends = points[list(corners)]
        if inside.sum() > MIN_SHOWN * float(((ends[1] - ends[0]) ** 2).sum()):
            centre = (x0 + x1 - 1) / 2 + shift[0], (y0 + y1 - 1) / 2 + shift[1]
            patch = cv2.getRectSubPix(image, (x1 - x0, y1 - y0), centre)
            found.append(_along(ends - (x0, y0), _dark_centre(patch, inside)))
    return _mean_of_seen(found)


def eye_centres(mesh: np.ndarray) -> np.ndarray:
    """Return the means of the left and the right eye's outline, ``(2, 2)``."""
    return np.stack([np.asarray(mesh, np.float64)[list(eye), :2].mean(axis=0) for eye in EYES])


def _eye_box(polygon: np.ndarray, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return whole pixels that hold an eye, cut at the picture."""
    x0, y0 = np.clip(np.floor(polygon.min(axis=0)) - 2, 0, size[::-1]).astype(int).tolist()
    x1, y1 = np.clip(np.ceil(polygon.max(axis=0)) + 3, 0, size[::-1]).astype(int).tolist()
    return x0, y0, x1, y1


def _dark_centre(patch: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Return the centroid (x, y) of squared darkness in a mask; NaN where there is none."""
    grey = cv2.cvtColor(patch, cv2.COLOR_RGB2GRAY).astype(np.float64)
    seen = inside > 0.5
    weights = inside * np.clip(np.quantile(grey[seen], 0.9) - grey, 0, None) ** 2 if seen.any() else inside * 0
    y, x = np.mgrid[: grey.shape[0], : grey.shape[1]]
    with np.errstate(invalid="ignore"):
        return np.array([(weights * x).sum(), (weights * y).sum()]) / weights.sum()


def _along(corners: np.ndarray, point: np.ndarray) -> float:
    """Return where a point lies from one corner (-0.5) to the other (0.5)."""
    along = corners[1] - corners[0]
    return float((point - corners.mean(axis=0)) @ along / max(float(along @ along), 1e-9))


def _mean_of_seen(values: list[float]) -> float:
    seen = [v for v in values if np.isfinite(v)]
    return float(np.mean(seen)) if seen else float("nan")


def _coverage(polygon: np.ndarray, size: tuple[int, int], fine: int = 8) -> np.ndarray:
    """Return the share of each pixel that a polygon covers, ``(H, W)`` float32 in [0, 1]: eyes are few pixels high."""
    mask = np.zeros((size[0] * fine, size[1] * fine), np.uint8)
    cv2.fillPoly(mask, [np.round(((polygon + 0.5) * fine - 0.5) * 16).astype(np.int32)], 255, shift=4)
    return cv2.resize(mask, size[::-1], interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def gaze_error(a: float, b: float) -> float:
    """Return how far two `iris_offset` of one pose are apart, degrees of sideways gaze, >= 0; lower is better.

    `DEGREES_PER_EYE_WIDTH` times their difference. On renders with known gaze, exact eyeballs 13 pixels wide gave it to
    1 to 3 degrees, 6 under heavy lids; a mesh's outline to 1 degree of light eyes, 7 of narrow dark ones. Two people
    who look the same way come out 2 to 6 degrees apart: what the untouched target scores says how much of a figure
    that is. `calibration_error` tells the error in the clip at hand.
    """
    return DEGREES_PER_EYE_WIDTH * abs(a - b)


def calibration_error(estimates: np.ndarray, known: np.ndarray) -> float:
    """Return how far an estimator is from what is known once a straight line between the two is allowed for, >= 0.

    The mean absolute residual of the least-squares line ``known ~ estimates @ w + c``, raised by ``sqrt(N / (N - k -
    1))`` for what the fit took away. As large as the spread of the known values if the estimates tell nothing; NaN if
    there are fewer than 4 values to each coefficient.

    Args:
        estimates: ``(N, k)``.
        known: ``(N,)`` or ``(N, 1)``.
    """
    known = np.asarray(known, np.float64).reshape(-1)
    lines = np.column_stack([np.asarray(estimates, np.float64), np.ones(len(known))])  # (N, k + 1)
    n, k = lines.shape
    if n < 4 * k:
        return float("nan")
    residual = known - lines @ np.linalg.lstsq(lines, known)[0]
    return float(np.abs(residual).mean() * np.sqrt(n / (n - k)))


def area_under_curve(
    seconds: Sequence[float], values: Sequence[float], span: tuple[float, float] | None = None
) -> float:
    """Return the mean height of a training curve over the logarithm of time; higher is better.

    ``int v d(log s) / log(s_1 / s_0)``, straight between the points in log s. Each doubling of the time counts alike,
    so that the plateau of a long training does not drown how soon it came. In [0, 1] for values that are.

    Args:
        seconds: ``(N,)`` training times, > 0 and rising; N >= 2.
        values: ``(N,)``, closure for one.
        span: (first, last) second to take the mean over, both within ``seconds``; all of them where left out. Only
            figures over one span can be compared.

    Raises:
        ValueError: if the times do not rise from above 0, or do not hold the span.
    """
    times, heights = _curve(seconds, values)
    low, high = np.log(span) if span else times[[0, -1]]
    if not times[0] - 1e-9 <= low < high <= times[-1] + 1e-9:
        raise ValueError(f"span must rise and lie within {seconds[0]:g} to {seconds[-1]:g} seconds, got {span}")
    inner = times[(times > low) & (times < high)]
    x = np.concatenate([[low], inner, [high]])
    return float(np.trapezoid(np.interp(x, times, heights), x) / (high - low))


def time_to(seconds: Sequence[float], values: Sequence[float], level: float) -> float | None:
    """Return the training time at which a curve first reaches a level, seconds; lower is better.

    Straight in log time between the points, as in `area_under_curve`, whose arguments these are. The first time if it
    starts there, None if it never comes.
    """
    times, heights = _curve(seconds, values)
    there = np.flatnonzero(heights >= level)
    if not len(there):
        return None
    k = int(there[0])
    if k == 0:
        return float(seconds[0])
    share = (level - heights[k - 1]) / (heights[k] - heights[k - 1])
    return float(np.exp(times[k - 1] + share * (times[k] - times[k - 1])))


def _curve(seconds: Sequence[float], values: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Return log times and heights; raises ValueError if they are no curve."""
    times, heights = np.asarray(seconds, np.float64), np.asarray(values, np.float64)
    if times.shape != heights.shape or times.ndim != 1 or len(times) < 2 or not np.isfinite(heights).all():
        raise ValueError(f"a curve needs two or more finite points, got {times.shape} times and {heights.shape} values")
    if not (times[0] > 0 and (np.diff(times) > 0).all()):
        raise ValueError(f"seconds must rise from above 0, got {times.tolist()}")
    return np.log(times), heights
