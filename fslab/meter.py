"""The ruler at work: frame by frame it measures the face in every arm and keeps running scores.

Three *arms* go through the same formulas: the swap, the untouched target and the truth, so that every figure stands
between what doing nothing and what a perfect swap would score. Other clips may join them under names of their own.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
from typing_extensions import Doc

from fslab.faces import Embedder, Face, FaceMesh, chip_matrix, expression, outline
from fslab.geometry import crop_from_frame
from fslab.label import MIN_SIDE, VisibleLabel
from fslab.labels import ClipLabels
from fslab.measures import (
    TruthSums,
    colour_difference,
    flicker,
    mean_difference,
    ms_ssim,
    second_difference,
    ssim,
    warping_error,
)
from fslab.media import Frame
from fslab.metrics import METRICS
from fslab.patch import ExactEyes, Patch, Reading
from fslab.tracking import FrameFaces, TrackConfig, TrackedFace
from fslab.traits import (
    Gallery,
    calibration_error,
    eyes_error,
    identity_distance,
    landmark_error,
    mouth_error,
    pose_error,
    top1,
)

SERIES = (
    "time", "closure", "psnr", "ssim", "ms_ssim", "sharpness", "band_error", "colour_error", "flicker", "warp_excess",
    "identity_source", "identity_target", "pose_error", "mouth_error", "eyes_error", "pose_to_truth", "gaze_to_truth",
    "mouth_to_truth", "eyes_to_truth", "landmark_error", "unsteadiness", "change",
)  # fmt: skip
RESERVED = ("target", "swap", "truth", "size", "fps", "source", "labels", "gallery")


@dataclass(frozen=True)
class EvalConfig:
    """How a swapped video is measured, and what the report shows of it."""

    embed_every: Annotated[int, Doc("identity is compared on every n-th frame")] = 5
    edge_band: Annotated[float, Doc("half the width of the band along the face's outline, pixels")] = 8.0
    min_change: Annotated[
        float, Doc("a face that differs less from the footage counts as not swapped, grey levels")
    ] = 4.0
    has_label: Annotated[bool, Doc("the swap carries the visible label: the pixels of its box do not count")] = True
    n_moments: Annotated[int, Doc("frames shown in the report, spread over the clip")] = 4
    n_worst: Annotated[int, Doc("worst frames shown in the report")] = 4
    picture_side: Annotated[int, Doc("longer side of the report's pictures, pixels")] = 480
    track: Annotated[TrackConfig, Doc("how faces are followed")] = field(default_factory=TrackConfig)

    def __post_init__(self):
        if self.embed_every < 1 or self.edge_band <= 0 or self.min_change < 0:
            raise ValueError("embed_every must be >= 1, edge_band > 0 and min_change >= 0")
        if self.n_moments < 1 or self.n_worst < 0 or self.picture_side < 64:
            raise ValueError("n_moments must be >= 1, n_worst >= 0 and picture_side >= 64")


@dataclass(frozen=True, eq=False)
class References:
    """What is known beside the footage and the truth; each part may be left out.

    Attributes:
        source: ``(128,)`` embedding of the person put in, as `FaceSet.embedding` gives it; the gallery's if left out.
        labels: exact labels of the truth (without a truth: of the target). Then the pixels that count are those of
            ``labels.face``, with its shares for weights, and no detector decides anything.
        gallery: people among whom a recogniser should find the person put in.
        others: further clips made from the same footage, by name; they are scored as the swap is.

    Raises:
        ValueError: if one of the others takes a name that means something else in a report.
    """

    source: np.ndarray | None = None
    labels: ClipLabels | None = None
    gallery: Gallery | None = None
    others: Mapping[str, Path] = field(default_factory=dict)

    def __post_init__(self):
        if taken := set(self.others) & set(RESERVED):
            raise ValueError(f"others must have names of their own, got {', '.join(sorted(taken))}")
        if self.source is None and self.gallery:
            object.__setattr__(self, "source", np.asarray(self.gallery.embeddings)[self.gallery.index])


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


class Meter:
    """Takes the frames of all arms one moment at a time and keeps the scores."""

    def __init__(self, arms: tuple[str, ...], size: tuple[int, int], references: References, config: EvalConfig):
        self.config, self.references, self.size = config, references, size
        self.arms = {name: Arm() for name in arms}
        self.series: dict[str, list[float | None]] = {name: [] for name in SERIES}
        self.mesh, self.embedder = FaceMesh(), Embedder()
        self.exclude = VisibleLabel(size).box if config.has_label and min(size) >= MIN_SIDE else None
        self.history: deque[tuple[dict[str, Frame], Patch | None]] = deque(maxlen=2)
        self.n_faces = self.n_crowded = 0
        self.n_unread = dict.fromkeys(arms, 0)  # frames in which the mesh sees a face in the footage but none here
        self._looks: list[tuple[float, float, float]] = []  # of the truth: iris offset, known yaw, known gaze
        self._track: int | None = None

    def add(self, faces: FrameFaces, frames: dict[str, Frame]) -> tuple[Face | None, float | None]:
        """Measure one moment; returns the face that was measured and how bad the swap is here, or None."""
        if faces.cut:
            self.history.clear()
        chosen = self._choose(faces, frames)
        patch = self._patch(chosen) if chosen else None
        values = self._measure(patch, chosen, frames) if patch else {}
        self.n_faces += bool(values)
        own = values.get("swap", {}) | {"time": frames["target"].time}
        for name in SERIES:
            self.series[name].append(_clean(own.get(name)))
        self.history.appendleft((frames, patch))
        bad = own.get("error", own.get("pose_error"))
        return (chosen if values else None), _clean(bad)

    def own_errors(self) -> dict[str, float]:
        """Return how far the estimates of the truth are from its exact labels; empty where there are none.

        "pose" and "gaze" degrees, "mouth" eye spans, "eyes" eye widths; means. Gaze is calibrated on the clip itself,
        see `calibration_error`, and left out of a clip too short for that.
        """
        truth = self.arms.get("truth", Arm())
        found = {name: _clean(truth.mean(f"{name}_known")) for name in ("pose", "mouth", "eyes")}
        found["gaze"] = _clean(calibration_error(*np.split(np.array(self._looks).reshape(-1, 3), [2], axis=1)))
        return {name: value for name, value in found.items() if value is not None}

    @property
    def _now(self) -> int:
        return len(self.series["time"])

    def _patch(self, face: Face) -> Patch | None:
        if self.references.labels is None:
            return Patch.around(outline(face.mesh), self.size, self.config.edge_band, self.exclude)
        return Patch.of(self.references.labels.face[self._now] / 255, self.config.edge_band, self.exclude)

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
        past = [{arm: frame.crop(*patch.box) for arm, frame in old.items()} for old, _ in self.history]
        values = {arm: self._pixels(arm, now, past, patch) for arm in frames}
        fitted = {arm: self.mesh.fit(frame, face) for arm, frame in frames.items()}
        readable = {a: f for a, f in fitted.items() if f.mesh_score >= self.config.track.min_mesh_score}
        for arm in frames.keys() - readable.keys() if "target" in readable else ():
            self.n_unread[arm] += 1
        eyes = None
        if self.references.labels is not None and "truth" in readable:
            eyes = ExactEyes.of(self.references.labels, self._now, patch.box, readable["truth"])
        readings = {arm: Reading.of(own, now[arm], patch.box, eyes) for arm, own in readable.items()}
        parts = [self._attributes(readings), self._warping(frames, patch)]
        if self._now % self.config.embed_every == 0:
            parts.append(self._identity(frames, {a: readable.get(a, face) for a in frames}))
        for part in parts:
            for arm, found in part.items():
                values[arm] |= found
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
            values["ssim"], values["ms_ssim"] = ssim(own, now["truth"], mask), ms_ssim(own, now["truth"], mask)
            values["colour_shift"], values["colour_error"] = colour_difference(own, now["truth"], mask)
            values["band_error"] = mean_difference(own, now["truth"], patch.band)
            if past:
                values["flicker"] = flicker(own, past[0][arm], now["truth"], past[0]["truth"], mask)
        return values

    def _warping(self, frames: dict[str, Frame], patch: Patch) -> dict[str, dict[str, float]]:
        """Return what each arm's skin changes since the last frame, more than the truth's does."""
        labels, (earlier, before) = self.references.labels, self.history[0] if self.history else ({}, None)
        if labels is None or before is None or "truth" not in frames:
            return {}
        x0, y0, x1, y1 = (f(a, b) for f, a, b in zip((min, min, max, max), patch.box, before.box))
        flow, mask = labels.flow[self._now - 1, y0:y1, x0:x1], np.zeros((y1 - y0, x1 - x0), np.float32)
        left, top = before.box[0] - x0, before.box[1] - y0
        mask[top : top + before.mask.shape[0], left : left + before.mask.shape[1]] = before.mask
        error = {
            arm: warping_error(earlier[arm].crop(x0, y0, x1, y1), frame.crop(x0, y0, x1, y1), flow, mask)
            for arm, frame in frames.items()
        }
        return {arm: {"warp_excess": value - error["truth"]} for arm, value in error.items()}

    def _attributes(self, readings: dict[str, Reading]) -> dict[str, dict[str, float]]:
        """Return what each face does against the footage, the truth and the exact labels, where there are such."""
        values: dict[str, dict[str, float]] = {arm: {} for arm in readings}
        labels = self.references.labels
        if labels is not None and "truth" in readings and np.isfinite(readings["truth"].iris):
            self._looks.append((readings["truth"].iris, labels.pose[self._now, 0], labels.gaze[self._now, 0]))
        for arm, own in readings.items():
            for other, suffix in (("target", "_error"), ("truth", "_to_truth")):
                if other in readings:
                    values[arm] |= own.errors(readings[other], suffix)
            if labels is not None and "truth" in self.arms:
                exact, flat = labels.mesh[self._now], expression(own.mesh[:, :2])
                values[arm] |= {
                    "landmark_error": landmark_error(own.mesh, exact),
                    "pose_known": pose_error(own.pose, labels.pose[self._now]),
                    "mouth_known": mouth_error(flat, expression(exact)),
                    "eyes_known": eyes_error(flat, expression(exact)),
                }
        return values

    def _identity(self, frames: dict[str, Frame], faces: dict[str, Face]) -> dict[str, dict[str, float]]:
        chips = [crop_from_frame(f, chip_matrix(faces[arm].landmarks), 150) for arm, f in frames.items()]
        vectors = dict(zip(frames, self.embedder.embed_chips(np.stack(chips))))
        references = {
            "identity_target": vectors["target"],
            "identity_source": self.references.source,
            "to_truth": vectors.get("truth"),
        }
        known = {name: vector for name, vector in references.items() if vector is not None}
        values = {arm: {n: float(identity_distance(v, k)) for n, k in known.items()} for arm, v in vectors.items()}
        if gallery := self.references.gallery:
            for arm, vector in vectors.items():
                values[arm]["top1"] = top1(vector, gallery.embeddings, gallery.index)
        return values
