"""The visible label: every swapped picture says on its face what it is.

The wording names an AI element (AI) and a generation element (合成, "synthesised"), and its capitals are at least 5 %
of the picture's short side high, as the Chinese labelling standard GB 45438-2025 asks; it stays on for the whole clip.
"""

import math
from importlib import resources
from io import BytesIO
from itertools import pairwise

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fslab.errors import MediaError
from fslab.media import Frame

TEXT = "AI face swap · AI合成"
_STACKED = ("AI face swap", "AI合成")  # the same words for pictures too narrow for one line

MIN_SIDE = 48  # px; below it the words cannot be read at any size that fits
MATCH = 0.6  # correlation from which on a piece of the label is there: labelled reach 0.8, others stay below 0.45
_FONT = "NotoSansCJKsc-Bold-subset.otf"
_CAP_HEIGHT = 0.733  # of the font size, from the font's OS/2 table
_GLYPH_SHARE = 0.05  # of the short side
_MIN_FONT = 10  # px; 合成 becomes a blot below it
_BOX_ALPHA = 0.62
_PIECES = 4  # the label is matched in so many parts across, so that covering one word shows
_SEARCH = 2  # px, how far a re-encoded or resized label may have moved


class VisibleLabel:
    """The label for frames of one size: rendered once, blended into each frame.

    White words on a translucent dark box with round corners, bottom right. On one line where that fits the width, else
    on two. In the smallest pictures (below about 60 pixels wide) the words shrink until they fit, and can still be read
    down to `MIN_SIDE`. The box starts and ends on even pixels, so that 4:2:0 video changes nothing outside it.

    Attributes:
        text: the words.
        frame_size: (height, width), pixels.
        box: (x0, y0, x1, y1), whole pixels; edges x1 and y1 are exclusive.
    """

    def __init__(self, frame_size: tuple[int, int]):
        """Render the label.

        Args:
            frame_size: (height, width), pixels.

        Raises:
            MediaError: if the short side is below `MIN_SIDE`.
        """
        height, width = frame_size
        if min(height, width) < MIN_SIDE:
            expected = f"a picture of at least {MIN_SIDE} x {MIN_SIDE} pixels, so that its AI label can be read"
            raise MediaError(expected, f"{width} x {height}", "use a larger one")
        self.text, self.frame_size = TEXT, (height, width)
        margin = max(2, 2 * round(0.01 * min(height, width)))
        lines, font = _fit(min(height, width), width - 2 * margin)
        words, box = _render(lines, font)
        x1, y1 = (width - margin) // 2 * 2, (height - margin) // 2 * 2
        self.box = (x1 - box.shape[1], y1 - box.shape[0], x1, y1)
        self._words = words
        columns, rows = np.flatnonzero(words.any(axis=0)), np.flatnonzero(words.any(axis=1))
        self._inside = (columns[0], columns[-1] + 1, rows[0], rows[-1] + 1)  # what lies outside has the picture's edges
        self._changed = np.maximum(words, box) > 0
        alpha = 1 - (1 - words) * (1 - box * _BOX_ALPHA)  # white words over the box over the picture
        self._keep = np.repeat((1 - alpha)[:, :, None], 3, axis=2)
        self._add = np.repeat(255 * words[:, :, None], 3, axis=2)

    def apply(self, frame: Frame) -> None:
        """Blend the label into ``frame``, in place; only the label's own pixels are converted and written.

        Raises:
            ValueError: if the frame has another size than the label was made for.
        """
        if tuple(frame.size) != self.frame_size:
            raise ValueError(f"frame must be {self.frame_size}, as the label, got {frame.size}")
        region = cv2.multiply(frame.crop(*self.box), self._keep, dtype=cv2.CV_32F)
        frame.paste(cv2.add(region, self._add, dtype=cv2.CV_8U), self.box[0], self.box[1], self._changed)

    def match(self, image: np.ndarray) -> np.ndarray:
        """Return how well each quarter of the label, from left to right, is found in ``image``.

        Correlation of fine structure: picture and words lose what is coarser than a stroke, then Pearson's r, the best
        within +-2 px, clipped to [0, 1]. The darkness of the background under the box does not matter.

        Args:
            image: ``(H, W, 3)`` uint8 RGB of the label's frame size.

        Returns:
            ``(4,)`` in [0, 1]; 1 = exactly there.
        """
        if image.shape != (*self.frame_size, 3):
            raise ValueError(f"image must be {(*self.frame_size, 3)}, got {image.shape}")
        x0, y0, x1, y1 = self.box
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
        grey = cv2.copyMakeBorder(grey, *[_SEARCH] * 4, cv2.BORDER_REPLICATE)
        window = _fine(grey[y0 : y1 + 2 * _SEARCH, x0 : x1 + 2 * _SEARCH], self._stroke)
        words = _fine(self._words, self._stroke)
        left, right, top, bottom = self._inside
        edges = np.linspace(left, right, _PIECES + 1).round().astype(int)
        scores = [
            max(
                _correlation(words[top:bottom, a:b], window[dy + top : dy + bottom, dx + a : dx + b])
                for dy in range(2 * _SEARCH + 1)
                for dx in range(2 * _SEARCH + 1)
            )
            for a, b in pairwise(edges)
        ]
        return np.clip(scores, 0, 1)

    def found_in(self, image: np.ndarray) -> float:
        """Return how surely the whole label is in ``image``: the worst of `match`, in [0, 1], higher = surer."""
        return float(self.match(image).min())

    @property
    def _stroke(self) -> float:
        """Width of the high-pass filter, pixels: about two strokes of the font."""
        return max(1.5, (self.box[3] - self.box[1]) * 0.12)


def _font(size: int) -> ImageFont.FreeTypeFont:
    data = resources.files("fslab").joinpath("assets", _FONT).read_bytes()
    return ImageFont.truetype(BytesIO(data), size, layout_engine=ImageFont.Layout.BASIC)


def _padding(size: int) -> tuple[int, int]:
    """Return the space beside and above the words, pixels."""
    return math.ceil(0.45 * size), math.ceil(0.3 * size)


def _fit(short_side: int, width: int) -> tuple[tuple[str, ...], ImageFont.FreeTypeFont]:
    """Choose one line or two and the font size: the rule's size if it fits ``width``, else the largest that does."""
    wanted = max(math.ceil(_GLYPH_SHARE * short_side / _CAP_HEIGHT), _MIN_FONT)
    for size in range(wanted, 0, -1):
        font = _font(size)
        for lines in ((TEXT,), _STACKED):
            if max(font.getlength(line) for line in lines) + 2 * _padding(size)[0] <= width:
                return lines, font
    raise ValueError(f"width must hold the label, got {width}")


def _render(lines: tuple[str, ...], font: ImageFont.FreeTypeFont) -> tuple[np.ndarray, np.ndarray]:
    """Draw the words and their box; returns two ``(h, w)`` float32 coverages in [0, 1] with even sides."""
    beside, above = _padding(font.size)
    pitch = math.ceil(1.25 * font.size)
    cap = math.ceil(_CAP_HEIGHT * font.size)
    width = math.ceil(max(font.getlength(line) for line in lines)) + 2 * beside
    height = cap + pitch * (len(lines) - 1) + 2 * above
    width, height = width + width % 2, height + height % 2

    words = Image.new("L", (width, height))
    draw = ImageDraw.Draw(words)
    for i, line in enumerate(lines):
        x = (width - font.getlength(line)) / 2
        draw.text((x, above + cap + i * pitch), line, fill=255, font=font, anchor="ls")
    scale = 4  # Pillow draws corners without smoothing: draw large, then reduce
    box = Image.new("L", (width * scale, height * scale))
    shape = (0, 0, width * scale - 1, height * scale - 1)
    ImageDraw.Draw(box).rounded_rectangle(shape, radius=0.35 * font.size * scale, fill=255)
    box = box.reduce(scale)
    return np.asarray(words, np.float32) / 255, np.asarray(box, np.float32) / 255


def _fine(image: np.ndarray, sigma: float) -> np.ndarray:
    return image - cv2.GaussianBlur(image, (0, 0), sigma)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    energy = float((a * a).sum() * (b * b).sum())
    return float((a * b).sum()) / math.sqrt(energy) if energy > 1e-6 else 0.0
