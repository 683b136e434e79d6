"""The trainer's speed against two others, and its memory.

    python -m benchmarks.trainer [PRESET]

*bare*: forward, backward and optimiser on a batch that lies in memory, of the same network with the same parts frozen
and the same losses, and nothing else: the bound. *undisguised*: the trainer without the faces it draws for itself to
undo (`fslab.disguise`), which are data made by the network and not in the bound. *keras*: the 2018 recipe's network
trained as its users do, on samples that are read, varied and warped one at a time by a loader thread.
"""

import copy
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch

from benchmarks.common import compare, peak_memory, save
from fslab.bench.classic import CLASSIC_DATA, SIZE, ClassicTrainer
from fslab.consent import Consent
from fslab.extract import extract_faces
from fslab.faceset import FaceSet
from fslab.losses import Objective
from fslab.model import PRESETS
from fslab.pipeline import prefetch
from fslab.samples import sample_path
from fslab.train import Trainer

N_STEPS, REPEATS = 4, 25  # short turns, many of them: what else the machine does then hits all arms alike
AHEAD = 10  # batches that Keras keeps in its queue
TRAIN = """
import sys, tempfile
from dataclasses import replace
from pathlib import Path
from fslab.faceset import FaceSet
from fslab.model import PRESETS
from fslab.train import train
model, config = PRESETS[sys.argv[1]]
with tempfile.TemporaryDirectory() as folder:
    train([FaceSet.load(Path(p)) for p in sys.argv[2:]], Path(folder) / "run", model, replace(config, budget="20s"))
"""


class BareLoop:
    """The trainer's network, its losses and AdamW on one batch that lies in memory; nothing else."""

    def __init__(self, trainer: Trainer):
        config = trainer.config
        self.model, self.n = copy.deepcopy(trainer.model).train(), config.batch
        self.batches = [d.batch(config.batch, trainer.generator) for d in trainer.data]
        self.input = torch.cat([b.input for b in self.batches])
        self.objective = Objective(config.losses, len(self.batches), trainer.device, config.lr, trainer.run.coverage)
        learning = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(learning, config.lr, (0.9, 0.99), fused=True)

    def step(self) -> None:
        """Take one step."""
        codes, total = self.model.encode(self.input).split(self.n), 0
        for z, batch, name in zip(codes, self.batches, self.model.identities, strict=True):
            total = total + self.objective.person_loss(*self.model.decode(z, name), batch)
        total.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


class SampleLoader:
    """Batches of the 2018 recipe the way its loaders make them: a file is read, varied and warped, one at a time."""

    def __init__(self, faceset: FaceSet, batch: int, seed: int):
        self.paths = sorted((faceset.folder / "crops").iterdir())
        self.batch, self.rng = batch, np.random.default_rng(seed)

    def batches(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield (warped, target), each ``(B, 3, 64, 64)`` float32 in [0, 1], for ever."""
        while True:
            pairs = [self.sample() for _ in range(self.batch)]
            yield tuple(torch.from_numpy(np.stack(side)).permute(0, 3, 1, 2).contiguous() for side in zip(*pairs))

    def sample(self) -> tuple[np.ndarray, np.ndarray]:
        """Return one face warped and as it is, each ``(64, 64, 3)`` float32 in [0, 1]."""
        data, rng = CLASSIC_DATA, self.rng
        image = cv2.imread(str(rng.choice(self.paths)))[..., ::-1].astype(np.float32) / 255
        side = image.shape[0]
        turn = cv2.getRotationMatrix2D(
            (side / 2, side / 2), rng.uniform(-1, 1) * data.rotation, 1 + rng.uniform(-1, 1) * data.scale
        )
        turn[:, 2] += rng.uniform(-1, 1, 2) * data.shift * side
        image = cv2.warpAffine(image, turn, (side, side), borderMode=cv2.BORDER_REPLICATE)
        if rng.random() < data.flip:
            image = image[:, ::-1]
        knots = np.stack(np.meshgrid(np.linspace(0, side - 1, 5), np.linspace(0, side - 1, 5))).astype(np.float32)
        knots += rng.normal(0, data.warp * side, knots.shape).astype(np.float32)
        x, y = (cv2.resize(k, (SIZE, SIZE)) for k in knots)
        return cv2.remap(image, x, y, cv2.INTER_LINEAR), cv2.resize(image, (SIZE, SIZE))


class KerasLoop:
    """The 2018 recipe's network with a loader thread for each person."""

    def __init__(self, people: list[FaceSet], folder: Path):
        self.trainer = ClassicTrainer(people, folder)
        batch = self.trainer.config.batch
        self.loaders = {p.identity: prefetch(SampleLoader(p, batch, i).batches(), AHEAD) for i, p in enumerate(people)}

    def step(self) -> None:
        """Train each person's autoencoder on a batch, one after the other."""
        trainer = self.trainer
        for name, loader in self.loaders.items():
            warped, target = next(loader)
            loss = (trainer.model.draw(warped, name) - target).abs().mean()
            loss.backward()
            trainer.optimizer.step()
            trainer.optimizer.zero_grad(set_to_none=True)
            float(loss.detach())


def train_steps(trainer: Trainer, n: int) -> None:
    """Take ``n`` steps as the trainer's loop does, and write a row of the log."""
    for _ in range(n):
        trainer.step(0.5)
        trainer.run.step += 1
    trainer._log(0.5)


def measure(preset: str, people: list[FaceSet], folder: Path) -> dict:
    """Time the arms in turn; then the memory of a training in a process of its own."""
    model, config = PRESETS[preset]
    cpu = torch.device("cpu")
    trainer = Trainer(people, folder / "run", model, config, cpu)
    undisguised = Trainer(people, folder / "undisguised", model, replace(config, disguise=0.0), cpu)
    bare, keras = BareLoop(trainer), KerasLoop(people, folder / "classic")
    arms = {
        "bare": lambda: [bare.step() for _ in range(N_STEPS)],
        "undisguised": lambda: train_steps(undisguised, N_STEPS),
        "trainer": lambda: train_steps(trainer, N_STEPS),
        "keras": lambda: keras.step(),
    }
    times = compare(arms, REPEATS)
    for loader in keras.loaders.values():
        loader.close()
    faces = dict.fromkeys(arms, N_STEPS * config.batch * len(people))
    faces["keras"] = keras.trainer.config.batch * len(people)
    speed = {name: faces[name] / t["wall_s"] for name, t in times.items()}
    return {
        "preset": preset,
        "batch": config.batch,
        "steps": N_STEPS,
        "threads": torch.get_num_threads(),
        "arms": times,
        "faces_per_second": speed,
        "ratios": {
            "undisguised_over_bare": speed["undisguised"] / speed["bare"],
            "trainer_over_bare": speed["trainer"] / speed["bare"],
            "trainer_over_keras": speed["trainer"] / speed["keras"],
        },
        "peak_memory_mb": peak_memory(TRAIN, preset, *(str(p.folder) for p in people)),
    }


def main() -> None:
    """Extract the packaged people, time, save."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        people = [
            extract_faces(
                sample_path(f"{who}.mp4"), folder / who, Consent.load(sample_path(f"consents/{who}.json"))
            ).faceset
            for who in ("ada", "dan")
        ]
        save("trainer", measure(sys.argv[1] if len(sys.argv) > 1 else "tiny", people, folder))


if __name__ == "__main__":
    main()
