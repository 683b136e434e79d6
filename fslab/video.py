"""Swap a whole clip: decode -> track -> choose -> convert -> paste -> encode, each stage in its own thread."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
from typing_extensions import Doc

from fslab.blend import ColourShift
from fslab.embedder import Embedder
from fslab.errors import NoFaceFound
from fslab.media import VideoOptions, probe, read_frames
from fslab.pipeline import in_batches, prefetch
from fslab.provenance import open_marked_video
from fslab.run import Run
from fslab.swap import SwappedFace, Swapper, check_target, choose_replaced, is_person, swap_manifest
from fslab.tracking import FrameFaces, TrackConfig, TrackedFace, smooth, track


@dataclass(frozen=True)
class VideoConfig:
    """How a clip is followed and written."""

    smooth: Annotated[int, Doc("landmarks are averaged over this many frames before and after, 0 = off")] = 4
    batch: Annotated[int, Doc("frames whose faces go through the network together")] = 4
    embed_every: Annotated[int, Doc("a followed face's identity is checked again every n-th frame")] = 25
    lookahead: Annotated[int, Doc("frames seen before it is decided who a new face is")] = 8
    track: Annotated[TrackConfig, Doc("how faces are followed")] = field(default_factory=TrackConfig)
    encode: Annotated[VideoOptions, Doc("how the result is encoded")] = field(default_factory=VideoOptions)

    def __post_init__(self):
        if self.smooth < 0 or self.lookahead < 0 or self.batch < 1 or self.embed_every < 1:
            raise ValueError("smooth and lookahead must be >= 0, batch and embed_every >= 1")


@dataclass(frozen=True)
class SwapSummary:
    """What `swap_video` did: frames written, frames with a swapped face, who was replaced, nearest distance seen."""

    n_frames: int
    n_swapped: int
    replaced: str
    nearest: float


class PersonChooser:
    """Decides which followed faces are the person to replace: by identity, never by position.

    Each track's embeddings are averaged; the decision is taken from the average, so one odd frame cannot flip it.
    Frames are held back by ``lookahead``: a new track is judged on several looks before its first frame leaves.
    """

    def __init__(self, run: Run, person: str, threshold: float, config: VideoConfig):
        self.run, self.person, self.threshold, self.config = run, person, threshold, config
        self.embedder = Embedder()
        self.nearest = float("inf")
        self._sums: dict[int, np.ndarray] = {}
        self._looks: dict[int, int] = {}
        self._ages: dict[int, int] = {}

    def choose(self, stream: Iterable[FrameFaces]) -> Iterator[tuple[FrameFaces, tuple[TrackedFace, ...]]]:
        """Yield every frame with the faces to swap in it."""
        waiting: deque[FrameFaces] = deque()
        for faces in stream:
            self._look(faces)
            waiting.append(faces)
            if len(waiting) > self.config.lookahead:
                yield self._decide(waiting.popleft())
        while waiting:
            yield self._decide(waiting.popleft())

    def _look(self, faces: FrameFaces) -> None:
        early = {0, self.config.lookahead // 2, self.config.lookahead}
        for tracked in faces.faces:
            age = self._ages.get(tracked.track, 0)
            self._ages[tracked.track] = age + 1
            if age in early or age % self.config.embed_every == 0:
                vector = self.embedder.embed(faces.frame, [tracked.face])[0]
                self._sums[tracked.track] = self._sums.get(tracked.track, 0) + vector
                self._looks[tracked.track] = self._looks.get(tracked.track, 0) + 1
                distance = float(np.linalg.norm(self._mean(tracked.track) - self.run.embeddings[self.person]))
                self.nearest = min(self.nearest, distance)

    def _mean(self, number: int) -> np.ndarray:
        return self._sums[number] / self._looks[number]

    def _decide(self, faces: FrameFaces) -> tuple[FrameFaces, tuple[TrackedFace, ...]]:
        chosen = (f for f in faces.faces if is_person(self._mean(f.track), self.run, self.person, self.threshold))
        return faces, tuple(chosen)


Converted = tuple[FrameFaces, list[tuple[int, SwappedFace]]]


def convert(
    swapper: Swapper, stream: Iterable[tuple[FrameFaces, tuple[TrackedFace, ...]]], batch: int
) -> Iterator[Converted]:
    """Draw the chosen faces, the faces of ``batch`` frames at a time; yield every frame with its (track, face) list."""
    for group in in_batches(stream, batch):
        aligned = [[(t.track, swapper.align(faces.frame, t.face)) for t in chosen] for faces, chosen in group]
        drawn = iter(swapper.convert([face for frame in aligned for _, face in frame]))
        for (faces, _), frame in zip(group, aligned, strict=True):
            yield faces, [(number, next(drawn)) for number, _ in frame]


def blend_frames(swapper: Swapper, stream: Iterable[Converted]) -> Iterator[tuple[FrameFaces, bool]]:
    """Paste the drawn faces; yield every frame and whether a face of it was swapped. Colour memory ends at a cut."""
    colours: dict[int, ColourShift | None] = {}
    for faces, drawn in stream:
        if faces.cut:
            colours.clear()
        for number, face in drawn:
            colours[number] = swapper.blend(faces.frame, face, colours.get(number))
        yield faces, bool(drawn)


def swap_video(
    swapper: Swapper,
    source: Path,
    output: Path,
    replace: str | None = None,
    config: VideoConfig | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> SwapSummary:
    """Swap one person's face through a clip and write the marked result.

    Frames without that person keep their pixels but for the visible label; timestamps and audio are the source's.
    Nothing stands under ``output`` until the clip is complete.

    Args:
        swapper: the run and the identity to put in.
        source: the target clip.
        output: an .mp4 or .mov path; an existing file is replaced.
        replace: who is replaced; None takes the run's other person.
        config: see `VideoConfig`.
        on_progress: called with (frames done, frames expected or 0).

    Raises:
        ConsentError: without a valid consent of both people to swapping.
        NoFaceFound: if the person to replace never appears; nothing is written then.
    """
    config = config or VideoConfig()
    check_target(source, output)
    person = choose_replaced(swapper.run, swapper.identity, replace)
    manifest = swap_manifest(swapper, person, source)
    total = probe(source).n_frames
    chooser = PersonChooser(swapper.run, person, swapper.config.same_person, config)

    done = swapped = 0
    with ExitStack() as stages, open_marked_video(output, source, config.encode, manifest) as writer:

        def stage(items: Iterable, depth: int) -> Iterator:
            return stages.enter_context(closing(prefetch(items, depth)))  # ends with the block, whatever happens in it

        followed = stage(track(stage(read_frames(source), 4), config.track), 2)
        chosen = stage(chooser.choose(smooth(followed, config.smooth)), 2)
        drawn = stage(convert(swapper, chosen, config.batch), 2)
        for faces, changed in stage(blend_frames(swapper, drawn), 2):
            writer.write(faces.frame)
            done, swapped = done + 1, swapped + changed
            if on_progress:
                on_progress(done, max(total, done))
        if not swapped:
            raise _nobody(person, source, chooser)
        writer.manifest = writer.manifest.with_frames(done, swapped)
    return SwapSummary(done, swapped, person, chooser.nearest)


def _nobody(person: str, source: Path, chooser: PersonChooser) -> NoFaceFound:
    """Say why no face of a clip was swapped."""
    found = "no face at all"
    if np.isfinite(chooser.nearest):
        found = f"nobody nearer than {chooser.nearest:.2f}, with {chooser.threshold} wanted"
        if chooser.nearest < chooser.threshold:
            found = f"faces as near as {chooser.nearest:.2f}, but nearer still to another person of the run"
    return NoFaceFound(f"{person} in '{Path(source).name}'", found, "check the clip, --replace or --same-person")
