"""What visitors send, looked at by its content before any work: kind, size, length, codec. No faces are sought here."""

import os
import secrets
import shutil
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image

from fslab.errors import FslabError, MediaError
from fslab.media import is_image, probe, read_image, read_marks, write_image
from fslab.media.location import blank_location, copy_without_tags
from fslab.media.reader import READABLE_SHARE
from fslab.media.source import open_source
from fslab.provenance.manifest import TOOL
from fslab.storage import atomic_path, explained
from fslab.webapp.folders import Visitor, check_space, remember_cached
from fslab.webapp.settings import MEGABYTE, AppSettings

CODECS = ("h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mjpeg", "prores", "mpeg2video", "h263", "dnxhd", "ffv1")
MIN_SIDE = 32  # pixels
_SUFFIXES = {"PNG": ".png", "JPEG": ".jpg", "MPO": ".jpg", "WEBP": ".webp"}


@dataclass(frozen=True)
class Upload:
    """A file that was taken in.

    Attributes:
        path: where it lies now, under a name of ours.
        kind: what it is.
        size: (height, width) as it is shown.
        seconds: length; 0 for an image.
        n_frames: pictures; 1 for an image.
    """

    path: Path
    kind: Literal["image", "video"]
    size: tuple[int, int]
    seconds: float
    n_frames: int


def accept(
    visitor: Visitor, path: Path, settings: AppSettings, *, kinds: Collection[str] = ("image", "video")
) -> Upload:
    """Check a file and keep a copy of it in the visitor's folder; EXIF and places are left out of the copy.

    Pictures are kept as PNG, upright and in sRGB, without any metadata; one that fslab itself marked as swapped is kept
    as it is, for a mark is not ours to remove (such a file holds nothing but the mark). MP4 and MOV clips keep every
    byte but what their headers say of place and device; of others, pictures and sound alone are taken.

    Args:
        visitor: whose it is.
        path: the file as it came.
        settings: the limits.
        kinds: which of "image" and "video" are wanted.

    Raises:
        FslabError: if the file is not one of ``kinds``, is damaged, or is over a limit. Its message names no folder.
    """
    path = Path(path)
    with _without_folder(path):
        kind = _kind_of(path, settings, kinds)
        check_space(settings, visitor, path.stat().st_size)
        upload = _take_image(visitor, path, settings) if kind == "image" else _take_video(visitor, path, settings)
    remember_cached(settings, visitor, path)
    return upload


@contextmanager
def _without_folder(path: Path) -> Iterator[None]:
    """Let errors name the file as the visitor does, never where the server keeps it."""
    try:
        yield
    except FslabError as error:
        words = [word.replace(f"{path.parent}{os.sep}", "") for word in (error.expected, error.found, error.fix)]
        raise type(error)(*words) from error


def _kind_of(path: Path, settings: AppSettings, kinds: Collection[str]) -> str:
    """Return "image" or "video" by the first bytes; a refusal of anything else comes from the decoders."""
    if path.is_symlink() or not path.is_file():
        raise MediaError("a file", f"none at '{path}'", "send it again")
    n_bytes = path.stat().st_size
    if not n_bytes:
        raise MediaError("a picture or a video", f"nothing at all (0 bytes) in '{path}'", "send it again")
    if n_bytes > settings.max_upload_mb * MEGABYTE:
        found = f"{n_bytes / MEGABYTE:.0f} MB in '{path}'"
        raise MediaError(f"a file of at most {settings.max_upload_mb} MB", found, "send a shorter or smaller one")
    kind = "image" if is_image(path) else "video"
    if kind not in kinds:
        wanted = {"image": "a picture", "video": "a video"}[next(iter(kinds))]
        if kind == "video":  # or not even that
            with open_source(path):
                pass
        raise MediaError(wanted, f"a {'picture' if kind == 'image' else 'video'}, '{path}'", "choose another file")
    return kind


def _check_size(height: int, width: int, settings: AppSettings, path: Path) -> None:
    if min(height, width) < MIN_SIDE:
        found = f"{width} x {height} in '{path}'"
        raise MediaError(f"pictures of {MIN_SIDE} pixels a side or more", found, "send a larger one")
    if height * width > settings.max_pixels:
        found = f"{width} x {height} in '{path}'"
        raise MediaError(f"pictures of at most {settings.max_pixels / 1e6:g} megapixels", found, "scale it down")


def _take_image(visitor: Visitor, path: Path, settings: AppSettings) -> Upload:
    kind = _check_header(path, settings)
    pixels = read_image(path)
    if kind in _SUFFIXES and TOOL in read_marks(path)["tags"] and not _has_place(path):
        target = _new_name(visitor, _SUFFIXES[kind])
        _copy(path, target)
    else:
        target = _new_name(visitor, ".png")
        write_image(target, pixels)
    return Upload(target, "image", pixels.shape[:2], 0.0, 1)


def _check_header(path: Path, settings: AppSettings) -> str:
    """Check an image's size before a pixel is decoded; return its format's name, empty if Pillow knows no header."""
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path) as image:
            _check_size(image.height, image.width, settings, path)
            return image.format or ""
    except Image.DecompressionBombError as reason:
        found = f"far more in '{path}'"
        raise MediaError(
            f"pictures of at most {settings.max_pixels / 1e6:g} megapixels", found, "scale it down"
        ) from reason
    except (OSError, ValueError, SyntaxError, TypeError, RuntimeError, LookupError):
        return ""  # `read_image` says what is wrong


def _has_place(path: Path) -> bool:
    """Say whether a picture's EXIF or XMP could hold more than fslab's mark."""
    with Image.open(path) as image:
        exif = image.getexif()
        return bool(set(exif) - {0x8769}) or b"GPS" in (image.info.get("xmp") or b"")


def _take_video(visitor: Visitor, path: Path, settings: AppSettings) -> Upload:
    with open_source(path) as source:
        context = source.stream.codec_context
        if context.codec.canonical_name not in CODECS:
            found = f"{context.codec.canonical_name} in '{path}'"
            raise MediaError("a common video codec, such as H.264", found, "export it again as MP4")
        _check_size(context.height, context.width, settings, path)
        ticks = [p.pts for p in source.container.demux(source.stream) if p.size and p.pts is not None]
        if len(ticks) < READABLE_SHARE * source.n_packets:
            found = f"{len(ticks)} of {source.n_packets} in '{path}'"
            raise MediaError("all frames of a video", found, "copy it again from where it came from")
        seconds = float((max(ticks) - min(ticks)) * source.stream.time_base + 1 / source.rate) if ticks else 0.0
    if seconds > settings.max_seconds:
        found = f"{seconds:.0f} s in '{path}'"
        raise MediaError(f"a video of at most {settings.max_seconds:g} s", found, "cut it shorter")
    info = probe(path)
    target = _new_name(visitor, path.suffix.lower() if path.suffix.lower() in (".mp4", ".mov") else ".mp4")
    if not _is_mp4(path):
        target = target.with_suffix(".mkv")
    if target.suffix == ".mkv":
        with explained(target):
            copy_without_tags(path, target)
    else:
        _copy(path, target)
        if TOOL not in read_marks(target)["tags"]:
            blank_location(target)
    return Upload(target, "video", info.size, seconds, len(ticks))


def _is_mp4(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(8)[4:] == b"ftyp"


def _new_name(visitor: Visitor, suffix: str) -> Path:
    return visitor.uploads / f"{secrets.token_hex(8)}{suffix}"


def _copy(source: Path, target: Path) -> None:
    with explained(target), atomic_path(target) as part:
        shutil.copyfile(source, part)
