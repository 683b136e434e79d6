"""The training loop: one encoder, everybody's decoders, one optimiser, and a run folder that survives interruptions."""

import copy
import json
import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from fslab.consent import require_consent
from fslab.dataset import FaceDataset
from fslab.errors import FaceSetError, RunError
from fslab.faceset import FaceSet
from fslab.losses import image_loss, l1_loss, mask_loss, moment_matching, ssim_map, weighted_mean
from fslab.model import ModelConfig, SwapAutoencoder
from fslab.run import Run, is_run, load_state, read_head, save_tensors
from fslab.schedule import TrainConfig, ema_decay, learning_rate, warp_strength
from fslab.storage import atomic_dir, explained, sha256_file, write_json_lines

LOG_EVERY = 1.0  # seconds between rows of log.jsonl; the only moments at which the loop waits for the device
BAD_STEPS = 5  # so many steps without finite gradients in a row, and training goes back to its checkpoint
ROLLBACKS = 4  # so many returns to the checkpoint, and training gives up
HELD_OUT_FACES = 16  # faces of each person that the held-out score is measured on
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainStep:
    """Where training is.

    ``progress`` is the share done, in [0, 1], ``budget_seconds`` the whole time (an estimate where steps are counted),
    ``loss`` the mean over the people and the steps since the last call, ``row`` the new row of ``log.jsonl``.
    """

    step: int
    seconds: float
    budget_seconds: float
    progress: float
    loss: float
    row: dict


@dataclass(frozen=True)
class TrainHooks:
    """Calls out of the loop.

    ``on_step(now)`` is called about once a second; ``on_preview(run, path)`` gets the run with its averaged weights and
    the picture file to write; ``should_stop()`` is asked after every step.
    """

    on_step: Callable[[TrainStep], None] | None = None
    on_preview: Callable[[Run, Path], None] | None = None
    should_stop: Callable[[], bool] | None = None


def choose_device(name: str) -> torch.device:
    """Return the device that ``name`` asks for; "auto" takes a GPU where there is one.

    Raises:
        RunError: if the device is not there: a GPU that was asked for is never silently replaced.
        ValueError: if ``name`` is not a device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if _has_mps() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as reason:
        raise ValueError(f"device must be auto, cpu, cuda, cuda:N or mps, got {name!r}") from reason
    there = {"cpu": True, "cuda": torch.cuda.device_count() > (device.index or 0), "mps": _has_mps()}
    if not there.get(device.type, False):
        raise RunError(f"the device '{name}'", "none that torch can use", "run `fslab doctor`, or use --device cpu")
    return device


def _has_mps() -> bool:
    return torch.backends.mps.is_available()


def train(
    facesets: list[FaceSet],
    run_dir: Path,
    model_config: ModelConfig | None = None,
    train_config: TrainConfig | None = None,
    hooks: TrainHooks | None = None,
) -> Run:
    """Train a swap network on two or more people, or go on with the run in ``run_dir``.

    SIGINT and SIGTERM, like ``should_stop``, end training after the current step; everything is saved, and the same
    call goes on from there. By steps and on a CPU a stopped and continued run equals an uninterrupted one bit for bit.

    Args:
        facesets: one a person, cut with the same coverage.
        run_dir: the run folder, new or of a run of the same people and model.
        model_config: see `ModelConfig`.
        train_config: see `TrainConfig`.
        hooks: see `TrainHooks`.

    Returns:
        The run, ``finished`` unless it was stopped.

    Raises:
        ConsentError: without everybody's valid consent to training.
        FaceSetError: if the face sets do not fit together.
        RunError: if ``run_dir`` holds something else, a run that does not fit, or one that cannot be read.
    """
    model_config, config = model_config or ModelConfig(), train_config or TrainConfig()
    for faceset in facesets:
        require_consent(faceset.consent, faceset.identity, "training")
    _check_people(facesets)
    facesets = _check_folder(Path(run_dir), facesets, model_config)
    device = choose_device(config.device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), stop_on_signals() as stop:
        torch.manual_seed(config.seed)
        trainer = Trainer(facesets, Path(run_dir), model_config, config, device)
        return trainer.loop(hooks or TrainHooks(), stop)


def _check_people(facesets: list[FaceSet]) -> None:
    names = [f.identity for f in facesets]
    if len(names) < 2 or len(set(names)) < len(names):
        raise FaceSetError("face sets of two or more people", " and ".join(names) or "none", "name one folder a person")
    coverages = {f.coverage for f in facesets}
    if len(coverages) > 1:
        found = ", ".join(f"{f.identity} {f.coverage}" for f in facesets)
        raise FaceSetError("face sets of one coverage", found, "extract them again with the same --coverage")


def _check_folder(folder: Path, facesets: list[FaceSet], model_config: ModelConfig) -> list[FaceSet]:
    """Refuse a folder that this training must not write to; return the face sets in the order of the run in it."""
    if not is_run(folder):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise RunError(f"a new folder or a run at '{folder}'", "something else", "choose another folder")
        return facesets
    head, by_name = read_head(folder), {f.identity: f for f in facesets}
    what, fix = f"the settings of the run in '{folder}'", "train into another folder, or with the run's own settings"
    if set(head.get("identities", [])) != set(by_name):
        known = " and ".join(head.get("identities", []))
        raise RunError(f"the people of the run in '{folder}' ({known})", " and ".join(by_name), fix)
    if head.get("coverage") != facesets[0].coverage:
        raise RunError(f"{what} (coverage {head.get('coverage')})", f"coverage {facesets[0].coverage}", fix)
    then, now = head.get("model", {}), asdict(model_config)
    differs = [k for k in now if now[k] != then.get(k)]
    if differs:
        wanted = ", ".join(f"{k} {then.get(k)}" for k in differs)
        raise RunError(f"{what} ({wanted})", ", ".join(f"{k} {now[k]}" for k in differs), fix)
    return [by_name[name] for name in head["identities"]]


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """Yield an event that SIGINT and SIGTERM set, in the main thread; elsewhere signals are left alone."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    old = {s: signal.signal(s, lambda *_: stop.set()) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


class Trainer:
    """Networks, averaged networks, optimiser, data and counters of one training."""

    def __init__(
        self,
        facesets: list[FaceSet],
        folder: Path,
        model_config: ModelConfig,
        config: TrainConfig,
        device: torch.device,
    ):
        self.config, self.device = config, device
        names = [f.identity for f in facesets]
        self.data = [FaceDataset.from_faceset(f, model_config.size, config.data, device) for f in facesets]
        self.held_out = [d.held_out(HELD_OUT_FACES) for d in self.data]
        self.model = SwapAutoencoder(model_config, names).to(device)
        self.ema = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.optimizer = self._make_optimizer()
        self.generator = torch.Generator(device).manual_seed(config.seed)
        self.rate, self.rollbacks = 1.0, 0
        self.bad = torch.zeros(2, device=device)  # steps without finite gradients: in a row, in all
        self.sums = torch.zeros(len(names) + 1, device=device)  # losses since the last row: each person's, matching
        self.run = Run(
            folder=folder,
            model=self.ema,
            model_config=model_config,
            train_config=config,
            identities=names,
            coverage=facesets[0].coverage,
            embeddings={f.identity: f.embedding() for f in facesets},
            consents={f.identity: f.consent for f in facesets},
            facesets={f.identity: _describe(f) for f in facesets},
            encoder_weights=self.model.encoder_weights,
        )
        if is_run(folder):
            self._resume()
        else:
            with atomic_dir(folder) as part:
                (part / "previews").mkdir()
                self.save(part)
        self.last_row = (self.run.step, time.perf_counter())

    def _make_optimizer(self) -> torch.optim.Optimizer:
        """Return AdamW over everything that learns; a pretrained backbone gets its own, lower rate."""
        backbone = getattr(self.model.encoder, "net", None)
        slow = list(backbone.parameters()) if backbone is not None and self.model.encoder_weights != "random" else []
        if not self.config.encoder_lr:
            for p in slow:
                p.requires_grad_(False)
        ids = {id(p) for p in slow}
        groups = [{"params": [p for p in self.model.parameters() if id(p) not in ids], "share": 1.0}]
        if slow and self.config.encoder_lr:
            groups.append({"params": slow, "share": self.config.encoder_lr})
        return torch.optim.AdamW(groups, self.config.lr, (0.9, 0.99), weight_decay=self.config.weight_decay, fused=True)

    def loop(self, hooks: TrainHooks, stop: threading.Event) -> Run:
        """Train until the budget is used or someone asks to stop; then save."""
        run, clock = self.run, _Clock(self.config)
        before, start = run.seconds, time.perf_counter()
        progress = self.config.progress(run.step, run.seconds)
        try:
            while progress < 1 and not stop.is_set():
                self.step(progress)
                run.step += 1
                run.seconds = before + time.perf_counter() - start
                progress = self.config.progress(run.step, run.seconds)
                for what in clock.due(last=progress >= 1):
                    self._do(what, progress, hooks)
                if hooks.should_stop and hooks.should_stop():
                    stop.set()
        finally:
            run.finished = progress >= 1
            self.save(run.folder)
        return run

    def _do(self, what: str, progress: float, hooks: TrainHooks) -> None:
        """Do one of the things that are done from time to time."""
        if what == "log":
            now = self._log(progress)
            if hooks.on_step:
                hooks.on_step(now)
        elif what == "measure":
            self._append({"held_out": self.measure()})
        elif what == "save":
            self.save(self.run.folder)
        elif hooks.on_preview:
            folder = self.run.folder / "previews"
            folder.mkdir(exist_ok=True)
            hooks.on_preview(self.run, folder / f"{self.run.step:07d}.jpg")

    def step(self, progress: float) -> None:
        """Take one optimiser step on a batch of everybody."""
        config = self.config
        strength = warp_strength(progress, config.warp_until)
        batches = [d.batch(config.batch, self.generator, strength) for d in self.data]
        self.model.train()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._use_bf16()):
            codes = self.model.encode(torch.cat([b.input for b in batches])).split(config.batch)
            drawn = [self.model.decode(z, name) for z, name in zip(codes, self.run.identities)]
        losses = []
        for (rgb, mask), batch in zip(drawn, batches):
            loss = image_loss(rgb, batch.target, batch.weight, config.losses)
            if config.losses.mask and self.run.model_config.mask:
                loss = loss + config.losses.mask * mask_loss(mask, batch.mask)
            losses.append(loss)
        match = moment_matching([z.float() for z in codes])
        (torch.stack(losses).sum() + config.losses.match * match).backward()
        self._update(progress)
        self.sums += torch.stack([*losses, match]).detach()

    def _use_bf16(self) -> bool:
        return self.config.precision == "bf16" and self.device.type == "cuda"

    def _update(self, progress: float) -> None:
        """Clip, step where the gradients are finite, and average the weights; nothing here waits for the device."""
        config = self.config
        rate = config.lr * self.rate * learning_rate(progress, config.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["share"]
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.clip)
        is_bad = (~norm.isfinite()).float()
        # The fused optimiser skips a step that is marked so; this is how torch's own GradScaler tells it.
        self.optimizer.found_inf, self.optimizer.grad_scale = is_bad, None
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.bad = torch.stack([(self.bad[0] + 1) * is_bad, self.bad[1] + is_bad])
        pairs = zip(self.ema.parameters(), self.model.parameters())
        averaged, raw = zip(*((a, p.detach()) for a, p in pairs if p.requires_grad))
        torch._foreach_lerp_(list(averaged), list(raw), 1 - ema_decay(self.run.step, config.ema))

    def _log(self, progress: float) -> TrainStep:
        """Write a row of losses; go back to the checkpoint where the numbers went wrong."""
        run, now = self.run, time.perf_counter()
        steps = max(run.step - self.last_row[0], 1)
        *losses, match = (self.sums / steps).tolist()  # the device is waited for here
        in_a_row, bad_steps = (int(b) for b in self.bad.tolist())
        row = {
            "loss": {name: round(v, 5) for name, v in zip(run.identities, losses)},
            "match": round(match, 5),
            "lr": self.optimizer.param_groups[0]["lr"],
            "faces_per_second": round(steps * self.config.batch * len(self.data) / (now - self.last_row[1]), 1),
        } | ({"bad_steps": bad_steps} if bad_steps else {})
        row = self._append(row)
        self.sums.zero_()
        self.last_row = (run.step, now)
        if in_a_row >= BAD_STEPS:
            self._roll_back()
        whole = run.seconds / max(progress, 1e-9)
        return TrainStep(run.step, run.seconds, whole, progress, sum(losses) / len(losses), row)

    def _append(self, values: dict) -> dict:
        """Append a row with step and seconds to ``log.jsonl``; numbers that are not finite become null."""
        row = _finite({"step": self.run.step, "seconds": round(self.run.seconds, 2), **values})
        path = self.run.folder / "log.jsonl"
        with explained(path), open(path, "a", encoding="utf-8", newline="\n") as file:
            file.write(json.dumps(row, separators=(",", ":")) + "\n")
        return row

    @torch.inference_mode()
    def measure(self) -> dict[str, dict[str, float]]:
        """Return how well the averaged weights redraw each person's held-out faces: l1 and ssim inside the face."""
        scores = {}
        for name, batch in zip(self.run.identities, self.held_out):
            rgb, _ = self.ema(batch.input, name)
            inner = batch.mask[:, :, 3:-3, 3:-3]
            scores[name] = {
                "l1": round(float(l1_loss(rgb, batch.target, batch.mask)), 5),
                "ssim": round(float(weighted_mean(ssim_map(rgb, batch.target), inner)), 5),
            }
        return scores

    def save(self, folder: Path) -> None:
        """Write the whole training state, then the averaged weights and ``config.json``."""
        run = self.run
        tensors = {f"model/{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"ema/{k}": v for k, v in self.ema.state_dict().items()}
        for i, slots in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{i}/{k}": v for k, v in slots.items()}
        tensors |= {"random/data": self.generator.get_state(), "random/torch": torch.get_rng_state(), "bad": self.bad}
        counters = {"step": run.step, "seconds": run.seconds, "rate": self.rate, "device": self.device.type}
        save_tensors(
            folder / "state.safetensors", tensors, {k: str(v) for k, v in counters.items()}, "state.prev.safetensors"
        )
        run.save(folder)

    def _restore(self) -> dict[str, str]:
        """Load networks and optimiser from the checkpoint; return its counters and leave randomness alone."""
        tensors, counters = load_state(self.run.folder)
        try:
            self.model.load_state_dict(_with_prefix(tensors, "model/"))
            self.ema.load_state_dict(_with_prefix(tensors, "ema/"))
            slots: dict[int, dict[str, torch.Tensor]] = {}
            for key, value in _with_prefix(tensors, "optimizer/").items():
                number, _, name = key.partition("/")
                slots.setdefault(int(number), {})[name] = value
            groups = self.optimizer.state_dict()["param_groups"]
            self.optimizer.load_state_dict({"state": slots, "param_groups": groups})
        except (RuntimeError, ValueError, KeyError) as reason:
            raise RunError(
                f"a checkpoint of this training in '{self.run.folder}'", "another", "train into another folder"
            ) from reason
        return counters

    def _resume(self) -> None:
        """Go on where the run in the folder stopped: networks, counters, randomness, log."""
        counters = self._restore()
        tensors, _ = load_state(self.run.folder)
        self.run.step, self.run.seconds = int(counters["step"]), float(counters["seconds"])
        self.rate, self.bad = float(counters["rate"]), tensors["bad"].to(self.device)
        torch.set_rng_state(tensors["random/torch"])
        if counters["device"] == self.device.type:
            self.generator.set_state(tensors["random/data"])
        else:
            self.generator.manual_seed(self.config.seed + self.run.step)
        _trim_log(self.run.folder / "log.jsonl", self.run.step)

    def _roll_back(self) -> None:
        """Return to the checkpoint's weights with half the learning rate, and say so in the log."""
        if self.rollbacks >= ROLLBACKS:
            raise RunError(
                "training with finite numbers", f"{ROLLBACKS} failures", "lower --lr; the checkpoint is whole"
            )
        counters = self._restore()
        self.rate, self.rollbacks = self.rate / 2, self.rollbacks + 1
        self.bad = self.bad * torch.tensor([0.0, 1.0], device=self.device)
        event = (
            f"not finite for {BAD_STEPS} steps or more: back to the weights of step {counters['step']}, half the rate"
        )
        log.warning("step %d: %s", self.run.step, event)
        self._append({"event": event})


class _Clock:
    """Says what is due: rows, measurements, checkpoints, previews."""

    def __init__(self, config: TrainConfig):
        self.every = {
            "log": LOG_EVERY,
            "measure": config.measure_every,
            "save": config.save_every,
            "preview": config.preview_every,
        }
        start = time.perf_counter()
        self.next = {what: start + seconds for what, seconds in self.every.items()}

    def due(self, last: bool) -> list[str]:
        """Return what is due now; everything at the ``last`` step, except the checkpoint that follows anyway."""
        due = []
        for what, when in self.next.items():
            if time.perf_counter() >= when or (last and what != "save"):
                due.append(what)
                self.next[what] = time.perf_counter() + self.every[what]
        return due


def _with_prefix(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _finite(value: object) -> object:
    """Replace numbers that JSON cannot hold by None, in nested dicts."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _describe(faceset: FaceSet) -> dict:
    """Return what a run remembers of a face set: faces, sources with their hashes, and the hash of its records."""
    return {
        "faces": len(faceset.kept),
        "sources": faceset.sources,
        "sha256": sha256_file(faceset.folder / "faces.jsonl"),
    }


def _trim_log(path: Path, step: int) -> None:
    """Drop rows after ``step`` (made after the checkpoint, before a crash) and a half-written last row."""
    if not path.exists():
        return
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    write_json_lines(path, [row for row in rows if row["step"] <= step])
