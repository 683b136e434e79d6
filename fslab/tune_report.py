"""What a search over settings found, as JSON and as a picture."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fslab.media import write_image
from fslab.search import LOST
from fslab.storage import write_json
from fslab.tune import TuneResult
from fslab.viz import COLOURS, GRID, INK, MUTED, to_rgb

JSON_FILE, PLOT_FILE = "tune.json", "tune.png"
MARKS = {"done": ("o", COLOURS["swap"]), "given up": ("x", COLOURS["target"])}


def write_tune_report(result: TuneResult, out_dir: Path, command: str | None) -> None:
    """Write ``tune.json`` and ``tune.png`` into the folder of a search.

    Args:
        result: as `fslab.tune.tune` gives it.
        out_dir: the folder.
        command: the command line that trains with the best settings, where there are any.

    Raises:
        OutputError: if they cannot be written.
    """
    body = {
        "finished": result.finished,
        "best": result.best,
        "start_value": result.start_value,
        "command": command,
        "run": result.run_dir.relative_to(out_dir).as_posix() if result.run_dir else None,
        "importance": {name: round(share, 4) for name, share in result.importance.items()},
        "about": result.about,
        "trials": result.rows,
    }
    write_json(out_dir / JSON_FILE, body)
    write_image(out_dir / PLOT_FILE, to_rgb(plot_search(result)))


def plot_search(result: TuneResult) -> Figure:
    """Return a figure: each trial's score with the best so far, and beside it how much each setting mattered."""
    figure = Figure(figsize=(10, 4.2), dpi=130, layout="constrained", facecolor="white")
    left, right = figure.subplots(1, 2, width_ratios=(1.6, 1))
    _plot_trials(_plain(left, "Score by trial, higher is better"), result)
    _plot_importance(_plain(right, "What decided it, share"), result.importance)
    return figure


def _plain(axes: Axes, title: str) -> Axes:
    """Return axes without a box, with a title at the left."""
    axes.set_title(title, loc="left", fontsize=11, color=INK, fontweight="bold", pad=10)
    axes.tick_params(colors=MUTED, labelsize=9, length=0)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(GRID)
    return axes


def _plot_trials(axes: Axes, result: TuneResult) -> None:
    """Draw trials as dots, those given up as crosses, the best so far as a line, the start as a dashed one."""
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_xlabel("trial", fontsize=9, color=MUTED)
    for state, (marker, colour) in MARKS.items():
        shown = [
            (r["number"], r["value"]) for r in result.rows if r["state"] == state and r["value"] not in (None, LOST)
        ]
        if shown:
            axes.scatter(*zip(*shown), marker=marker, color=colour, s=26, label=state)
    done = [(r["number"], r["value"]) for r in result.rows if r["state"] == "done"]
    if done:
        best = [max(value for _, value in done[: i + 1]) for i in range(len(done))]
        x = [*(number for number, _ in done), max(r["number"] for r in result.rows)]
        axes.step(x, [*best, best[-1]], where="post", color=COLOURS["swap"], label="best so far")
    if result.start_value is not None:
        axes.axhline(result.start_value, color=COLOURS["truth"], linestyle=(0, (4, 3)), linewidth=1.4, label="start")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=9, labelcolor=MUTED)


def _plot_importance(axes: Axes, importance: dict[str, float]) -> None:
    """Draw a bar a setting, the largest on top; words where too few trials are done."""
    if not importance:
        axes.set_axis_off()
        axes.text(0.0, 0.9, "Too few trials are done to tell.", fontsize=10, color=MUTED, transform=axes.transAxes)
        return
    names = list(importance)[::-1]
    axes.barh(names, [importance[name] for name in names], color=COLOURS["truth"], height=0.6)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.margins(y=0.02)
