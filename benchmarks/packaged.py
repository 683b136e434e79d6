"""Pack a run of ada and dan as the one that ships, and measure what it swaps.

    python -m benchmarks.packaged out/runs/ada-dan

Writes ``samples/run/`` (weights in half precision) and ``results/packaged.json``: the packaged clip swapped with what
was packed, against its exact truth, beside the run's own story. The newest weights are packed, not those that measured
best: on this pair they are nearer to dan and, to the eye, sharper, though further from the truth in squared error.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.common import save
from fslab.run import Run
from fslab.samples import sample_path
from fslab.space import check_packaged, pack_run

OUT = Path(__file__).parents[1] / "samples" / "run"


def run_fslab(*argv: object) -> None:
    subprocess.run([sys.executable, "-m", "fslab", *map(str, argv)], check=True, stdout=subprocess.DEVNULL)


def measure(run: Path) -> dict:
    """Swap the packaged clip with a run and return what `fslab evaluate` says of it."""
    target, truth = sample_path("ada_target.mp4"), sample_path("ada_as_dan_truth.mp4")
    with tempfile.TemporaryDirectory() as folder:
        clip, report = Path(folder) / "swap.mp4", Path(folder) / "report"
        run_fslab("swap", run, target, clip, "--identity", "dan", "--replace", "ada")
        run_fslab("evaluate", clip, "--target", target, "--truth", truth, "--out", report)
        return json.loads((report / "report.json").read_text())["metrics"]


def main() -> None:
    check_packaged(Path(sys.argv[1]))
    source = Run.load(Path(sys.argv[1]), newest=True)
    source.best = None  # these are not the ones that it speaks of
    if OUT.exists():
        shutil.rmtree(OUT)
    pack_run(source, OUT)
    packed = Run.load(OUT)
    n_bytes = sum(p.stat().st_size for p in OUT.iterdir())
    save(
        "packaged",
        {
            "run": {"preset_size": packed.model_config.size, "budget": packed.train_config.budget, "step": packed.step,
                    "seconds": packed.seconds, "megabytes": round(n_bytes / 1e6, 1)},
            "metrics": measure(OUT),
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
