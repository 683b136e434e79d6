"""Decoded pictures (`av.VideoFrame`) made uniform: 8-bit 4:2:0, standard dynamic range, upright, even sides."""

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from fslab.media.colour import BT709, FULL, HDR_TRANSFERS, LIMITED

_LEVELS = np.arange(256)
_TO_LIMITED = [  # H.273, section 8.3, for Y' and for both chroma planes; swscale's own conversion shifts the hue
    np.round(16 + _LEVELS * 219 / 255).astype(np.uint8),
    *[np.round(128 + (_LEVELS - 128) * 224 / 255).astype(np.uint8)] * 2,
]
PLANAR = ("yuv420p", "yuvj420p")  # the two names FFmpeg has for 8-bit 4:2:0; j is full range


def is_full_range(picture: av.VideoFrame) -> bool:
    """Say whether the samples use 0..255 rather than 16..235."""
    return picture.color_range == FULL or picture.format.name.startswith("yuvj")


def is_hdr(picture: av.VideoFrame) -> bool:
    """Say whether the transfer function is PQ or HLG."""
    return picture.color_trc in HDR_TRANSFERS


def upright_size(picture: av.VideoFrame) -> tuple[int, int]:
    """Return the (height, width) that a decoded picture has after `Normaliser`."""
    height, width = picture.height // 2 * 2, picture.width // 2 * 2
    return (width, height) if _turns(picture) % 2 else (height, width)


def plane_views(picture: av.VideoFrame) -> tuple[np.ndarray, ...]:
    """Return the planes as uint8 views ``(H, W)``, ``(ceil(H/2), ceil(W/2))`` twice, without their padding."""
    return tuple(
        np.frombuffer(plane, np.uint8)[: plane.height * plane.line_size].reshape(plane.height, -1)[:, : plane.width]
        for plane in picture.planes
    )


def blank_like(picture: av.VideoFrame, height: int, width: int, pixels: str | None = None) -> av.VideoFrame:
    """Return an unfilled picture of a new size with the format (or ``pixels``), time and colour tags of another."""
    blank = av.VideoFrame(width, height, pixels or picture.format.name)
    for name in ("pts", "time_base", "duration", "colorspace", "color_range", "color_trc", "color_primaries"):
        value = getattr(picture, name)
        if value is not None:
            setattr(blank, name, value)
    return blank


def from_rgb(rgb: np.ndarray) -> av.VideoFrame:
    """Return an RGB image as a BT.709 picture; an odd last row or column is dropped.

    Args:
        rgb: ``(H, W, 3)`` uint8, at least 2 x 2.
    """
    even = np.ascontiguousarray(rgb[: rgb.shape[0] // 2 * 2, : rgb.shape[1] // 2 * 2])
    return Normaliser()(av.VideoFrame.from_ndarray(even, format="rgb24"))


def to_limited_range(picture: av.VideoFrame) -> av.VideoFrame:
    """Return a picture as yuv420p in 16..235; one that is that already comes back itself.

    H.264 has one code for full range and FFmpeg one name for 4:2:0 that carries it, yuvj420p, which players and editors
    treat unevenly; only limited range is yuv420p to every reader.
    """
    if not is_full_range(picture):
        return picture
    limited = blank_like(picture, picture.height, picture.width, "yuv420p")
    limited.color_range = LIMITED
    for target, source, table in zip(plane_views(limited), plane_views(picture), _TO_LIMITED):
        target[:] = cv2.LUT(source, table)
    return limited


class Normaliser:
    """Turns the decoded pictures of one clip into 8-bit 4:2:0, SDR, upright, with even sides.

    A picture that is all that already comes back itself. One object serves one clip, because swscale's preparation
    for HDR takes seconds and is kept between pictures.
    """

    def __init__(self):
        self._reformatter = VideoReformatter()

    def __call__(self, picture: av.VideoFrame) -> av.VideoFrame:
        """Return the uniform picture; time and, except after HDR and RGB, colour tags stay.

        Raises:
            ValueError: if FFmpeg cannot convert the pixel format, or fewer than 2 x 2 pixels would be left.
        """
        turns, size = _turns(picture), upright_size(picture)
        if not all(size):
            raise ValueError(f"picture must be at least 2 x 2, got {picture.width} x {picture.height}")
        try:
            even = self._convert(picture)
        except av.error.FFmpegError as reason:
            raise ValueError(f"picture must be of a usual pixel format, got {picture.format.name}") from reason
        return _turn(even, turns, size) if turns or size != (even.height, even.width) else even

    def _convert(self, picture: av.VideoFrame) -> av.VideoFrame:
        if is_hdr(picture) or picture.format.is_rgb or "pal" in picture.format.name:
            return self._reformatter.reformat(
                picture, format="yuv420p", dst_colorspace="ITU709", dst_color_range=LIMITED,
                dst_color_trc=BT709, dst_color_primaries=BT709,
            )  # fmt: skip
        if picture.format.name in PLANAR:
            return picture
        full = is_full_range(picture)
        return self._reformatter.reformat(
            picture, format="yuvj420p" if full else "yuv420p", dst_color_range=FULL if full else LIMITED
        )


def _turns(picture: av.VideoFrame) -> int:
    """Return how many quarter turns counterclockwise make a picture upright, 0..3."""
    return round(picture.rotation / 90) % 4


def _turn(picture: av.VideoFrame, turns: int, size: tuple[int, int]) -> av.VideoFrame:
    """Cut an odd last row or column and turn each plane; no sample changes its value."""
    turned = blank_like(picture, *size)
    height, width = size[::-1] if turns % 2 else size
    for target, source, step in zip(plane_views(turned), plane_views(picture), (1, 2, 2)):
        target[:] = np.rot90(source[: height // step, : width // step], turns)
    return turned
