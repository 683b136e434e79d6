"""What every benchmark shares: alternating arms, medians, peak memory in a child process, and the result file."""

import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import torch

from fslab import __version__
from fslab.bench.machine import hardware
from fslab.media import read_frames, write_video
from fslab.samples import sample_path

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, str | int]:
    """Describe the machine and the versions, without its name."""
    versions = {"torch": torch.__version__, "opencv": cv2.__version__, "av": av.__version__, "numpy": np.__version__}
    return {**hardware(), "python": platform.python_version(), **versions}


def compare(arms: dict[str, Callable[[], object]], repeats: int) -> dict[str, dict[str, float]]:
    """Run the arms in turn (A B C A B C ...), after one warm-up each; return wall and CPU seconds of each.

    Args:
        arms: name -> what to time.
        repeats: timed rounds.

    Returns:
        name -> median, min and max wall seconds, and median CPU seconds of the process.
    """
    wall: dict[str, list[float]] = {name: [] for name in arms}
    cpu: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(repeats + 1):
        for name, arm in arms.items():
            w, c = time.perf_counter(), time.process_time()
            arm()
            if turn:
                wall[name].append(time.perf_counter() - w)
                cpu[name].append(time.process_time() - c)
    return {
        name: {"wall_s": statistics.median(wall[name]), "wall_min_s": min(wall[name]), "wall_max_s": max(wall[name]),
               "cpu_s": statistics.median(cpu[name])}
        for name in arms
    }  # fmt: skip


def peak_memory(code: str, *args: str) -> float:
    """Run Python code in a child process and return its peak resident memory in MB (Linux).

    ``VmHWM`` starts anew with the child's program; ``getrusage`` would count the parent's memory too.
    """
    tail = "\nimport re, sys\nfrom pathlib import Path\n"
    tail += "kb = re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text()).group(1)\n"
    tail += "sys.stderr.write('PEAK ' + kb)"
    done = subprocess.run([sys.executable, "-c", code + tail, *args], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return float(done.stderr.rsplit("PEAK ", 1)[1]) / 1024


def background(height: int, width: int) -> np.ndarray:
    """Return a still, textured background, so that codecs have honest work."""
    noise = np.random.default_rng(0).normal(0, 1, (height // 8, width // 8, 3)).astype(np.float32)
    coarse = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    fine = np.random.default_rng(1).normal(0, 3, (height, width, 3)).astype(np.float32)
    return np.clip(110 + 25 * coarse + fine, 0, 255).astype(np.uint8)


def framed_clip(path: Path, sample: str, size: tuple[int, int], n_frames: int, still: bool = False) -> Path:
    """Make a clip of ``size`` (height, width) with a packaged person in the middle of a textured background.

    Args:
        path: file to make.
        sample: packaged clip, such as ``ada.mp4``; it is played back and forth to reach ``n_frames``.
        size: (height, width).
        n_frames: length.
        still: repeat the first frame with mild noise, to measure jitter.
    """
    height, width = size
    side = int(height * 0.9) // 2 * 2
    people = [
        cv2.resize(f.rgb(), (side, side), interpolation=cv2.INTER_CUBIC) for f in read_frames(sample_path(sample))
    ]
    order = list(range(len(people))) + list(range(len(people) - 2, 0, -1))
    scene, rng = background(height, width), np.random.default_rng(2)
    y, x = (height - side) // 2, (width - side) // 2

    def frames():
        for i in range(n_frames):
            image = scene.copy()
            image[y : y + side, x : x + side] = people[0 if still else order[i % len(order)]]
            if still:
                image = np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)
            yield image

    write_video(path, frames(), Fraction(25))
    return path


def save(name: str, result: dict) -> None:
    """Write ``results/NAME.json`` and print it."""
    RESULTS.mkdir(exist_ok=True)
    body = {"fslab": __version__, "machine": machine(), **result}
    text = json.dumps(body, indent=2)
    (RESULTS / f"{name}.json").write_text(text + "\n")
    print(text)
