"""Footage in: what a video is, its frames with their timestamps, and folders of images and videos."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av

from fslab.errors import MediaError
from fslab.media.files import VIDEO_FORMATS, describe
from fslab.media.frames import Frame, RgbFrame, YuvFrame
from fslab.media.images import is_image, read_image
from fslab.media.pictures import is_hdr, normalise

_SAFE = {"format_whitelist": VIDEO_FORMATS, "protocol_whitelist": "file"}
READABLE_SHARE = 0.9  # of a clip's frames; below it, the clip is refused as damaged


@dataclass(frozen=True)
class VideoInfo:
    """What is known of a video before it is read; ``size`` is (height, width) upright and even."""

    path: Path
    size: tuple[int, int]
    fps: Fraction
    n_frames: int
    duration: float
    has_audio: bool
    rotation: int
    hdr: bool
    codec: str


@contextmanager
def open_video(path: Path) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """Open a video file for reading and give its container and picture stream.

    Raises:
        MediaError: if the file is not a video that can be decoded; also for errors inside the block.
    """
    path = Path(path)
    if not path.is_file():
        raise MediaError("a video file", describe(path), "check the path")
    try:
        with av.open(f"file:{path}", options=_SAFE) as container:
            streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
            if not streams:
                found = "sound without pictures" if container.streams.audio else describe(path)
                raise MediaError(f"a video file at '{path}'", found, "choose a file with a picture stream")
            streams[0].thread_type = "AUTO"
            yield container, streams[0]
    except (av.error.FFmpegError, ValueError) as reason:
        raise MediaError("a video file", describe(path), "choose another file or export it again as MP4") from reason


def is_video(path: Path) -> bool:
    """Say whether a file is a video, by its content."""
    try:
        with open_video(path):
            return True
    except MediaError:
        return False


def probe(path: Path) -> VideoInfo:
    """Read a video's header and first frame.

    Raises:
        MediaError: if it is not a video, or has no frame that can be decoded.
    """
    with open_video(path) as (container, stream):
        first = next(_decoded(container, stream), None)
        if first is None:
            raise MediaError(f"a video with frames at '{path}'", "none that can be decoded", "export it again as MP4")
        seconds = stream.duration * stream.time_base if stream.duration else Fraction(container.duration or 0, 10**6)
        fps = stream.average_rate or stream.guessed_rate or Fraction(25)
        upright = normalise(first)
        return VideoInfo(
            path=Path(path),
            size=(upright.height, upright.width),
            fps=Fraction(fps),
            n_frames=stream.frames or round(seconds * fps),
            duration=float(seconds),
            has_audio=bool(container.streams.audio),
            rotation=first.rotation % 360,
            hdr=is_hdr(first),
            codec=stream.codec_context.name,
        )


def _decoded(container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[av.VideoFrame]:
    for packet in container.demux(stream):
        yield from packet.decode()


def read_frames(path: Path, start: float = 0.0, stop: float | None = None) -> Iterator[YuvFrame]:
    """Stream a video's frames in the order they are shown.

    Args:
        path: the video.
        start: seconds from the clip's start; earlier frames are skipped without being yielded.
        stop: seconds; frames from here on are not read. None reads to the end.

    Yields:
        Frames numbered from 0, with the file's own timestamps.

    Raises:
        MediaError: if the file is not a video; at its end, if too few of its frames could be decoded.
    """
    with open_video(path) as (container, stream):
        if start > 0:
            container.seek(int(start * av.time_base), backward=True)
        index = 0
        for picture in _decoded(container, stream):
            time = float(picture.pts * picture.time_base)
            if time < start:
                continue
            if stop is not None and time >= stop:
                return
            yield YuvFrame(normalise(picture), index, time)
            index += 1


def _sources(path: Path) -> list[Path]:
    path = Path(path)
    if not path.is_dir():
        return [path]
    return sorted(p for p in path.iterdir() if p.is_file() and (is_image(p) or is_video(p)))


def read_footage(path: Path) -> Iterator[tuple[str, Frame]]:
    """Read a video, an image, or a folder of both.

    Yields:
        The file's name and a frame; a folder's files come sorted by name, and what is neither is passed over.

    Raises:
        MediaError: if there is nothing to read.
    """
    sources = _sources(path)
    if not sources:
        raise MediaError(f"images or videos in '{path}'", "none", "choose another folder")
    for source in sources:
        if is_image(source):
            yield source.name, RgbFrame(read_image(source))
        else:
            yield from ((source.name, frame) for frame in read_frames(source))


def count_footage(path: Path) -> int:
    """Return how many frames `read_footage` is expected to yield; 0 if that is not known."""
    counts = [1 if is_image(source) else probe(source).n_frames for source in _sources(path)]
    return sum(counts) if all(counts) else 0
