"""The trainer's faces per second against a bare forward + backward + optimiser loop of the same network and batch.

python -m benchmarks.trainer [PRESET]
"""

import sys
import tempfile
from pathlib import Path

import torch

from benchmarks.common import compare, save
from fslab.consent import Consent
from fslab.extract import extract_faces
from fslab.faceset import FaceSet
from fslab.losses import image_loss, mask_loss
from fslab.model import PRESETS, SwapAutoencoder
from fslab.samples import sample_path
from fslab.schedule import TrainConfig
from fslab.train import Trainer

N_STEPS, REPEATS = 4, 25  # short turns, many of them: what else the machine does then hits both arms alike


class BareLoop:
    """The network, its losses and AdamW on one batch that lies in memory; nothing else."""

    def __init__(self, trainer: Trainer, config: TrainConfig):
        self.model = SwapAutoencoder(trainer.run.model_config, trainer.run.identities).to(trainer.device)
        self.batches = [d.batch(config.batch, trainer.generator) for d in trainer.data]
        self.input = torch.cat([b.input for b in self.batches])
        self.optimizer = torch.optim.AdamW(self.model.parameters(), config.lr, (0.9, 0.99), fused=True)
        self.losses = config.losses

    def step(self) -> None:
        """Take one step."""
        codes = self.model.encode(self.input).split(len(self.batches[0].input))
        total = 0
        for z, batch, name in zip(codes, self.batches, self.model.identities, strict=True):
            rgb, mask = self.model.decode(z, name)
            total = total + image_loss(rgb, batch.target, batch.weight, self.losses) + mask_loss(mask, batch.mask)
        total.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def train_steps(trainer: Trainer, n: int) -> None:
    """Take ``n`` steps as the trainer's loop does, and write a row of the log."""
    for _ in range(n):
        trainer.step(0.5)
        trainer.run.step += 1
    trainer._log(0.5)


def measure(preset: str, people: list[FaceSet], folder: Path) -> dict:
    """Time both arms in turn."""
    model, config = PRESETS[preset]
    trainer = Trainer(people, folder / "run", model, config, torch.device("cpu"))
    bare = BareLoop(trainer, config)
    arms = {
        "bare": lambda: [bare.step() for _ in range(N_STEPS)],
        "trainer": lambda: train_steps(trainer, N_STEPS),
    }
    times = compare(arms, REPEATS)
    faces = N_STEPS * config.batch * len(people)
    return {
        "preset": preset,
        "batch": config.batch,
        "steps": N_STEPS,
        "threads": torch.get_num_threads(),
        "arms": times,
        "faces_per_second": {name: faces / t["wall_s"] for name, t in times.items()},
        "ratio_wall": times["bare"]["wall_s"] / times["trainer"]["wall_s"],
        "ratio_cpu": times["bare"]["cpu_s"] / times["trainer"]["cpu_s"],
    }  # fmt: skip


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
