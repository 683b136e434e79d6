"""An evaluation as a page that anybody can open: figures and what they mean, pictures, curves; and as JSON."""

from collections.abc import Iterator
from dataclasses import replace
from importlib import resources
from pathlib import Path

import cv2
import numpy as np
from jinja2 import Environment, StrictUndefined

from fslab import __version__
from fslab.errors import OutputError
from fslab.evaluate import METRICS, EvalReport, Metric, Moment
from fslab.label import MIN_SIDE
from fslab.media import write_image
from fslab.provenance import Manifest, embedded_manifest, save_marked_image
from fslab.storage import atomic_dir, prepare_output, write_json
from fslab.viz import plot_series, to_svg

REPORT_FILE = "report.json"
GROUPS = {
    "Against the truth": (
        "closure", "leak", "identity_gap_closed", "psnr", "ssim", "ms_ssim", "sharpness", "band_error", "colour_shift",
        "colour_error",
    ),
    "Who it is": ("identity_source", "identity_target", "top1", "share_swapped"),
    "What the face does, against the truth": (
        "pose_to_truth", "gaze_to_truth", "mouth_to_truth", "eyes_to_truth", "landmark_error",
    ),
    "What the face does, against the footage": ("pose_error", "mouth_error", "eyes_error"),
    "How it moves": ("flicker", "flicker_relative", "warp_excess", "unsteadiness"),
}  # fmt: skip
HEADLINES = ("closure", "leak", "identity_gap_closed")
HEADLINES_WITHOUT_TRUTH = ("share_swapped", "identity_target", "pose_error", "unsteadiness")
PLOTS = ("closure", "ssim", "identity_source", "identity_target", "pose_error", "flicker", "unsteadiness", "change")
ARM_NAMES = {"target": "footage", "swap": "swap", "truth": "truth"}
VIEW_NAMES = {"face": "the face", "frame": "the whole frame"}


def write_report(report: EvalReport, out_dir: Path, overwrite: bool = False) -> Path:
    """Write a report folder: ``index.html``, ``report.json`` and the pictures the page shows.

    The page needs nothing from the network and no script. The folder appears whole or not at all.

    Args:
        report: as `evaluate_videos` gives it.
        out_dir: the folder to make.
        overwrite: replace an earlier report; any other folder is left alone.

    Returns:
        The path of ``index.html``.

    Raises:
        OutputError: if ``out_dir`` exists and may not be replaced, or cannot be written.
    """
    out_dir = prepare_output(Path(out_dir), overwrite)
    if (
        out_dir.exists()
        and not (out_dir / REPORT_FILE).is_file()
        and not (out_dir.is_dir() and not any(out_dir.iterdir()))
    ):
        raise OutputError(
            "a new folder or an earlier report", f"'{out_dir}' with other things in it", "choose another folder"
        )
    with atomic_dir(out_dir) as part:
        write_json(part / REPORT_FILE, report.to_dict())
        page = render_page(report, _write_pictures(report, part / "pictures"))
        (part / "index.html").write_text(page, encoding="utf-8")
    return out_dir / "index.html"


def _write_pictures(report: EvalReport, folder: Path) -> dict[str, list[dict]]:
    """Write the pictures; returns what the page says of them, "moments" and "worst".

    The swapped ones are marked as any swap is, each with its manifest beside it.
    """
    folder.mkdir()
    shown = {}
    for kind in ("moments", "worst"):
        shown[kind] = [
            _write_moment(report, moment, folder, kind == "moments") for moment in getattr(report.pictures, kind)
        ]
    return shown


def _write_moment(report: EvalReport, moment: Moment, folder: Path, with_frames: bool) -> dict:
    """Write one moment's pictures: faces, and whole frames if asked for or if there is no face."""
    views = {"face": moment.faces} | ({"frame": moment.frames} if with_frames or not moment.faces else {})
    files: dict[str, list[dict]] = {view: [] for view in views}
    for view, pictures in views.items():
        for arm in (arm for arm in ARM_NAMES if arm in pictures):
            image, words = _enlarged(pictures[arm]), f"{ARM_NAMES[arm]}, {VIEW_NAMES[view]}"
            path = folder / f"{moment.index:06d}_{view}_{arm}.jpg"
            if arm == "swap":
                if view == "frame":
                    image = _without_label(report, image, _enlarged(pictures["target"]))
                save_marked_image(path, image, _picture_manifest(report, moment))
            else:
                unswapped = image
                write_image(path, unswapped)
            alt = f"Frame {moment.index}, {words}" + (" (AI face swap)" if arm == "swap" else "")
            size = {"width": image.shape[1], "height": image.shape[0]}
            files[view].append({"src": f"pictures/{path.name}", "alt": alt, "arm": ARM_NAMES[arm], **size})
    told = ("closure", "ssim") if "truth" in report.inputs else ("pose_error",)
    scores = [f"{METRICS[name].title} {METRICS[name].text(report.per_frame[name][moment.index])}" for name in told]
    return {"time": f"{moment.time:.2f} s", "index": moment.index, "scores": ", ".join(scores), **files}


def _enlarged(image: np.ndarray) -> np.ndarray:
    """Return a picture large enough to carry a label; one that is comes back itself."""
    scale = MIN_SIDE / min(image.shape[:2])
    if scale <= 1:
        return image
    size = [max(round(side * scale), MIN_SIDE) for side in image.shape[1::-1]]
    return cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)


def _without_label(report: EvalReport, swap: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return a whole frame with the footage in place of the video's own label, which the picture's own will cover.

    The two would not lie exactly on each other, and neither could be read.
    """
    manifest = embedded_manifest(report.pictures.marks.get("tags", {}))
    box = manifest.label.get("box") if manifest else None
    if not isinstance(box, list) or len(box) != 4 or not all(isinstance(v, int) for v in box):
        return swap
    height, width = swap.shape[:2]
    scale = height / report.inputs["size"][0]
    x0, y0 = (int(np.clip(v * scale - 1, 0, side)) for v, side in zip(box[:2], (width, height)))
    x1, y1 = (int(np.clip(np.ceil(v * scale + 1), 0, side)) for v, side in zip(box[2:], (width, height)))
    bare = swap.copy()
    bare[y0:y1, x0:x1] = target[y0:y1, x0:x1]
    return bare


def _picture_manifest(report: EvalReport, moment: Moment) -> Manifest:
    """Describe a picture of a swap: from which video, and what that says of its run and consents."""
    swap, own = report.inputs["swap"], embedded_manifest(report.pictures.marks.get("tags", {}))
    manifest = Manifest.new("report picture", [], {}, [], {"frame": moment.index})
    manifest = replace(manifest, inputs=({"name": swap["file"], "sha256": swap["sha256"]},))
    return replace(manifest, run=own.run, consents=own.consents) if own else manifest


def render_page(report: EvalReport, pictures: dict[str, list[dict]]) -> str:
    """Return the page as HTML; ``pictures`` as `_write_pictures` describes them."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    source = resources.files("fslab").joinpath("assets", "report.html.j2").read_text(encoding="utf-8")
    duration = next((t for t in reversed(report.per_frame.get("time", [])) if t is not None), 0.0)
    has_truth = "truth" in report.inputs
    return environment.from_string(source).render(
        version=__version__,
        report=report,
        has_truth=has_truth,
        duration=f"{duration + 1 / report.inputs['fps']:.1f}",
        summary=list(_summary(report)),
        headlines=[_headline(report, name) for name in (HEADLINES if has_truth else HEADLINES_WITHOUT_TRUTH)],
        groups=list(_groups(report)),
        plots=list(_plots(report)),
        pictures=pictures,
        report_file=REPORT_FILE,
    )


def _summary(report: EvalReport) -> Iterator[str]:
    """Yield what the figures say, in sentences."""
    values = report.metrics
    closure, leak, gap = (values[name] for name in ("closure", "leak", "identity_gap_closed"))
    if closure is not None and leak is not None:
        removed = f"removes {closure:.0%} of the footage's squared error to the truth"
        way = removed if closure > 0 else "is no nearer to the truth than the untouched footage"
        yield f"The swap {way}; {max(leak, 0):.0%} of what sets the replaced person apart is still in the face."
    if gap is not None:
        seen = f"{gap:.0%} of the identity gap is closed" if gap > 0 else "the identity gap is not closed at all"
        yield f"For a face recogniser {seen}."
    source, target = values["identity_source"], values["identity_target"]
    if closure is None and source is not None and target is not None:
        side = "the person put in" if source < target else "the person replaced"
        yield f"For a face recogniser it is nearer to {side}: {source:.2f} to the source, {target:.2f} to the target."
    if values["sharpness"] is not None and values["sharpness"] < 0.6:
        yield f"It is soft: {values['sharpness']:.0%} of the truth's fine detail."
    if values["unsteadiness"] is not None and values["unsteadiness"] > 1.2:
        yield f"It trembles: {values['unsteadiness']:.1f} times as much as the footage."


def _headline(report: EvalReport, name: str) -> dict:
    """Return one of the large figures, and where it lies between the untouched footage (0) and the truth (1)."""
    metric, value = METRICS[name], report.metrics[name]
    untouched, truth = (report.baselines.get(arm, {}).get(name) for arm in ("target", "truth"))
    place = None
    if None not in (value, untouched, truth) and truth != untouched:
        place = round(100 * float(np.clip((value - untouched) / (truth - untouched), 0, 1)))
    ends = {arm: "" if v is None else f"{v:g}" for arm, v in (("untouched", untouched), ("truth", truth))}
    return {"metric": metric, "value": metric.text(value), "place": place, **ends}


def _groups(report: EvalReport) -> Iterator[tuple[str, list[dict]]]:
    """Yield the table's groups, heading and rows; no metric that lacks what it needs, and last those no group names."""
    named = {name for names in GROUPS.values() for name in names}
    groups = {**GROUPS, "Other": tuple(name for name in METRICS if name not in named)}
    for heading, names in groups.items():
        rows = [_row(report, name, METRICS[name]) for name in names if _is_known(report, METRICS[name])]
        if rows:
            yield heading, rows


def _is_known(report: EvalReport, metric: Metric) -> bool:
    """Tell whether what a metric needs was given."""
    has_truth = "truth" in report.inputs or not metric.needs_truth
    return has_truth and (not metric.also_needs or bool(report.inputs.get(metric.also_needs)))


def _row(report: EvalReport, name: str, metric: Metric) -> dict:
    cells = {arm: metric.text(report.baselines.get(arm, {}).get(name)) for arm in ("target", "truth")}
    if cells["truth"] != "–" and metric.unit == "dB":
        cells["truth"] = "exact"
    return {"name": name, "metric": metric, "value": metric.text(report.metrics[name]), **cells}


def _plots(report: EvalReport) -> Iterator[dict]:
    """Yield the curves over time as SVG, with the level of footage and truth where they are not trivial."""
    times = report.per_frame.get("time", [])
    for name in PLOTS:
        values = report.per_frame.get(name, [])
        if sum(v is not None for v in values) < 2:
            continue
        metric = METRICS.get(name)
        title = metric.title if metric else "Change to the footage"
        unit = metric.unit if metric else "grey levels"
        levels = {a: report.baselines.get(a, {}).get(name) for a in ("target", "truth")}
        levels = {arm: v for arm, v in levels.items() if v is not None and (name, arm) != ("pose_error", "target")}
        figure = plot_series(times, values, levels, f"{title}{', ' + unit if unit else ''}")
        words = f"{title} over time"
        yield {"title": words, "svg": to_svg(figure, f"plot-{name}")}
