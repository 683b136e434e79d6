"""Still images in and out, on disk and in memory."""

import json
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageOps
from PIL.PngImagePlugin import PngInfo

from fslab.errors import MediaError
from fslab.media.files import describe, image_kind
from fslab.storage import write_bytes

# What photographs come in; formats that Pillow hands to other programs (EPS) stay out.
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "PPM")
QUALITY = 95
_SAVED = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
_ASCII = b"ASCII\0\0\0"  # EXIF 2.32, section 4.6.5: the character code that a user comment starts with
_XMP_KEY = "XML:com.adobe.xmp"


def is_image(path: Path) -> bool:
    """Say whether a file is a still image, by its first bytes."""
    try:
        with open(path, "rb") as file:
            return bool(image_kind(file.read(16)))
    except OSError:
        return False


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what Pillow's decoders raise on damaged files into one clear `MediaError`."""
    try:
        yield
    except Image.DecompressionBombError as reason:
        limit = f"an image of at most {2 * Image.MAX_IMAGE_PIXELS // 10**6} megapixels"
        raise MediaError(limit, f"a larger one in '{path}'", "scale it down") from reason
    except (OSError, ValueError, SyntaxError, TypeError, RuntimeError, LookupError, struct.error) as reason:
        found = describe(path)
        if is_image(path):
            found += " that cannot be decoded"
        raise MediaError("an image file", found, "choose an intact PNG, JPEG or WebP file") from reason


def open_image(path: Path) -> Image.Image:
    """Open and fully decode an image with Pillow.

    Raises:
        MediaError: if the file is missing, damaged, or not an image.
    """
    Image.init()
    with _reading(Path(path)), open(path, "rb") as file:
        image = Image.open(file, formats=[name for name in FORMATS if name in Image.OPEN])
        image.load()
        return image


def read_image(path: Path) -> np.ndarray:
    """Read an image as ``(H, W, 3)`` uint8 RGB.

    EXIF orientation is applied; grey, palette and 16-bit images become 8-bit RGB, other colour profiles sRGB;
    transparency is laid on white. Of an animation, the first picture.

    Raises:
        MediaError: if the file is missing, damaged, or not an image.
    """
    with _reading(Path(path)):
        image = ImageOps.exif_transpose(open_image(path))
        if image.mode.startswith("I"):  # 16 bits, in one of several guises
            grey = (np.clip(np.asarray(image, np.int64), 0, 65535) // 257).astype(np.uint8)
            return np.repeat(grey[:, :, None], 3, axis=2)
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return np.array(_to_srgb(image))


def _to_srgb(image: Image.Image) -> Image.Image:
    """Convert to RGB through the image's own colour profile, where it has a usable one."""
    profile = image.info.get("icc_profile")
    if profile and image.mode in ("RGB", "RGBA", "CMYK", "L"):
        with suppress(ImageCms.PyCMSError, OSError):
            own = ImageCms.ImageCmsProfile(BytesIO(profile))
            return ImageCms.profileToProfile(image, own, ImageCms.createProfile("sRGB"), outputMode="RGB")
    return image.convert("RGB")


def write_image(path: Path, image: np.ndarray, xmp: str | None = None, text: dict[str, str] | None = None) -> None:
    """Write an image atomically: PNG without loss, JPEG and WebP at quality 95.

    Args:
        path: ends in .png, .jpg, .jpeg or .webp.
        image: ``(H, W, 3)`` uint8 RGB.
        xmp: an XMP packet to store in the file.
        text: tags to store; PNG text chunks, or JSON in the EXIF user comment.

    Raises:
        MediaError: for another suffix.
        OutputError: if the file cannot be written.
    """
    path = Path(path)
    kind = _SAVED.get(path.suffix.lower())
    if kind is None:
        raise MediaError("an output name ending in .png, .jpg or .webp", f"'{path.name}'", "change its ending")
    extra: dict = {"quality": QUALITY} | ({"subsampling": 0} if kind == "JPEG" else {})
    if kind == "PNG":
        extra = {"pnginfo": _png_info(xmp, text or {}), "compress_level": 3}
    else:
        if xmp:
            extra["xmp"] = xmp.encode()
        if text:
            exif = Image.Exif()
            exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = _ASCII + json.dumps(text).encode()
            extra["exif"] = exif
    data = BytesIO()
    Image.fromarray(_checked(image)).save(data, kind, **extra)
    write_bytes(path, data.getvalue())


def _png_info(xmp: str | None, text: dict[str, str]) -> PngInfo:
    info = PngInfo()
    if xmp:
        info.add_itxt(_XMP_KEY, xmp)
    for key, value in text.items():
        info.add_itxt(key, value)
    return info


def image_marks(path: Path) -> dict:
    """Return {"xmp": str or None, "tags": dict} of an image; see `fslab.media.read_marks`."""
    with _reading(Path(path)):
        image = open_image(path)
        if image.format == "PNG":
            tags = {key: str(value) for key, value in image.text.items()}
            return {"xmp": tags.pop(_XMP_KEY, None), "tags": tags}
        xmp = image.info.get("xmp")
        comment = image.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment, b"")
    try:
        tags = json.loads(bytes(comment)[len(_ASCII) :])
    except (ValueError, TypeError):  # somebody else's comment
        tags = {}
    tags = {str(key): str(value) for key, value in tags.items()} if isinstance(tags, dict) else {}
    return {"xmp": xmp.decode(errors="replace") if xmp else None, "tags": tags}


def encode_image(image: np.ndarray, suffix: str = ".jpg", quality: int = QUALITY) -> bytes:
    """Compress ``(H, W, 3)`` uint8 RGB in memory; ``suffix`` is .jpg, .png or .webp, ``quality`` 0..100."""
    flags = {".jpg": cv2.IMWRITE_JPEG_QUALITY, ".webp": cv2.IMWRITE_WEBP_QUALITY}
    if suffix not in (*flags, ".png"):
        raise ValueError(f"suffix must be .jpg, .png or .webp, got {suffix!r}")
    options = [flags[suffix], quality] if suffix in flags else []
    return cv2.imencode(suffix, cv2.cvtColor(_checked(image), cv2.COLOR_RGB2BGR), options)[1].tobytes()


def decode_image(data: bytes) -> np.ndarray:
    """Decompress an image in memory to ``(H, W, 3)`` uint8 RGB.

    Raises:
        ValueError: if ``data`` is not an image.
    """
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    except cv2.error:
        image = None
    if image is None:
        raise ValueError(f"data must be an image, got {len(data)} bytes that are not")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _checked(image: np.ndarray) -> np.ndarray:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise ValueError(f"image must be (H, W, 3) uint8, got {image.shape} {image.dtype}")
    return np.ascontiguousarray(image)
