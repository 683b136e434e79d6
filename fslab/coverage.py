"""What a face set covers, and what it lacks: counts, a yaw/pitch map, sharpness, and warnings in words.

`summarise` is the card of one person; `look_over` says of each face what it shows, for comparing people
(`fslab.data_doctor`).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from fslab.faceset import FaceRecord, FaceSet
from fslab.geometry import rescale_matrix, transform_points
from fslab.mesh import OUTLINE, five_points
from fslab.traits import DEGREES_PER_EYE_WIDTH, iris_offset

YAW_EDGES = (-90, -45, -25, -10, 10, 25, 45, 90)
PITCH_EDGES = (-90, -20, -7, 7, 20, 90)
LOOKED_AT = 300  # faces whose pixels are read, evenly spread; 3 ms each
LIGHT_SIDE = 64  # side of the crops that light is read from, pixels
FRONTAL = 30.0  # degrees of yaw up to which a gaze is read
ENOUGH = 100  # kept faces below which a swap stays rough (a rule of thumb, not measured)
MIN_EYES = 40.0  # pixels between the eyes; smaller faces make a soft swap
MIN_RANGE = 0.05  # eye spans between the 5th and the 95th percentile; less is a mouth that does not move


@dataclass(frozen=True)
class Coverage:
    """The coverage card of one face set.

    ``dropped`` counts reasons; ``poses`` is (pitch bins, yaw bins) int, the first row looks up; ``sharpness`` holds the
    kept faces' values; ``eye_distance`` their median, pixels; ``warnings`` are sentences.
    """

    identity: str
    n_faces: int
    n_kept: int
    dropped: dict[str, int]
    poses: np.ndarray
    sharpness: np.ndarray
    eye_distance: float
    warnings: tuple[str, ...]


def summarise(identity: str, records: Sequence[FaceRecord]) -> Coverage:
    """Count what a face set holds and name what is missing."""
    kept = [r for r in records if r.keep]
    dropped = Counter(r.why.split(":")[0].split(" (")[0] for r in records if not r.keep)
    yaw = np.clip([r.pose[0] for r in kept], -89, 89)
    pitch = np.clip([r.pose[1] for r in kept], -89, 89)
    poses = np.histogram2d(pitch, yaw, [PITCH_EDGES, YAW_EDGES])[0].astype(int)[::-1]
    eyes = [float(np.linalg.norm(r.landmarks[1] - r.landmarks[0])) for r in kept]
    median_eyes = float(np.median(eyes)) if eyes else 0.0
    warnings = tuple(_warnings(identity, kept, yaw, median_eyes))
    sharp = np.array([r.sharpness for r in kept], np.float32)
    return Coverage(identity, len(records), len(kept), dict(dropped), poses, sharp, median_eyes, warnings)


def _warnings(identity: str, kept: list[FaceRecord], yaw: np.ndarray, eyes: float) -> list[str]:
    if not kept:
        return [f"no usable face of {identity}: the swap cannot be trained."]
    found = []
    if len(kept) < ENOUGH:
        found.append(f"{len(kept)} usable faces of {identity}; {ENOUGH} or more give a better swap.")
    if eyes < MIN_EYES:
        found.append(f"the faces are small (eye distance {eyes:.0f} px): the swap will be soft. Film closer.")
    for side, share in (("left", np.mean(yaw < -10)), ("right", np.mean(yaw > 10))):
        if share < 0.05:
            found.append(f"{identity} hardly ever looks to the picture's {side} ({share:.0%} of faces): film that too.")
    pitch = np.array([r.pose[1] for r in kept])
    for way, share in (("up", np.mean(pitch > 5)), ("down", np.mean(pitch < -5))):
        if share < 0.02:
            found.append(f"{identity} hardly ever looks {way} ({share:.0%} of faces): film that too.")
    opened = np.array([r.expression["mouth_open"] for r in kept])
    if np.percentile(opened, 95) - np.percentile(opened, 5) < MIN_RANGE:
        found.append(f"{identity}'s mouth hardly moves: film some talking.")
    return found


@dataclass(frozen=True)
class Profile:
    """What each kept face of one person shows; arrays are ``(N,)`` float, NaN where it is not known.

    Attributes:
        identity: the person.
        crops: the faces' file names.
        yaw: degrees, > 0 to the picture's right; ``pitch`` > 0 up.
        pitch: degrees.
        mouth: opening, eye spans (`fslab.mesh.expression`).
        smile: width of the mouth over the person's median.
        eyes: opening of the wider eye over the person's upper quartile; about 0.6 shut.
        gaze: sideways, degrees to the picture's right of where the person looks on average with the head so turned.
        level: brightness of the face in stops over the person's median; skin cancels out.
        side: the picture's right half of the face less its left over their sum, -1 to 1; > 0 lit from the right.
        clipped: share of the face's pixels that are all black or all white, 0 to 1.
        strange: distance of the face's embedding from the person's mean.
        sharpness: as the face set has it.
        eye_distance: pixels of the footage.
    """

    identity: str
    crops: tuple[str, ...]
    yaw: np.ndarray
    pitch: np.ndarray
    mouth: np.ndarray
    smile: np.ndarray
    eyes: np.ndarray
    gaze: np.ndarray
    level: np.ndarray
    side: np.ndarray
    clipped: np.ndarray
    strange: np.ndarray
    sharpness: np.ndarray
    eye_distance: np.ndarray

    def __len__(self) -> int:
        return len(self.crops)


def look_over(faceset: FaceSet, pixels: bool = True) -> Profile:
    """Say of each kept face what it shows.

    Args:
        faceset: one person's.
        pixels: read light and gaze from (at most `LOOKED_AT`) crops; without, both stay unknown and no file is read.

    Raises:
        FaceSetError: if a crop is missing or damaged.
    """
    kept, look = faceset.kept, [r.expression for r in faceset.kept]

    def values(*names: str) -> np.ndarray:
        return np.array([max(e.get(name, np.nan) for name in names) for e in look], np.float64)

    known = [r.embedding for r in kept if r.embedding is not None]
    mean = np.mean(known, axis=0) if known else None
    strange = [np.nan if r.embedding is None else float(np.linalg.norm(r.embedding - mean)) for r in kept]
    eyes, smile = values("eye_left_open", "eye_right_open"), values("smile")
    seen = _read_pixels(faceset) if pixels and kept else np.full((len(kept), 4), np.nan)
    return Profile(
        faceset.identity, tuple(r.crop for r in kept),
        *np.array([r.pose[:2] for r in kept], np.float64).reshape(-1, 2).T, values("mouth_open"),
        smile / _quantile(smile, 0.5), eyes / _quantile(eyes, 0.75),
        _centred_gaze(seen[:, 3], np.array([r.pose[0] for r in kept])),
        np.log2(seen[:, 0] / _quantile(seen[:, 0], 0.5)), seen[:, 1], seen[:, 2], np.array(strange, np.float64),
        np.array([r.sharpness for r in kept], np.float64),
        np.array([np.linalg.norm(r.landmarks[1] - r.landmarks[0]) for r in kept], np.float64),
    )  # fmt: skip


def _quantile(values: np.ndarray, q: float) -> float:
    known = values[np.isfinite(values)]
    return max(float(np.quantile(known, q)), 1e-6) if len(known) else float("nan")


def _read_pixels(faceset: FaceSet) -> np.ndarray:
    """Return luma (0 to 255), side, clipped share and iris offset of each kept face, ``(N, 4)``; NaN: not looked at."""
    kept = faceset.kept
    found = np.full((len(kept), 4), np.nan)
    chosen = np.unique(np.linspace(0, len(kept) - 1, min(LOOKED_AT, len(kept))).round().astype(int))
    for i in chosen:
        record, crop = kept[i], faceset.crops(records=[kept[i]])[0]
        small = cv2.resize(crop, (LIGHT_SIDE, LIGHT_SIDE), interpolation=cv2.INTER_AREA)
        found[i, :3] = face_light(
            small, transform_points(record.mesh, rescale_matrix(record.matrix, faceset.size, LIGHT_SIDE))
        )
        if abs(record.pose[0]) <= FRONTAL:
            found[i, 3] = iris_offset(crop, transform_points(record.mesh, record.matrix))
    return found


def face_light(image: np.ndarray, mesh: np.ndarray) -> tuple[float, float, float]:
    """Return how a face is lit: its mean luma (0 to 255), its side and the share that is clipped; see `Profile`.

    Args:
        image: ``(H, W, 3)`` uint8 RGB.
        mesh: ``(468, 2)`` points in its pixels.
    """
    mask = np.zeros(image.shape[:2], np.uint8)
    cv2.fillPoly(mask, [np.round(mesh[list(OUTLINE)]).astype(np.int32)], 1)
    grey, inside = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float64), mask > 0
    if not inside.any():
        return float("nan"), float("nan"), float("nan")
    right = np.arange(image.shape[1]) > five_points(mesh)[:2, 0].mean()  # of the middle of the eyes
    halves = [float(grey[inside & half].mean()) if (inside & half).any() else np.nan for half in (~right, right)]
    clipped = (image.max(axis=2) <= 8) | (image.min(axis=2) >= 250)
    side = (halves[1] - halves[0]) / max(halves[0] + halves[1], 1e-6)
    return float(grey[inside].mean()), side, float(clipped[inside].mean())


def _centred_gaze(offsets: np.ndarray, yaw: np.ndarray) -> np.ndarray:
    """Return gaze, degrees: iris offsets less the straight line that they follow as the head turns."""
    known = np.isfinite(offsets)
    if known.sum() < 8:
        return np.full(len(offsets), np.nan)
    line = np.column_stack([yaw[known], np.ones(known.sum())])
    fit = np.linalg.lstsq(line, offsets[known])[0]
    return DEGREES_PER_EYE_WIDTH * (offsets - yaw * fit[0] - fit[1])
