"""Train a base model on many people: the first half of a training, done once and shipped.

The batches ask what a swap asks: draw person j from a picture of person i who does the same. Rendered people know the
answer exactly, so the code learns to carry no identity, and nothing has to guess it afterwards.
"""

import copy
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import torch
from typing_extensions import Doc

from fslab.base import Base, BaseModel, fit_vectors
from fslab.crowd import Crowd, Faces, hold_out, load_faces
from fslab.dataset import Batch, DataConfig
from fslab.devices import (
    MicroBatch,
    Precision,
    amp_type,
    check_device,
    choose_device,
    half_precision,
    in_pieces,
    make_scaler,
)
from fslab.errors import RunError
from fslab.losses import LossConfig, image_loss, mask_loss
from fslab.model import ModelConfig
from fslab.optimise import Recovery, make_optimizer, step_if_finite
from fslab.resume import FELL_BACK, put_back
from fslab.run import FALLEN_BACK, append_log, load_state, pack_state, save_state, trim_log, unpack_state
from fslab.schedule import ema_decay, learning_rate, parse_duration, stop_on_signals
from fslab.storage import atomic_dir, clear_parts, read_json, write_json

HARD = DataConfig(
    rotation=8.0, scale=0.08, shift=0.03, warp=0.006, flip=0.5, light=0.35, colour=0.06, occlude=0.08, blur=0.012,
    noise=0.05, jpeg=1.0, margin=1.25,
)  # fmt: skip
log = logging.getLogger(__name__)

STAGE_KEYS = ("people", "pictures", "step", "seconds", "held_out")


@dataclass(frozen=True)
class PretrainConfig:
    """How a base model is trained."""

    budget: Annotated[str, Doc("training time, such as 90s, 10m or 1h")] = "1h"
    steps: Annotated[int | None, Doc("number of steps; replaces the budget where given")] = None
    batch: Annotated[int, Doc("faces in a step")] = 32
    optimizer: Annotated[Literal["adamw", "adam", "sgd", "muon"], Doc("rule of learning")] = "adamw"
    lr: Annotated[float, Doc("highest learning rate")] = 2e-3
    momentum: Annotated[float, Doc("of sgd, 0 to 1")] = 0.9
    weight_decay: Annotated[float, Doc("decoupled weight decay")] = 0.01
    warmup: Annotated[float, Doc("share of the training in which the learning rate rises")] = 0.02
    clip: Annotated[float, Doc("largest gradient norm")] = 1.0
    ema: Annotated[float, Doc("decay of the averaged weights, 0 to 1")] = 0.999
    style: Annotated[int, Doc("numbers that tell the decoder whom to draw; 0 = one decoder for everybody")] = 64
    own: Annotated[float, Doc("share of the faces drawn from their own picture, 0 to 1")] = 0.2
    held_out_people: Annotated[int, Doc("people, the last by name, who are never trained on and measured")] = 8
    coverage: Annotated[float, Doc("share of the crop's side that the face template spans, 0 to 1")] = 0.64
    precision: Annotated[Precision, Doc("auto takes half precision where the processor is fast at it")] = "auto"
    device: Annotated[str, Doc("auto, cpu, cuda, cuda:1 or mps")] = "auto"
    seed: Annotated[int, Doc("seed of all randomness")] = 0
    save_every: Annotated[float, Doc("time between checkpoints, seconds")] = 120.0
    measure_every: Annotated[float, Doc("time between measurements on the people held out, seconds")] = 240.0
    losses: Annotated[LossConfig, Doc("what is minimised")] = field(default_factory=LossConfig)
    data: Annotated[DataConfig, Doc("how faces are varied")] = HARD

    def __post_init__(self):
        parse_duration(self.budget)
        check_device(self.device)
        if (self.steps is not None and self.steps < 1) or self.batch < 1 or self.style < 0 or self.held_out_people < 1:
            raise ValueError("steps, batch and held_out_people must be >= 1, style >= 0")
        if not (min(self.lr, self.clip, self.save_every, self.measure_every) > 0 and self.weight_decay >= 0):
            raise ValueError("lr, clip, save_every and measure_every must be > 0, weight_decay >= 0")
        if not all(0 <= v <= 1 for v in (self.warmup, self.ema, self.own)) or not 0 < self.coverage <= 1:
            raise ValueError("warmup, ema and own must lie in [0, 1], coverage in (0, 1]")
        unused = [name for name in ("perceptual", "identity", "adversarial") if getattr(self.losses, name)]
        if unused:
            raise ValueError(f"a base is trained by pixels and masks alone: {' and '.join(unused)} must be 0")

    def progress(self, step: int, seconds: float) -> float:
        """Return the share of the training that is done, in [0, 1]."""
        return min(step / self.steps if self.steps else seconds / parse_duration(self.budget), 1.0)


@dataclass(frozen=True)
class PretrainStep:
    """Where a pretraining is: ``progress`` in [0, 1], the mean ``loss`` of late, the newest held-out ``closure``."""

    step: int
    seconds: float
    progress: float
    loss: float
    closure: float | None


def pretrain(
    folders: Sequence[Path],
    out: Path,
    model: ModelConfig,
    config: PretrainConfig | None = None,
    on_step: Callable[[PretrainStep], None] | None = None,
    start: Path | str | None = None,
) -> Base:
    """Train a base model, or go on with one; SIGINT and SIGTERM end it after the current step, all saved.

    ``out`` gets ``base.safetensors`` (the averaged weights that scored best on the people held out), ``config.json``,
    ``state.safetensors`` and ``log.jsonl``.

    Args:
        folders: rendered faces and face sets, see `fslab.crowd.load_faces`.
        out: folder, new or of the same pretraining.
        model: the network's shape.
        config: see `PretrainConfig`.
        on_step: called about once a second.
        start: a base to begin with, as `Base.load` takes it; parts of another shape begin anew.

    Returns:
        The base as it is stored.

    Raises:
        FaceSetError: if faces cannot be read.
        ConsentError: if a person did not agree to training.
        RunError: if ``out`` holds another pretraining, or one that cannot be read.
    """
    config, out = config or PretrainConfig(), Path(out)
    faces = load_faces(folders, round(model.size * config.data.margin), config.coverage)
    with torch.random.fork_rng(devices=[]), stop_on_signals() as stop:
        torch.manual_seed(config.seed)
        trainer = Pretrainer(faces, out, model, config, start)
        return trainer.loop(stop, on_step)


class Pretrainer:
    """Networks, optimiser, data and counters of one pretraining."""

    def __init__(
        self, faces: Faces, out: Path, model: ModelConfig, config: PretrainConfig, start: Path | str | None = None
    ):
        self.config, self.out, self.device = config, out, choose_device(config.device)
        train, held = hold_out(faces, config.held_out_people)
        self.crowd, self.held = (Crowd(f, model.size, config.data, self.device) for f in (train, held))
        self.sources = faces.about["sources"]
        self.model = BaseModel(model, config.style, len(self.crowd.names)).to(self.device)
        self.stages: list[dict] = []  # trainings before this one, each as its base's card summed it up
        if start and not (out / "state.safetensors").exists():
            first = Base.load(start)
            _begin_with(self.model, first.model)
            self.stages = [*first.card.get("stages", []), {k: first.card.get(k) for k in STAGE_KEYS}]
        self.ema = copy.deepcopy(self.model).eval().requires_grad_(False)
        kept = [p for n, p in self.model.named_parameters() if p.ndim < 2 or n == "people"]
        ids = {id(p) for p in kept}
        matrices = [p for p in self.model.parameters() if id(p) not in ids]
        groups = [{"params": matrices, "weight_decay": config.weight_decay}]
        groups += [{"params": kept, "weight_decay": 0.0, "use_fallback": True}]  # vectors are no matrix to Muon
        self.optimizer = make_optimizer(groups, config)
        self.generator = torch.Generator(self.device).manual_seed(config.seed)
        self.step_count, self.seconds, self.best, self.closure = 0, 0.0, -math.inf, None
        self.amp = amp_type(config.precision, self.device)
        self.recovery, self.scaler = Recovery(self.device), make_scaler(self.device, self.amp)
        self.micro = MicroBatch(config.batch, self.device, self.tell)
        self._open()

    def _open(self) -> None:
        """Make the folder, or go on with what is in it."""
        about = {
            "model": asdict(self.model.config), "pretrain": asdict(self.config), "people": len(self.crowd.names),
            "sources": self.sources, "stages": self.stages,
        }  # fmt: skip
        path = self.out / "config.json"
        if path.exists():
            then = read_json(path, f"a pretraining at '{self.out}'", RunError)
            then = then if isinstance(then, dict) else {}
            differs = [k for k in ("model", "people", "sources") if then.get(k) != about[k]]
            settings = then.get("pretrain", {})
            differs += [k for k in ("style", "held_out_people") if settings.get(k) != getattr(self.config, k)]
            if differs:
                fix = "choose another folder, or pass the same settings and faces"
                found = f"one of other settings ({', '.join(differs)})"
                raise RunError(f"the same pretraining at '{self.out}'", found, fix)
            self._resume()
            self.stages = then.get("stages", [])
            write_json(path, about | {"stages": self.stages})
        elif self.out.exists() and any(self.out.iterdir()):
            raise RunError(f"a new folder at '{self.out}'", "something else", "choose another folder")
        else:
            with atomic_dir(self.out) as part:
                self.save(part)
                write_json(part / path.name, about)

    def _resume(self) -> None:
        tensors, counters = self._load_state()
        try:
            self.step_count, self.seconds = int(counters["step"]), float(counters["seconds"])
            self.best, self.recovery.rate = float(counters["best"]), float(counters.get("rate", 1.0))
            if counters["device"] == self.device.type:
                self.generator.set_state(tensors["random/data"])
        except (KeyError, ValueError, RuntimeError) as reason:
            what, fix = f"a pretraining's state in '{self.out}'", "choose a new folder"
            raise RunError(what, "another file's contents", fix) from reason
        clear_parts(self.out)
        trim_log(self.out, self.step_count)
        if FALLEN_BACK in counters:
            put_back(self.out)
            self.tell(FELL_BACK)

    def _load_state(self) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
        """Put networks and optimiser back to the checkpoint and return what else it holds."""
        tensors, counters = load_state(self.out)
        unpack_state(tensors, {"model": self.model, "ema": self.ema}, {"optimizer": self.optimizer})
        return tensors, counters

    def tell(self, event: str) -> None:
        """Say what happened, in the log and as a warning."""
        log.warning("step %d: %s", self.step_count, event)
        append_log(self.out, {"step": self.step_count, "seconds": round(self.seconds, 1), "event": event})

    def loop(self, stop: threading.Event, on_step: Callable[[PretrainStep], None] | None = None) -> Base:
        """Train until the budget is used or somebody asks to stop."""
        config, total, n, before = self.config, 0.0, 0, self.seconds
        start = time.perf_counter()
        due = {"tell": 1.0, "save": config.save_every, "measure": config.measure_every}
        every = dict(due)
        progress = config.progress(self.step_count, self.seconds)
        while progress < 1 and not stop.is_set():
            total, n = total + self.step(progress), n + 1
            self.step_count += 1
            now = time.perf_counter() - start
            self.seconds = before + now
            progress = config.progress(self.step_count, self.seconds)
            ready = [name for name, when in due.items() if now >= when]
            due |= {name: now + every[name] for name in ready}
            if "measure" in ready or progress >= 1:
                self.measure()
            if "save" in ready:
                self.save()
            if "tell" in ready:
                row = {"step": self.step_count, "seconds": round(self.seconds, 1), "loss": round(float(total) / n, 5)}
                append_log(self.out, row)
                if on_step:
                    on_step(PretrainStep(self.step_count, self.seconds, progress, row["loss"], self.closure))
                total, n = 0.0, 0
                if self.recovery.is_due():
                    self.tell(self.recovery.go_back(self._load_state()[1]["step"]))
        self.save()
        if not (self.out / "base.safetensors").exists():
            self.measure()
        return Base.load(self.out / "base.safetensors")

    def step(self, progress: float) -> torch.Tensor:
        """Take one step; returns the loss, on the device."""
        config = self.config
        batch, who = self.crowd.batch(config.batch, self.generator, config.own)
        self.model.train()
        loss = self.micro.fit(lambda size: self._backward(batch, who, size))
        for group in self.optimizer.param_groups:
            group["lr"] = config.lr * self.recovery.rate * learning_rate(progress, config.warmup)
        self.scaler.unscale_(self.optimizer)
        is_bad = step_if_finite(self.optimizer, self.model, config.clip)
        if self.scaler.is_enabled():
            self.scaler.update()
            is_bad = is_bad * ~loss.isfinite()  # a scale that was too high is no fault of the numbers
        self.recovery.count(is_bad)
        averaged, raw = list(self.ema.parameters()), [p.detach() for p in self.model.parameters()]
        torch._foreach_lerp_(averaged, raw, 1 - ema_decay(self.step_count, config.ema))
        return loss

    def _backward(self, batch: Batch, who: torch.Tensor, size: int) -> torch.Tensor:
        """Leave the gradients of a batch of the people ``who``, ``size`` faces at a time, and return its loss."""
        self.optimizer.zero_grad(set_to_none=True)  # an earlier try may have left some

        def draw(faces: torch.Tensor, numbers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            vectors = self.model.people[numbers] if self.config.style else None
            return self.model.draw(self.model.encode(faces), vectors)

        with half_precision(self.device, self.amp):
            rgb, mask = in_pieces(draw, (batch.input, who), size)
        loss = base_loss(rgb, mask, batch, self.config.losses)
        self.scaler.scale(loss).backward()
        return loss.detach()

    def measure(self) -> None:
        """Score the averaged weights on the people held out; store them if they are the best so far."""
        scores = score_held_out(self.ema, self.held, self.config.losses)
        self.closure = scores["closure"]
        append_log(self.out, {"step": self.step_count, "seconds": round(self.seconds, 1), "held_out": scores})
        if scores["closure"] > self.best:
            self.best = scores["closure"]
            self.store(scores)

    def store(self, scores: dict[str, float]) -> None:
        """Write the averaged weights as a base with its card."""
        card = {
            "sources": self.sources, "people": len(self.crowd.names), "held_out_people": self.held.names.tolist(),
            "pictures": len(self.crowd), "step": self.step_count, "seconds": round(self.seconds),
            "held_out": scores, "pretrain": asdict(self.config), "device": self.device.type,
            "stages": self.stages,
        }  # fmt: skip
        Base(self.ema, self.config.coverage, card).save(self.out / "base.safetensors")

    def save(self, folder: Path | None = None) -> None:
        """Write the state that training goes on from, to ``folder`` (default: the pretraining's own)."""
        tensors = pack_state({"model": self.model, "ema": self.ema}, {"optimizer": self.optimizer})
        tensors |= {"random/data": self.generator.get_state()}
        counters = {
            "step": self.step_count, "seconds": self.seconds, "best": self.best, "device": self.device.type,
            "rate": self.recovery.rate,
        }  # fmt: skip
        save_state(folder or self.out, tensors, counters)


def base_loss(rgb: torch.Tensor, mask: torch.Tensor, batch: Batch, losses: LossConfig) -> torch.Tensor:
    """Return the image and mask parts of the loss."""
    loss = image_loss(rgb, batch.target, batch.weight, losses)
    return loss + losses.mask * mask_loss(mask, batch.mask) if losses.mask else loss


def _begin_with(model: BaseModel, other: BaseModel) -> None:
    """Copy what fits, by name and shape, from another base."""
    own = model.state_dict()
    model.load_state_dict({k: v for k, v in other.state_dict().items() if own[k].shape == v.shape}, strict=False)


def score_held_out(base: BaseModel, crowd: Crowd, losses: LossConfig, n_pairs: int = 128) -> dict[str, float]:
    """Score a base on people it never saw: fit their vectors on half of their pictures, swap the others.

    Args:
        base: in evaluation mode, frozen.
        crowd: the people held out; those of one scene are swapped with each other.
        losses: what the fit minimises.
        n_pairs: pictures drawn.

    Returns:
        "closure": ``1 - sum m (s - g)^2 / sum m (t - g)^2`` in the face, s drawn from person i's picture t as person j,
        g person j's own picture of that scene; 1 perfect, 0 no better than the untouched i. "own": PSNR in the face of
        people drawn from their own pictures, dB. "sharpness": gradient energy of s over that of g.
    """
    generator = torch.Generator(crowd.device).manual_seed(0)
    numbers = torch.arange(len(crowd), device=crowd.device)
    order = [numbers[crowd.who == k] for k in range(len(crowd.names))]
    halves = [(own[: len(own) // 2], own[len(own) // 2 :]) for own in order]

    def batches(known: torch.Tensor) -> Callable[[int, torch.Generator], Batch]:
        def batch(n: int, g: torch.Generator) -> Batch:
            index = known[torch.randint(len(known), (n,), generator=g, device=g.device)]
            return crowd.pictures(index, index)

        return batch

    vectors = fit_vectors(base, [batches(known) for known, _ in halves], losses, generator, 3)
    rest = torch.cat([new for _, new in halves])
    index = rest[torch.linspace(0, len(rest) - 1, min(n_pairs, len(rest)), device=rest.device).long()]
    turn = torch.arange(len(index), device=rest.device) % crowd.n_partners[index]
    others = crowd.partners[index, turn]
    with torch.inference_mode(), half_precision(crowd.device, amp_type("auto", crowd.device)):
        goal, own = crowd.pictures(others, index), crowd.pictures(index, index)
        who = vectors[crowd.who[index]] if vectors is not None else None
        swap, _ = base.draw(base.encode(goal.input), who)
        again, _ = base.draw(base.encode(own.input), who)
    error, gap = (swap - goal.target).square() * goal.mask, (goal.input - goal.target).square() * goal.mask
    own_error = ((again - own.target).square() * own.mask).sum() / (3 * own.mask.sum())
    return {
        "closure": round(float(1 - error.sum() / gap.sum().clamp_min(1e-8)), 4),
        "own": round(float(-10 * own_error.log10()), 3),
        "sharpness": round(_detail(swap, goal.mask) / max(_detail(goal.target, goal.mask), 1e-9), 3),
    }


def _detail(images: torch.Tensor, mask: torch.Tensor) -> float:
    """Return the gradient energy of grey pictures in a mask."""
    grey = images.mean(1, keepdim=True)
    across, down = grey[..., 1:-1, 2:] - grey[..., 1:-1, :-2], grey[..., 2:, 1:-1] - grey[..., :-2, 1:-1]
    return float(((across.square() + down.square()) * mask[..., 1:-1, 1:-1]).sum())
