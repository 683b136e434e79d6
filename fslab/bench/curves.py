"""``fslab bench curves``: quality against minutes, with and without the base, with and without matching codes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from shutil import rmtree

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from fslab.bench.case import recipe
from fslab.bench.curve import convert, recipe_snapshots
from fslab.bench.trial import Trial, Watch
from fslab.bench.variants import SCORES, Study, Variant, describe_study, markdown_table, open_folder, settings
from fslab.metrics import METRICS
from fslab.schedule import TrainConfig
from fslab.storage import atomic_path, write_bytes, write_json
from fslab.traits import time_to

PLOT, TABLE = "curves.png", "curves.md"
SHOWN = ("closure", "leak", "identity_gap_closed", "sharpness")
REFERENCE = "scratch"  # the row whose best closure the others are asked the time of


@dataclass(frozen=True)
class Point:
    """What a training had reached: ``seconds`` and ``step`` of it, and the ``metrics`` of the target converted then."""

    seconds: float
    step: int
    metrics: dict[str, float | None]


def curve_variants(study: Study) -> list[Variant]:
    """Return the trainings whose curves are drawn.

    From nothing, as `TrainConfig` trains by default, with and without matching codes; and where the tier has a base,
    the recipe, and with the base's encoder tuned too, where matching has something to hold, with and without.
    """
    model, train = recipe(study.tier)
    scratch = TrainConfig(budget=train.budget, device=train.device)
    rows = {"scratch": scratch}
    if train.base != "none":
        rows = {"base": train, "base-tuned": replace(train, encoder_train="full"), **rows}
    for name in [name for name in rows if name != "base"]:
        rows[f"{name}-no-match"] = replace(rows[name], losses=replace(rows[name].losses, match=0.0))
    return [Variant(name, model, config) for name, config in rows.items()]


def run_curves(
    study: Study,
    out: Path,
    overwrite: bool = False,
    watch: Watch | None = None,
    variants: Sequence[Variant] | None = None,
) -> dict:
    """Train each variant once, convert the target at moments on the way and score it; what is done is kept.

    A curve whose training's settings have changed since is made anew.

    Args:
        study: the case, and the seconds of each training.
        out: the folder for ``curves.json``, ``curves.png``, ``curves.md`` and the case; new, or of the same study.
        overwrite: do everything anew.
        watch: who is told.
        variants: the trainings; those of `curve_variants` where left out.

    Returns:
        What ``curves.json`` holds: ``curves`` {variant: [{"seconds", "step", "metrics"}]}, ``settings`` of each, and
        ``times`` {variant: seconds until it reaches the best closure of `REFERENCE`, or None}.

    Raises:
        OutputError: if ``out`` holds something else, or cannot be written.
        KeyboardInterrupt: when stopped; the same call goes on.
    """
    out, watch = Path(out), watch or Watch()
    body = open_folder(study, out, "curves", overwrite)
    curves, known = body["curves"], body.get("settings", {})
    trial = Trial(study.tier, study.case, out / "case", watch)
    pair = trial.render()
    facesets = [trial.extract(pair, i) for i in (0, 1)]
    for variant in variants or curve_variants(study):
        name, folder, about = variant.name, out / "runs" / variant.name, settings(variant)
        if name in curves and known.get(name) == about:
            continue
        if known.get(name) != about:  # what an earlier call began was trained otherwise
            rmtree(folder, ignore_errors=True)
            curves.pop(name, None)
            known[name] = about
            write_json(out / study.marker, _figures(study, curves, known))
        watch.note(f"curves: {name}")
        points = []
        for run in recipe_snapshots(facesets, folder, variant.model, variant.train, watch.on_progress):
            snapshot = convert(run, name, pair.consents[1].person, pair.target, trial.swaps)
            metrics = trial.score(pair, facesets, trial.clip_of(snapshot, pair)).metrics
            points.append(asdict(Point(round(run.seconds, 1), run.step, metrics)))
        curves[name] = points
        write_json(out / study.marker, _figures(study, curves, known))
    rmtree(out / "runs", ignore_errors=True)
    body = _figures(study, curves, known)
    write_json(out / study.marker, body)
    write_bytes(out / TABLE, markdown_table(*table_of(body)).encode())
    plot_curves(body, out / PLOT)
    return body


def _figures(study: Study, curves: Mapping[str, Sequence[Mapping]], known: Mapping[str, dict]) -> dict:
    """Return what the file of figures holds; ``known`` the settings of each curve's training."""
    return describe_study(study) | {"curves": curves, "settings": known, "times": times_to_reference(curves)}


def times_to_reference(curves: Mapping[str, Sequence[Mapping]]) -> dict[str, float | None]:
    """Return the seconds each curve takes to the best closure of `REFERENCE`; None where it never comes to it."""
    if REFERENCE not in curves:
        return {}
    known = {name: [p for p in points if p["metrics"]["closure"] is not None] for name, points in curves.items()}
    level = max((p["metrics"]["closure"] for p in known[REFERENCE]), default=math.inf)
    found = {}
    for name, points in known.items():
        seconds, values = [p["seconds"] for p in points], [p["metrics"]["closure"] for p in points]
        reached = time_to(seconds, values, level) if len(points) > 1 else None
        found[name] = reached and round(reached, 1)
    return found


def table_of(body: Mapping) -> tuple[list[str], list[list[str]]]:
    """Return columns and rows of texts: each curve's end, and the time to the best closure without a base."""
    columns = ["training", "seconds", "steps", *(METRICS[m].title for m in SCORES), "s to scratch's best closure"]
    rows = []
    for name, points in body["curves"].items():
        last, reached = points[-1], body["times"].get(name)
        scores = [METRICS[m].text(last["metrics"].get(m)) for m in SCORES]
        rows.append([name, f"{last['seconds']:.0f}", str(last["step"]), *scores, f"{reached:.0f}" if reached else "–"])
    return columns, rows


def plot_curves(body: Mapping, path: Path) -> None:
    """Draw closure, leak, identity and sharpness against training time into a PNG."""
    figure = Figure(figsize=(11, 3), layout="constrained")
    for axes, metric in zip(figure.subplots(1, len(SHOWN)), SHOWN):
        for name, points in body["curves"].items():
            known = [(p["seconds"], p["metrics"][metric]) for p in points if p["metrics"].get(metric) is not None]
            if known:
                axes.plot(*zip(*known), marker="o", markersize=3, label=name)
        if METRICS[metric].perfect is not None:
            axes.axhline(METRICS[metric].perfect, color="0.7", linewidth=1)
        axes.set(title=METRICS[metric].title, xlabel="training, s", xscale="log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=7)
    with atomic_path(path) as part:
        figure.savefig(part, format="png", dpi=110)
