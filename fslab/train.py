"""The training loop: one encoder, everybody's decoders, one optimiser, and a run folder that survives interruptions."""

import copy
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from fslab.consent import require_consent
from fslab.dataset import Batch, FaceDataset
from fslab.errors import RunError
from fslab.faceset import FaceSet, check_people
from fslab.losses import (
    PatchCritic,
    PerceptualLoss,
    critic_loss,
    image_loss,
    l1_loss,
    mask_loss,
    moment_matching,
    ssim_map,
    weighted_mean,
)
from fslab.model import ModelConfig, SwapAutoencoder
from fslab.run import (
    Run,
    append_log,
    describe_faceset,
    is_run,
    load_state,
    pack_state,
    read_head,
    save_state,
    trim_log,
    unpack_state,
)  # fmt: skip
from fslab.schedule import Clock, TrainConfig, choose_device, ema_decay, learning_rate, stop_on_signals, warp_strength
from fslab.storage import atomic_dir

BAD_STEPS = 5  # so many steps without finite gradients in a row, and training goes back to its checkpoint
ROLLBACKS = 4  # so many returns to the checkpoint, and training gives up
FIX_STATE = "restore it from a copy or train again into a new folder"
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
    check_people(facesets)
    facesets = _check_folder(Path(run_dir), facesets, model_config, config)
    device = choose_device(config.device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), stop_on_signals() as stop:
        torch.manual_seed(config.seed)
        trainer = Trainer(facesets, Path(run_dir), model_config, config, device)
        return trainer.loop(hooks or TrainHooks(), stop)


def _check_folder(
    folder: Path, facesets: list[FaceSet], model_config: ModelConfig, config: TrainConfig
) -> list[FaceSet]:
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
    split = {k: asdict(config.data)[k] for k in ("held_out", "gap")}  # else held-out faces would be trained on
    then, now = head.get("model", {}), asdict(model_config)
    then, now = then | {k: head.get("train", {}).get("data", {}).get(k) for k in split}, now | split
    differs = [k for k in now if now[k] != then.get(k)]
    if differs:
        wanted = ", ".join(f"{k} {then.get(k)}" for k in differs)
        raise RunError(f"{what} ({wanted})", ", ".join(f"{k} {now[k]}" for k in differs), fix)
    return [by_name[name] for name in head["identities"]]


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
        names, goes_on = [f.identity for f in facesets], is_run(folder)
        self.data = [FaceDataset.from_faceset(f, model_config.size, config.data, device) for f in facesets]
        self.held_out = [d.held_out(HELD_OUT_FACES) for d in self.data]
        # A run that goes on has its weights; asking the hub again could fail and would change nothing.
        pretrained = model_config.pretrained and not goes_on
        self.model = SwapAutoencoder(replace(model_config, pretrained=pretrained), names).to(device)
        self.ema = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.run = Run(
            folder=folder,
            model=self.ema,
            model_config=model_config,
            train_config=config,
            identities=names,
            coverage=facesets[0].coverage,
            embeddings={f.identity: f.embedding() for f in facesets},
            consents={f.identity: f.consent for f in facesets},
            facesets={f.identity: describe_faceset(f) for f in facesets},
            encoder_weights=read_head(folder).get("encoder_weights", "random")
            if goes_on
            else self.model.encoder_weights,
        )
        self.networks, self.optimizers = {"model": self.model, "ema": self.ema}, {"optimizer": self._make_optimizer()}
        self._add_critics()
        learning = [(a, p) for a, p in zip(self.ema.parameters(), self.model.parameters()) if p.requires_grad]
        self.averaged, self.raw = [a for a, _ in learning], [p.detach() for _, p in learning]
        self.generator = torch.Generator(device).manual_seed(config.seed)
        self.rate, self.rollbacks = 1.0, 0
        self.bad = torch.zeros(2, device=device)  # steps without finite gradients: in a row, in all
        self.sums = torch.zeros(len(names) + 1, device=device)  # losses since the last row: each person's, matching
        if goes_on:
            self._resume()
        else:
            with atomic_dir(folder) as part:
                (part / "previews").mkdir()
                self.save(part)
        self.last_row = (self.run.step, time.perf_counter())

    def _make_optimizer(self) -> torch.optim.Optimizer:
        """Return AdamW over everything that learns; a pretrained backbone gets its own, lower rate, or none."""
        config = self.config
        backbone = getattr(self.model.encoder, "net", None) if self.run.encoder_weights != "random" else None
        slow = list(backbone.parameters()) if backbone is not None else []
        for p in slow:
            p.requires_grad_(config.encoder_lr > 0)
        ids = {id(p) for p in slow}
        groups = [{"params": [p for p in self.model.parameters() if id(p) not in ids], "share": 1.0}]
        if slow and config.encoder_lr:
            groups.append({"params": slow, "share": config.encoder_lr})
        return torch.optim.AdamW(groups, config.lr, (0.9, 0.99), weight_decay=config.weight_decay, fused=True)

    def _add_critics(self) -> None:
        """Add what the losses that are switched on need: feature network, critics and their optimiser."""
        losses = self.config.losses
        self.perceptual = PerceptualLoss(losses.perceptual_net).to(self.device) if losses.perceptual else None
        if losses.adversarial:
            critics = torch.nn.ModuleList(PatchCritic() for _ in self.data).to(self.device)
            self.networks["critics"] = critics
            self.optimizers["critic_optimizer"] = torch.optim.AdamW(
                critics.parameters(), self.config.lr, (0.5, 0.99), fused=True
            )

    def loop(self, hooks: TrainHooks, stop: threading.Event) -> Run:
        """Train until the budget is used or someone asks to stop; then save."""
        run, clock = self.run, Clock(self.config)
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
        losses = [self._loss(rgb, mask, batch) for (rgb, mask), batch in zip(drawn, batches)]
        match = moment_matching([z.float() for z in codes])
        total = torch.stack(losses).sum() + config.losses.match * match
        if config.losses.adversarial and progress >= config.losses.adversarial_from:
            total = total + config.losses.adversarial * self._criticise([rgb for rgb, _ in drawn], batches)
        total.backward()
        rate = config.lr * self.rate * learning_rate(progress, config.warmup)
        is_bad = self._apply("optimizer", self.model, rate)
        self.bad = torch.stack([(self.bad[0] + 1) * is_bad, self.bad[1] + is_bad])
        torch._foreach_lerp_(self.averaged, self.raw, 1 - ema_decay(self.run.step, config.ema))
        self.sums += torch.stack([*losses, match]).detach()

    def _loss(self, rgb: torch.Tensor, mask: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return one person's loss."""
        weights = self.config.losses
        loss = image_loss(rgb, batch.target, batch.weight, weights)
        if weights.mask and self.run.model_config.draw_mask:
            loss = loss + weights.mask * mask_loss(mask, batch.mask)
        if self.perceptual:
            loss = loss + weights.perceptual * self.perceptual(rgb, batch.target, batch.weight)
        return loss

    def _criticise(self, drawn: list[torch.Tensor], batches: list[Batch]) -> torch.Tensor:
        """Train the critics on drawn and real faces; return what drawing better than they can tell would lower."""
        critics = self.networks["critics"]
        fakes = [rgb * batch.mask for rgb, batch in zip(drawn, batches)]
        reals = [batch.target * batch.mask for batch in batches]
        losses = [critic_loss(c(real), c(fake.detach())) for c, real, fake in zip(critics, reals, fakes)]
        torch.stack(losses).sum().backward()
        self._apply("critic_optimizer", critics, self.config.lr * self.rate)
        critics.requires_grad_(False)  # from here on only the decoders learn
        verdict = -torch.stack([c(fake).mean() for c, fake in zip(critics, fakes)]).sum()
        critics.requires_grad_(True)
        return verdict

    def _use_bf16(self) -> bool:
        return self.config.precision == "bf16" and self.device.type == "cuda"

    def _apply(self, name: str, network: torch.nn.Module, rate: float) -> torch.Tensor:
        """Clip the gradients and step if they are finite; return 1.0 if they were not. Waits for no device."""
        optimizer = self.optimizers[name]
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get("share", 1.0)
        norm = torch.nn.utils.clip_grad_norm_(network.parameters(), self.config.clip)
        is_bad = (~norm.isfinite()).float()
        # The fused optimiser skips a step that is marked so; this is how torch's own GradScaler tells it.
        optimizer.found_inf, optimizer.grad_scale = is_bad, None
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return is_bad

    def _log(self, progress: float) -> TrainStep:
        """Write a row of losses; go back to the checkpoint where the numbers went wrong."""
        run, now = self.run, time.perf_counter()
        steps = max(run.step - self.last_row[0], 1)
        *losses, match = (self.sums / steps).tolist()  # the device is waited for here
        in_a_row, bad_steps = (int(b) for b in self.bad.tolist())
        row = {
            "loss": {name: round(v, 5) for name, v in zip(run.identities, losses)},
            "match": round(match, 5),
            "lr": self.optimizers["optimizer"].param_groups[0]["lr"],
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
        """Add a row with step and seconds to the log."""
        row = {"step": self.run.step, "seconds": round(self.run.seconds, 2), **values}
        return append_log(self.run.folder, row)

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
        tensors = pack_state(self.networks, self.optimizers)
        tensors |= {"random/data": self.generator.get_state(), "random/torch": torch.get_rng_state(), "bad": self.bad}
        counters = {"step": run.step, "seconds": run.seconds, "rate": self.rate, "device": self.device.type}
        save_state(folder, tensors, counters)
        run.save(folder)

    def _resume(self) -> None:
        """Go on where the run in the folder stopped: networks, counters, randomness, log."""
        run = self.run
        tensors, counters = load_state(run.folder)
        then = read_head(run.folder).get("facesets", {})
        unpack_state(tensors, self.networks, self.optimizers)
        try:
            run.step, run.seconds = int(counters["step"]), float(counters["seconds"])
            self.rate, self.bad = float(counters["rate"]), tensors["bad"].to(self.device)
            torch.set_rng_state(tensors["random/torch"])
            if counters["device"] == self.device.type:
                self.generator.set_state(tensors["random/data"])
            else:
                self.generator.manual_seed(self.config.seed + run.step)
        except (KeyError, ValueError, RuntimeError) as reason:
            raise RunError(f"a training state in '{run.folder}'", "another file's contents", FIX_STATE) from reason
        trim_log(run.folder, run.step)
        changed = [name for name, now in run.facesets.items() if then.get(name, {}).get("sha256") != now["sha256"]]
        if changed:
            self._append({"event": f"going on with other faces of {' and '.join(changed)}"})

    def _roll_back(self) -> None:
        """Return to the checkpoint's weights with half the learning rate, and say so in the log."""
        if self.rollbacks >= ROLLBACKS:
            raise RunError(
                "training with finite numbers", f"{ROLLBACKS} failures", "lower --lr; the checkpoint is whole"
            )
        tensors, counters = load_state(self.run.folder)
        unpack_state(tensors, self.networks, self.optimizers)
        self.rate, self.rollbacks = self.rate / 2, self.rollbacks + 1
        self.bad = self.bad * torch.tensor([0.0, 1.0], device=self.device)
        event = (
            f"not finite for {BAD_STEPS} steps or more: back to the weights of step {counters['step']}, half the rate"
        )
        log.warning("step %d: %s", self.run.step, event)
        self._append({"event": event})
