"""``fslab bench quality``: run a tier's cases, keep what is done, write ``quality.json`` and the page."""

import platform
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from fslab import __version__
from fslab.bench.case import TIERS, Tier
from fslab.bench.classic import ClassicConfig
from fslab.bench.machine import hardware
from fslab.bench.page import write_page, write_sheet
from fslab.bench.trial import ARMS, TRAINED, Trial, Watch
from fslab.errors import OutputError
from fslab.metrics import METRICS
from fslab.schedule import TrainConfig
from fslab.storage import explained, prepare_folder, read_json, write_json
from fslab.synth.pair import Pair
from fslab.traits import area_under_curve, time_to

SCHEMA = 1
MARKER = "quality.json"
LEVEL = 0.5  # the closure whose time is asked for
PACKAGES = ("torch", "numpy", "opencv-python-headless", "av", "mitsuba", "pyoidn")


def run_quality(
    tier: str,
    out: Path,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
    on_note: Callable[[str], None] | None = None,
    budget: float | None = None,
) -> dict:
    """Render, train and score every case of a tier, or go on where an earlier call stopped.

    Args:
        tier: one of `TIERS`.
        out: the folder for ``quality.json``, ``index.html`` and the cases; new, or of the same tier.
        overwrite: do everything anew.
        on_progress: called with (done, total) within each part of a case.
        on_note: called with a sentence as each part begins.
        budget: seconds of training for each network of each case; the tier's where left out.

    Returns:
        What ``quality.json`` holds.

    Raises:
        ValueError: if there is no such tier.
        OutputError: if ``out`` holds something else, another tier's cases, or cannot be written.
        KeyboardInterrupt: when stopped; the same call goes on.
    """
    if tier not in TIERS:
        raise ValueError(f"tier must be one of {', '.join(TIERS)}, got {tier!r}")
    chosen = replace(TIERS[tier], budget=budget or TIERS[tier].budget)
    return run_tier(chosen, Path(out), overwrite, Watch(on_progress, on_note))


def run_tier(tier: Tier, out: Path, overwrite: bool = False, watch: Watch | None = None) -> dict:
    """Do what `run_quality` does, for any tier."""
    watch = watch or Watch()
    out = _open_folder(tier, Path(out), overwrite)
    trials = {case.name: Trial(tier, case, out / "cases" / case.name, watch) for case in tier.cases}
    results = {name: trial.finished() for name, trial in trials.items()}
    body = summarise(tier, results)
    write_json(out / MARKER, body)
    for i, (name, trial) in enumerate(trials.items()):
        watch.note(f"case {i + 1} of {len(trials)}: {name}")
        results[name] = trial.run()
        sheet = out / "pictures" / f"{name}.jpg"
        if not sheet.exists():
            write_sheet(sheet, Pair.load(trial.folder / "pair"), trial.swaps, results[name])
        body = summarise(tier, results)
        write_json(out / MARKER, body)
        write_page(out, body)
    return body


def _open_folder(tier: Tier, out: Path, overwrite: bool) -> Path:
    """Make the folder, or check that it is this tier's."""
    prepare_folder(out, True, MARKER)
    with explained(out):
        if overwrite and out.exists():
            shutil.rmtree(out)
        (out / "pictures").mkdir(parents=True, exist_ok=True)
    if (out / MARKER).exists():
        what = f"a quality benchmark of tier '{tier.name}' in '{out}'"
        body = read_json(out / MARKER, what, OutputError)
        if not isinstance(body, dict) or body.get("schema") != SCHEMA or body.get("tier") != tier.to_dict():
            found = body.get("tier", {}).get("name") if isinstance(body, dict) else None
            fix = "choose another folder or pass --overwrite"
            raise OutputError(what, f"one of tier '{found}' or of another version" if found else "another file", fix)
    return out


def summarise(tier: Tier, results: Mapping[str, dict | None]) -> dict:
    """Return the body of ``quality.json``: what was run, on what, and what came of it, so far; None is not finished."""
    results = {name: result for name, result in results.items() if result}
    hashes = {name: result["hash"] for name, result in results.items()}
    cases = {c.name: {**asdict(c), "hash": hashes.get(c.name)} for c in tier.cases}
    rows = {name: result["rows"] for name, result in results.items()}
    curves = {name: result["curves"] for name, result in results.items()}
    summed = {name: aggregates(curve) for name, curve in curves.items()}
    return {
        "schema": SCHEMA,
        "command": f"fslab bench quality --tier {tier.name} --budget {tier.budget:g}s",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "complete": len(results) == len(tier.cases),
        "machines": {name: result["hardware"] for name, result in results.items()},
        "dates": {name: result["date"] for name, result in results.items()},
        "hardware": next((result["hardware"] for result in results.values()), hardware(tier.device)),
        "versions": {"fslab": __version__, "python": platform.python_version(), **{p: version(p) for p in PACKAGES}},
        "seeds": {"fslab": TrainConfig().seed, "classic": ClassicConfig().seed},
        "tier": tier.to_dict(),
        "cases": cases,
        "rows": rows,
        "curves": curves,
        "means": mean_rows(rows.values()),
        "aggregates": summed,
        "mean_area": {arm: _mean([found[arm]["area"] for found in summed.values()]) for arm in TRAINED},
        "faces": {name: result["faces"] for name, result in results.items()},
        "seconds": {name: result["seconds"] for name, result in results.items()},
        "notes": {name: result["notes"] for name, result in results.items()},
    }


def mean_rows(cases: Collection[Mapping[str, Mapping]]) -> dict[str, dict[str, float | None]]:
    """Return each arm's mean of each metric over the cases that have it; None where none has."""
    return {arm: {m: _mean([case[arm].get(m) for case in cases]) for m in METRICS} for arm in ARMS}


def _mean(values: Sequence[float | None]) -> float | None:
    """Return the mean of what is there; None if nothing is."""
    there = [v for v in values if v is not None]
    return sum(there) / len(there) if there else None


def aggregates(curves: Mapping[str, Sequence[Mapping]]) -> dict[str, dict[str, float | None]]:
    """Return what each trained arm's closure curve comes to.

    "area" is its mean height over the logarithm of the seconds that both arms' curves hold, None where they hold none;
    "seconds_to" the time until it reaches `LEVEL`, None if it does not.
    """
    points = {a: [(p["seconds"], p["metrics"]["closure"]) for p in curves[a]] for a in TRAINED}
    points = {a: tuple(zip(*((s, v) for s, v in p if v is not None))) for a, p in points.items()}
    ends = [(p[0][0], p[0][-1]) for p in points.values() if p]
    first, last = max(e[0] for e in ends), min(e[1] for e in ends)
    found: dict[str, dict[str, float | None]] = {}
    for arm, curve in points.items():
        is_curve = bool(curve) and len(curve[0]) > 1
        found[arm] = {
            "area": area_under_curve(*curve, (first, last)) if is_curve and first < last else None,
            "seconds_to": time_to(*curve, LEVEL) if is_curve else None,
        }
    return found
