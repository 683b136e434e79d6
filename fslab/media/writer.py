"""Video out: H.264 with the frames' own timestamps and colours, the source's sound, and marks; whole or not at all."""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated

import av
import numpy as np
from typing_extensions import Doc

from fslab.errors import MediaError, OutputError
from fslab.media.audio import CopiedAudio, SampledAudio
from fslab.media.frames import YuvFrame
from fslab.media.marks import append_xmp
from fslab.media.reader import open_video
from fslab.storage import atomic_path, explained

PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")


@dataclass(frozen=True)
class VideoOptions:
    """How a video is compressed."""

    crf: Annotated[int, Doc("x264 quality, 0 (lossless) to 51 (worst); 18 looks like the source")] = 18
    preset: Annotated[str, Doc("x264 speed, 'ultrafast' to 'veryslow'; slower makes smaller files")] = "veryfast"

    def __post_init__(self):
        if not 0 <= self.crf <= 51:
            raise ValueError(f"crf must be in 0..51, got {self.crf}")
        if self.preset not in PRESETS:
            raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {self.preset!r}")


class _Movie:
    """One open output file: a picture stream made from the first frame, and sound in step with it."""

    def __init__(self, path: Path, options: VideoOptions, tags: dict[str, str]):
        flags = {"movflags": "+faststart+use_metadata_tags"}
        self._container = av.open(f"file:{path}", "w", format=path.suffix.lower()[1:], options=flags)
        self._container.metadata.update(tags)
        self._options, self._video, self.audio, self.n_frames = options, None, None, 0

    def write(self, frame: YuvFrame, rate: Fraction, add_audio: Callable) -> None:
        picture = frame.picture
        if self._video is None:
            self._video = self._add_video(picture, rate)
            self.audio = add_audio(self._container)
        if (picture.height, picture.width) != (self._video.height, self._video.width):
            raise ValueError(f"frame must be like the first, {self._video.width} x {self._video.height}, got {picture}")
        picture.pict_type = 0  # or x264 would repeat the source's choice of key frames
        self._container.mux(self._video.encode(picture))
        self.n_frames += 1
        self.audio.mux_until(float(picture.pts * picture.time_base))

    def _add_video(self, picture: av.VideoFrame, rate: Fraction) -> av.VideoStream:
        stream = self._container.add_stream("libx264", rate=rate)
        stream.options = {"crf": str(self._options.crf), "preset": self._options.preset}
        context = stream.codec_context
        context.width, context.height, context.pix_fmt = picture.width, picture.height, picture.format.name
        context.time_base = picture.time_base
        for name in ("colorspace", "color_range", "color_trc", "color_primaries"):
            setattr(context, name, getattr(picture, name))
        return stream

    def finish(self) -> None:
        if self._video is not None:
            self._container.mux(self._video.encode(None))
            self.audio.mux_until(None)
        self._container.close()

    def abandon(self) -> None:
        self._container.close()


class VideoWriter:
    """A context manager that writes a video file with the sound of another.

    The file appears under its name only after it was written, closed, opened again and counted.
    """

    def __init__(
        self,
        path: Path,
        like: Path,
        options: VideoOptions = VideoOptions(),
        metadata: dict[str, str] | None = None,
        xmp: str | None = None,
    ):
        """Plan a file; nothing is opened before ``with``.

        Args:
            path: the output, ending in .mp4 or .mov.
            like: the video whose frames come in; all of its audio streams are copied.
            options: the compression.
            metadata: tags to store.
            xmp: an XMP packet to store.

        Raises:
            MediaError: for another suffix.
        """
        self.path, self.like = _checked(path), Path(like)
        self._options, self._tags, self._xmp = options, dict(metadata or {}), xmp

    def __enter__(self) -> "VideoWriter":
        with ExitStack() as stack:
            self._source, stream = stack.enter_context(open_video(self.like))
            self._rate = stream.average_rate or stream.guessed_rate or Fraction(25)
            self._part = stack.enter_context(atomic_path(self.path))
            self._movie = _Movie(self._part, self._options, self._tags)
            self._stack = stack.pop_all()
        return self

    def write(self, frame: YuvFrame) -> None:
        """Encode a frame at its own time, and the sound up to it."""
        with explained(self.path):
            self._movie.write(frame, self._rate, lambda output: CopiedAudio(self._source, output))

    def __exit__(self, kind, error, trace) -> None:
        if error is not None:
            self._movie.abandon()
        else:
            self._movie.finish()
            _check_movie(self._part, self._movie)
            if self._xmp:
                append_xmp(self._part, self._xmp)
        self._stack.__exit__(kind, error, trace)


def _check_movie(part: Path, movie: _Movie) -> None:
    with open_video(part) as (container, stream):
        if stream.frames != movie.n_frames or len(container.streams.audio) != movie.audio.n_streams:
            raise OutputError("a complete video", f"{stream.frames} of {movie.n_frames} frames", "write it again")


def _checked(path: Path) -> Path:
    path = Path(path)
    if path.suffix.lower() not in (".mp4", ".mov"):
        raise MediaError("an output name ending in .mp4 or .mov", f"'{path.name}'", "change its ending")
    return path


class _Silence:
    n_streams = 0

    def mux_until(self, time: float | None) -> None:
        """There is nothing to send."""


def write_video(
    path: Path, frames: Iterable[np.ndarray], fps: float | Fraction, audio: tuple[np.ndarray, int] | None = None
) -> None:
    """Write RGB images as a video of constant rate.

    Args:
        path: the output, ending in .mp4 or .mov.
        frames: ``(H, W, 3)`` uint8 RGB, all of one size; an odd last row or column is dropped.
        fps: frames a second.
        audio: ``(n, channels)`` int16 samples and their rate.
    """
    rate = Fraction(fps).limit_denominator(1001)
    with atomic_path(_checked(path)) as part:
        movie = _Movie(part, VideoOptions(), {})
        for i, rgb in enumerate(frames):
            movie.write(
                YuvFrame.from_rgb(rgb, i, 1 / rate), rate,
                lambda output: SampledAudio(*audio, output) if audio else _Silence(),
            )  # fmt: skip
        movie.finish()
