"""The commands' bodies: each runs one stage with a progress bar and prints what came out."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fslab import console
from fslab.consent import Consent, require_consent
from fslab.coverage import PITCH_EDGES, YAW_EDGES, Coverage, summarise
from fslab.data_doctor import advise, examine
from fslab.devices import choose_device
from fslab.distribute import is_main_process
from fslab.errors import FslabError, RunError
from fslab.evaluate import METRICS, EvalReport, References, evaluate_videos
from fslab.extract import ExtractConfig, extract_faces
from fslab.faceset import FaceSet, check_people
from fslab.media import is_image, write_image
from fslab.model import ModelConfig
from fslab.preview import preview_rows
from fslab.provenance import Manifest, save_marked_image
from fslab.provenance import verify as verify_file
from fslab.report import write_report
from fslab.run import Run, is_run
from fslab.schedule import parse_duration
from fslab.search import describe_row, train_command
from fslab.storage import atomic_dir, prepare_folder, prepare_output, write_json
from fslab.swap import Swapper, choose_replaced, swap_image
from fslab.train import TrainConfig, TrainHooks
from fslab.train import train as train_run
from fslab.verdict import judge_run
from fslab.video import swap_video
from fslab.viz import coverage_card, doctor_card, image_grid

if TYPE_CHECKING:
    from fslab import cli


BENCH_COLUMNS = {
    "closure": "closure", "leak": "leak", "identity_gap_closed": "identity", "ssim": "SSIM", "sharpness": "sharp",
}  # fmt: skip
N_FINDINGS = 8  # of the data doctor's, that are printed
FEW_STEPS = 400  # of `tiny`; a rule of thumb: a smear at 124 steps, a face at 840


def extract(footage: Path, out: Path, identity: str, consent: Path, config: ExtractConfig, overwrite: bool) -> FaceSet:
    """Extract a face set and print its coverage card."""
    agreed = require_consent(Consent.load(consent), identity, "training")
    with console.stage(f"extract {identity}") as progress:
        result = extract_faces(footage, out, agreed, config, overwrite, progress)
    console.say(f"  {identity} is {result.reason}")
    card = summarise(identity, result.faceset.records)
    print_coverage(card)
    write_image(out / "coverage.png", coverage_card(card))
    return result.faceset


def print_coverage(card: Coverage) -> None:
    """Print a coverage card: counts, yaw/pitch map, sharpness, warnings."""
    drops = ", ".join(f"{n} {why}" for why, n in sorted(card.dropped.items(), key=lambda x: -x[1]))
    console.say(f"  {card.n_kept} of {card.n_faces} faces kept" + (f" (dropped: {drops})" if drops else ""))
    if card.n_kept:
        low, mid, high = np.percentile(card.sharpness, [10, 50, 90])
        console.say(
            f"  eye distance {card.eye_distance:.0f} px, sharpness {low:.0f} / {mid:.0f} / {high:.0f} (10/50/90 %)"
        )
    names = [f"{edge:+d}" for edge in PITCH_EDGES[:-1]][::-1]
    rows = [[name, *(str(n) if n else "·" for n in row)] for name, row in zip(names, card.poses, strict=True)]
    columns = ["pitch / yaw", *(f"{edge:+d}" for edge in YAW_EDGES[:-1])]
    console.table("  faces by pose; a bin begins at the angle shown, in degrees", columns, rows)
    for warning in card.warnings:
        console.say(f"  ! {warning}")


def dataset(folders: list[Path], out: Path, overwrite: bool) -> None:
    """Look face sets over, print what to film or to drop, and write a picture and JSON."""
    facesets = [FaceSet.load(folder) for folder in folders]
    if len(facesets) != 1:
        check_people(facesets)
    prepare_folder(out, overwrite, "dataset.json")
    with console.stage(f"dataset {' and '.join(f.identity for f in facesets)}", "people"):
        diagnosis = examine(facesets)
    with atomic_dir(out) as part:
        write_image(part / "dataset.png", doctor_card(diagnosis))
        write_json(part / "dataset.json", diagnosis.to_dict())
    for card in diagnosis.cards:
        eyes = f"eye distance {card.eye_distance:.0f} px"
        console.say(f"  {card.identity}: {card.n_kept} of {card.n_faces} faces kept, {eyes}")
    shown = diagnosis.findings[:N_FINDINGS]
    console.say("  most important first; left and right are the picture's" if shown else "  nothing is missing")
    for i, finding in enumerate(shown, start=1):
        console.say(f"  {i}. {finding.text}")
    console.say(f"  picture {out / 'dataset.png'}, everything {out / 'dataset.json'}")


def train(folders: list[Path], out: Path, model: ModelConfig, config: TrainConfig) -> Run:
    """Train a run with a live line of its losses and previews in the run folder."""
    facesets = [FaceSet.load(folder) for folder in folders]
    if is_run(out):
        before = Run.load(out, newest=True)
        console.say(f"  going on with the run in {out}: step {before.step}, {before.seconds:.0f} s so far")
    with console.stage(f"train {' and '.join(f.identity for f in facesets)}", "%") as progress:
        hooks = TrainHooks(
            on_step=lambda s: progress(round(100 * s.progress), 100, f"step {s.step} loss {s.loss:.3f}"),
            on_preview=lambda run, path: save_preview(run, path, facesets),
        )
        run = train_run(facesets, out, model, config, hooks)
    if not is_main_process():
        return run  # the first of them has the run's folder, and says the rest
    console.say(f"  {run.step} steps in {run.seconds:.0f} s; run folder {out}, previews in {out / 'previews'}")
    if not run.finished:
        console.say("  stopped before its time and saved: the same command goes on")
    elif run.step < FEW_STEPS:
        console.say("  a very short training: expect a smear, and raise --budget to go on")
    console.say(f"  {judge_run(run, advise(facesets)).text}")
    return run


def tune(command: "cli.Tune") -> None:
    """Search settings, write what was found and print it."""
    try:
        from fslab.tune import TuneHooks, search_settings
        from fslab.tune_report import write_tune_report
    except ModuleNotFoundError as reason:
        if reason.name not in ("optuna", "sqlalchemy"):
            raise
        raise RunError("Optuna, which does the search", "none", "install it: pip install 'fslab[tune]'") from reason

    facesets, configs = [FaceSet.load(folder) for folder in command.facesets], (command.model, command.train)
    with console.stage(f"tune {' and '.join(f.identity for f in facesets)}", "trials") as progress:
        hooks = TuneHooks(progress, lambda row: console.say(f"  {describe_row(row)}"))
        result = search_settings(facesets, command.out, configs, command.config, hooks)
    line = result.configs and train_command(
        command.facesets, command.out / "again", command.config.preset, *result.configs
    )
    write_tune_report(result, command.out, line)
    if line:
        start = "" if result.start_value is None else f"; the settings it started from {result.start_value:.4f}"
        console.say(f"  best: {describe_row(result.best)}{start}")
        shares = [f"{name} {share:.0%}" for name, share in result.importance.items()]
        console.say(f"  what decided it: {', '.join(shares) or 'too few trials are done to tell'}")
        console.say(f"  its run: {result.run_dir or 'on the machine that trained it'}")
        console.say(f"  to train so: {line}")
    console.say(f"  all trials: {command.out / 'tune.json'}, {command.out / 'tune.png'}")
    if not result.finished:
        console.say("  stopped before its last trial: the same command goes on")


def find_rate(folders: list[Path], model: ModelConfig, config: TrainConfig) -> None:
    """Try rising learning rates on a copy that is thrown away, and print which to train with."""
    from fslab.lr_finder import find_learning_rate

    with console.stage("learning rates", "steps") as progress:
        curve = find_learning_rate([FaceSet.load(folder) for folder in folders], model, config, on_step=progress)
    places = np.linspace(0, len(curve.rates) - 1, 12).round().astype(int)
    rows = [[f"{curve.rates[i]:.1e}", f"{curve.smoothed[i]:.3f}"] for i in places]
    console.table("  loss at each learning rate", ["rate", "loss"], rows)
    if curve.blow_up:
        console.say(f"  it falls fastest at {curve.steepest:.1e} and blows up at {curve.blow_up:.1e}")
    console.say(f"  take --lr {curve.suggestion:.1e} (now {config.lr:.1e}); nothing was kept")


def save_preview(run: Run, path: Path, facesets: list[FaceSet]) -> None:
    """Write the preview grid of a run, as it is now; it shows swaps, so it is marked as one."""
    rows = preview_rows(run, facesets)
    picture = image_grid(list(rows.values()), row_labels=list(rows), foot="")
    about = {"id": run.folder.name, "sha256": "", "identities": list(run.identities)}  # the weights still change
    manifest = Manifest.new("training preview", [], about, run.consents.values(), {"step": run.step})
    save_marked_image(path, picture, manifest)


def swap(command: "cli.Swap") -> None:
    """Swap a video or a picture and print what was done."""
    run = Run.load(command.run_dir, choose_device(command.device))
    output = prepare_output(command.output, command.overwrite)
    swapper = Swapper(run, command.identity, command.config)
    if is_image(command.target):
        n_faces = swap_image(swapper, command.target, output, command.replace)
        person = choose_replaced(run, command.identity, command.replace)
        console.say(f"  {n_faces} face(s): {person} as {command.identity}; {output}")
        return
    with console.stage(f"swap {command.target.name}") as progress:
        done = swap_video(swapper, command.target, output, command.replace, command.video, progress)
    console.say(f"  {done.n_swapped} of {done.n_frames} frames: {done.replaced} as {command.identity}; {output}")


def evaluate(command: "cli.Evaluate") -> EvalReport:
    """Measure a swapped video, write the report and print the metrics."""
    prepare_output(command.out, command.overwrite)
    source = FaceSet.load(command.source).embedding() if command.source else None
    with console.stage(f"evaluate {command.swapped.name}") as progress:
        report = evaluate_videos(
            command.swapped, command.target, command.truth, References(source), command.config, on_progress=progress
        )
        write_report(report, command.out, command.overwrite)
    rows = [
        [METRICS[name].title, METRICS[name].text(value), METRICS[name].unit, METRICS[name].better]
        for name, value in report.metrics.items()
        if value is not None
    ]
    if command.truth is None:
        console.say("  no --truth given: closure, leak, PSNR and what else needs it are left out")
    console.table("  quality", ["metric", "value", "unit", "better"], rows)
    console.say(f"  {command.out / 'index.html'}")
    return report


def verify(path: Path) -> int:
    """Print what marks a file carries; return `verify`'s exit code."""
    report = verify_file(path)
    for layer in report.layers:
        console.say(f"  {layer.name}: {layer.state}{' - ' + layer.note if layer.note else ''}")
    console.say(f"{path.name}: {report.state}")
    return {"marked": 0, "broken": 1, "unmarked": 3}[report.state]


def new_consent(command: "cli.ConsentNew") -> None:
    """Write a consent record."""
    from datetime import date

    today = date.today().isoformat()
    record = Consent(
        person=command.person, confirmed_by=command.confirmed_by, date=today, scope=command.scope,
        expires=command.expires, synthetic=command.synthetic, note=command.note,
    )  # fmt: skip
    record.save(command.out, command.overwrite)
    console.say(f"consent of {record.person} to {', '.join(record.scope)}: {command.out}")


def show_consent(path: Path) -> None:
    """Check a consent record and print it."""
    record = Consent.load(path)
    require_consent(record, record.person, record.scope[0])
    for name, value in record.to_dict().items():
        console.say(f"  {name}: {', '.join(value) if isinstance(value, list | tuple) else value}")


def doctor(device: str) -> int:
    """Run the checks and print each with its fix; return 0 if all are fine, else 2."""
    from fslab.doctor import run_checks

    checks = run_checks(device)
    for check in checks:
        console.say(
            f"{'ok ' if check.ok else 'NOT'} {check.name}: {check.found}" + ("" if check.ok else f" -> {check.fix}")
        )
    return 0 if all(check.ok for check in checks) else 2


def bench_quality(tier: str, out: Path, overwrite: bool, budget: str | None = None) -> None:
    """Run the quality benchmark and print the means over its cases."""
    from fslab.bench.page import ARM_NAMES
    from fslab.bench.quality import MARKER, run_quality

    with console.stage(f"bench quality, tier {tier}", unit="") as progress:
        body = run_quality(
            tier,
            out,
            overwrite,
            progress,
            lambda text: console.say(f"  {text}"),
            parse_duration(budget) if budget else None,
        )
    rows = [
        [ARM_NAMES[arm], *(METRICS[name].text(values.get(name)) for name in BENCH_COLUMNS)]
        for arm, values in body["means"].items()
    ]
    console.table(f"means over {len(body['cases'])} cases", ["", *BENCH_COLUMNS.values()], rows)
    for what, name in (("page", "index.html"), ("figures", MARKER)):
        console.say(f"  {what}: {out / name}")


def bench_table(command: "cli.Bench", out: Path) -> None:
    """Compare variants of a training on one case and print the table of them."""
    from fslab.bench import curves
    from fslab.bench.case import TIERS
    from fslab.bench.encoders import run_encoders
    from fslab.bench.losses import run_losses
    from fslab.bench.trial import Watch
    from fslab.bench.variants import find_study, table_of

    cases = [c.name for c in TIERS[command.tier].cases]
    if command.case not in (None, *cases):
        wanted = f"a case of tier '{command.tier}': {', '.join(cases)}"
        raise FslabError(wanted, f"'{command.case}'", "choose one of them with --case")
    seconds = parse_duration(command.budget) if command.budget else None
    study = find_study(command.what, command.tier, command.case, seconds)
    with console.stage(f"bench {command.what}, case {study.case.name}", unit="") as progress:
        watch = Watch(progress, lambda text: console.say(f"  {text}"))
        if command.what == "curves":
            body = curves.run_curves(study, out, command.overwrite, watch)
        elif command.what == "losses":
            body = run_losses(study, out, command.overwrite, watch)
        else:
            body = run_encoders(study, out, command.overwrite, watch, command.encoders)
    columns, rows = (curves.table_of if command.what == "curves" else table_of)(body)
    short = {METRICS[name].title: text for name, text in BENCH_COLUMNS.items() if name != "sharpness"}
    shown = [i for i, title in enumerate(columns) if i < 2 or title in short]  # what fits a terminal
    names = [short.get(columns[i], columns[i]) for i in shown]
    console.table(f"{study.tier.budget:g} s each", names, [[row[i] for i in shown] for row in rows])
    pictures = [name for name in (f"{study.kind}.jpg", f"{study.kind}.png") if (out / name).exists()]
    for name in (study.marker, f"{study.kind}.md", *pictures):
        console.say(f"  {out / name}")
