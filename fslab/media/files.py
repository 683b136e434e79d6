"""What a file is, by its content and never by its name, in words for an error message."""

import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_IMAGE_STARTS = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"GIF8": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
}
_HEIF_BRANDS = (b"heic", b"heix", b"mif1", b"msf1", b"hevc")


def mp4_boxes(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Yield (type, first byte of the content, first byte after it) of each top-level box of an MP4 or MOV.

    ISO/IEC 14496-12, section 4.2. Reads headers only, and stops where they stop making sense.
    """
    end = file.seek(0, 2)
    start = 0
    while start + 8 <= end:
        file.seek(start)
        size, kind = struct.unpack(">I4s", file.read(8))
        content = start + 8
        if size == 1 and start + 16 <= end:
            size, content = struct.unpack(">Q", file.read(8))[0], start + 16
        stop = end if size == 0 else start + size
        if stop < content:
            return
        yield kind, content, stop
        start = stop


def describe(path: Path) -> str:
    """Return what is found at a path, as a noun phrase."""
    try:
        if not path.exists():
            return f"no file '{path}'"
        if path.is_dir():
            return f"a folder, '{path}'"
        if not path.is_file():
            return f"something that is not a file, '{path}'"
        with open(path, "rb") as file:
            start = file.read(4096)
            boxes = [kind for kind, _, _ in mp4_boxes(file)]
    except OSError as reason:
        return f"'{path}', which cannot be read ({reason.strerror})"
    return f"{_content(start, boxes)} in '{path}'"


def _content(start: bytes, boxes: list[bytes]) -> str:
    if not start:
        return "nothing at all (0 bytes)"
    kind = image_kind(start)
    if kind:
        return f"{'an' if kind == 'AVIF' else 'a'} {kind} image"
    if boxes[:1] == [b"ftyp"] and b"moov" not in boxes:
        return "a video without its index (its recording or copying was cut off)"
    if not re.search(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]", start):
        return "text"
    return "data that cannot be decoded"


def image_kind(start: bytes) -> str:
    """Return the name of the image format that a file's first 16 bytes belong to, or an empty string."""
    if start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS:
        return "HEIC"
    if start[4:12] == b"ftypavif":
        return "AVIF"
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "WebP"
    if start[:2] == b"BM" and start[6:10] == bytes(4):
        return "BMP"
    if re.match(rb"P[56]\s", start):
        return "PPM"
    return next((name for head, name in _IMAGE_STARTS.items() if start.startswith(head)), "")
