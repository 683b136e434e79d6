"""The whole story on the packaged synthetic people: two clips in, a swapped, marked and measured clip out."""

import shutil
import time
from dataclasses import replace
from pathlib import Path

from fslab import console
from fslab.cli import Evaluate, Swap
from fslab.evaluate import EvalConfig
from fslab.extract import ExtractConfig
from fslab.model import PRESETS
from fslab.provenance import Manifest, save_marked_image
from fslab.run import Run
from fslab.samples import sample_path
from fslab.stages import evaluate, extract, swap, train, verify
from fslab.storage import prepare_folder, write_json
from fslab.viz import moments_sheet

MARKER = "demo.json"  # tells a demo's folder from one with somebody's own work


def run_demo(out: Path, budget: str, overwrite: bool) -> int:
    """Extract ada and dan, train `tiny` for ``budget``, put dan's face on ada, measure it, verify its marks.

    Args:
        out: folder for everything that is made.
        budget: training time, such as "5m".
        overwrite: make everything anew; without it an ``out`` that exists is refused.

    Returns:
        The exit code of `verify` on the result: 0.
    """
    started = time.monotonic()
    prepare_folder(out, overwrite, MARKER)
    out.mkdir(exist_ok=True)
    about = {"made_by": "fslab demo", "budget": budget}
    write_json(out / MARKER, about)
    model, config = PRESETS["tiny"]
    folders = []
    for name in ("ada", "dan"):
        folders.append(out / "faces" / name)
        extract(
            sample_path(f"{name}.mp4"), folders[-1], name, sample_path(f"consents/{name}.json"), ExtractConfig(), True
        )
    run_dir = out / "runs" / "ada-dan"
    if overwrite and run_dir.exists():
        shutil.rmtree(run_dir)
    run = train(folders, run_dir, model, replace(config, budget=budget))
    target, truth, result = sample_path("ada_target.mp4"), sample_path("ada_as_dan_truth.mp4"), out / "out.mp4"
    swap(Swap(run_dir, target, result, identity="dan", replace="ada", overwrite=True))
    page = out / "report"
    report = evaluate(Evaluate(result, target, truth, folders[1], page, EvalConfig(), overwrite=True))
    sheet = out / "contact_sheet.png"
    with console.stage("contact sheet"):
        used = Run.load(run_dir)  # the weights that measured best, as the swap took them
        weights = {"id": run.folder.name, "sha256": used.weights_sha256, "identities": run.identities}
        clips = [target, result, truth]
        manifest = Manifest.new("contact sheet", clips, weights, run.consents.values(), {"step": used.step})
        save_marked_image(sheet, moments_sheet(report.pictures.moments), manifest)
    code = verify(result)
    seconds = time.monotonic() - started
    write_json(out / MARKER, about | {"seconds": round(seconds, 1), "steps": run.step})
    console.say(f"\ndone in {seconds:.0f} s (training {budget})")
    for what, path in (
        ("video", result),
        ("contact sheet: target | swap | truth", sheet),
        ("report", page / "index.html"),
    ):
        console.say(f"  {what}: {path}")
    return code
