"""What a file is, by its content: nothing here trusts a name, and nothing but a plain local file is ever opened."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

VIDEO_FORMATS = (  # demuxers for footage; playlists, scripts and devices stay out
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,ogg,asf,mxf,dv,h264,hevc,m4v,mpegvideo,ivf,yuv4mpegpipe,rm,nut"
)
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_IMAGE_STARTS = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
}
_HEIF_BRANDS = (b"heic", b"heix", b"mif1", b"msf1", b"hevc")


def mp4_boxes(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Yield (type, first byte of the content, first byte after it) of each top-level box of an MP4 or MOV.

    ISO/IEC 14496-12, section 4.2. Stops where the boxes stop making sense; reads headers only.
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
    """Return what is found at a path, as a noun phrase for an error message."""
    try:
        if not path.exists():
            return f"no file '{path}'"
        if path.is_dir():
            return f"a folder, '{path}'"
        with open(path, "rb") as file:
            start = file.read(4096)
            boxes = [kind for kind, _, _ in mp4_boxes(file)]
    except OSError as reason:
        return f"'{path}', which cannot be read ({reason.strerror})"
    return f"{_content(start, boxes)} in '{path}'"


def _content(start: bytes, boxes: list[bytes]) -> str:
    if not start:
        return "nothing at all (0 bytes)"
    image = image_kind(start)
    if image:
        return f"a {image} image"
    if boxes[:1] == [b"ftyp"] and b"moov" not in boxes:
        return "a video without its index (the recording or copy was cut off)"
    if is_text(start):
        return "text"
    return "data that cannot be decoded"


def image_kind(start: bytes) -> str:
    """Return the name of the image format that some first bytes belong to, or an empty string."""
    if start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS:
        return "HEIC"
    if start[4:12] == b"ftypavif":
        return "AVIF"
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "WebP"
    return next((name for head, name in _IMAGE_STARTS.items() if start.startswith(head)), "")


def is_text(start: bytes) -> bool:
    """Say whether some first bytes are UTF-8 text without control characters."""
    try:
        text = start[: len(start) - 3].decode() if len(start) > 3 else start.decode()
    except UnicodeDecodeError as error:
        if error.start < len(start) - 7:
            return False
        text = start[: error.start].decode()
    return all(c.isprintable() or c in "\r\n\t\f" for c in text)
