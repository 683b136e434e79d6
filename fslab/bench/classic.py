"""The recipe of 2018 in plain PyTorch, so that today's has something to be compared with.

Network and rates are those of the best-known open face swapper's `original` model: 64 px in and out, a shared encoder
with two dense layers, two decoders, 82 million parameters, Adam at 5e-5, mean absolute error on randomly warped faces.
It sees this package's crops, wider than its own were (the face spans .64 of the side), in batches of 16.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from torch import nn
from typing_extensions import Doc

from fslab.dataset import DataConfig, FaceDataset
from fslab.devices import choose_device
from fslab.errors import RunError
from fslab.faceset import FaceSet, check_people
from fslab.model import ModelConfig
from fslab.run import Run, describe_faceset, load_state, pack_state, save_state, unpack_state
from fslab.schedule import TrainConfig, stop_on_signals

SIZE = 64
SLOPE = 0.1  # of the leaky units
STATE = "state.safetensors"

# How that recipe varied faces: turn 10 degrees, zoom and shift 5 %, mirror 40 %, a warp of 5 px on a face of 256;
# every pixel counts alike.
CLASSIC_DATA = DataConfig(
    rotation=10.0, scale=0.05, shift=0.05, warp=5 / 256, flip=0.4, light=0.0, colour=0.0,
    background=1.0, eyes=1.0, mouth=1.0,
)  # fmt: skip


@dataclass(frozen=True)
class ClassicConfig:
    """How the classic recipe trains."""

    width: Annotated[int, Doc("channels of the first layer, even; all others follow, the recipe's is 128")] = 128
    batch: Annotated[int, Doc("faces of each person in a step")] = 16
    lr: Annotated[float, Doc("learning rate (Adam), the same from first to last step")] = 5e-5
    save_every: Annotated[float, Doc("training time between checkpoints, seconds")] = 300.0
    device: Annotated[str, Doc("auto, cpu, cuda, cuda:1 or mps")] = "auto"
    seed: Annotated[int, Doc("seed of all randomness")] = 0

    def __post_init__(self):
        if self.width < 2 or self.width % 2 or self.batch < 1 or not min(self.lr, self.save_every) > 0:
            raise ValueError("width must be even and >= 2, batch >= 1, lr and save_every > 0")


def _down(inputs: int, outputs: int) -> nn.Sequential:
    """Halve the side: 5 x 5 convolution with stride 2."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 5, stride=2, padding=2), nn.LeakyReLU(SLOPE))


def _up(inputs: int, outputs: int) -> nn.Sequential:
    """Double the side: 3 x 3 convolution to four times the channels, which become 2 x 2 pixels."""
    return nn.Sequential(nn.Conv2d(inputs, 4 * outputs, 3, padding=1), nn.PixelShuffle(2), nn.LeakyReLU(SLOPE))


class ClassicAutoencoder(nn.Module):
    """The classic network; takes the place of `fslab.model.SwapAutoencoder` in a run that only swaps."""

    def __init__(self, identities: Sequence[str], width: int = 128):
        super().__init__()
        self.identities, w = list(identities), width  # the comments' shapes are those of width 128
        self.encoder = nn.Sequential(
            _down(3, w),  # (B, 128, 32, 32)
            _down(w, 2 * w),  # (B, 256, 16, 16)
            _down(2 * w, 4 * w),  # (B, 512, 8, 8)
            _down(4 * w, 8 * w),  # (B, 1024, 4, 4)
            nn.Flatten(),  # (B, 16384)
            nn.Linear(4 * 4 * 8 * w, 8 * w),  # (B, 1024)
            nn.Linear(8 * w, 4 * 4 * 8 * w),  # (B, 16384)
            nn.Unflatten(1, (8 * w, 4, 4)),  # (B, 1024, 4, 4)
            _up(8 * w, 4 * w),  # (B, 512, 8, 8)
        )
        self.decoders = nn.ModuleList(
            nn.Sequential(
                _up(4 * w, 2 * w),  # (B, 256, 16, 16)
                _up(2 * w, w),  # (B, 128, 32, 32)
                _up(w, w // 2),  # (B, 64, 64, 64)
                nn.Conv2d(w // 2, 3, 5, padding=2),  # (B, 3, 64, 64)
                nn.Sigmoid(),
            )
            for _ in self.identities
        )
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def draw(self, x: torch.Tensor, identity: str) -> torch.Tensor:
        """Encode ``(B, 3, 64, 64)`` in [0, 1] and draw it as ``identity``, the same shape and range."""
        return self.decoders[self.identities.index(identity)](self.encoder(x))

    def forward(self, x: torch.Tensor, identity: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Return `draw` and a mask of ones, ``(B, 1, 64, 64)``: this network draws none."""
        rgb = self.draw(x, identity)
        return rgb, torch.ones_like(rgb[:, :1])


class ClassicTrainer:
    """Network, optimiser, data and counters of one classic training."""

    def __init__(self, facesets: Sequence[FaceSet], folder: Path, config: ClassicConfig | None = None):
        """Start anew, or from the checkpoint in ``folder``.

        Raises:
            FaceSetError: if the face sets do not fit together.
            RunError: if the checkpoint cannot be read, or is another network's.
        """
        check_people(facesets)
        self.config, self.folder = config or ClassicConfig(), Path(folder)
        device = choose_device(self.config.device)
        names = [f.identity for f in facesets]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            self.model = ClassicAutoencoder(names, self.config.width).to(device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), self.config.lr, (0.5, 0.999), eps=1e-7, fused=True)
        self.data = {f.identity: FaceDataset.from_faceset(f, SIZE, CLASSIC_DATA, device) for f in facesets}
        self.generator = torch.Generator(device).manual_seed(self.config.seed)
        self.run = Run(
            folder=self.folder,
            model=self.model,
            model_config=ModelConfig(size=SIZE),
            train_config=TrainConfig(batch=self.config.batch, lr=self.config.lr, device=self.config.device),
            identities=names,
            coverage=facesets[0].coverage,
            embeddings={f.identity: f.embedding() for f in facesets},
            consents={f.identity: f.consent for f in facesets},
            facesets={f.identity: describe_faceset(f) for f in facesets},
        )
        if (self.folder / STATE).exists():
            self._resume()

    def step(self) -> float:
        """Take one step on a batch of everybody; return the sum of the people's mean absolute errors."""
        self.model.train()
        losses = []
        for name, data in self.data.items():
            batch = data.batch(self.config.batch, self.generator)
            losses.append((self.model.draw(batch.input, name) - batch.target).abs().mean())
        loss = torch.stack(losses).sum()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.run.step += 1
        return float(loss.detach())  # waits for the device: the clock must not run behind its queue

    def snapshots(
        self, moments: Sequence[float], on_progress: Callable[[int, int], None] | None = None
    ) -> Iterator[Run]:
        """Train and yield the run, ready to swap, at the first step that ends at or after each moment.

        The clock is that of `fslab.train.train`: wall time of the loop, batches and checkpoints included. It stands
        still while whoever takes a snapshot works with it. A moment that a checkpoint lies behind is passed over.

        Args:
            moments: training seconds, rising; the last one ends the training.
            on_progress: called with (seconds done, seconds in all) after every step.

        Raises:
            KeyboardInterrupt: after SIGINT or SIGTERM, once a checkpoint is written.
        """
        run, due = self.run, [m for m in moments if m > self.run.seconds]
        saved = run.seconds
        while due:
            with stop_on_signals() as stop:  # not while a snapshot is worked with: whoever does that is to hear of it
                while run.seconds < due[0]:
                    started = time.perf_counter()
                    self.step()
                    if stop.is_set() or run.seconds - saved >= self.config.save_every:
                        self.save()
                        saved = run.seconds
                    run.seconds += time.perf_counter() - started
                    if stop.is_set():
                        raise KeyboardInterrupt
                    if on_progress:
                        on_progress(min(round(run.seconds), round(moments[-1])), round(moments[-1]))
            due = [m for m in due if m > run.seconds]
            run.finished = not due
            self.model.eval()
            yield run

    def save(self) -> None:
        """Write a checkpoint."""
        self.folder.mkdir(parents=True, exist_ok=True)
        tensors = pack_state({"model": self.model}, {"optimizer": self.optimizer})
        tensors |= {"random/data": self.generator.get_state()}
        counters = {"step": self.run.step, "seconds": self.run.seconds}
        save_state(self.folder, tensors, counters)

    def _resume(self) -> None:
        tensors, counters = load_state(self.folder)
        unpack_state(tensors, {"model": self.model}, {"optimizer": self.optimizer})
        try:
            self.generator.set_state(tensors["random/data"])
            self.run.step, self.run.seconds = int(counters["step"]), float(counters["seconds"])
        except (KeyError, ValueError, RuntimeError) as reason:
            raise RunError(f"a training state in '{self.folder}'", "another file's contents", "delete it") from reason
