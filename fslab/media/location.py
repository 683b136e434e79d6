"""Place, device and author of a clip left out: blanked in an MP4 or MOV, not copied from any other file."""

import struct
from pathlib import Path
from typing import BinaryIO

import av

from fslab.errors import MediaError
from fslab.storage import atomic_path

_HOLDERS = (b"moov", b"trak")  # boxes that hold the boxes of interest
_PERSONAL = (b"udta", b"meta")  # user data and Apple's keys: place, device, author
HEADER = 8  # bytes of a box's size and kind


def blank_location(path: Path) -> int:
    """Turn a file's ``udta`` and ``meta`` boxes into free space, in place; ISO/IEC 14496-12, sections 8.1.2 and 8.10.1.

    Samples, timing, rotation and colour are in other boxes.

    Returns:
        How many boxes were blanked.
    """
    with open(path, "r+b") as file:
        end = file.seek(0, 2)
        return _blank_within(file, 0, end)


def copy_without_tags(source: Path, target: Path) -> None:
    """Copy a clip's pictures and sound, packet by packet, into a Matroska file without any tag, title or other track.

    Raises:
        MediaError: if Matroska cannot hold them.
    """
    try:
        with atomic_path(target) as part, av.open(source) as old, av.open(part, "w", format="matroska") as new:
            kept = [stream for stream in old.streams if stream.type in ("video", "audio")]
            copies = {stream.index: new.add_stream_from_template(stream) for stream in kept}
            for packet in old.demux(kept):
                if packet.size:  # the last of each stream holds nothing
                    packet.stream = copies[packet.stream.index]
                    new.mux(packet)
    except (av.FFmpegError, ValueError) as reason:
        raise MediaError("a common kind of video file", f"'{source}' ({reason})", "export it again as MP4") from reason


def _blank_within(file: BinaryIO, start: int, end: int) -> int:
    n = 0
    while start + HEADER <= end:
        file.seek(start)
        size, kind = struct.unpack(">I4s", file.read(HEADER))
        content = start + HEADER
        if size == 1 and start + 16 <= end:
            size, content = struct.unpack(">Q", file.read(8))[0], start + 16
        stop = end if size == 0 else start + size
        if stop < content or stop > end:
            return n
        if kind in _PERSONAL:
            file.seek(start + 4)
            file.write(b"free")
            file.seek(content)
            file.write(bytes(stop - content))
            n += 1
        elif kind in _HOLDERS:
            n += _blank_within(file, content, stop)
        start = stop
    return n
