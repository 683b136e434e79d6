"""Video out, whole or not at all: a clip's frames with its sound, or images as a new clip."""

from collections.abc import Iterable
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

import numpy as np

from fslab.media.audio import CopiedAudio, SampledAudio, Silence
from fslab.media.frames import YuvFrame
from fslab.media.movie import Plan, VideoOptions, checked_suffix, explained_encoding, movie_session
from fslab.media.source import Source, open_source


class VideoWriter:
    """A context manager that writes a video with the sound of another.

    The file appears under its name only after it was written, closed, opened again and counted; after an exception in
    the block, whatever was there before is still there. At most a few frames are held.
    """

    def __init__(
        self,
        path: Path,
        like: Path,
        options: VideoOptions | None = None,
        metadata: dict[str, str] | None = None,
        xmp: str | None = None,
    ):
        """Plan a file; nothing is opened before ``with``.

        Args:
            path: the output, ending in .mp4 or .mov.
            like: the video whose frames are written, with their own timestamps; all its audio streams are copied.
                If its first or last frames are left out, so is the sound beside them.
            options: the compression; `VideoOptions()` if not given.
            metadata: tags to store.
            xmp: an XMP packet to store.

        Raises:
            MediaError: for another suffix.
        """
        self.path, self._like = checked_suffix(path), Path(like)
        self._options, self._tags, self._xmp = options or VideoOptions(), dict(metadata or {}), xmp

    def __enter__(self) -> "VideoWriter":
        with ExitStack() as stack:
            source = stack.enter_context(open_source(self._like))
            self._session = movie_session(self.path, self._plan(source))
            stack.callback(self._session.close)
            self._movie = next(self._session)
            self._stack = stack.pop_all()
        return self

    def _plan(self, source: Source) -> Plan:
        stream = source.stream
        return Plan(
            rate=source.rate,
            add_audio=lambda output, start: CopiedAudio(source, output, start),
            options=self._options,
            tags=self._tags,
            xmp=self._xmp,
            aspect=stream.sample_aspect_ratio,
            begin=source.begin,
            end=source.begin + source.seconds if stream.duration else None,
            n_frames=source.n_packets,
        )

    def write(self, frame: YuvFrame) -> None:
        """Encode a frame at its own time, and the sound up to it.

        Raises:
            ValueError: if the frame differs in size from the first or is not later than the last.
            MediaError: if it cannot be encoded.
            OutputError: if the disk is full.
        """
        with explained_encoding(self.path):
            self._movie.write(frame)

    def __exit__(self, kind, error, trace) -> None:
        with self._stack:
            if error is None:
                next(self._session, None)


def write_video(
    path: Path,
    frames: Iterable[np.ndarray],
    fps: float | Fraction,
    audio: tuple[np.ndarray, int] | None = None,
    options: VideoOptions | None = None,
    metadata: dict[str, str] | None = None,
) -> None:
    """Write images as a new video of constant rate.

    Args:
        path: the output, ending in .mp4 or .mov.
        frames: ``(H, W, 3)`` uint8 RGB, all of one size; an odd last row or column is dropped.
        fps: frames a second.
        audio: ``(n, channels)`` int16 samples of 1 or 2 channels, and samples a second.
        options: the compression; `VideoOptions()` if not given.
        metadata: tags to store.
    """
    rate = Fraction(fps).limit_denominator(1001)
    plan = Plan(
        rate,
        lambda output, start: SampledAudio(*audio, output) if audio else Silence(),
        options or VideoOptions(),
        dict(metadata or {}),
    )
    session = movie_session(checked_suffix(path), plan)
    movie = next(session)
    try:
        for i, rgb in enumerate(frames):
            with explained_encoding(path):
                movie.write(YuvFrame.from_rgb(rgb, i, 1 / rate))
        next(session, None)
    finally:
        session.close()
