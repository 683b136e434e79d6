"""Place and device in the header of an MP4 or MOV: blanked where they lie, so that nothing else moves."""

import struct
from pathlib import Path
from typing import BinaryIO

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
