"""Variants of a training compared on one case of the benchmark: equal seconds, the same conversion, the same ruler."""

import json
import multiprocessing
import platform
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

from fslab import __version__
from fslab.bench.case import TIERS, Case, Tier, fit_to_tier
from fslab.bench.curve import convert
from fslab.bench.machine import hardware
from fslab.bench.page import write_sheet
from fslab.bench.trial import Trial, Watch
from fslab.devices import choose_device
from fslab.errors import FslabError, OutputError
from fslab.faceset import FaceSet
from fslab.metrics import METRICS
from fslab.model import ModelConfig
from fslab.run import Run, load_state
from fslab.schedule import TrainConfig
from fslab.storage import explained, prepare_folder, read_json, write_bytes, write_json
from fslab.synth.pair import Pair
from fslab.train import TrainHooks, TrainStep, train

SCHEMA = 1
MEMORY_STEPS = 3  # steps after which a training's memory has reached its height
SCORES = ("closure", "leak", "identity_gap_closed", "ssim", "sharpness")  # what the tables show of the metrics
VARIANT_FILE = "variant.json"
PACKAGES = ("torch", "timm")


@dataclass(frozen=True)
class Variant:
    """One training to compare.

    ``name`` of letters, digits and ``. _ + -``; ``model`` and ``train`` as they are, but for size, budget and device,
    which are the study's; ``about`` what its row says besides, such as a weight or where the weights came from.
    """

    name: str
    model: ModelConfig
    train: TrainConfig
    about: Mapping[str, str | float | None] = field(default_factory=dict)

    def __post_init__(self):
        if not re.fullmatch(r"[\w.+-]+", self.name):
            raise ValueError(f"a variant's name must be letters, digits and . _ + -, got {self.name!r}")


@dataclass(frozen=True)
class Study:
    """What variants are compared on: ``kind`` names the file and the command, ``tier.budget`` the seconds for each."""

    kind: str
    tier: Tier
    case: Case

    @property
    def marker(self) -> str:
        """The name of the file that holds the figures, such as ``encoders.json``."""
        return f"{self.kind}.json"

    def to_dict(self) -> dict:
        """Return the study as JSON types."""
        return {"kind": self.kind, "tier": self.tier.to_dict(), "case": json.loads(json.dumps(asdict(self.case)))}

    def fit(self, variant: Variant) -> Variant:
        """Return the variant at the study's size, for its seconds, on its device; without a base of another size."""
        model, train = fit_to_tier(variant.model, variant.train, self.tier)
        return replace(variant, model=model, train=train)


def find_study(kind: str, tier: str, case: str | None = None, budget: float | None = None) -> Study:
    """Return a study on a case of a tier.

    Args:
        kind: what varies, such as "encoders".
        tier: one of `TIERS`.
        case: name of one of its cases; the first where left out.
        budget: seconds of training for each variant; the tier's where left out.

    Raises:
        ValueError: if there is no such tier or case.
    """
    if tier not in TIERS:
        raise ValueError(f"tier must be one of {', '.join(TIERS)}, got {tier!r}")
    cases = {c.name: c for c in TIERS[tier].cases}
    name = case or next(iter(cases))
    if name not in cases:
        raise ValueError(f"case must be one of {', '.join(cases)}, got {name!r}")
    return Study(kind, replace(TIERS[tier], budget=budget or TIERS[tier].budget), cases[name])


def run_variants(
    study: Study, variants: Sequence[Variant], out: Path, overwrite: bool = False, watch: Watch | None = None
) -> dict:
    """Train, convert and score each variant, or go on where an earlier call stopped: rows that are done are kept.

    A variant that fails with a sentence (a backbone that cannot take the size, say) gets a row that says so, and the
    others go on. A row whose settings have changed since is made anew.

    Args:
        study: the case and the seconds.
        variants: what to compare, with names of their own.
        out: the folder for ``KIND.json``, ``KIND.md``, the case and the clips; new, or of the same study.
        overwrite: do everything anew.
        watch: who is told.

    Returns:
        What ``KIND.json`` holds. ``rows`` maps a variant's name to its ``about``, ``metrics``, ``step``, ``seconds``,
        ``faces_per_second`` (in training, everything counted), ``parameters`` (of the whole network), ``learning``
        (those that are trained), ``peak_memory_mb``, ``encoder_weights``, ``clip``; or to ``about`` and ``failed``.

    Raises:
        OutputError: if ``out`` holds something else or another study, or cannot be written.
        KeyboardInterrupt: when stopped; the same call goes on.
    """
    names = [v.name for v in variants]
    if len(set(names)) != len(names) or not names:
        raise ValueError(f"variants must be at least one, with names of their own, got {names}")
    watch, variants = watch or Watch(), [study.fit(v) for v in variants]
    rows = open_folder(study, Path(out), "rows", overwrite)["rows"]
    trial = Trial(study.tier, study.case, Path(out) / "case", watch)
    pair = trial.render()
    facesets = [trial.extract(pair, i) for i in (0, 1)]
    for i, variant in enumerate(variants):
        about = settings(variant)
        if rows.get(variant.name, {}).get("settings") == about and "failed" not in rows[variant.name]:
            continue
        watch.note(f"{study.kind} {i + 1} of {len(variants)}: {variant.name}")
        try:
            row = _run_variant(variant, trial, pair, facesets, Path(out) / "variants" / variant.name)
        except FslabError as reason:
            row = {"failed": str(reason)}
        rows[variant.name] = {"about": dict(variant.about), **row, "settings": about}
        _write(study, names, rows, pair, Path(out))
    shutil.rmtree(Path(out) / "variants", ignore_errors=True)
    return _write(study, names, rows, pair, Path(out))


def settings(variant: Variant) -> dict:
    """Return what makes a variant what it is, as JSON types."""
    return json.loads(json.dumps({"model": asdict(variant.model), "train": asdict(variant.train)}))


def _run_variant(variant: Variant, trial: Trial, pair: Pair, facesets: list[FaceSet], folder: Path) -> dict:
    """Train a variant in its folder, convert the target and score it; return its row."""
    path, about = folder / VARIANT_FILE, settings(variant)
    if folder.exists() and not (path.exists() and read_json(path, "a variant's settings", OutputError) == about):
        shutil.rmtree(folder)  # of settings that have changed since
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_json(path, about)
    budget, tell = trial.tier.budget, trial.watch.on_progress

    def on_step(now: TrainStep) -> None:
        if tell:
            tell(round(now.seconds), round(budget))

    run = train(facesets, folder / "run", variant.model, variant.train, TrainHooks(on_step=on_step))
    if not run.finished:
        raise KeyboardInterrupt
    learning = count_learning(run)
    snapshot = convert(Run.load(run.folder), variant.name, pair.consents[1].person, pair.target, trial.swaps)
    metrics = trial.score(pair, facesets, trial.clip_of(snapshot, pair)).metrics
    row = {
        "metrics": metrics,
        "step": run.step,
        "seconds": round(run.seconds, 2),
        "faces_per_second": round(run.step * variant.train.batch * len(facesets) / run.seconds, 1),
        "parameters": sum(p.numel() for p in run.model.parameters()),
        "learning": learning,
        "peak_memory_mb": peak_memory(facesets, variant),
        "encoder_weights": run.encoder_weights,
        "clip": snapshot.clip,
        "hardware": hardware(trial.tier.device),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    shutil.rmtree(folder, ignore_errors=True)
    return row


def count_learning(run: Run) -> int:
    """Return how many of a run's parameters its training moves: those in its optimiser's state."""
    tensors, _ = load_state(run.folder)
    slots = {key.split("/")[1]: t.numel() for key, t in tensors.items() if key.startswith("optimizer/") and t.ndim}
    return sum(slots.values())


def peak_memory(facesets: Sequence[FaceSet], variant: Variant) -> float | None:
    """Return the most memory that training takes, MB: a GPU's where it runs on one, else the process's.

    A fresh process trains a few steps, so that nothing else is counted. None where the system does not tell.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        work = pool.submit(_peak, [f.folder for f in facesets], variant.model, variant.train)
        return work.result()


def _peak(folders: Sequence[Path], model: ModelConfig, config: TrainConfig) -> float | None:
    """Train a few steps in this process and return its peak memory, MB."""
    device = choose_device(config.device)
    with tempfile.TemporaryDirectory() as folder:
        train([FaceSet.load(f) for f in folders], Path(folder) / "run", model, replace(config, steps=MEMORY_STEPS))
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    return round(float(re.search(r"VmHWM:\s+(\d+)", status.read_text()).group(1)) / 1024, 1)


def open_folder(study: Study, out: Path, part: str, overwrite: bool = False) -> dict:
    """Make the folder of a study, or check that it is this very one's; return what its file of figures holds.

    Args:
        study: what is compared.
        out: the folder.
        part: what the file calls its measurements, "rows" or "curves"; empty in a new one.
        overwrite: remove what is in the folder, if it is a study's of this kind.

    Raises:
        OutputError: if it holds something else or another study, or cannot be written.
    """
    prepare_folder(out, True, study.marker)
    with explained(out):
        if overwrite and out.exists():
            shutil.rmtree(out)
        out.mkdir(parents=True, exist_ok=True)
    path, what = out / study.marker, f"a benchmark of {study.kind} on the case '{study.case.name}' in '{out}'"
    if not path.exists():
        write_json(path, {"schema": SCHEMA, "study": study.to_dict(), part: {}})
    body = read_json(path, what, OutputError)
    if not isinstance(body, dict) or body.get("schema") != SCHEMA or body.get("study") != study.to_dict():
        raise OutputError(what, "one of another case, budget or version", "choose another folder or pass --overwrite")
    return body


def describe_study(study: Study) -> dict:
    """Return what a file of figures says of how they were made: command, date, machine, versions and the study."""
    return {
        "schema": SCHEMA,
        "command": f"fslab bench {study.kind} --tier {study.tier.name} --case {study.case.name}"
        f" --budget {study.tier.budget:g}s",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(study.tier.device),
        "versions": {"fslab": __version__, "python": platform.python_version(), **{p: version(p) for p in PACKAGES}},
        "study": study.to_dict(),
    }


def _write(study: Study, names: Sequence[str], rows: Mapping[str, dict], pair: Pair, out: Path) -> dict:
    """Write the figures and the table; return what the file of figures holds: the rows asked for first."""
    ordered = {name: rows[name] for name in (*names, *rows) if name in rows}
    complete = all(name in rows for name in names)
    body = describe_study(study) | {"complete": complete, "pair": pair.hash, "rows": ordered}
    write_json(out / study.marker, body)
    write_bytes(out / f"{study.kind}.md", markdown_table(*table_of(body)).encode())
    return body


def write_variants_sheet(study: Study, out: Path, rows: Mapping[str, Mapping]) -> Path:
    """Write ``KIND.jpg``, marked: what each row drew at the same moments; rows that failed are left out.

    Args:
        study: what was compared.
        out: the folder of the benchmark.
        rows: as ``KIND.json`` holds them.

    Returns:
        The picture's path.
    """
    clips = {name: row["clip"] for name, row in rows.items() if "clip" in row}
    sheet, case = Path(out) / f"{study.kind}.jpg", Path(out) / "case"
    if clips:
        write_sheet(sheet, Pair.load(case / "pair"), case / "swaps", {"clips": clips}, {name: name for name in clips})
    return sheet


def table_of(body: Mapping) -> tuple[list[str], list[list[str]]]:
    """Return the columns and rows of a study's table as texts; what a variant says of itself comes after its name."""
    about = list(dict.fromkeys(key for row in body["rows"].values() for key in row["about"]))
    costs = ["steps", "faces/s", "parameters, M", "trained, M", "memory, MB"]
    columns = [re.sub("(?<=ss)es$|s$", "", body["study"]["kind"]), *about, *(METRICS[m].title for m in SCORES), *costs]
    rows = []
    for name, row in body["rows"].items():
        said = [_text(row["about"].get(key)) for key in about]
        if "failed" in row:
            rows.append([name, *said, row["failed"], *[""] * (len(columns) - len(said) - 2)])
            continue
        scores = [METRICS[m].text(row["metrics"].get(m)) for m in SCORES]
        sizes = [f"{row[key] / 1e6:.2f}" for key in ("parameters", "learning")]
        memory = _text(row["peak_memory_mb"] and round(row["peak_memory_mb"]))
        rows.append([name, *said, *scores, str(row["step"]), f"{row['faces_per_second']:.0f}", *sizes, memory])
    return columns, rows


def _text(value: str | float | None) -> str:
    return "–" if value is None else value if isinstance(value, str) else f"{value:g}"


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown: the first column to the left, the others to the right."""
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)
