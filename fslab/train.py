"""The training loop: one encoder, everybody's decoders, one optimiser, and a run folder that survives interruptions."""

import json
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path

import torch

from fslab.base import begin_with
from fslab.consent import require_consent
from fslab.dataset import FaceDataset
from fslab.devices import half_precision, make_scaler
from fslab.disguise import disguise
from fslab.distribute import Team, join_team
from fslab.errors import RunError
from fslab.faceset import FaceSet, check_people
from fslab.learner import Learner
from fslab.model import ModelConfig, SwapAutoencoder
from fslab.resume import FELL_BACK, check_settings, open_folder, put_back
from fslab.run import (
    FALLEN_BACK,
    Run,
    append_log,
    describe_faceset,
    is_run,
    load_best,
    load_state,
    pack_state,
    pack_tensors,
    read_head,
    save_state,
    trim_log,
    unpack_state,
    unpack_tensors,
)  # fmt: skip
from fslab.schedule import Clock, TrainConfig, stop_on_signals, warp_strength
from fslab.storage import atomic_dir, clear_parts
from fslab.watch import HELD_OUT_FACES, Watch

FIX_STATE = "restore it from a copy or train again into a new folder"


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
    Started by ``accelerate launch``, several processes train together, see `fslab.distribute`.

    Args:
        facesets: one a person, cut with the same coverage.
        run_dir: the run folder, new or of a run of the same people and model.
        model_config: see `ModelConfig`.
        train_config: see `TrainConfig`.
        hooks: see `TrainHooks`.

    Returns:
        The run with its newest weights, ``finished`` unless it was stopped; `Run.load` gives those that measured best.

    Raises:
        ConsentError: without everybody's valid consent to training.
        FaceSetError: if the face sets do not fit together.
        RunError: if ``run_dir`` holds something else, a run that does not fit, or one that cannot be read.
    """
    model_config, config = model_config or ModelConfig(), train_config or TrainConfig()
    folder = Path(run_dir)
    for faceset in facesets:
        require_consent(faceset.consent, faceset.identity, "training")
    check_people(facesets)
    team = join_team(config.device)
    device, head = team.device, _read_head(team, lambda: open_folder(folder))
    facesets = check_settings(folder, head, facesets, model_config, config) if head else facesets
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), stop_on_signals() as stop:
        torch.manual_seed(config.seed)
        trainer = Trainer(facesets, folder, model_config, config, device, team)
        return trainer.loop(hooks or TrainHooks(), stop)


def _read_head(team: Team, read: Callable[[], dict]) -> dict:
    """Return what ``read``, called in the main process alone, says of the run in the folder."""
    return json.loads(team.ask_main(lambda: json.dumps(read()).encode()))


class Trainer(Learner):
    """What learns, with its data, its counters and its run folder."""

    def __init__(
        self,
        facesets: list[FaceSet],
        folder: Path,
        model_config: ModelConfig,
        config: TrainConfig,
        device: torch.device,
        team: Team | None = None,
    ):
        team = team or Team(device)
        head = _read_head(team, lambda: read_head(folder) if is_run(folder) else {})
        names, goes_on, coverage = [f.identity for f in facesets], bool(head), facesets[0].coverage
        self.data = [FaceDataset.from_faceset(f, model_config.size, config.data, device) for f in facesets]
        self.held_out = [d.held_out(HELD_OUT_FACES) for d in self.data]
        self.watch = Watch(facesets, self.held_out, config.data) if team.is_main else None
        # A run that goes on has its weights; asking the hub again could fail and would change nothing.
        pretrained = model_config.pretrained and not goes_on
        model = SwapAutoencoder(replace(model_config, pretrained=pretrained), names).to(device)
        origin, started = head.get("encoder_weights", "random"), time.perf_counter()
        if not goes_on:
            origin = self._begin(model, config, coverage, team)
        super().__init__(model, config, coverage, origin, team)
        self.run = Run(
            folder=folder,
            model=self.ema,
            model_config=model_config,
            train_config=config,
            identities=names,
            coverage=coverage,
            embeddings={f.identity: f.embedding() for f in facesets},
            consents={f.identity: f.consent for f in facesets},
            facesets={f.identity: describe_faceset(f) for f in facesets},
            encoder_weights=origin,
            seconds=time.perf_counter() - started if origin == "base" else 0.0,
        )
        self.generator = torch.Generator(device).manual_seed(config.seed)
        self.sums = torch.zeros(len(names) + 1, device=device)  # losses since the last row: each person's, matching
        self._reseed()
        if goes_on:
            self._resume(head)
        else:
            with atomic_dir(folder) if self.team.is_main else nullcontext(folder) as part:
                self.save(part)
        started = time.perf_counter()
        self.compile_if_it_pays()
        self.run.seconds += time.perf_counter() - started
        self.last_row = (self.run.step, time.perf_counter())

    def _begin(self, model: SwapAutoencoder, config: TrainConfig, coverage: float, team: Team) -> str:
        """Give the model its first weights, those of the main process, and say where its encoder's came from."""

        def first_weights() -> bytes:
            origin = model.encoder_weights
            if config.base != "none":
                generator, origin = torch.Generator(team.device).manual_seed(config.seed), "base"
                draws = [lambda n, g, d=d: d.batch(n, g, 0.0) for d in self.data]
                begin_with(model, config.base, coverage, draws, config.losses, generator)
            return pack_tensors(model.state_dict(), {"origin": origin})

        weights, about = unpack_tensors(team.ask_main(first_weights))
        model.load_state_dict(weights)
        return about["origin"]

    def _reseed(self) -> None:
        """Give each process but the main one random numbers of its own, at the step where training is."""
        if not self.team.is_main:
            own = self.config.seed + self.run.step + 7919 * self.team.rank
            self.generator.manual_seed(own)
            torch.manual_seed(own)

    def loop(self, hooks: TrainHooks, stop: threading.Event) -> Run:
        """Train until the budget is used or someone asks to stop; then save."""
        run, clock, has_ended = self.run, Clock(self.config), False
        before, start = run.seconds, time.perf_counter()
        progress = self.config.progress(run.step, run.seconds)
        try:
            stopped = stop.is_set()
            while progress < 1 and not stopped:
                self.step(progress)
                run.step += 1
                seconds = before + time.perf_counter() - start
                due = clock.due(last=self.config.progress(run.step, seconds) >= 1)
                told = [seconds, *(float(what in due) for what in clock.every)]
                (run.seconds, *is_due), stopped = self.team.agree(told, stop.is_set())
                progress = self.config.progress(run.step, run.seconds)
                for what in compress(clock.every, is_due):
                    self._do(what, progress, hooks)
                if hooks.should_stop and hooks.should_stop():
                    stop.set()
                if self.team.size == 1:  # several agree on it after the next step
                    stopped = stop.is_set()
            if progress < 1:  # stopped: what was learnt since the last measurement may be the best
                self._do("measure", progress, hooks)
            has_ended = True
        finally:
            run.finished = progress >= 1
            self.save(run.folder, together=has_ended)
        return run

    def _do(self, what: str, progress: float, hooks: TrainHooks) -> None:
        """Do one of the things that are done from time to time."""
        if what == "log":
            now = self._log(progress)
            if hooks.on_step and self.team.is_main:
                hooks.on_step(now)
        elif what == "save":
            self.save(self.run.folder)
        elif not self.team.is_main:
            return
        elif what == "measure":
            measured = self.watch.measure(self.ema)
            self._append(measured.to_row())
            self.run.keep_if_best(measured.score)
        elif hooks.on_preview:
            folder = self.run.folder / "previews"
            folder.mkdir(exist_ok=True)
            hooks.on_preview(self.run, folder / f"{self.run.step:07d}.jpg")

    def step(self, progress: float) -> None:
        """Take one optimiser step on a batch of everybody."""
        config = self.config
        strength = warp_strength(progress, config.warp_until)
        batches = [d.batch(config.batch, self.generator, strength) for d in self.data]
        if config.disguise and progress >= config.disguise_from:
            with half_precision(self.device, self.amp):
                batches = disguise(self.ema, batches, config.disguise, self.run.step)
        self.sums += self.learn(batches, progress, self.run.step)

    def _log(self, progress: float) -> TrainStep:
        """Write a row of losses; go back to the checkpoint where the numbers went wrong."""
        run, now = self.run, time.perf_counter()
        steps = max(run.step - self.last_row[0], 1)
        *losses, match = (self.sums / steps).tolist()  # the device is waited for here
        bad_steps = int(self.recovery.bad[1])
        row = {
            "loss": {name: round(v, 5) for name, v in zip(run.identities, losses)},
            "match": round(match, 5),
            "lr": self.optimizers["optimizer"].param_groups[0]["lr"],
            "faces_per_second": round(
                steps * self.config.batch * len(self.data) * self.team.size / (now - self.last_row[1]), 1
            ),
        } | ({"bad_steps": bad_steps} if bad_steps else {})
        row = self._append(row)
        self.sums.zero_()
        self.last_row = (run.step, now)
        if self.recovery.is_due() or (self.scaler.is_enabled() and self.scaler.get_scale() < 1):
            self._roll_back()
        whole = run.seconds / max(progress, 1e-9)
        return TrainStep(run.step, run.seconds, whole, progress, sum(losses) / len(losses), row)

    def _append(self, values: dict) -> dict:
        """Add a row with step and seconds to the log."""
        row = {"step": self.run.step, "seconds": round(self.run.seconds, 2), **values}
        return append_log(self.run.folder, row) if self.team.is_main else row

    def tell(self, event: str) -> None:
        """Say what happened, in the log and as a warning."""
        super().tell(event)
        self._append({"event": event})

    def measure(self) -> dict[str, dict[str, float]]:
        """Return how well the averaged weights redraw each person's held-out faces; see `Watch.reconstruct`."""
        return self.watch.reconstruct(self.ema)

    def save(self, folder: Path, together: bool = True) -> None:
        """Write the whole training state, then the averaged weights and ``config.json``; in the main process only.

        ``together`` asks the others for the state of their random numbers; not where they may not answer.
        """
        run, tensors = self.run, {}
        for name, state in (("data", self.generator.get_state()), ("torch", torch.get_rng_state())):
            states = self.team.gather(state.to(self.device)) if together else [state]
            tensors |= {f"random/{f'{rank}/' if rank else ''}{name}": s for rank, s in enumerate(states)}
        if not self.team.is_main:
            return
        (folder / "previews").mkdir(exist_ok=True)
        tensors |= pack_state(self.networks, self.optimizers) | {"bad": self.recovery.bad}
        counters = {
            "step": run.step, "seconds": run.seconds, "rate": self.recovery.rate, "device": self.device.type,
            "micro_batch": self.micro.size,
        } | ({"scale": self.scaler.get_scale()} if self.scaler.is_enabled() else {})  # fmt: skip
        save_state(folder, tensors, counters)
        run.save(folder)

    def _load_state(self) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
        """Return the training state, as the main process reads it, and put networks and optimisers back to it."""
        folder = self.run.folder
        if self.team.size == 1:
            tensors, counters = load_state(folder)
        else:
            tensors, counters = unpack_tensors(self.team.ask_main(lambda: pack_tensors(*load_state(folder))))
        unpack_state(tensors, self.networks, self.optimizers)
        return tensors, counters

    def _resume(self, head: dict) -> None:
        """Go on where the run in the folder stopped: networks, counters, randomness, log."""
        run, rank = self.run, self.team.rank
        tensors, counters = self._load_state()
        mine, recovery = f"random/{f'{rank}/' if rank else ''}", self.recovery
        try:
            run.step, run.seconds = int(counters["step"]), float(counters["seconds"])
            recovery.rate, recovery.bad = float(counters["rate"]), tensors["bad"].to(self.device)
            self._reseed()
            if rank == 0 or f"{mine}torch" in tensors:  # one process more than before has no past
                torch.set_rng_state(tensors[f"{mine}torch"])
                if counters["device"] == self.device.type:
                    self.generator.set_state(tensors[f"{mine}data"])
                else:
                    self.generator.manual_seed(self.config.seed + run.step + 7919 * rank)
            if counters["device"] == self.device.type:
                if not self.config.micro_batch:  # what was found out to fit
                    self.micro.size = min(self.micro.size, int(counters.get("micro_batch", self.micro.size)))
                self.scaler = make_scaler(self.device, self.amp, float(counters.get("scale", 2.0**16)))
        except (KeyError, ValueError, RuntimeError) as reason:
            raise RunError(f"a training state in '{run.folder}'", "another file's contents", FIX_STATE) from reason
        if self.team.is_main:
            self._reopen(head, FALLEN_BACK in counters)

    def _reopen(self, head: dict, fell_back: bool) -> None:
        """Take up the log and the best weights where training goes on."""
        run, then = self.run, head.get("facesets", {})
        clear_parts(run.folder)
        trim_log(run.folder, run.step)
        changed = [name for name, now in run.facesets.items() if then.get(name, {}).get("sha256") != now["sha256"]]
        run.best = None if changed else load_best(run.folder)[1]  # other faces, other scores
        if changed:
            self._append({"event": f"going on with other faces of {' and '.join(changed)}"})
        if fell_back:
            put_back(run.folder)
            self._append({"event": FELL_BACK})

    def _roll_back(self) -> None:
        """Return to the checkpoint's weights with half the learning rate, and say so in the log."""
        event = self.recovery.go_back(self._load_state()[1]["step"])
        self.scaler = make_scaler(self.device, self.amp)
        self.tell(event)
