"""Decoded pictures (`av.VideoFrame`) made uniform: 8-bit 4:2:0, standard dynamic range, upright, even sides."""

import av
import numpy as np

from fslab.media.colour import BT709, FULL, HDR_TRANSFERS, LIMITED

PLANAR = ("yuv420p", "yuvj420p")  # the two names FFmpeg has for 8-bit 4:2:0; j is full range


def is_full_range(picture: av.VideoFrame) -> bool:
    """Say whether the samples use 0..255 rather than 16..235."""
    return picture.color_range == FULL or picture.format.name.startswith("yuvj")


def is_hdr(picture: av.VideoFrame) -> bool:
    """Say whether the transfer function is PQ or HLG."""
    return picture.color_trc in HDR_TRANSFERS


def plane_views(picture: av.VideoFrame) -> tuple[np.ndarray, ...]:
    """Return the planes as uint8 views ``(H, W)``, ``(ceil(H/2), ceil(W/2))`` twice, without their padding."""
    return tuple(
        np.frombuffer(plane, np.uint8)[: plane.height * plane.line_size].reshape(plane.height, -1)[:, : plane.width]
        for plane in picture.planes
    )


def blank_like(picture: av.VideoFrame, height: int, width: int) -> av.VideoFrame:
    """Return an unfilled picture of a new size with the format, time and colour tags of another."""
    blank = av.VideoFrame(width, height, picture.format.name)
    for name in ("pts", "time_base", "colorspace", "color_range", "color_trc", "color_primaries"):
        setattr(blank, name, getattr(picture, name))
    if picture.duration:
        blank.duration = picture.duration
    return blank


def from_rgb(rgb: np.ndarray) -> av.VideoFrame:
    """Return an RGB image as a BT.709 picture; an odd last row or column is dropped.

    Args:
        rgb: ``(H, W, 3)`` uint8, at least 2 x 2.
    """
    even = np.ascontiguousarray(rgb[: rgb.shape[0] // 2 * 2, : rgb.shape[1] // 2 * 2])
    return _to_sdr(av.VideoFrame.from_ndarray(even, format="rgb24"))


def normalise(picture: av.VideoFrame) -> av.VideoFrame:
    """Return a decoded picture as 8-bit 4:2:0, SDR, upright and even-sided; itself if it is all that already."""
    rotation = picture.rotation
    if is_hdr(picture) or picture.format.is_rgb:
        picture = _to_sdr(picture)
    elif picture.format.name not in PLANAR:
        full = is_full_range(picture)
        wanted = FULL if full else LIMITED
        picture = picture.reformat(format="yuvj420p" if full else "yuv420p", dst_color_range=wanted)
    if rotation % 360 or picture.width % 2 or picture.height % 2:
        picture = _turn(picture, rotation)
    return picture


def _to_sdr(picture: av.VideoFrame) -> av.VideoFrame:
    """Convert RGB or HDR to BT.709, limited range; swscale maps the tones."""
    return picture.reformat(
        format="yuv420p", dst_colorspace="ITU709", dst_color_range=LIMITED,
        dst_color_trc=BT709, dst_color_primaries=BT709,
    )  # fmt: skip


def _turn(picture: av.VideoFrame, rotation: int) -> av.VideoFrame:
    """Rotate counterclockwise by the nearest multiple of 90 degrees, after cutting an odd last row or column."""
    turns = round(rotation / 90) % 4
    height, width = picture.height // 2 * 2, picture.width // 2 * 2
    turned = blank_like(picture, *((width, height) if turns % 2 else (height, width)))
    for target, source, step in zip(plane_views(turned), plane_views(picture), (1, 2, 2)):
        target[:] = np.rot90(source[: height // step, : width // step], turns)
    return turned
