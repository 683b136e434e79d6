"""What a face set covers, and what it lacks: counts, a yaw/pitch map, sharpness, and warnings in words."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fslab.faceset import FaceRecord

YAW_EDGES = (-90, -45, -25, -10, 10, 25, 45, 90)
PITCH_EDGES = (-90, -20, -7, 7, 20, 90)
ENOUGH = 100  # kept faces below which a swap stays rough (a rule of thumb, not measured)


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
    if eyes < 40:
        found.append(f"the faces are small (eye distance {eyes:.0f} px): the swap will be soft. Film closer.")
    for side, share in (("left", np.mean(yaw < -10)), ("right", np.mean(yaw > 10))):
        if share < 0.05:
            found.append(f"{identity} hardly ever looks to the picture's {side} ({share:.0%} of faces): film that too.")
    pitch = np.array([r.pose[1] for r in kept])
    for way, share in (("up", np.mean(pitch > 5)), ("down", np.mean(pitch < -5))):
        if share < 0.02:
            found.append(f"{identity} hardly ever looks {way} ({share:.0%} of faces): film that too.")
    opened = np.array([r.expression["mouth_open"] for r in kept])
    if np.percentile(opened, 95) - np.percentile(opened, 5) < 0.05:
        found.append(f"{identity}'s mouth hardly moves: film some talking.")
    return found
