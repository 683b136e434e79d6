"""XMP packets and tags inside finished MP4 and MOV files."""

import struct
from pathlib import Path

from fslab.media.files import mp4_boxes
from fslab.media.images import image_marks, is_image
from fslab.media.source import open_source

XMP_UUID = bytes.fromhex("BE7ACFCB97A942E89C71999491E3AFAC")  # XMP specification part 3, section 1.2.7
XMP_LIMIT = 1 << 24  # bytes read at most; a box may claim any size
_OWN_KEYS = ("major_brand", "minor_version", "compatible_brands", "encoder")  # the muxer's, not ours


def append_xmp(path: Path, xmp: str) -> None:
    """Append an XMP packet to a finished MP4 or MOV as a top-level ``uuid`` box, which moves nothing else."""
    content = XMP_UUID + xmp.encode()
    with open(path, "ab") as file:
        file.write(struct.pack(">I4s", 8 + len(content), b"uuid") + content)


def _read_xmp(path: Path) -> str | None:
    with open(path, "rb") as file:
        for kind, start, stop in mp4_boxes(file):
            if kind == b"uuid" and stop - start >= len(XMP_UUID):
                file.seek(start)
                if file.read(len(XMP_UUID)) == XMP_UUID:
                    return file.read(min(stop - start - len(XMP_UUID), XMP_LIMIT)).decode(errors="replace")
    return None


def read_marks(path: Path) -> dict:
    """Read what `write_image` or `VideoWriter` stored beside the pixels.

    Returns:
        ``{"xmp": str or None, "tags": dict of str}`` of an image or video.

    Raises:
        MediaError: if the file is neither.
    """
    path = Path(path)
    if is_image(path):
        return image_marks(path)
    with open_source(path) as source:
        tags = {key: value for key, value in source.container.metadata.items() if key not in _OWN_KEYS}
    return {"xmp": _read_xmp(path), "tags": tags}
