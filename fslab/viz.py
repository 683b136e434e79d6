"""Sheets of pictures with labels, and plots: curves, coverage. Everything returns an array or a figure."""

import io
import re
import textwrap
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import cv2
import matplotlib
import matplotlib.colors
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from PIL import Image, ImageDraw, ImageFont

from fslab.coverage import PITCH_EDGES, YAW_EDGES, Coverage, Profile
from fslab.data_doctor import TRAITS, Diagnosis
from fslab.evaluate import Moment
from fslab.label import VisibleLabel

SWAP_CAPTION = "AI face swap"

# Sheets are dark, so that faces and not paper are the brightest thing; plots are light, and their SVG follows the page.
SHEET, SHEET_TEXT, SHEET_MUTED = (20, 22, 26), (236, 238, 241), (150, 157, 168)
INK, MUTED, GRID = "#1f2429", "#6b7480", "#dde1e6"
COLOURS = {"swap": "#d4480b", "truth": "#1c6fb8", "target": "#8a929c"}
_THEME = {INK: "--ink", MUTED: "--muted", GRID: "--line", **{v: f"--{k}" for k, v in COLOURS.items()}}
_HEAT = matplotlib.colors.LinearSegmentedColormap.from_list("heat", ["#f4f6f8", "#f6c9a5", "#d4480b", "#6e1f02"])


@lru_cache
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)


def caption_strip(image: np.ndarray, text: str = SWAP_CAPTION) -> np.ndarray:
    """Return a copy of an image with words on a dark strip along its lower edge, ``(H, W, 3)`` uint8."""
    height, width = image.shape[:2]
    size = max(8, round(0.06 * min(height, width)))
    while size > 6 and _font(size, True).getlength(text) > 0.94 * width:
        size -= 1
    strip = max(round(1.8 * size), 1)
    picture = image.copy()
    picture[height - strip :] = (picture[height - strip :] * 0.3).astype(np.uint8)
    drawn = Image.fromarray(picture)
    place = (width / 2, height - strip / 2)
    ImageDraw.Draw(drawn).text(place, text, (255, 255, 255), _font(size, True), anchor="mm")
    return np.asarray(drawn)


def _fit(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return an image scaled to fit a cell, its proportions kept, centred on the sheet's colour."""
    scale = min(height / image.shape[0], width / image.shape[1])
    h, w = max(round(image.shape[0] * scale), 1), max(round(image.shape[1] * scale), 1)
    small = cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    cell = np.full((height, width, 3), SHEET, np.uint8)
    cell[(height - h) // 2 : (height - h) // 2 + h, (width - w) // 2 : (width - w) // 2 + w] = small
    return cell


def image_grid(
    rows: Sequence[Sequence[np.ndarray | None]],
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    cell: int | None = None,
    gaps: Mapping[int, int] | None = None,
    foot: str | None = None,
) -> np.ndarray:
    """Return pictures in rows and columns on a dark sheet.

    Args:
        rows: pictures ``(h, w, 3)`` uint8 of any size; None leaves a place empty. A column is as wide as its widest.
        row_labels: words left of each row.
        column_labels: words above each column.
        cell: height of a picture on the sheet, pixels; the tallest picture's where left out.
        gaps: column -> extra space to its left, pixels.
        foot: words below the pictures, with room for the visible label beside them; None leaves the foot out.

    Returns:
        ``(H, W, 3)`` uint8 RGB.
    """
    if not rows or not any(image is not None for row in rows for image in row):
        raise ValueError("rows must hold at least one picture")
    height = cell or max(image.shape[0] for row in rows for image in row if image is not None)
    n_columns = max(len(row) for row in rows)
    gap, type_size = max(4, height // 40), max(11, round(height / 15))
    widths = [0] * n_columns
    for row in rows:
        for i, image in enumerate(row):
            if image is not None:
                widths[i] = max(widths[i], round(image.shape[1] * height / image.shape[0]))
    left = max((round(_font(type_size).getlength(text)) + 3 * gap for text in row_labels), default=0)
    top = round(2.2 * type_size) if column_labels else 0
    starts = np.cumsum([left + gap] + [w + gap for w in widths])
    starts += np.cumsum([(gaps or {}).get(i, 0) for i in range(n_columns + 1)])
    size = top + gap + len(rows) * (height + gap), int(starts[-1])
    sheet = np.full((size[0] + (0 if foot is None else _label_height(size)), size[1], 3), SHEET, np.uint8)
    for r, row in enumerate(rows):
        y = top + gap + r * (height + gap)
        for c, image in enumerate(row):
            if image is not None:
                sheet[y : y + height, starts[c] : starts[c] + widths[c]] = _fit(image, height, widths[c])
    drawn = Image.fromarray(sheet)
    draw = ImageDraw.Draw(drawn)
    for r, text in enumerate(row_labels):
        place = (left - gap, top + gap + r * (height + gap) + height / 2)
        draw.text(place, text, SHEET_MUTED, _font(type_size), anchor="rm")
    for c, text in enumerate(column_labels):
        place = (float(starts[c]) + widths[c] / 2, top / 2 + gap / 2)
        draw.text(place, text, SHEET_TEXT, _font(type_size, True), anchor="mm")
    place = (left + gap, (size[0] + sheet.shape[0]) / 2)
    draw.text(place, foot or "", SHEET_MUTED, _font(type_size), anchor="lm")
    return np.asarray(drawn)


def _label_height(size: tuple[int, int]) -> int:
    """Return how much taller a sheet must be for the visible label to lie below its pictures, pixels."""
    extra = 0
    for _ in range(4):  # a taller sheet may get a taller label
        box = VisibleLabel((size[0] + extra, size[1])).box
        extra = size[0] + extra - box[1] + 2
    return extra


def contact_sheet(
    target: Sequence[np.ndarray],
    swap: Sequence[np.ndarray],
    truth: Sequence[np.ndarray] | None = None,
    times: Sequence[float] = (),
    faces: Sequence[Mapping[str, np.ndarray]] = (),
    cell: int = 240,
) -> np.ndarray:
    """Return a sheet that shows the same moments of two or three clips beside each other, one row a moment.

    Args:
        target: frames of the footage, ``(H, W, 3)`` uint8.
        swap: the same frames swapped.
        truth: the same frames of the truth, where there is one.
        times: their times, seconds.
        faces: close-ups of each moment, "target", "swap" and "truth" -> picture; shown to the right.
        cell: height of a picture, pixels.

    Returns:
        ``(H, W, 3)`` uint8 RGB, with room at the foot for the visible label.
    """
    arms = {"target": target, "swap": swap} | ({"truth": truth} if truth is not None else {})
    if len({len(frames) for frames in arms.values()}) != 1:
        raise ValueError(f"every clip must give as many frames, got {[len(f) for f in arms.values()]}")
    rows = [list(moment) for moment in zip(*arms.values())]
    names, gaps, foot = ["target", "swap", "truth"][: len(arms)], {}, "the same moments of each clip"
    if any(faces):
        gaps = {len(arms): cell // 8}
        for row, close in zip(rows, faces, strict=True):
            row += [caption_strip(close[a]) if a == "swap" else close[a] for a in arms] if close else [None] * len(arms)
        names, foot = names * 2, "left: whole frames, right: the face"
    return image_grid(rows, [f"{t:.2f} s" for t in times], names, cell, gaps, foot)


def moments_sheet(moments: Sequence[Moment], cell: int = 240) -> np.ndarray:
    """Return the contact sheet of the moments a report holds (`EvalReport.pictures`), faces included."""
    arms = {arm: [m.frames[arm] for m in moments] for arm in moments[0].frames}
    return contact_sheet(
        arms["target"], arms["swap"], arms.get("truth"), [m.time for m in moments], [m.faces for m in moments], cell
    )


def to_rgb(figure: Figure) -> np.ndarray:
    """Return a figure as ``(H, W, 3)`` uint8 RGB."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:, :, :3].copy()


def to_svg(figure: Figure, name: str) -> str:
    """Return a figure as an ``<svg>`` element to put into a page, in the page's font and colours.

    Colours become the custom properties ``--ink``, ``--muted``, ``--line``, ``--swap``, ``--target`` and ``--truth``;
    ids start with ``name``, which keeps several plots of one page apart.
    """
    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :].replace("<svg ", '<svg stroke-linejoin="round" ', 1)
    svg = re.sub(r"<(metadata|style).*?</\1>\s*", "", svg, flags=re.DOTALL)  # its style sheet would rule the page
    svg = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"font-family: [^;\"]*", "font-family: var(--font)", svg)
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font: \1 var(--font)", svg)  # how matplotlib 3.9 writes it
    for colour, variable in _THEME.items():
        svg = svg.replace(colour, f"var({variable})")
    return re.sub(r' width="[\d.]+pt" height="[\d.]+pt"| height="[\d.]+pt"| width="[\d.]+pt"', "", svg, count=2)


def _axes(figure: Figure, place: tuple[int, int, int] | SubplotSpec, title: str, x_label: str = "") -> Axes:
    """Return plain axes: no box, faint horizontal lines, the title at the left."""
    axes = figure.add_subplot(place) if isinstance(place, SubplotSpec) else figure.add_subplot(*place)
    axes.set_title(title, loc="left", fontsize=11, color=INK, fontweight="bold", pad=10)
    axes.set_xlabel(x_label, fontsize=9, color=MUTED)
    axes.tick_params(colors=MUTED, labelsize=9, length=0)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(GRID)
    return axes


def _gaps(values: Sequence[float | None]) -> tuple[np.ndarray, np.ndarray]:
    """Return which values are there, and all of them with NaN for the missing."""
    numbers = np.array([np.nan if v is None else v for v in values], float)
    return np.isfinite(numbers), numbers


def plot_series(
    x: Sequence[float],
    values: Sequence[float | None],
    levels: Mapping[str, float] | None = None,
    title: str = "",
    x_label: str = "seconds",
) -> Figure:
    """Return a curve with horizontal levels to compare it with.

    Args:
        x: where the values lie.
        values: None leaves a gap; a value with gaps on both sides (taken every n-th frame) is joined to the next.
        levels: "target" or "truth" -> height of a dashed line.
        title: above the plot.
        x_label: below it.
    """
    figure = Figure(figsize=(4.6, 2.7), dpi=150, layout="constrained")
    axes = _axes(figure, (1, 1, 1), "", x_label)
    axes.tick_params(labelsize=11)
    axes.xaxis.label.set_size(11)
    figure.suptitle(title, x=0.02, ha="left", fontsize=13, color=INK, fontweight="bold")
    there, numbers = _gaps(values)
    x = np.asarray(x, float)
    sparse = there.any() and there.mean() < 0.5
    shown = there if sparse else np.ones_like(there)
    marker = "o" if sparse else ""
    axes.plot(x[shown], numbers[shown], color=COLOURS["swap"], linewidth=1.8, marker=marker, markersize=3)
    for name, level in (levels or {}).items():
        dashes = (0, (4, 3)) if name == "target" else (0, (1, 1.5))
        axes.axhline(level, color=COLOURS[name], linewidth=1.4, linestyle=dashes)
    axes.margins(x=0.01, y=0.12)
    return figure


def coverage_card(card: Coverage) -> np.ndarray:
    """Return what a face set covers as one picture: counts, a map of yaw and pitch, sharpness, warnings.

    Args:
        card: as `fslab.coverage.summarise` makes it.

    Returns:
        ``(H, W, 3)`` uint8 RGB.
    """
    warnings = [
        line for w in card.warnings for line in textwrap.wrap(w, 118, initial_indent="! ", subsequent_indent="  ")
    ]
    figure = Figure(figsize=(10, 4.6 + 0.22 * len(warnings)), dpi=120, facecolor="white")
    height = figure.get_figheight()
    drops = ", ".join(f"{n} {why}" for why, n in sorted(card.dropped.items(), key=lambda item: -item[1]))
    figure.text(0.04, 1 - 0.42 / height, card.identity, fontsize=17, fontweight="bold", color=INK)
    counts = f"{card.n_kept} of {card.n_faces} faces kept"
    if card.n_kept:
        counts += f", eye distance {card.eye_distance:.0f} px"
    figure.text(0.04, 1 - 0.74 / height, counts + (f"   (dropped: {drops})" if drops else ""), fontsize=10, color=MUTED)
    grid = figure.add_gridspec(
        1, 2, width_ratios=(1.5, 1), wspace=0.22, left=0.09, right=0.96,
        top=1 - 1.4 / height, bottom=(0.75 + 0.22 * len(warnings)) / height,
    )  # fmt: skip
    _pose_map(_axes(figure, grid[0], "Faces by pose, degrees", "yaw: left to right in the picture"), card.poses)
    axes = _axes(figure, grid[1], "Sharpness of the kept faces", "variance of the Laplacian")
    if len(card.sharpness):
        axes.hist(card.sharpness, bins=24, color=COLOURS["truth"], rwidth=0.9)
    for i, line in enumerate(warnings):
        figure.text(0.04, (0.18 + 0.22 * (len(warnings) - 1 - i)) / height, line, fontsize=10, color=COLOURS["swap"])
    return to_rgb(figure)


def _pose_map(axes: Axes, poses: np.ndarray) -> None:
    """Draw counts by pitch (rows, looking up first) and yaw (columns)."""
    axes.grid(False)
    axes.imshow(poses, cmap=_HEAT, aspect="auto", vmin=0, vmax=max(float(poses.max()), 1.0))
    for (row, column), n in np.ndenumerate(poses):
        shade = "white" if n > 0.55 * poses.max() else INK
        axes.text(column, row, str(n) if n else "·", ha="center", va="center", fontsize=9, color=shade)
    axes.set_xticks(range(poses.shape[1]), [f"{a} to {b}" for a, b in pairwise(YAW_EDGES)], fontsize=8)
    axes.set_yticks(range(poses.shape[0]), [f"{a} to {b}" for a, b in pairwise(PITCH_EDGES)][::-1], fontsize=8)
    axes.set_ylabel("pitch: down to up", fontsize=9, color=MUTED)
    axes.spines["bottom"].set_visible(False)


def doctor_card(diagnosis: Diagnosis, n_findings: int = 6) -> np.ndarray:
    """Return what the data doctor found as one picture: a column a person, then what to do.

    Args:
        diagnosis: as `fslab.data_doctor.examine` makes it.
        n_findings: findings that are shown, the most important first.

    Returns:
        ``(H, W, 3)`` uint8 RGB.
    """
    texts = [f.text for f in diagnosis.findings[:n_findings]] or ["nothing is missing."]
    lines = [x for t in texts for x in textwrap.wrap(t, 124, initial_indent="! ", subsequent_indent="  ")]
    n, foot = len(diagnosis.cards), 0.5 + 0.22 * len(lines)
    figure = Figure(figsize=(max(5.4 * n, 10), 6.2 + foot), dpi=120, facecolor="white")
    height = figure.get_figheight()
    grid = figure.add_gridspec(
        2, n, wspace=0.28, hspace=0.42, left=0.08, right=0.97, top=1 - 0.5 / height, bottom=(foot + 0.35) / height
    )
    for i, (card, profile) in enumerate(zip(diagnosis.cards, diagnosis.profiles, strict=True)):
        title = f"{card.identity}: {card.n_kept} faces by pose, degrees"
        _pose_map(_axes(figure, grid[0, i], title, "yaw: left to right in the picture"), card.poses)
        _trait_bars(_axes(figure, grid[1, i], "What the faces show, share"), profile)
    for i, line in enumerate(lines):
        place = (0.02, (0.18 + 0.22 * (len(lines) - 1 - i)) / height)
        figure.text(*place, line, fontsize=10, color=COLOURS["swap"] if diagnosis.findings else INK)
    return to_rgb(figure)


def _trait_bars(axes: Axes, profile: Profile) -> None:
    """Draw a bar for each trait, divided into the shares of its bins, each with its words."""
    axes.grid(False)
    shades = ["#c9d3dd", "#9fb6cc", "#6f95b8"]
    for row, trait in enumerate(TRAITS):
        counts, left = trait.bins(profile), 0.0
        for n, word, shade in zip(counts, trait.words, shades[3 - len(counts) :], strict=True):
            share = n / max(counts.sum(), 1)
            axes.barh(row, share, left=left, color=shade, height=0.72, edgecolor="white")
            if share > 0.02 * len(word):
                axes.text(left + share / 2, row, word, ha="center", va="center", fontsize=8, color=INK)
            left += share
    axes.set_yticks(range(len(TRAITS)), [t.title for t in TRAITS], fontsize=9)
    axes.set_xlim(0, 1)
    axes.invert_yaxis()
