"""The ruler at work: frame by frame it measures the face in every arm and keeps running scores.

Three *arms* go through the same formulas: the swap, the untouched target and the truth, so that every figure stands
between what doing nothing and what a perfect swap would score.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
from typing_extensions import Doc

from fslab.faces import Embedder, Face, FaceMesh, chip_matrix, estimate_pose, expression, outline
from fslab.geometry import crop_from_frame
from fslab.label import MIN_SIDE, VisibleLabel
from fslab.media import Frame
from fslab.metrics import (
    METRICS,
    SSIM_RADIUS,
    TruthSums,
    edge_band,
    eyes_error,
    flicker,
    identity_distance,
    mean_difference,
    mouth_error,
    polygon_mask,
    pose_error,
    second_difference,
    ssim,
)  # fmt: skip
from fslab.tracking import FrameFaces, TrackConfig, TrackedFace

SERIES = (
    "time", "closure", "psnr", "ssim", "sharpness", "band_error", "flicker", "identity_source", "identity_target",
    "pose_error", "mouth_error", "eyes_error", "unsteadiness", "change",
)  # fmt: skip
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class EvalConfig:
    """How a swapped video is measured, and what the report shows of it."""

    embed_every: Annotated[int, Doc("identity is compared on every n-th frame")] = 5
    edge_band: Annotated[float, Doc("half the width of the band along the face's outline, pixels")] = 8.0
    min_change: Annotated[
        float, Doc("a face that differs less from the footage counts as not swapped, grey levels")
    ] = 4.0
    n_moments: Annotated[int, Doc("frames shown in the report, spread over the clip")] = 4
    n_worst: Annotated[int, Doc("worst frames shown in the report")] = 4
    picture_side: Annotated[int, Doc("longer side of the report's pictures, pixels")] = 480
    track: Annotated[TrackConfig, Doc("how faces are followed")] = field(default_factory=TrackConfig)

    def __post_init__(self):
        if self.embed_every < 1 or self.edge_band <= 0 or self.min_change < 0:
            raise ValueError("embed_every must be >= 1, edge_band > 0 and min_change >= 0")
        if self.n_moments < 1 or self.n_worst < 0 or self.picture_side < 64:
            raise ValueError("n_moments must be >= 1, n_worst >= 0 and picture_side >= 64")


class Arm:
    """Running scores of one arm: sums over pixels, means over frames; constant memory."""

    def __init__(self):
        self.sums = TruthSums()
        self.totals: dict[str, tuple[float, int]] = {}

    def add(self, values: dict[str, float], sums: TruthSums | None) -> None:
        """Take in one moment; values that are NaN are passed over."""
        if sums:
            self.sums += sums
        for name, value in values.items():
            if np.isfinite(value):
                total, n = self.totals.get(name, (0.0, 0))
                self.totals[name] = total + value, n + 1

    def mean(self, name: str) -> float:
        """Return the mean of a value over the moments that had one, else NaN."""
        total, n = self.totals.get(name, (0.0, 0))
        return total / n if n else float("nan")

    def metrics(self, untouched: "Arm") -> dict[str, float | None]:
        """Return the value of every metric; ratios are taken of means, so that no single frame can blow them up."""
        values = {name: self.mean(name) for name in METRICS}
        values |= {name: getattr(self.sums, name) for name in ("closure", "leak", "psnr", "sharpness")}
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = {
                n: np.divide(self.mean(n), untouched.mean(n)) for n in ("flicker", "to_truth", "second_difference")
            }
        values |= {"flicker_relative": ratio["flicker"], "identity_gap_closed": 1 - ratio["to_truth"]}
        values |= {"unsteadiness": ratio["second_difference"], "share_swapped": self.mean("swapped")}
        return {name: _clean(values[name]) for name in METRICS}


def _clean(value: float | None) -> float | None:
    """Return a plain float, or None for what is not a number."""
    return None if value is None or not np.isfinite(value) else float(value)


@dataclass(frozen=True)
class Patch:
    """The part of the frame around the face: whole-pixel box, the face's mask and the band along its edge."""

    box: Box
    mask: np.ndarray
    band: np.ndarray

    @classmethod
    def around(cls, polygon: np.ndarray, size: tuple[int, int], band: float, exclude: Box | None) -> "Patch | None":
        """Cut the patch of an outline, less the box ``exclude``; None where nothing of the face is in the frame."""
        height, width = size
        margin = int(np.ceil(band)) + 2 * SSIM_RADIUS
        x0, y0 = np.clip(np.floor(polygon.min(axis=0)).astype(int) - margin, 0, (width, height)).tolist()
        x1, y1 = np.clip(np.ceil(polygon.max(axis=0)).astype(int) + margin + 1, 0, (width, height)).tolist()
        if x1 - x0 < 3 or y1 - y0 < 3:
            return None
        mask = polygon_mask(polygon - (x0, y0), (y1 - y0, x1 - x0))
        edge = edge_band(mask, band)
        if exclude:
            hidden = np.s_[
                max(exclude[1] - y0, 0) : max(exclude[3] - y0, 0), max(exclude[0] - x0, 0) : max(exclude[2] - x0, 0)
            ]
            mask[hidden] = edge[hidden] = False
        return cls((x0, y0, x1, y1), mask, edge) if mask.any() else None


class Meter:
    """Takes the frames of all arms one moment at a time and keeps the scores."""

    def __init__(self, arms: tuple[str, ...], size: tuple[int, int], source: np.ndarray | None, config: EvalConfig):
        self.config, self.source, self.size = config, source, size
        self.arms = {name: Arm() for name in arms}
        self.series: dict[str, list[float | None]] = {name: [] for name in SERIES}
        self.mesh, self.embedder = FaceMesh(), Embedder()
        self.exclude = VisibleLabel(size).box if min(size) >= MIN_SIDE else None
        self.history: deque[dict[str, Frame]] = deque(maxlen=2)
        self.n_faces = self.n_crowded = self.n_unread = 0
        self._track: int | None = None

    def add(self, faces: FrameFaces, frames: dict[str, Frame]) -> tuple[Face | None, float | None]:
        """Measure one moment; returns the face that was measured and how bad the swap is here, or None."""
        if faces.cut:
            self.history.clear()
        chosen = self._choose(faces, frames)
        patch = None
        if chosen:
            patch = Patch.around(outline(chosen.mesh), self.size, self.config.edge_band, self.exclude)
        values = self._measure(patch, chosen, frames) if patch else {}
        self.n_faces += bool(values)
        own = values.get("swap", {}) | {"time": frames["target"].time}
        for name in SERIES:
            self.series[name].append(_clean(own.get(name)))
        self.history.appendleft(frames)
        bad = own.get("error", own.get("pose_error"))
        return (chosen if values else None), _clean(bad)

    def _choose(self, faces: FrameFaces, frames: dict[str, Frame]) -> Face | None:
        """Return the swapped face: the one that changed most; if none did, the same as before, or the largest."""
        if not faces.faces:
            return None
        chosen = max(faces.faces, key=lambda t: float(np.prod(t.face.box[2:] - t.face.box[:2])))
        if len(faces.faces) > 1:
            self.n_crowded += 1
            chosen = next((t for t in faces.faces if t.track == self._track), chosen)
            other = frames.get("truth", frames["swap"])
            changes = [self._change(t, frames["target"], other) for t in faces.faces]
            if max(changes) >= self.config.min_change:
                chosen = faces.faces[int(np.argmax(changes))]
        self._track = chosen.track
        return chosen.face

    def _change(self, tracked: TrackedFace, a: Frame, b: Frame) -> float:
        patch = Patch.around(outline(tracked.face.mesh), self.size, 1, self.exclude)
        return mean_difference(a.crop(*patch.box), b.crop(*patch.box), patch.mask) if patch else 0.0

    def _measure(self, patch: Patch, face: Face, frames: dict[str, Frame]) -> dict[str, dict[str, float]]:
        """Return every arm's values at this moment and add them to the arms."""
        now = {arm: frame.crop(*patch.box) for arm, frame in frames.items()}
        past = [{arm: frame.crop(*patch.box) for arm, frame in old.items()} for old in self.history]
        values = {arm: self._pixels(arm, now, past, patch) for arm in frames}
        fitted = {arm: self.mesh.fit(frame, face) for arm, frame in frames.items()}
        readable = {a: f for a, f in fitted.items() if f.mesh_score >= self.config.track.min_mesh_score}
        self.n_unread += "target" in readable and "swap" not in readable
        if "target" in readable:
            for arm, own in readable.items():
                values[arm] |= _attributes(own, readable["target"])
        if len(self.series["time"]) % self.config.embed_every == 0:
            for arm, distances in self._identity(frames, {a: readable.get(a, face) for a in frames}).items():
                values[arm] |= distances
        for arm, own in values.items():
            sums = TruthSums.of(now[arm], now["target"], now["truth"], patch.mask) if "truth" in now else None
            self.arms[arm].add(own, sums)
            if sums:
                own |= {"closure": sums.closure, "psnr": sums.psnr, "sharpness": sums.sharpness}
                own["error"] = sums.error / max(sums.weight, 1)
        return values

    def _pixels(self, arm: str, now: dict, past: list[dict], patch: Patch) -> dict[str, float]:
        own, mask = now[arm], patch.mask
        change = mean_difference(own, now["target"], mask)
        values = {"change": change, "swapped": float(change >= self.config.min_change)}
        if len(past) == 2:
            values["second_difference"] = second_difference(own, past[0][arm], past[1][arm], mask)
            footage = second_difference(now["target"], past[0]["target"], past[1]["target"], mask)
            values["unsteadiness"] = values["second_difference"] / footage if footage else float("nan")
        if "truth" in now:
            values["ssim"] = ssim(own, now["truth"], mask)
            values["band_error"] = mean_difference(own, now["truth"], patch.band)
            if past:
                values["flicker"] = flicker(own, past[0][arm], now["truth"], past[0]["truth"], mask)
        return values

    def _identity(self, frames: dict[str, Frame], faces: dict[str, Face]) -> dict[str, dict[str, float]]:
        chips = [crop_from_frame(f, chip_matrix(faces[arm].landmarks), 150) for arm, f in frames.items()]
        vectors = dict(zip(frames, self.embedder.embed_chips(np.stack(chips))))
        references = {
            "identity_target": vectors["target"],
            "identity_source": self.source,
            "to_truth": vectors.get("truth"),
        }
        known = {name: vector for name, vector in references.items() if vector is not None}
        return {arm: {n: float(identity_distance(v, k)) for n, k in known.items()} for arm, v in vectors.items()}


def _attributes(own: Face, target: Face) -> dict[str, float]:
    look, wanted = expression(own.mesh), expression(target.mesh)
    return {
        "pose_error": pose_error(estimate_pose(own.mesh), estimate_pose(target.mesh)),
        "mouth_error": mouth_error(look, wanted),
        "eyes_error": eyes_error(look, wanted),
    }
