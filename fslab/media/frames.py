"""Frames: one picture with its place in time, read and changed by region so that only touched pixels are converted."""

from abc import ABC, abstractmethod
from fractions import Fraction

import av
import cv2
import numpy as np

from fslab.media import colour
from fslab.media.pictures import PLANAR, blank_like, from_rgb, is_full_range, plane_views


class Frame(ABC):
    """One picture: pixels that are converted to RGB only where they are asked for.

    Attributes:
        index: position in the sequence it was read from, from 0.
        time: seconds from the start of the clip; 0 for a still image.
    """

    def __init__(self, index: int, time: float):
        self.index, self.time = index, time

    @property
    @abstractmethod
    def size(self) -> tuple[int, int]:
        """(height, width), pixels."""

    @abstractmethod
    def _region(self, x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
        """Return a box that lies inside the frame, RGB."""

    @abstractmethod
    def _shrunk(self, x0: int, y0: int, x1: int, y1: int, shrink: int) -> np.ndarray:
        """Return the means of the ``shrink`` x ``shrink`` blocks of a box inside the frame, RGB."""

    @abstractmethod
    def _scaled(self, width: int, height: int) -> np.ndarray:
        """Return the whole frame at a smaller size, RGB."""

    @abstractmethod
    def _paste(self, region: np.ndarray, x0: int, y0: int, changed: np.ndarray) -> None:
        """Write the changed pixels of a region that lies inside the frame."""

    @abstractmethod
    def copy(self) -> "Frame":
        """Return an independent copy."""

    def rgb(self) -> np.ndarray:
        """Return the whole frame, ``(H, W, 3)`` uint8 RGB."""
        height, width = self.size
        return self._region(0, 0, width, height)

    def crop(self, x0: int, y0: int, x1: int, y1: int, shrink: int = 1) -> np.ndarray:
        """Return the pixels of a box, converting no others.

        Args:
            x0: left edge, pixels; inclusive.
            y0: top edge, inclusive.
            x1: right edge, exclusive.
            y1: bottom edge, exclusive.
            shrink: a power of two; blocks of so many pixels squared are averaged, which costs less than converting
                them all. The box's corners must then lie on multiples of twice as many.

        Returns:
            ``((y1 - y0) / shrink, (x1 - x0) / shrink, 3)`` uint8 RGB; unshrunk equal to that part of `rgb`. A copy.

        Raises:
            ValueError: if the box is empty or leaves the frame, or does not fit ``shrink``.
        """
        self._check(x0, y0, x1, y1)
        if shrink == 1:
            return self._region(x0, y0, x1, y1)
        if shrink < 1 or shrink & (shrink - 1) or any(edge % (2 * shrink) for edge in (x0, y0, x1, y1)):
            raise ValueError(
                f"box ({x0}, {y0}, {x1}, {y1}) must lie on multiples of twice shrink, {shrink}, a power of 2"
            )
        return self._shrunk(x0, y0, x1, y1, shrink)

    def thumbnail(self, long_side: int) -> tuple[np.ndarray, float]:
        """Return the frame scaled down until its longer side is ``long_side`` pixels; it never grows.

        Returns:
            ``(h, w, 3)`` uint8 RGB, and the scale: thumbnail pixels per frame pixel, at most 1.
        """
        if long_side < 1:
            raise ValueError(f"long_side must be >= 1, got {long_side}")
        height, width = self.size
        scale = long_side / max(height, width)
        if scale >= 1:
            return self.rgb(), 1.0
        return self._scaled(max(round(width * scale), 1), max(round(height * scale), 1)), scale

    def paste(self, region: np.ndarray, x0: int, y0: int, changed: np.ndarray) -> None:
        """Write part of a region into the frame, in place.

        Args:
            region: ``(h, w, 3)`` uint8 RGB.
            x0: column of the frame where the region's left edge goes.
            y0: row of the frame where its top edge goes.
            changed: ``(h, w)`` bool; only these pixels are written.

        Raises:
            ValueError: if the region leaves the frame, or shapes or types do not fit.
        """
        if region.ndim != 3 or region.shape[2] != 3 or region.dtype != np.uint8:
            raise ValueError(f"region must be (h, w, 3) uint8, got {region.shape} {region.dtype}")
        if changed.shape != region.shape[:2] or changed.dtype != bool:
            raise ValueError(f"changed must be {region.shape[:2]} bool, got {changed.shape} {changed.dtype}")
        self._check(x0, y0, x0 + region.shape[1], y0 + region.shape[0])
        if changed.any():
            self._paste(region, x0, y0, changed)

    def _check(self, x0: int, y0: int, x1: int, y1: int) -> None:
        height, width = self.size
        if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
            raise ValueError(f"box ({x0}, {y0}, {x1}, {y1}) must lie inside the {width} x {height} frame")


class RgbFrame(Frame):
    """A still image, or any picture that is at hand as RGB."""

    def __init__(self, rgb: np.ndarray, index: int = 0, time: float = 0.0):
        """Wrap an image; `paste` writes into it.

        Args:
            rgb: ``(H, W, 3)`` uint8 RGB.
            index: see `Frame`.
            time: see `Frame`.
        """
        super().__init__(index, time)
        if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8 or not rgb.size:
            raise ValueError(f"rgb must be (H, W, 3) uint8, got {rgb.shape} {rgb.dtype}")
        self._rgb = rgb

    @property
    def size(self) -> tuple[int, int]:
        """(height, width), pixels."""
        return self._rgb.shape[:2]

    def _region(self, x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
        return self._rgb[y0:y1, x0:x1].copy()

    def _shrunk(self, x0: int, y0: int, x1: int, y1: int, shrink: int) -> np.ndarray:
        return colour.shrink(self._rgb[y0:y1, x0:x1], (x1 - x0) // shrink, (y1 - y0) // shrink)

    def _scaled(self, width: int, height: int) -> np.ndarray:
        return colour.shrink(self._rgb, width, height)

    def _paste(self, region: np.ndarray, x0: int, y0: int, changed: np.ndarray) -> None:
        target = self._rgb[y0 : y0 + region.shape[0], x0 : x0 + region.shape[1]]
        np.copyto(target, region, where=changed[:, :, None])

    def copy(self) -> "RgbFrame":
        """Return an independent copy."""
        return RgbFrame(self._rgb.copy(), self.index, self.time)


class YuvFrame(Frame):
    """A decoded video frame: 8-bit 4:2:0 planes, upright, with even sides.

    The decoder's planes are used as they are; the first `paste` copies them if the decoder still needs them.
    """

    def __init__(self, picture: av.VideoFrame, index: int = 0, time: float = 0.0):
        """Wrap a decoded picture.

        Args:
            picture: yuv420p or yuvj420p with even sides; its pts, time base and colour tags are the frame's.
            index: see `Frame`.
            time: see `Frame`.
        """
        super().__init__(index, time)
        if picture.format.name not in PLANAR or picture.width % 2 or picture.height % 2:
            raise ValueError(f"picture must be yuv420p with even sides, got {picture}")
        self.picture = picture
        self._planes: tuple[np.ndarray, ...] | None = None
        self._owned = False

    @property
    def size(self) -> tuple[int, int]:
        """(height, width), pixels."""
        return self.picture.height, self.picture.width

    @classmethod
    def from_rgb(cls, rgb: np.ndarray, index: int, time_base: Fraction) -> "YuvFrame":
        """Make frame number ``index`` of a new clip, BT.709, from ``(H, W, 3)`` uint8; odd sides lose a pixel."""
        picture = from_rgb(rgb)
        picture.pts, picture.time_base = index, time_base
        return cls(picture, index, float(index * time_base))

    @property
    def pts(self) -> int:
        """Presentation time in units of `time_base`."""
        return self.picture.pts

    @property
    def time_base(self) -> Fraction:
        """The unit of `pts`, seconds."""
        return self.picture.time_base

    @property
    def planes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Views of Y' ``(H, W)``, Cb and Cr ``(H/2, W/2)``, uint8; not to be written to."""
        if self._planes is None:
            self._planes = plane_views(self.picture)
        return self._planes

    @property
    def _colours(self) -> tuple[int, bool]:
        return self.picture.colorspace, is_full_range(self.picture)

    def _region(self, x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
        y, cb, cr = self._block(x0, y0, x1, y1)
        rgb = colour.planes_to_rgb(y, colour.double(cb), colour.double(cr), colour.to_rgb(*self._colours))
        if rgb.shape[:2] == (y1 - y0, x1 - x0):
            return rgb
        return rgb[y0 % 2 :, x0 % 2 :][: y1 - y0, : x1 - x0].copy()

    def _block(self, x0: int, y0: int, x1: int, y1: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the planes' views of the smallest box of whole 2 x 2 blocks around a box."""
        y, cb, cr = self.planes
        rows, columns = slice(y0 // 2, (y1 + 1) // 2), slice(x0 // 2, (x1 + 1) // 2)
        pixels = y[2 * rows.start : 2 * rows.stop, 2 * columns.start : 2 * columns.stop]
        return pixels, cb[rows, columns], cr[rows, columns]

    def _shrunk(self, x0: int, y0: int, x1: int, y1: int, shrink: int) -> np.ndarray:
        width, height = (x1 - x0) // shrink, (y1 - y0) // shrink
        planes = (colour.shrink(plane, width, height) for plane in self._block(x0, y0, x1, y1))
        return colour.planes_to_rgb(*planes, colour.to_rgb(*self._colours))

    def _scaled(self, width: int, height: int) -> np.ndarray:
        y, cb, cr = (colour.shrink(plane, width, height) for plane in self.planes)
        return colour.planes_to_rgb(y, cb, cr, colour.to_rgb(*self._colours))

    def _paste(self, region: np.ndarray, x0: int, y0: int, changed: np.ndarray) -> None:
        if not self._owned:
            self.picture.make_writable()
            self._planes, self._owned = None, True
        height, width = changed.shape
        new_y, new_cb, new_cr = cv2.split(cv2.transform(region, colour.to_ycc(*self._colours)))
        y, *chroma = self._block(x0, y0, x0 + width, y0 + height)
        inside = np.s_[y0 % 2 : y0 % 2 + height, x0 % 2 : x0 % 2 + width]
        np.copyto(y[inside], new_y, where=changed)
        for plane, new in zip(chroma, (new_cb, new_cr)):
            blended = colour.double(plane)  # a block's new chroma is the mean over its pixels, changed or not
            np.copyto(blended[inside], new, where=changed)
            plane[:] = colour.halve(blended)

    def copy(self) -> "YuvFrame":
        """Return an independent copy with the same time and colour tags."""
        twin = YuvFrame(blank_like(self.picture, *self.size), self.index, self.time)
        for target, source in zip(twin.planes, self.planes):
            target[:] = source
        twin._owned = True
        return twin
