"""Measure a swapped video: against the footage it was made from and, where it is known, against the truth."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path

import cv2
import numpy as np

from fslab.errors import MediaError, NoFaceFound
from fslab.faces import Face
from fslab.labels import ClipLabels
from fslab.media import Frame, probe, read_frames, read_marks
from fslab.meter import EvalConfig, Meter, References
from fslab.metrics import METRICS, Metric
from fslab.patch import exact_face
from fslab.pipeline import prefetch
from fslab.storage import sha256_file
from fslab.tracking import FrameFaces, TrackConfig, TrackedFace, track
from fslab.traits import Gallery

__all__ = [
    "METRICS", "EvalConfig", "EvalReport", "Gallery", "Metric", "Moment", "Pictures", "References", "evaluate_videos",
]  # fmt: skip

SCHEMA = 1


@dataclass(frozen=True)
class Moment:
    """One frame as the report shows it.

    ``frames`` and ``faces`` map an arm to a picture ``(h, w, 3)`` uint8: the whole frame, and a square around the face
    (empty where none was found). ``badness`` is the mean squared error to the truth, or without one the pose error.
    """

    index: int
    time: float
    frames: dict[str, np.ndarray]
    faces: dict[str, np.ndarray]
    badness: float | None = None


@dataclass(frozen=True)
class Pictures:
    """Frames to look at: some spread over the clip, and the worst ones, worst first.

    ``marks`` is what the swapped video says about itself (`fslab.media.read_marks`), for the pictures cut from it.
    """

    moments: tuple[Moment, ...] = ()
    worst: tuple[Moment, ...] = ()
    marks: dict = field(default_factory=dict)


@dataclass(frozen=True)
class EvalReport:
    """What a swapped video scores.

    ``metrics`` maps names of `METRICS` to values, None where one could not be taken; ``baselines`` holds the same for
    the untouched ``target``, the ``truth``, where there is one, and whatever other clips were given. ``per_frame`` maps
    names to one value a frame, None where none was taken. ``inputs`` says what was compared: file names, hashes, size,
    rate, what was known. ``own_errors`` are those of the estimators, see `Meter.own_errors`. ``notes`` are sentences to
    read with the figures. ``pictures`` stay in memory and are not part of the JSON.
    """

    metrics: dict[str, float | None]
    baselines: dict[str, dict[str, float | None]]
    per_frame: dict[str, list[float | None]]
    n_frames: int
    n_faces: int
    inputs: dict
    settings: dict
    notes: tuple[str, ...] = ()
    own_errors: dict[str, float] = field(default_factory=dict)
    pictures: Pictures = field(default_factory=Pictures, repr=False, compare=False)

    def to_dict(self) -> dict:
        """Return the report as JSON types, without the pictures."""
        names = ("metrics", "baselines", "per_frame", "n_frames", "n_faces", "inputs", "settings", "own_errors")
        return {"schema": SCHEMA, **{n: getattr(self, n) for n in names}, "notes": list(self.notes)}

    @classmethod
    def from_dict(cls, data: dict) -> "EvalReport":
        """Build a report from `to_dict`; raises ValueError if it is not one."""
        if not isinstance(data, dict) or data.get("schema") != SCHEMA:
            raise ValueError("not a report of this version")
        try:
            return cls(**{**{k: v for k, v in data.items() if k != "schema"}, "notes": tuple(data["notes"])})
        except (KeyError, TypeError) as reason:
            raise ValueError(f"not a report: {reason}") from reason


class _Album:
    """Keeps the frames the report shows, small, while the clip streams by: a fixed number, however long the clip."""

    def __init__(self, n_expected: int, config: EvalConfig):
        self.config = config
        self.wanted = set(
            np.linspace(0, max(n_expected - 1, 0), config.n_moments + 2)[1:-1].round().astype(int).tolist()
        )
        self.apart = max(n_expected // 20, 5)  # neighbouring frames look alike: one of them is enough
        self.moments: list[Moment] = []
        self.worst: list[Moment] = []

    def offer(self, frames: dict[str, Frame], face: Face | None, badness: float | None) -> None:
        """Keep this frame if it is one of those to show or among the worst so far."""
        index = frames["target"].index
        if index in self.wanted:
            self.moments.append(self._picture(frames, face, badness))
        if not badness or not self.config.n_worst:
            return
        near = next((m for m in self.worst if abs(m.index - index) < self.apart), None)
        rival = near or (self.worst[-1] if len(self.worst) == self.config.n_worst else None)
        if rival is None or badness > rival.badness:
            kept = [m for m in self.worst if m is not rival]
            self.worst = sorted([*kept, self._picture(frames, face, badness)], key=lambda m: -m.badness)

    def _picture(self, frames: dict[str, Frame], face: Face | None, badness: float | None) -> Moment:
        side = self.config.picture_side
        small = {arm: frame.thumbnail(side)[0] for arm, frame in frames.items()}
        faces = {arm: _close_up(frame, face.box, side // 2) for arm, frame in frames.items()} if face else {}
        return Moment(frames["target"].index, frames["target"].time, small, faces, badness)


def _close_up(frame: Frame, box: np.ndarray, side: int) -> np.ndarray:
    """Return the square around a face box with some room, ``(side, side, 3)``; it is moved into the frame."""
    height, width = frame.size
    reach = int(min(1.3 * max(box[2] - box[0], box[3] - box[1], 8), height, width))
    x0 = int(np.clip((box[0] + box[2] - reach) / 2, 0, width - reach))
    y0 = int(np.clip((box[1] + box[3] - reach) / 2, 0, height - reach))
    crop = frame.crop(x0, y0, x0 + reach, y0 + reach)
    return cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA if reach > side else cv2.INTER_CUBIC)


def _in_step(
    paths: dict[str, Path], config: TrackConfig, labels: ClipLabels | None
) -> Iterator[tuple[FrameFaces, dict[str, Frame]]]:
    """Yield the same moment of every clip, with the target's faces: the labelled one, or those that are found.

    Raises:
        MediaError: if the clips differ in size, length or timing, or the labels are of another clip.
    """
    half = float(0.5 / probe(paths["target"]).fps)
    with ExitStack() as stack:

        def opened(stream: Iterator) -> Iterator:
            return stack.enter_context(closing(prefetch(stream, 4)))

        footage = opened(read_frames(paths["target"]))
        followed = opened(track(footage, config)) if labels is None else _labelled(footage, labels, paths["target"])
        others = {arm: opened(read_frames(path)) for arm, path in paths.items() if arm != "target"}
        first: dict[str, float] = {}
        for n_before in count():
            faces = next(followed, None)
            frames = {"target": faces and faces.frame} | {arm: next(stream, None) for arm, stream in others.items()}
            if all(frame is None for frame in frames.values()):
                return
            if any(frame is None for frame in frames.values()):
                streams = {"target": followed, **others}
                counts = {a: n_before + (f is not None) + sum(1 for _ in streams[a]) for a, f in frames.items()}
                raise _differs(paths, {a: f"{n} frames" for a, n in counts.items()}, "the same number of frames")
            _check_pair(paths, frames, first, half)
            yield faces, frames


def _labelled(frames: Iterator[Frame], labels: ClipLabels, path: Path) -> Iterator[FrameFaces]:
    """Yield every frame with the face its labels tell of.

    Raises:
        MediaError: if the labels are of a clip of another size or length.
    """
    n_frames = 0
    for n_frames, frame in enumerate(frames, start=1):
        if tuple(frame.size) != tuple(labels.size):
            raise _misfit(path, *(f"{size[1]} x {size[0]} pixels" for size in (frame.size, labels.size)))
        if n_frames > len(labels):
            n_frames += sum(1 for _ in frames)
            break
        yield FrameFaces(frame, (TrackedFace(0, exact_face(labels, n_frames - 1)),))
    if n_frames != len(labels):
        raise _misfit(path, f"{n_frames} frames", f"{len(labels)} frames")


def _misfit(path: Path, wanted: str, found: str) -> MediaError:
    return MediaError(f"labels of {wanted}, as '{path.name}' has", f"labels of {found}", "give that clip's own labels")


def _check_pair(paths: dict[str, Path], frames: dict[str, Frame], first: dict[str, float], half: float) -> None:
    """Refuse frames of different sizes, or further than half a frame apart since their clips' first frames."""
    if not first:
        first.update({arm: frame.time for arm, frame in frames.items()})
        if len({frame.size for frame in frames.values()}) > 1:
            sizes = {arm: f"{frame.size[1]} x {frame.size[0]}" for arm, frame in frames.items()}
            raise _differs(paths, sizes, "frames of one size")
    times = {arm: frame.time - first[arm] for arm, frame in frames.items()}
    if max(times.values()) - min(times.values()) > half:
        found = {arm: f"frame {frames['target'].index} at {time:.3f} s" for arm, time in times.items()}
        raise _differs(paths, found, "the same timestamps")


def _differs(paths: dict[str, Path], found: dict[str, str], what: str) -> MediaError:
    told = ", ".join(f"'{paths[arm].name}' ({arm}) with {text}" for arm, text in found.items())
    return MediaError(f"{what} in every clip", told, "compare clips made from the same footage, frame by frame")


def evaluate_videos(
    swapped: Path,
    target: Path,
    truth: Path | None = None,
    references: References | None = None,
    config: EvalConfig | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> EvalReport:
    """Measure a swapped video.

    Without labels the face is looked for in the target, frame by frame, and its outline is the mask; with labels the
    mask is exact. It is the same for every clip, less the visible label's box. The clips stream: memory grows with
    their length by a few numbers a frame.

    Args:
        swapped: the swapped video.
        target: the footage it was made from.
        truth: what a perfect swap looks like, where that is known.
        references: what else is known: the source's embedding, exact labels, a gallery; and other clips to score.
        config: see `EvalConfig`.
        on_progress: called with (frames done, frames expected or 0).

    Raises:
        MediaError: if a clip cannot be read, or clips and labels differ in size, length or timing.
        NoFaceFound: if the target shows no face.
    """
    config, references = config or EvalConfig(), references or References()
    paths = {"target": Path(target), "swap": Path(swapped)} | ({"truth": Path(truth)} if truth else {})
    paths |= {name: Path(path) for name, path in references.others.items()}
    infos = {arm: probe(path) for arm, path in paths.items()}
    expected = infos["target"].n_frames
    meter, album, n_frames = None, _Album(expected, config), 0
    for faces, frames in _in_step(paths, config.track, references.labels):
        meter = meter or Meter(tuple(paths), faces.frame.size, references, config)
        face, badness = meter.add(faces, frames)
        album.offer(frames, face, badness)
        n_frames += 1
        if on_progress:
            on_progress(n_frames, max(expected, n_frames))
    if not meter or not meter.n_faces:
        raise NoFaceFound(
            f"a face in '{paths['target'].name}'",
            f"none in {n_frames} frames",
            "use footage with a larger, clearer face",
        )
    inputs = {arm: {"file": path.name, "sha256": sha256_file(path)} for arm, path in paths.items()}
    inputs |= {"size": list(meter.size), "fps": float(infos["target"].fps), **_known(references)}
    return EvalReport(
        metrics=meter.arms["swap"].metrics(meter.arms["target"]),
        baselines={arm: meter.arms[arm].metrics(meter.arms["target"]) for arm in paths if arm != "swap"},
        per_frame=meter.series,
        n_frames=n_frames,
        n_faces=meter.n_faces,
        inputs=inputs,
        settings=asdict(config),
        notes=tuple(_notes(meter, n_frames, inputs)),
        own_errors=meter.own_errors(),
        pictures=Pictures(tuple(album.moments), tuple(album.worst), read_marks(paths["swap"])),
    )


def _known(references: References) -> dict[str, bool | int]:
    """Say what was known beside the clips; "gallery" is its number of people."""
    n_people = len(references.gallery.embeddings) if references.gallery else 0
    return {"source": references.source is not None, "labels": references.labels is not None, "gallery": n_people}


def _notes(meter: Meter, n_frames: int, inputs: dict) -> Iterator[str]:
    """Yield the sentences that belong beside the figures."""
    if meter.n_faces < n_frames:
        missed = n_frames - meter.n_faces
        yield f"The footage shows no measurable face in {missed} of {n_frames} frames; they were skipped."
    if meter.n_crowded:
        yield (
            f"{meter.n_crowded} frames show more than one face; the one that was changed most was measured, "
            "or the largest where none was changed."
        )
    unswapped = round(meter.n_faces * (1 - meter.arms["swap"].mean("swapped")))
    if unswapped:
        yield f"In {unswapped} of {meter.n_faces} frames the face is as in the footage: it was not swapped there."
    if unread := meter.n_unread["swap"]:
        yield f"In {unread} frames the face mesh sees a face in the footage but none in the swap."
    if others := {arm: n for arm, n in meter.n_unread.items() if n and arm != "swap"}:
        told = ", ".join(f"{arm} in {n}" for arm, n in others.items())
        yield f"The face mesh sees no face where the footage shows one: {told}; they are left out of what it reads."
    if own := meter.own_errors():
        units = {"pose": "degrees", "gaze": "degrees", "mouth": "eye spans", "eyes": "eye widths"}
        told = ", ".join(f"{name} {own[name]:.2g} {unit}" for name, unit in units.items() if name in own)
        yield f"The estimators' own mean error, on the truth against its labels: {told}."
    if "truth" not in inputs:
        yield "No truth was given, so nothing here says how near the swap is to the right answer."
    if not inputs["source"]:
        yield "No face set of the source was given, so the distance to the person put in was not taken."
