"""Faces over time: the mesh follows each face, the detector looks for new and lost ones, a filter steadies them."""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, combinations, repeat
from typing import Annotated

import cv2
import numpy as np
from typing_extensions import Doc

from fslab.faces import MIN_FACE, Detector, Face, FaceMesh, box_iou, is_plausible, scale_face
from fslab.media import Frame
from fslab.mesh import five_points, mesh_box

NEVER = -(10**9)  # a frame number long before the first
SMOOTH_TIME = 0.7  # standard deviation of the weights in time, share of the radius
SMOOTH_TOLERANCE = 0.04  # standard deviation of the weights in distance, share of the eye distance


@dataclass(frozen=True)
class TrackConfig:
    """How faces are found and followed."""

    detect_every: Annotated[int, Doc("the detector looks for new faces every so many frames")] = 50
    detect_long_side: Annotated[int, Doc("longer side of the reduced frame the detector sees, pixels")] = 480
    min_face: Annotated[float, Doc("smallest face looked for: share of the frame's short side, or pixels if > 1")] = (
        0.05
    )
    min_score: Annotated[float, Doc("a new face needs this detector score, 0 to 1")] = 0.95
    min_mesh_score: Annotated[float, Doc("a face whose mesh score falls below this is looked for again, 0 to 1")] = 0.5
    lost_after: Annotated[int, Doc("a face not seen for this many frames has left")] = 12
    cut_threshold: Annotated[float, Doc("mean change of brightness that may be a cut, share of its range")] = 0.05

    def __post_init__(self):
        if self.detect_every < 1 or self.lost_after < 1:
            raise ValueError(f"detect_every and lost_after must be >= 1, got {self.detect_every} and {self.lost_after}")
        if self.detect_long_side < 64 or self.min_face <= 0:
            raise ValueError(
                f"detect_long_side must be >= 64 and min_face > 0, got {self.detect_long_side} and {self.min_face}"
            )
        for name in ("min_score", "min_mesh_score", "cut_threshold"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}")


@dataclass(frozen=True)
class TrackedFace:
    """A face and the number of its track, one face followed without a break; numbers are never used again."""

    track: int
    face: Face


@dataclass(frozen=True)
class FrameFaces:
    """A frame, the faces seen in it, and whether a new shot starts here (not set on the first frame)."""

    frame: Frame
    faces: tuple[TrackedFace, ...]
    cut: bool = False


class CutDetector:
    """Finds hard cuts: changes of the thumbnail's brightness that are large, and large beside those just before."""

    LONG_SIDE = 32  # pixels; so coarse that a moving face changes little
    RATIO = 3.0  # times the median of the last changes: camera shake and fast motion are no cuts
    MEMORY = 8  # frames

    def __init__(self, threshold: float):
        """Start without a frame; ``threshold`` as in `TrackConfig`."""
        self.threshold = threshold
        self._last: np.ndarray | None = None
        self._changes: deque[float] = deque(maxlen=self.MEMORY)

    def is_cut(self, frame: Frame) -> bool:
        """Look at the next frame; returns whether it starts a new shot."""
        small = cv2.cvtColor(frame.thumbnail(self.LONG_SIDE)[0], cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
        last, self._last = self._last, small
        if last is None:
            return False
        change = float(np.abs(small - last).mean()) if small.shape == last.shape else np.inf
        usual = float(np.median(self._changes)) if self._changes else 0.0
        cut = change > max(self.threshold, self.RATIO * usual)
        if cut:
            self._changes.clear()
        else:
            self._changes.append(change)
        return cut


@dataclass
class _Track:
    """A face being followed; ``missing`` counts the frames since it was last seen."""

    number: int
    face: Face
    missing: int = 0


class FaceTracker:
    """Follows the faces of one clip, frame after frame.

    The mesh follows each face from its own last outline. The detector, on a reduced frame, looks for new faces at the
    start of a shot and every ``detect_every`` frames (ten times as often while nobody is in sight), and for a lost
    face when it is lost and 1, 3, 7, 15 ... frames later. Faces that come to cover each other end their tracks, so that
    a number never passes from one person to another.
    """

    def __init__(self, config: TrackConfig | None = None):
        """Load the networks; one tracker serves one clip and one thread."""
        self.config = config or TrackConfig()
        self._detector, self._mesh = Detector(), FaceMesh()
        self._cuts = CutDetector(self.config.cut_threshold)
        self._tracks: list[_Track] = []
        self._next_number = 0
        self._now = -1  # number of the frame at hand, in the order of the calls
        self._detected_at = self._turned_at = self._lost_at = NEVER

    def update(self, frame: Frame) -> FrameFaces:
        """Follow the known faces into the next frame and look for others when it is time.

        Args:
            frame: the next frame of the clip; all are of one size.

        Returns:
            The frame with the faces seen in it, oldest track first.
        """
        self._now += 1
        cut = self._cuts.is_cut(frame)
        if cut:
            self._tracks = []
            self._detected_at = self._turned_at = self._lost_at = NEVER
        for track in self._tracks:
            self._follow(frame, track)
        self._end_overlapping()
        if self._is_time_to_detect():
            self._detect(frame)
        self._tracks = [t for t in self._tracks if t.missing <= self.config.lost_after]
        seen = tuple(TrackedFace(t.number, t.face) for t in self._tracks if t.missing == 0)
        return FrameFaces(frame, seen, cut)

    def _follow(self, frame: Frame, track: _Track) -> None:
        """Move a track's face into this frame, or count it as missing."""
        if track.missing == 0:
            face = self._mesh.fit(frame, track.face)
            if self._is_good(frame, face) and _is_near(track.face, face):
                track.face = face
                return
            self._lost_at = self._now
        track.missing += 1

    def _is_good(self, frame: Frame, face: Face) -> bool:
        """Tell whether a fitted mesh shows a face of which at least half lies in the frame."""
        height, width = frame.size
        inside = np.clip(face.box, 0, (width, height, width, height))
        share = np.prod(inside[2:] - inside[:2]) / max(np.prod(face.box[2:] - face.box[:2]), 1e-6)
        return face.mesh_score >= self.config.min_mesh_score and share >= 0.5 and is_plausible(face.box, face.landmarks)

    def _end_overlapping(self) -> None:
        """End tracks whose faces cover each other: who is who can no longer be told from their place."""
        seen = [t for t in self._tracks if t.missing == 0]
        ended = {t.number for a, b in combinations(seen, 2) if box_iou(a.face.box, b.face.box) > 0.5 for t in (a, b)}
        if ended:
            self._tracks = [t for t in self._tracks if t.number not in ended]
            self._lost_at = self._now

    def _is_time_to_detect(self) -> bool:
        every = self.config.detect_every if self._tracks else max(self.config.detect_every // 10, 1)
        ago = self._now - self._lost_at
        return self._now - self._detected_at >= every or (ago <= every and ago & (ago + 1) == 0)

    def _detect(self, frame: Frame) -> None:
        """Check the followed faces, find lost ones again and take up new ones."""
        self._detected_at = self._now
        found = self._find(frame, self._detector.detect)
        for track in sorted(self._tracks, key=lambda t: t.missing):
            near = [face for face in found if box_iou(face.box, track.face.box) > 0.3]
            if near:
                face = max(near, key=lambda f: box_iou(f.box, track.face.box))
                found = [f for f in found if f is not face and box_iou(f.box, face.box) < 0.5]
                self._confirm(frame, track, face)
        self._take_up(frame, found)
        if not self._tracks and self._now - self._turned_at >= 2 * self.config.detect_every:
            self._turned_at = self._now  # rarely: it is slow
            self._take_up(frame, self._find(frame, self._detector.detect_any_roll))

    def _find(self, frame: Frame, search: Callable[[np.ndarray, float], list[Face]]) -> list[Face]:
        """Search the reduced frame; returns faces in frame pixels."""
        small, scale = frame.thumbnail(self.config.detect_long_side)
        share = self.config.min_face
        smallest = max(MIN_FACE, scale * (share if share > 1 else share * min(frame.size)))
        return [scale_face(face, 1 / scale) for face in search(small, smallest)]

    def _take_up(self, frame: Frame, found: list[Face]) -> None:
        """Start a track for every detection that is sure, that the mesh confirms, and that nobody follows yet."""
        for face in found:
            if face.score < self.config.min_score or (fitted := self._fit_new(frame, face)) is None:
                continue
            if all(t.missing or box_iou(t.face.box, fitted.box) < 0.4 for t in self._tracks):
                self._tracks.append(_Track(self._next_number, fitted))
                self._next_number += 1

    def _confirm(self, frame: Frame, track: _Track, face: Face) -> None:
        """Take up a lost track again at a detection, or set a followed mesh right that disagrees with it."""
        if track.missing == 0 and _agree(track.face, face):
            track.face = replace(track.face, score=face.score)
        elif (fitted := self._fit_new(frame, face)) is not None:
            track.face, track.missing = fitted, 0

    def _fit_new(self, frame: Frame, face: Face) -> Face | None:
        """Fit the mesh to a detection; None if the two do not agree that there is a face."""
        fitted = self._mesh.fit(frame, face)
        return fitted if _agree(fitted, face) and self._is_good(frame, fitted) else None


def _agree(fitted: Face, detected: Face) -> bool:
    """Tell whether mesh and detector see the same face: landmarks less than a sixth of its size apart on average."""
    apart = np.linalg.norm(fitted.landmarks - detected.landmarks, axis=1).mean()
    return bool(apart < 0.16 * max(fitted.box[2:] - fitted.box[:2]))


def _is_near(before: Face, after: Face) -> bool:
    """Tell whether a face can have moved and grown so much in one frame."""
    old, new = (float((f.box[2:] - f.box[:2]).max()) for f in (before, after))
    shift = np.linalg.norm(before.box.reshape(2, 2).mean(axis=0) - after.box.reshape(2, 2).mean(axis=0))
    return bool(0.7 < new / old < 1.4 and shift < 0.6 * old)


def track(frames: Iterable[Frame], config: TrackConfig | None = None) -> Iterator[FrameFaces]:
    """Follow the faces of a clip.

    A face seen in one frame only, with more of the shot to come, is dropped as a false one.

    Args:
        frames: the frames of one clip, or one still image.
        config: how.

    Yields:
        Every frame, in order, one frame late.
    """
    tracker = FaceTracker(config)
    seen: set[int] = set()
    waiting: FrameFaces | None = None
    for frame in frames:
        faces = tracker.update(frame)
        now = {f.track for f in faces.faces}
        if waiting is not None:
            if not faces.cut:
                keep = tuple(f for f in waiting.faces if f.track in seen or f.track in now)
                waiting = replace(waiting, faces=keep)
            seen |= {f.track for f in waiting.faces}
            yield waiting
        waiting = faces
    if waiting is not None:
        yield waiting


def smooth(stream: Iterable[FrameFaces], radius: int) -> Iterator[FrameFaces]:
    """Steady the faces of a stream without lag.

    Every mesh point is replaced by the value at the frame of a line fitted, with weights, to its positions in the
    same track up to ``radius`` frames before and after. The weights fall with time and with distance: a still face is
    averaged, a moving one hardly changed. Local linear regression (Cleveland 1979) with the weights of the bilateral
    filter (Tomasi and Manduchi 1998).

    Args:
        stream: frames in order.
        radius: frames looked at before and after; 0 changes nothing.

    Yields:
        Every frame, in order, ``radius`` frames late, with mesh, landmarks and box filtered. Nothing crosses a cut.
    """
    if radius < 0:
        raise ValueError(f"radius must be >= 0, got {radius}")
    window: deque[FrameFaces | None] = deque([None] * radius, maxlen=2 * radius + 1)
    for faces in chain(stream, repeat(None, radius)):
        window.append(faces)
        if len(window) == window.maxlen and (centre := window[radius]) is not None:
            shot = _shot(window, radius)
            yield replace(centre, faces=tuple(_smooth_face(f, shot, radius) for f in centre.faces))


def _shot(window: Sequence[FrameFaces | None], centre: int) -> list[tuple[int, FrameFaces]]:
    """Return (offset, frame) of the frames in the window that belong to the shot of its centre."""
    first = last = centre
    while first > 0 and window[first - 1] is not None and not window[first].cut:
        first -= 1
    while last + 1 < len(window) and window[last + 1] is not None and not window[last + 1].cut:
        last += 1
    return [(i - centre, window[i]) for i in range(first, last + 1)]


def _smooth_face(tracked: TrackedFace, shot: list[tuple[int, FrameFaces]], radius: int) -> TrackedFace:
    """Filter one face over its shot; see `smooth`."""
    face = tracked.face
    samples = [(k, f.face.mesh) for k, faces in shot for f in faces.faces if f.track == tracked.track]
    if len(samples) < 2:
        return tracked
    times = np.array([k for k, _ in samples], np.float64)[:, None]  # (n, 1)
    meshes = np.stack([mesh for _, mesh in samples]).astype(np.float64)  # (n, 468, 3)
    tolerance = SMOOTH_TOLERANCE * float(np.hypot(*(face.landmarks[1] - face.landmarks[0])))
    moved = ((meshes - face.mesh)[:, :, :2] ** 2).sum(axis=2)  # (n, 468)
    weights = np.exp(-0.5 * (times / max(SMOOTH_TIME * radius, 0.5)) ** 2 - 0.5 * moved / max(tolerance, 1e-6) ** 2)
    weights /= weights.sum(axis=0)
    mean_time = (weights * times).sum(axis=0)  # (468,)
    mean = (weights[:, :, None] * meshes).sum(axis=0)  # (468, 3)
    lever = weights * (times - mean_time)
    slope = (lever[:, :, None] * meshes).sum(axis=0) / ((lever * (times - mean_time)).sum(axis=0) + 0.05)[:, None]
    mesh = (mean - slope * mean_time[:, None]).astype(np.float32)
    return replace(tracked, face=replace(face, mesh=mesh, landmarks=five_points(mesh), box=mesh_box(mesh)))


def group_people(
    embeddings: np.ndarray, weights: Sequence[float], threshold: float, together: Collection[tuple[int, int]] = ()
) -> list[int]:
    """Group tracks into people: average linkage of the embeddings' Euclidean distances.

    Args:
        embeddings: ``(n, 128)``, the mean of each track.
        weights: ``(n,)`` faces behind each mean.
        threshold: groups nearer than this, on average, are one person.
        together: pairs of tracks seen in the same frame, which are never one person.

    Returns:
        The person of each track, numbered from 0 in the order of their first tracks.
    """
    n = len(embeddings)
    if len(weights) != n or any(w <= 0 for w in weights):
        raise ValueError(f"weights must be {n} positive numbers, got {list(weights)}")
    embeddings = np.asarray(embeddings, np.float64)
    distance = np.linalg.norm(embeddings[:, None] - embeddings[None], axis=2)  # (n, n)
    np.fill_diagonal(distance, np.inf)
    for a, b in together:
        distance[a, b] = distance[b, a] = np.inf
    person, size = np.arange(n), np.array(weights, np.float64)
    while n and distance.min() < threshold:
        a, b = sorted(np.unravel_index(distance.argmin(), distance.shape))
        row = (size[a] * distance[a] + size[b] * distance[b]) / (size[a] + size[b])
        row[[a, b]] = np.inf
        distance[a], distance[:, a] = row, row
        distance[b], distance[:, b] = np.inf, np.inf
        size[a] += size[b]
        person[person == b] = a
    order = {int(p): i for i, p in enumerate(dict.fromkeys(person.tolist()))}
    return [order[int(p)] for p in person]
