"""The benchmark as a page that anybody can open: tables, curves of quality against training time, and pictures."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from jinja2 import Environment, StrictUndefined
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from fslab.bench.trial import ARMS, TRAINED, face_labels
from fslab.labels import ClipLabels
from fslab.media import read_frames
from fslab.metrics import METRICS
from fslab.provenance import Manifest, save_marked_image
from fslab.storage import write_bytes
from fslab.synth.pair import Pair
from fslab.viz import COLOURS, GRID, INK, MUTED, image_grid, to_svg

ARM_NAMES = {
    "target": "untouched target", "colour": "colour transfer only", "nearest": "nearest frame of the source",
    "classic": "2018 recipe", "fslab": "fslab", "ceiling": "ceiling of the paste", "truth": "truth",
}  # fmt: skip
SHOWN = ("colour", "nearest", "classic", "fslab", "ceiling")
HEADLINES = (
    "closure", "leak", "identity_gap_closed", "top1", "ssim", "sharpness", "pose_to_truth", "flicker_relative",
)  # fmt: skip
PLOTS = ("closure", "identity_gap_closed", "ssim", "sharpness")
GAIN = 3  # how much the pictures of the difference are brightened
CELL = 168  # height of a picture on a sheet, pixels


def write_sheet(path: Path, pair: Pair, swaps: Path, result: Mapping, names: Mapping[str, str] | None = None) -> None:
    """Write a case's pictures as one marked image: a strip for each arm, at two moments of the clip.

    A strip shows target, swap, truth and their difference, brightened.

    Args:
        path: the picture to write.
        pair: the rendered case.
        swaps: folder of the arms' clips.
        result: as `Trial.run` gives it; ``clips`` names each arm's.
        names: arm -> what it is called on the sheet, in the order of the strips; those in `SHOWN` where left out.
    """
    names = names or {arm: ARM_NAMES[arm] for arm in SHOWN}
    labels = face_labels(pair)
    clips = {arm: swaps / name if name else pair.target for arm, name in result["clips"].items()}
    clips |= {"target": pair.target, "truth": pair.truth}
    chosen = show_moments(labels)
    looks = {arm: [_close_up(rgb, labels, i) for i, rgb in _frames(clip, chosen)] for arm, clip in clips.items()}
    rows = [
        [p for k in range(len(chosen)) for p in strip(looks["target"][k], looks[arm][k], looks["truth"][k])]
        for arm in names
    ]
    heads = ["target", "swap", "truth", f"difference × {GAIN}"] * len(chosen)
    gaps = {4 * k: CELL // 8 for k in range(1, len(chosen))}
    sheet = image_grid(rows, list(names.values()), heads, CELL, gaps, "left: mid-clip, right: most turned")
    settings = {"frames": [int(i) for i in chosen], "clips": result["clips"]}
    manifest = Manifest.new("benchmark pictures", sorted(set(clips.values())), {}, pair.consents, settings)
    save_marked_image(path, sheet, manifest)


def show_moments(labels: ClipLabels) -> list[int]:
    """Return the frames that are shown: the middle one and the one whose head is turned furthest, where they differ."""
    return list(dict.fromkeys([len(labels) // 2, int(np.abs(labels.pose[:, 0]).argmax())]))


def strip(target: np.ndarray, swap: np.ndarray, truth: np.ndarray) -> list[np.ndarray]:
    """Return the pictures of a strip: the three and the absolute difference of swap and truth, times `GAIN`."""
    return [target, swap, truth, np.clip(cv2.absdiff(swap, truth).astype(int) * GAIN, 0, 255).astype(np.uint8)]


def _frames(clip: Path, wanted: Sequence[int]) -> list[tuple[int, np.ndarray]]:
    """Return frames of a clip as RGB, in the order asked for."""
    frames = islice(read_frames(clip), max(wanted) + 1)
    found = {i: frame.rgb() for i, frame in enumerate(frames) if i in wanted}
    return [(i, found[i]) for i in wanted]


def _close_up(rgb: np.ndarray, labels: ClipLabels, index: int) -> np.ndarray:
    """Return the square around the face, ``(CELL, CELL, 3)``."""
    rows, columns = (np.flatnonzero(labels.face[index].any(axis=axis)) for axis in (1, 0))
    height, width = labels.size
    side = min(int(1.15 * max(np.ptp(rows), np.ptp(columns))) + 1, height, width)
    y0 = int(np.clip((rows[0] + rows[-1] - side) // 2 + 1, 0, height - side))
    x0 = int(np.clip((columns[0] + columns[-1] - side) // 2 + 1, 0, width - side))
    how = cv2.INTER_AREA if side > CELL else cv2.INTER_CUBIC
    return cv2.resize(rgb[y0 : y0 + side, x0 : x0 + side], (CELL, CELL), interpolation=how)


def write_page(out: Path, body: Mapping) -> Path:
    """Write ``index.html`` into the benchmark's folder; it needs no other file, no network and no script.

    Args:
        out: the folder, with ``pictures/CASE.jpg``.
        body: what ``quality.json`` holds.
    """
    page = Path(out) / "index.html"
    sheets = {case: Path(out) / "pictures" / f"{case}.jpg" for case in body["rows"]}
    write_bytes(page, render_page(body, {case: path.read_bytes() for case, path in sheets.items()}).encode())
    return page


def render_page(body: Mapping, sheets: Mapping[str, bytes]) -> str:
    """Return the page as HTML; ``sheets`` holds each case's marked picture, as the bytes of its file."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    source = resources.files("fslab").joinpath("assets", "quality.html.j2").read_text(encoding="utf-8")
    known = [m for m in METRICS if any(row.get(m) is not None for row in body["means"].values())]
    return environment.from_string(source).render(
        body=body,
        metrics={m: METRICS[m] for m in known},
        headlines={m: METRICS[m] for m in HEADLINES if m in known},
        text=lambda row, m: METRICS[m].text(row.get(m)),
        plots={case: list(_plots(case, curves, body["rows"][case])) for case, curves in body["curves"].items()},
        sheets={case: base64.b64encode(data).decode() for case, data in sheets.items()},
        number=lambda v: "–" if v is None else f"{v:.3g}".replace("-", "\N{MINUS SIGN}"),
        names=ARM_NAMES,
        trained=TRAINED,
        arm_order=ARMS,
    )


def _plots(case: str, curves: Mapping[str, Sequence[Mapping]], rows: Mapping[str, Mapping]) -> Iterator[dict]:
    """Yield a case's curves against training time as SVG."""
    for name in PLOTS:
        lines = {
            arm: [(p["seconds"], p["metrics"].get(name)) for p in points if p["metrics"].get(name) is not None]
            for arm, points in curves.items()
        }
        if any(len(points) > 1 for points in lines.values()):
            levels = {arm: rows[arm].get(name) for arm in ("target", "colour", "nearest")}
            figure = plot_curves(lines, levels, METRICS[name].title)
            yield {"title": METRICS[name].title, "svg": to_svg(figure, f"{case}-{name}")}


def plot_curves(
    lines: Mapping[str, Sequence[tuple[float, float]]], levels: Mapping[str, float | None], title: str
) -> Figure:
    """Return curves of a metric over training seconds, on a scale where each doubling is as wide.

    Args:
        lines: arm -> (seconds, value).
        levels: arm -> height of a thin line; those that are None are left out.
        title: above the plot.
    """
    figure = Figure(figsize=(4.6, 2.9), dpi=150, layout="constrained")
    figure.suptitle(title, x=0.02, ha="left", fontsize=13, color=INK, fontweight="bold")
    axes = figure.add_subplot()
    for arm, points in lines.items():
        seconds, values = zip(*points) if points else ((), ())
        colour = COLOURS["swap" if arm == "fslab" else "truth"]
        axes.plot(seconds, values, color=colour, linewidth=1.8, marker="o", markersize=4)
    for arm, dashes in (("target", (0, (4, 3))), ("colour", (0, (1, 1.5))), ("nearest", (0, (6, 2, 1, 2)))):
        if levels.get(arm) is not None:
            axes.axhline(levels[arm], color=COLOURS["target"], linewidth=1.2, linestyle=dashes)
    ticks = sorted({round(s, 1) for points in lines.values() for s, _ in points})
    axes.set_xscale("log", base=2)
    shown = [t for t, before in zip(ticks, [0, *ticks]) if t >= 1.4 * before]
    axes.set_xticks(shown, [f"{t:g}" for t in shown])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("training, seconds", fontsize=11, color=MUTED)
    axes.tick_params(colors=MUTED, labelsize=11, length=0)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(GRID)
    axes.margins(x=0.04, y=0.12)
    return figure
