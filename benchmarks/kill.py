"""A training that is killed (SIGKILL) again and again, and goes on: does it end where an undisturbed one does?

    python -m benchmarks.kill [KILLS]

Trains `tiny` on the packaged people for a fixed number of steps, twice: once undisturbed, once killed at random
moments, saving every other second. Compares the weights bit for bit, and the measurements on held-out faces.
"""

import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.common import save
from fslab.consent import Consent
from fslab.extract import extract_faces
from fslab.run import load_state
from fslab.samples import sample_path
from fslab.storage import sha256_file

STEPS, SEED = 60, 1
SECONDS = (8.0, 20.0)  # how long a process may live; a few of them are spent on its start


def command(faces: list[Path], out: Path) -> list[str]:
    """Return the training's command line."""
    options = ["--steps", str(STEPS), "--save-every", "2", "--measure-every", "1e9", "--preview-every", "1e9"]
    return [sys.executable, "-m", "fslab", "train", *map(str, faces), "--out", str(out), "--device", "cpu", *options]


def train_with_kills(args: list[str], out: Path, kills: int) -> list[dict]:
    """Run a training that is killed ``kills`` times; return what each process came to."""
    rng, story = random.Random(SEED), []
    while True:
        limit = rng.uniform(*SECONDS) if len(story) < kills else None
        started = time.monotonic()
        process = subprocess.Popen(args, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            _, errors = process.communicate(timeout=limit)
            ended = f"exit {process.returncode}"
        except subprocess.TimeoutExpired:
            process.kill()
            _, errors = process.communicate()
            ended = "SIGKILL"
        step = int(load_state(out)[1]["step"]) if (out / "state.safetensors").exists() else None
        story.append({"ended": ended, "after_s": round(time.monotonic() - started, 1), "checkpoint_step": step})
        print(story[-1], errors.strip()[-200:], flush=True)
        if ended != "SIGKILL":
            return story


def last_measurement(out: Path) -> dict:
    """Return what the last measurement of a run said of its held-out faces."""
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return next(row["held_out"] for row in reversed(rows) if "held_out" in row)


def main() -> None:
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 8
    with tempfile.TemporaryDirectory() as name:
        folder, faces = Path(name), []
        for who in ("ada", "dan"):
            faces.append(folder / who)
            extract_faces(sample_path(f"{who}.mp4"), faces[-1], Consent.load(sample_path(f"consents/{who}.json")))
        whole, killed = folder / "whole", folder / "killed"
        subprocess.run(command(faces, whole), check=True, stdout=subprocess.DEVNULL)
        story = train_with_kills(command(faces, killed), killed, kills)
        hashes = [sha256_file(out / "model.safetensors") for out in (whole, killed)]
        save(
            "kill",
            {
                "steps": STEPS, "kills": sum(s["ended"] == "SIGKILL" for s in story), "processes": story,
                "same_weights": hashes[0] == hashes[1],
                "same_held_out": last_measurement(whole) == last_measurement(killed),
                "weights_sha256": hashes,
            },
        )  # fmt: skip


if __name__ == "__main__":
    main()
