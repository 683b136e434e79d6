"""Footage in: what a video is, its frames with their timestamps, and folders of images and videos."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av

from fslab.errors import MediaError
from fslab.media.files import describe
from fslab.media.frames import Frame, RgbFrame, YuvFrame
from fslab.media.images import is_image, read_image
from fslab.media.pictures import Normaliser, is_hdr, upright_size
from fslab.media.source import Pictures, Source, open_source

READABLE_SHARE = 0.9  # of a clip's frames; with fewer, reading it ends in an error
MICROSECONDS = 1_000_000  # what FFmpeg counts a seek in


@dataclass(frozen=True)
class VideoInfo:
    """What is known of a video before it is read.

    Attributes:
        path: the file.
        size: (height, width) of its frames, upright and even.
        fps: frames a second, on average; a clip's own timestamps may vary.
        n_frames: from the header, or from duration and rate; 0 if neither is known.
        duration: seconds; 0 if not known.
        has_audio: whether it has sound.
        rotation: degrees counterclockwise by which stored frames are turned to stand upright: 0, 90, 180 or 270.
        hdr: whether it is PQ or HLG; its frames come tone-mapped to BT.709.
        codec: FFmpeg's name of the picture codec.
    """

    path: Path
    size: tuple[int, int]
    fps: Fraction
    n_frames: int
    duration: float
    has_audio: bool
    rotation: int
    hdr: bool
    codec: str


def is_video(path: Path) -> bool:
    """Say whether a file is a video, by its content."""
    try:
        with open_source(path):
            return True
    except MediaError:
        return False


def probe(path: Path) -> VideoInfo:
    """Read a video's header and first frame.

    Raises:
        MediaError: if it is not a video, or its frames cannot be decoded.
    """
    with open_source(path) as source:
        picture = next(iter(Pictures(source)), None)
        if picture is None:
            raise _no_frames(source)
        stream = source.stream
        return VideoInfo(
            path=source.path,
            size=upright_size(picture),
            fps=source.rate,
            n_frames=source.n_packets or round(source.seconds * source.rate),
            duration=float(source.seconds),
            has_audio=bool(source.container.streams.audio),
            rotation=picture.rotation % 360,
            hdr=is_hdr(picture),
            codec=stream.codec_context.codec.canonical_name,
        )


def read_frames(path: Path, start: float = 0.0, stop: float | None = None) -> Iterator[YuvFrame]:
    """Stream a video's frames in the order they are shown.

    Args:
        path: the video.
        start: seconds; earlier frames are passed over.
        stop: seconds; frames from here on are not read. None reads to the end.

    Yields:
        Frames numbered from 0 in the order they come, with the file's own timestamps.

    Raises:
        MediaError: if the file is not a video; after the last frame, if too few could be read.
    """
    with open_source(path) as source:
        if start > 0 and _reaches(path, start):
            _seek(source, start)
        pictures, normalise, index, size = Pictures(source), Normaliser(), 0, None
        for picture in pictures:
            time = float(picture.pts * picture.time_base)
            if time < start:
                continue
            if stop is not None and time >= stop:
                return
            try:
                frame = YuvFrame(normalise(picture), index, time)
            except ValueError as reason:
                found = f"others in '{path}' ({reason})"
                raise MediaError("video frames that can be shown", found, "export it again as MP4") from reason
            if size not in (None, frame.size):
                found = f"{size} and then {frame.size} in '{path}'"
                raise MediaError("frames of one (height, width)", found, "export it again as MP4")
            yield frame
            index, size = index + 1, frame.size
        if size is None:
            raise _no_frames(source, start)
        if start <= 0:
            _check_complete(pictures, source.path)


def read_samples(path: Path, count: int) -> Iterator[YuvFrame]:
    """Yield frames spread evenly over a video by their position, the first and the last among them.

    Their times come from the packets, and only what lies between a sample and its key frame is decoded.

    Args:
        path: the video.
        count: how many, at least 2; a shorter clip gives all its frames, a damaged one those that can be decoded.

    Raises:
        MediaError: if the file is not a video, or its first sample cannot be decoded.
    """
    with open_source(path) as source:
        packets = source.container.demux(source.stream)
        stamps = sorted({p.pts for p in packets if p.size and p.pts is not None and not p.is_discard})
        if not stamps:
            raise _no_frames(source)
        times = [float(stamp * source.stream.time_base - source.origin) for stamp in stamps]
    for i in sorted({round(i * (len(times) - 1) / (count - 1)) for i in range(count)}):
        with closing(read_frames(path, times[i])) as frames:
            try:
                frame = next(frames)
            except MediaError:  # nothing from here on
                if i:
                    return
                raise
            yield frame


def _seek(source: Source, start: float) -> None:
    source.container.seek(int((start + source.origin) * MICROSECONDS))


def _reaches(path: Path, start: float) -> bool:
    """Say whether seeking leads to a key frame at or before a time; without an index it may well lead past it."""
    with open_source(path) as source:
        try:
            _seek(source, start)
        except av.error.FFmpegError:
            return False
        picture = next(iter(Pictures(source)), None)
        return picture is not None and picture.pts * picture.time_base <= start


def _check_complete(pictures: Pictures, path: Path) -> None:
    n_read = max(pictures.n_promised - pictures.n_lost, 0)
    if n_read < READABLE_SHARE * pictures.n_promised:
        found = f"{n_read} readable of {pictures.n_promised} in '{path}'"
        raise MediaError("all frames of a video", found, "copy it again from where it came from")


def _no_frames(source: Source, start: float = 0) -> MediaError:
    after = f" after {start:g} s" if start > 0 else ""
    fix = "choose an earlier start" if after else "export it again as MP4"
    return MediaError(f"video frames that can be decoded{after}", f"none in '{source.path}'", fix)


def _files(path: Path) -> list[Path]:
    """Return the images and videos at a path; in a folder sorted by name, without hidden and other files."""
    path = Path(path)
    if path.is_dir():
        inside = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
        files = [p for p in inside if is_image(p) or is_video(p)]
        if not files:
            raise MediaError("a folder with images or videos", f"none in '{path}'", "choose another folder")
        return files
    if is_image(path) or is_video(path):
        return [path]
    raise MediaError("a video, an image, or a folder of them", describe(path), "choose another file")


def read_footage(path: Path) -> Iterator[tuple[str, Frame]]:
    """Read a video, an image, or a folder of both.

    Yields:
        The file's name and a frame. A folder's files come in the order of their names; frames count from 0 in each.

    Raises:
        MediaError: if there is nothing to read, or a file is damaged.
    """
    for file in _files(path):
        if is_image(file):
            yield file.name, RgbFrame(read_image(file))
        else:
            yield from ((file.name, frame) for frame in read_frames(file))


def count_footage(path: Path) -> int:
    """Return how many frames `read_footage` is expected to yield; 0 if that is not known."""
    counts = [1 if is_image(file) else probe(file).n_frames for file in _files(path)]
    return sum(counts) if all(counts) else 0
