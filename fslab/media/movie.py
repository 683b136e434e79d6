"""One MP4 or MOV being written: H.264 pictures with their own clock and colours, sound in step, checked when done."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Annotated

import av
from typing_extensions import Doc

from fslab.errors import MediaError, OutputError
from fslab.media.audio import Audio
from fslab.media.frames import YuvFrame
from fslab.media.marks import append_xmp
from fslab.media.pictures import to_limited_range
from fslab.media.source import open_source
from fslab.storage import atomic_path, explained

PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")
SUFFIXES = (".mp4", ".mov")
SOUND_RATE = 48000


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


@dataclass(frozen=True)
class Plan:
    """What a movie needs beyond its frames.

    Attributes:
        rate: frames a second, on average; a hint, since every frame brings its time.
        add_audio: called once with the output container and the time of the first frame to keep, seconds.
        options: the compression.
        tags: metadata of the file.
        xmp: an XMP packet, or None.
        aspect: width : height of a pixel, None for square.
        begin: seconds; where the source's first frame is, so that a clip that starts later is known to be cut.
        end: seconds; where its last frame ends, None if not known.
        n_frames: frames of the source, 0 if not known; when as many were written, the last one lasts until ``end``.
    """

    rate: Fraction
    add_audio: Callable[[av.container.OutputContainer, float], Audio]
    options: VideoOptions = VideoOptions()
    tags: dict[str, str] = field(default_factory=dict)
    xmp: str | None = None
    aspect: Fraction | None = None
    begin: Fraction = Fraction(0)
    end: Fraction | None = None
    n_frames: int = 0


class Movie:
    """An open output file. The first frame shapes it; each must be like the first and later than the last."""

    def __init__(self, path: Path, plan: Plan):
        self._path, self._plan = path, plan
        self._container: av.container.OutputContainer | None = None
        self._first: YuvFrame | None = None
        self.audio: Audio | None = None
        self.n_frames, self._last, self._end = 0, -math.inf, 0.0
        self._held: av.Packet | None = None
        self._delay = 0

    def write(self, frame: YuvFrame) -> None:
        """Encode a frame at its own time, and send the sound up to it."""
        if self._first is None:
            self._open(frame)
        if (frame.size, frame.time_base) != (self._first.size, self._first.time_base):
            raise ValueError(f"frame must be like the first, {self._first.picture}, got {frame.picture}")
        if frame.time <= self._last:
            raise ValueError(f"frame must be later than {self._last:.3f} s, got {frame.time:.3f} s")
        picture = to_limited_range(frame.picture)
        picture.pict_type = 0  # or x264 would repeat the source's choice of key frames
        self._mux(self._video.encode(picture))
        self.audio.send_until(frame.time)
        self.n_frames, self._last = self.n_frames + 1, frame.time
        self._end = self._shown_until(frame)

    def _shown_until(self, frame: YuvFrame) -> float:
        """Return when a frame that may be the last makes way, seconds.

        The source's own end is trusted before the frame's duration: with B-frames, MP4 gives a frame the time to the
        next one in coding order.
        """
        plan = self._plan
        if plan.end is not None and 0 < plan.n_frames == self.n_frames and plan.end > frame.time:
            return float(plan.end)
        return frame.time + float(frame.picture.duration * frame.time_base or 1 / plan.rate)

    def _mux(self, packets: list[av.Packet]) -> None:
        """Send packets on but for the newest, whose duration is known only when no other follows."""
        for packet in packets:
            if self._held is None:
                self._delay = packet.pts - packet.dts
            else:
                self._container.mux(self._held)
            self._held = packet

    def _mux_last(self) -> None:
        """Send the packet that was held back, so long that the track ends with its last frame.

        MP4 counts from decoding time to decoding time, and the track's length is their sum; x264 sets no durations.
        """
        end = round(self._end / self._first.time_base)
        self._held.duration = max(end - self._delay - self._held.dts, 1)
        self._container.mux(self._held)

    def _open(self, first: YuvFrame) -> None:
        plan, frame_time = self._plan, 1 / self._plan.rate
        cut = first.time < 0 or first.time > plan.begin + 2 * frame_time
        flags = {"movflags": "+faststart+use_metadata_tags", "movie_timescale": str(_fine_clock(first.time_base))}
        if cut:  # MP4 shows nothing before zero and waits out what is missing after it
            flags["output_ts_offset"] = f"{-first.time:.6f}"
        self._container = av.open(f"file:{self._path}", "w", format=self._path.suffix.lower()[1:], options=flags)
        self._container.metadata.update(plan.tags)
        self._video = self._add_video(to_limited_range(first.picture))
        self.audio = plan.add_audio(self._container, first.time if cut else -math.inf)
        self._first = first

    def _add_video(self, picture: av.VideoFrame) -> av.VideoStream:
        options = self._plan.options
        stream = self._container.add_stream("libx264", rate=self._plan.rate)
        stream.options = {"crf": str(options.crf), "preset": options.preset}
        context = stream.codec_context
        context.width, context.height, context.pix_fmt = picture.width, picture.height, picture.format.name
        context.time_base = picture.time_base
        for name in ("colorspace", "color_range", "color_trc", "color_primaries"):
            setattr(context, name, getattr(picture, name))
        if self._plan.aspect:
            context.sample_aspect_ratio = self._plan.aspect
        return stream

    def finish(self) -> None:
        """Send what the encoders still hold and the sound that is left, then close the file."""
        if self._first is None:
            raise MediaError("at least one frame to write", "none", "choose footage with frames")
        self._mux(self._video.encode(None))
        self._mux_last()
        end = self._plan.end
        cut = end is not None and self._end < end - 2 / self._plan.rate
        self.audio.send_until(self._end if cut else math.inf)
        self.audio.finish()
        self._container.close()

    def abandon(self) -> None:
        """Close the file, in whatever state it is."""
        if self._container is not None:
            with suppress(av.error.FFmpegError):
                self._container.close()


def _fine_clock(time_base: Fraction) -> int:
    """Return ticks a second that divide the frames' clock exactly and are fine enough for sound.

    MP4 counts the wait before the first frame in them; its usual milliseconds would shift the frames of most clips.
    """
    ticks = time_base.denominator
    return ticks * -(-SOUND_RATE // ticks)


@contextmanager
def explained_encoding(path: Path) -> Iterator[None]:
    """Turn errors of the disk into `OutputError`, errors of the encoder into `MediaError`."""
    try:
        with explained(path):
            yield
    except av.error.FFmpegError as reason:
        found = f"frames or sound it refuses ({reason.strerror})"
        raise MediaError(f"a video that H.264 can hold for '{path}'", found, "check the size of the frames") from reason


def movie_session(path: Path, plan: Plan) -> Iterator[Movie]:
    """Yield a movie once; going on finishes, checks and names the file, closing the generator leaves nothing.

    Raises:
        MediaError: for a suffix other than .mp4 and .mov, or frames that cannot be encoded.
        OutputError: if the file cannot be written.
    """
    with atomic_path(path) as part:
        part.touch()
        movie = Movie(part, plan)
        try:
            yield movie
            with explained_encoding(path):
                movie.finish()
        finally:
            movie.abandon()
        check_finished(part, movie, path)
        if plan.xmp:
            append_xmp(part, plan.xmp)


def check_finished(part: Path, movie: Movie, path: Path) -> None:
    """Open a finished file again and compare it with what was written.

    Raises:
        OutputError: if it does not open, or frames or sound streams are missing; ``path`` is named in it.
    """
    try:
        with open_source(part) as source:
            n_frames, n_streams = source.stream.frames, len(source.container.streams.audio)
    except MediaError as reason:
        raise OutputError(f"a finished video for '{path}'", "one that cannot be opened", "write it again") from reason
    if (n_frames, n_streams) != (movie.n_frames, movie.audio.n_streams):
        found = f"{n_frames} of {movie.n_frames} frames and {n_streams} of {movie.audio.n_streams} sound streams"
        raise OutputError(f"a complete video for '{path}'", found, "write it again")


def checked_suffix(path: Path) -> Path:
    """Return the path, refused with a `MediaError` unless it ends in .mp4 or .mov."""
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise MediaError("an output name ending in .mp4 or .mov", f"'{path.name}'", "change its ending")
    return path
