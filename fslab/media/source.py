"""Opening footage: from a path to decoded pictures with sound timestamps, or one clear sentence."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av

from fslab.errors import MediaError
from fslab.media.files import describe

# Demuxers for footage. Playlists and scripts, which name further files or addresses, and capture devices stay out.
_FORMATS = "mov,matroska,avi,mpegts,mpeg,mpegvideo,flv,ogg,asf,mxf,dv,h264,hevc,m4v,ivf,yuv4mpegpipe,rm,nut"
_SAFE = {"format_whitelist": _FORMATS, "protocol_whitelist": "file"}
_MICROSECOND = Fraction(1, 1_000_000)


@dataclass(frozen=True)
class Source:
    """An open video.

    Attributes:
        path: the file.
        container: the open container.
        stream: its picture stream.
        origin: seconds on the container's clock where the clip begins; zero, but for broadcast formats whose clock
            starts anywhere. Every time and timestamp that is handed on counts from here.
    """

    path: Path
    container: av.container.InputContainer
    stream: av.VideoStream
    origin: Fraction

    @property
    def rate(self) -> Fraction:
        """Frames a second, on average."""
        return Fraction(self.stream.average_rate or self.stream.guessed_rate or 25)

    @property
    def seconds(self) -> Fraction:
        """Duration as the header has it; 0 if it does not say."""
        if self.stream.duration:
            return self.stream.duration * self.stream.time_base
        return max(self.container.duration or 0, 0) * _MICROSECOND

    @property
    def begin(self) -> Fraction:
        """Time of the first frame as the header has it."""
        start = self.stream.start_time
        return Fraction(0) if start is None else start * self.stream.time_base - self.origin

    @property
    def n_packets(self) -> int:
        """Coded frames that the header promises, without those that an edit list cuts off; 0 if it does not say."""
        return min(self.stream.frames, len(self.stream.index_entries) or self.stream.frames)


@contextmanager
def open_source(path: Path) -> Iterator[Source]:
    """Open a video file, whatever its name, for the time of a ``with`` block.

    Raises:
        MediaError: if the file is not a video that can be opened.
    """
    path = Path(path)
    if not path.is_file():
        raise MediaError("a video file", describe(path), "check the path")
    try:
        container = av.open(f"file:{path}", options=_SAFE, metadata_errors="replace")
    except (av.error.FFmpegError, ValueError) as reason:
        raise MediaError("a video file", describe(path), "choose another file or export it again as MP4") from reason
    with container:
        cover = av.stream.Disposition.attached_pic
        streams = [s for s in container.streams.video if s.codec_context and not s.disposition & cover]
        if not streams:
            found = f"sound without pictures in '{path}'" if container.streams.audio else describe(path)
            raise MediaError("a video file", found, "choose a file with pictures that FFmpeg can decode")
        streams[0].thread_type = "AUTO"
        any_clock = container.format.flags & av.format.Flags.ts_discont.value
        origin = (container.start_time or 0) * _MICROSECOND if any_clock else Fraction(0)
        yield Source(path, container, streams[0], origin)


class Pictures:
    """The decoded pictures of a source, with rising timestamps from its origin.

    Attributes:
        n_promised: coded frames that the header promises; 0 if it does not say.
        n_lost: of these, how many could not be decoded so far; after the last picture, also those that were not there.
    """

    def __init__(self, source: Source):
        """Read from where the source's container stands."""
        self._source, self.n_promised, self.n_lost = source, source.n_packets, 0
        tick = source.stream.time_base
        self._origin, self._step = round(source.origin / tick), max(round(1 / (source.rate * tick)), 1)

    def __iter__(self) -> Iterator[av.VideoFrame]:
        n_read, last = 0, None
        for packet in self._packets():
            n_read += packet.size > 0
            try:
                pictures = packet.decode()
            except av.error.FFmpegError:
                self.n_lost += 1
                continue
            for picture in pictures:
                last = self._stamp(picture, last)
                yield picture
        self.n_lost += max(self.n_promised - n_read, 0)

    def _packets(self) -> Iterator[av.Packet]:
        try:
            yield from self._source.container.demux(self._source.stream)
        except av.error.FFmpegError as reason:
            found = f"'{self._source.path}' damaged ({reason.strerror})"
            raise MediaError("a video that can be read to its end", found, "copy it again") from reason

    def _stamp(self, picture: av.VideoFrame, last: int | None) -> int:
        """Count the timestamp from the origin; make one up where there is none or it does not rise."""
        stamp = picture.pts if picture.pts is not None else picture.dts
        if stamp is not None:
            stamp -= self._origin
        else:
            stamp = 0 if last is None else last + self._step
        picture.pts = stamp if last is None or stamp > last else last + 1
        picture.time_base = self._source.stream.time_base
        return picture.pts
