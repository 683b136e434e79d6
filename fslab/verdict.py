"""When to stop: what the measured curve of a training says, in words.

A curve trembles, so nothing is read into less than its own scatter. The scatter is taken from second differences, which
a steady rise or fall leaves at zero, and the best level is that of a running median, which one lucky measurement cannot
lift. Whoever wants more than words takes the numbers of `Verdict`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from fslab.run import Run, append_log
from fslab.watch import ENOUGH_IDENTITY

MIN_MEASURED = 6  # measurements; fewer say nothing of a trend
SCATTERS = 2.5  # so many standard deviations of the scatter are chance
SMALLEST = 0.005  # of the score; less can be seen by nobody
PATIENCE = 0.2  # share of the training without a better score that makes a plateau
Kind = Literal["early", "improving", "plateau", "worse"]
Side = Literal["", "identity", "follows", "detail", "ssim"]

FELL = {
    "identity": "the swaps look more like the target again while the people are redrawn as well as ever: the "
    "network leaks the target's identity. Use the best weights (swaps do), and train anew with a higher --match "
    "or a lower --lr.",
    "follows": "the swaps do less of what the target does: the network has begun to draw each person from memory. Use "
    "the best weights (swaps do), and add footage with more expressions and poses.",
    "detail": "the swaps grow softer. Use the best weights (swaps do), or lower --lr.",
    "ssim": "held-out faces are redrawn worse than before: the network learns its training faces by heart, or the rate "
    "is too high. Use the best weights (swaps do), add footage or lower --lr.",
}
LACKS = {
    "identity": "What it lacks most is likeness: the swaps still look like the target.",
    "follows": "What it lacks most is motion: the swaps do too little of what the target does.",
    "detail": "What it lacks most is detail: the swaps are softer than the footage; a larger --preset can draw more.",
    "ssim": "What it lacks most is accuracy: people are redrawn poorly; a larger --preset can draw more.",
}


@dataclass(frozen=True)
class Verdict:
    """What a training curve says.

    Attributes:
        kind: "early" (too few measurements), "improving", "plateau" or "worse" (it was better before).
        text: the same in sentences.
        minutes: of training at the last measurement.
        minutes_since_best: since the curve first came within chance of its best level.
        score: its level now, in [0, 1], a median of the last three measurements.
        best: its best level.
        chance: differences of the score below this are scatter.
        side: what fell, of a training that got worse, or what is weakest: "identity", "follows", "detail",
            "ssim"; "" unknown.
    """

    kind: Kind
    text: str
    minutes: float = 0.0
    minutes_since_best: float = 0.0
    score: float = float("nan")
    best: float = float("nan")
    chance: float = float("nan")
    side: Side = ""


def scatter(values: np.ndarray) -> float:
    """Return the standard deviation of a curve about its trend, >= 0; robust against single outliers.

    ``1.4826 median |v_i-1 - 2 v_i + v_i+1| / sqrt(6)``: second differences of independent noise have six times its
    variance, those of a straight line none. With fewer than three values it is 0.
    """
    second = np.diff(np.asarray(values, np.float64), 2)
    return float(1.4826 * np.median(np.abs(second)) / np.sqrt(6)) if len(second) else 0.0


def running_median(values: np.ndarray) -> np.ndarray:
    """Return the median of each three neighbours, ``(N,)``; at both ends of the first and of the last three."""
    v = np.asarray(values, np.float64)
    if len(v) < 3:
        return v
    inner = np.median(np.stack([v[:-2], v[1:-1], v[2:]]), axis=0)
    return np.concatenate([inner[:1], inner, inner[-1:]])


def judge_curve(rows: Sequence[Mapping], hints: Sequence[str] = ()) -> Verdict:
    """Say whether a training still gets better.

    Args:
        rows: of ``log.jsonl``, oldest first; those with a "score" count.
        hints: what to film, most useful first, such as "footage of ada looking left" (`fslab.data_doctor.advise`).

    Returns:
        The verdict. A *plateau* had no better score, beyond chance, for a fifth of the training; what is *worse* lies
        below the best level by more than twice what is chance.
    """
    rows = [row for row in rows if _number(row.get("score")) is not None]
    if len(rows) < MIN_MEASURED:
        return Verdict("early", f"Too early to say: {len(rows)} of at least {MIN_MEASURED} measurements.")
    seconds = np.array([row["seconds"] for row in rows], np.float64)
    scores = np.array([row["score"] for row in rows], np.float64)
    level = running_median(scores)
    chance = max(SCATTERS * scatter(scores), SMALLEST)
    first = int(np.argmax(level >= level.max() - chance))
    minutes, since = seconds[-1] / 60, (seconds[-1] - seconds[first]) / 60
    known = {
        "minutes": round(minutes, 2), "minutes_since_best": round(since, 2), "score": round(float(level[-1]), 4),
        "best": round(float(level.max()), 4), "chance": round(chance, 4),
    }  # fmt: skip
    sides = {name: running_median(np.array(values)) for name, values in _sides(rows).items()}
    if level.max() - level[-1] > 2 * chance:
        return _worse(known, sides, seconds[int(np.argmax(level))] / 60)
    patience = max(PATIENCE * (seconds[-1] - seconds[0]), 3 * float(np.median(np.diff(seconds)))) / 60
    if since <= patience:
        return _improving(known, seconds, level)
    return _plateau(known, sides, hints)


def _improving(known: dict, seconds: np.ndarray, level: np.ndarray) -> Verdict:
    start = int(np.searchsorted(seconds, seconds[-1] - PATIENCE * (seconds[-1] - seconds[0])))
    start = min(start, len(seconds) - 2)
    gain, span = float(level[-1] - level[start]), seconds[-1] - seconds[start]
    text = f"Still getting better: score {level[-1]:.2f}, {gain:+.3f} in the last {_duration(span / 60)}."
    return Verdict("improving", f"{text} More time would help: raise --budget.", **known)


def _worse(known: dict, sides: dict[str, np.ndarray], when: float) -> Verdict:
    falls = {name: float(np.nanmax(v) - v[-1]) / max(float(np.nanmax(v)), 1e-6) for name, v in sides.items()}
    side = max(falls, key=falls.get, default="")
    why = f": {FELL[side]}" if side else ". Use the best weights (swaps do)."
    text = f"Getting worse: score {known['score']:.2f}, it was {known['best']:.2f} at minute {when:.0f}"
    return Verdict("worse", text + why, side=side, **known)


def _plateau(known: dict, sides: dict[str, np.ndarray], hints: Sequence[str]) -> Verdict:
    since = _duration(known["minutes_since_best"])
    text = f"No better for {since} (score {known['score']:.2f} after {_duration(known['minutes'])})."
    full = {"identity": ENOUGH_IDENTITY, "follows": 1.0, "detail": 1.0, "ssim": 1.0}
    weak = min(sides, key=lambda name: sides[name][-1] / full[name], default="")
    if weak:
        text += f" {LACKS[weak]}"
    text += f" More {hints[0]} would help more than more time." if hints else " More time will not help."
    return Verdict("plateau", text, side=weak, **known)


def _sides(rows: Sequence[Mapping]) -> dict[str, list[float]]:
    """Return the means over people or pairs of what was measured in every row, see `Side`."""
    found = {
        "identity": [_mean(row.get("swaps"), "identity") for row in rows],
        "follows": [_mean(row.get("swaps"), "follows") for row in rows],
        "detail": [_mean(row.get("swaps"), "detail") for row in rows],
        "ssim": [_mean(row.get("held_out"), "ssim") for row in rows],
    }
    return {name: values for name, values in found.items() if None not in values}


def _mean(parts: object, name: str) -> float | None:
    values = [_number(p.get(name)) for p in parts.values()] if isinstance(parts, Mapping) else []
    values = [v for v in values if v is not None]
    return float(np.mean(values)) if values else None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and np.isfinite(value) else None


def _duration(minutes: float) -> str:
    if minutes < 1.5:
        return f"{60 * minutes:.0f} seconds"
    return f"{minutes:.0f} minutes" if minutes < 90 else f"{minutes / 60:.1f} hours"


def read_log(folder: Path) -> list[dict]:
    """Return the rows of a run's ``log.jsonl``; a half-written last row is left out."""
    path, rows = Path(folder) / "log.jsonl", []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def judge_run(run: Run, hints: Sequence[str] = ()) -> Verdict:
    """Judge a run by its log and write the verdict there as an event, unless it is the last one again."""
    rows = read_log(run.folder)
    verdict = judge_curve(rows, hints)
    told = [row["event"] for row in rows if "verdict" in row]
    if not told or told[-1] != verdict.text:
        about = {k: v for k, v in asdict(verdict).items() if k != "text"}
        row = {"step": run.step, "seconds": round(run.seconds, 2), "event": verdict.text, "verdict": about}
        append_log(run.folder, row)
    return verdict
