"""Renders the packaged samples anew: ada, dan, and the exact truth of ada with dan's face.

Run once, by the people who maintain the package (twenty minutes; an interrupted call goes on)::

    python -m fslab.synth.samples FOLDER

``FOLDER`` holds the pair while it is rendered; the clips and ``motion.json`` go into ``samples/``. The two are
seeds of the gallery, whom neither the benchmark nor a base has seen.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np

import fslab.samples
from fslab.storage import write_bytes
from fslab.synth.pair import Pair, PairConfig, render_pair
from fslab.synth.takes import Take

ADA, DAN = 71, 69
CONFIG = PairConfig(source_seed=DAN, target_seed=ADA, size=384, n_train=200, n_target=75, seed=1)
FILES = {
    "a_train.mp4": "ada.mp4", "b_train.mp4": "dan.mp4", "target.mp4": "ada_target.mp4",
    "truth.mp4": "ada_as_dan_truth.mp4",
}  # fmt: skip


def describe_motion(take: Take) -> list[dict]:
    """Return each frame's ``expression`` units in [0, 1], ``pose`` and ``gaze`` in degrees, signs of `Attributes`."""
    return [
        {
            "expression": {unit: round(float(v), 3) for unit, v in a.expression.items() if v},
            "pose": np.round([a.yaw, a.pitch, a.roll], 2).tolist(),
            "gaze": np.round(a.gaze, 2).tolist(),
        }
        for a in take.track
    ]


def render_samples(folder: Path, out: Path) -> None:
    """Render the pair into ``folder``, unless it stands there, and put the samples into ``out``."""
    pair = Pair.load(folder) if folder.exists() else render_pair(CONFIG, folder)
    for ours, theirs in FILES.items():
        shutil.copyfile(pair.folder / ours, out / theirs)
    motion = {"seeds": {"ada": ADA, "dan": DAN}, "target": describe_motion(CONFIG.takes()["target"])}
    write_bytes(out / "motion.json", (json.dumps(motion) + "\n").encode())


if __name__ == "__main__":
    render_samples(Path(sys.argv[1]), Path(fslab.samples.__file__).parent)
