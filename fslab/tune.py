"""`fslab tune`: many short trainings, each with the settings that a study proposes, scored on held-out faces.

Any number of processes may work on one study. A trial that was interrupted or whose process died goes back in line;
whoever takes it up on the same machine trains on from its checkpoint. Of all runs only the best is kept.
"""

import json
import os
import platform
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from shutil import rmtree
from typing import Any

import optuna
import torch
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from fslab.consent import require_consent
from fslab.devices import choose_device
from fslab.errors import FslabError, OutputError, RunError
from fslab.faceset import FaceSet, check_people
from fslab.model import ModelConfig
from fslab.run import Run, describe_faceset, is_run
from fslab.schedule import TrainConfig, parse_duration, stop_on_signals
from fslab.search import DIALS, HOUSEKEEPING, LOST, TuneConfig, flatten, held_out_score, with_settings
from fslab.storage import explained
from fslab.study import DONE, RUNGS, fail_dead_trials, find_importance, open_study, put_back, quiet_optuna, study_errors
from fslab.train import TrainHooks, TrainStep, train

STUDY_FILE = "study.db"
TRIALS = "trials"
POLL = 1.0  # seconds between looks at the trials of other processes
STATES = {TrialState.COMPLETE: "done", TrialState.PRUNED: "given up", TrialState.FAIL: "broken off"}


@dataclass(frozen=True)
class TuneHooks:
    """Calls out: ``on_progress(done, trials, note)`` about once a second, ``on_trial(row)`` after each own trial."""

    on_progress: Callable[[int, int, str], None] | None = None
    on_trial: Callable[[dict], None] | None = None


@dataclass(frozen=True)
class TuneResult:
    """What is known of a study: what it is about, one row a trial, the best one's configurations, what mattered.

    ``best`` is the best trial's row, ``run_dir`` the run it left (None if another machine keeps it), ``start_value``
    the score of the settings that the search started from. ``importance`` sums to 1, or is empty where too few trials
    came to their end. ``finished`` says whether as many trials are done as were asked for.
    """

    about: dict
    rows: list[dict]
    finished: bool
    best: dict | None = None
    start_value: float | None = None
    configs: tuple[ModelConfig, TrainConfig] | None = None
    run_dir: Path | None = None
    importance: dict[str, float] = field(default_factory=dict)


class _GivenBack(Exception):
    """A trial was interrupted, or is somebody else's by now."""


def search_settings(
    facesets: list[FaceSet],
    out_dir: Path,
    configs: tuple[ModelConfig, TrainConfig],
    config: TuneConfig | None = None,
    hooks: TuneHooks | None = None,
) -> TuneResult:
    """Search the settings that train best in the budget given, or go on with a search.

    A trial's score is the best of its measurements, as a run keeps the weights that measured best. SIGINT and SIGTERM
    end the search after the current step; its trial is the next call's first. By steps, on one CPU and in one process,
    a stopped and continued search proposes what an uninterrupted one does, unless the measurement that the stop adds is
    the best of its trial.

    Args:
        facesets: one a person.
        out_dir: folder for the study and the runs; new, or of an earlier search.
        configs: where the search starts; what is not searched stays so.
        config: see `TuneConfig`.
        hooks: see `TuneHooks`.

    Returns:
        What is known of the whole study by then, other processes' trials included.

    Raises:
        ConsentError: without everybody's valid consent to training.
        FaceSetError: if the face sets do not fit together.
        OutputError: if ``out_dir`` holds something else.
        RunError: if the study is one of other people or settings, locked or damaged.
        ValueError: if a setting to be searched starts outside of its range.
    """
    config, out_dir = config or TuneConfig(), Path(out_dir)
    for faceset in facesets:
        require_consent(faceset.consent, faceset.identity, "training")
    check_people(facesets)
    choose_device(configs[1].device)
    settings = flatten(*configs)
    about = describe_search(facesets, config.names(settings), settings)
    _check_folder(out_dir)
    url = study_url(config, out_dir)
    with quiet_optuna(), study_errors(url), stop_on_signals() as stop:
        study = open_study(url, about, {name: settings[name] for name in about["search"]}, configs[1].seed)
        tuner = Tuner(study, facesets, out_dir / TRIALS, configs, hooks or TuneHooks())
        tuner.loop(config.trials, stop)
        return summarise(study, about, configs, out_dir / TRIALS, config.trials)


def describe_search(facesets: list[FaceSet], names: list[str], settings: dict[str, Any]) -> dict:
    """Return what makes trials comparable: people and their faces' hashes, what is searched, what stays as it is."""
    people = {f.identity: describe_faceset(f)["sha256"] for f in sorted(facesets, key=lambda f: f.identity)}
    fixed = {k: v for k, v in settings.items() if k not in (*HOUSEKEEPING, "device")}
    about = {"people": people, "search": names, "settings": fixed}
    return json.loads(json.dumps(about, default=str))  # as it comes back from the database


def _check_folder(folder: Path) -> None:
    """Make the folder of a search; refuse one with other things in it."""
    is_old = (folder / TRIALS).is_dir()
    if folder.exists() and not is_old and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError("a new folder, or one of a search", f"'{folder}' with other things", "choose another folder")
    with explained(folder):
        (folder / TRIALS).mkdir(parents=True, exist_ok=True)


def study_url(config: TuneConfig, out_dir: Path) -> str:
    """Return the database's URL; a plain path is an SQLite file."""
    where = config.study or str(out_dir / STUDY_FILE)
    return where if "://" in where else f"sqlite:///{where}"


class Tuner:
    """One process's work on a study."""

    def __init__(
        self,
        study: optuna.Study,
        facesets: list[FaceSet],
        folder: Path,
        configs: tuple[ModelConfig, TrainConfig],
        hooks: TuneHooks,
    ):
        self.study, self.facesets, self.folder, self.hooks = study, facesets, folder, hooks
        every = parse_duration(configs[1].budget) / RUNGS
        self.configs = configs[0], replace(configs[1], measure_every=min(every, configs[1].measure_every))
        self.names = json.loads(study.user_attrs["about"])["search"]
        self.stop, self.done, self.wanted = threading.Event(), 0, 0
        self.running: int | None = None  # the trial that this process is at
        self.is_lost = False  # it is somebody else's by now

    def loop(self, wanted: int, stop: threading.Event) -> None:
        """Run trials until ``wanted`` are done in all, or someone asks to stop."""
        self.stop, self.wanted = stop, wanted
        while not stop.is_set():
            states = [t.state for t in self.study.get_trials(deepcopy=False)]
            self.done = sum(state in DONE for state in states)
            if self.done >= wanted:
                break
            if self.done + states.count(TrialState.RUNNING) >= wanted:  # others have the last ones, or died with them
                self._tell_progress("waiting for the last trials of other processes")
                stop.wait(POLL)
                fail_dead_trials(self.study)
                continue
            self._run_one()
        self.tidy()

    def _run_one(self) -> None:
        """Run one trial; the study's own loop keeps its heart beating."""
        self.is_lost, self.running = False, None
        try:
            self.study.optimize(self.run_trial, n_trials=1, catch=(_GivenBack,), callbacks=[self._after])
        except (FslabError, KeyboardInterrupt):  # a full disk, or asked to stop twice: it can be tried again later
            if self.running is not None and not self.is_lost:
                put_back(self.study, self.study.trials[self.running], {})
            raise
        except ValueError:
            if not self.is_lost:  # else it only refuses a result that nobody waits for any more
                raise

    def _after(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Put an interrupted trial back in line; tell of a finished one, and remove all runs but the best."""
        if trial.state == TrialState.FAIL and not self.is_lost:
            put_back(study, trial, {})
        elif trial.state in DONE:
            self.done += 1
            self.tidy()
            if self.hooks.on_trial:
                self.hooks.on_trial(describe_trial(trial, self.configs, self.names))

    def run_trial(self, trial: optuna.Trial) -> float:
        """Train with the settings of a trial; return the score."""
        values = {name: DIALS[name].suggest(trial, name) for name in self.names}
        model_config, train_config = (with_settings(c, values) for c in self.configs)
        self.running = trial.number
        watch = _Watch(trial, self._take_up(trial), train_config, self)
        hooks = TrainHooks(on_step=watch.on_step, should_stop=watch.should_stop)
        try:
            run = train(self.facesets, watch.folder, model_config, train_config, hooks)
        except UpdateFinishedTrialError:
            raise self._lose() from None
        except (FslabError, torch.OutOfMemoryError) as reason:
            if not self._is_mine(trial):
                raise self._lose() from reason
            if not isinstance(reason, RunError | torch.OutOfMemoryError) or not is_run(watch.folder):
                raise  # not these settings' fault: the next trial would end the same way
            trial.set_user_attr("reason", str(reason))
            raise optuna.TrialPruned from reason
        if not self._is_mine(trial):
            raise self._lose()
        return self._finish(trial, run, watch)

    def _finish(self, trial: optuna.Trial, run: Run, watch: "_Watch") -> float:
        """Return the score of a training that ended, or say why there is none."""
        trial.set_user_attr("steps", run.step)
        trial.set_user_attr("seconds", round(run.seconds, 1))
        if run.finished:
            watch.look()
            return watch.score
        if watch.is_hopeless:
            raise optuna.TrialPruned
        self.stop.set()
        raise _GivenBack

    def _take_up(self, trial: optuna.Trial) -> Path:
        """Return the trial's run folder, with what an earlier attempt on this machine left of it."""
        own, left = self.folder.resolve() / f"{trial.number:04d}", trial.user_attrs.get("run")
        if left and trial.user_attrs.get("host") == platform.node() and is_run(Path(left)):
            with suppress(OSError):  # on another disk: the trial starts anew
                os.replace(left, own)
        trial.set_user_attr("host", platform.node())
        trial.set_user_attr("run", str(own))
        return own

    def _is_mine(self, trial: optuna.Trial) -> bool:
        """Say whether the study still waits for this process's result: it does not after a sleep beyond the grace."""
        return self.study.get_trials(deepcopy=False)[trial.number].state == TrialState.RUNNING

    def _lose(self) -> _GivenBack:
        self.is_lost = True
        return _GivenBack()

    def _tell_progress(self, note: str) -> None:
        if self.hooks.on_progress:
            self.hooks.on_progress(self.done, self.wanted, note)

    def tidy(self) -> None:
        """Remove the runs of finished trials from the folder, except the best of those that ran here."""
        trials = self.study.get_trials(deepcopy=False)
        here = {t.number: t for t in trials if (self.folder / f"{t.number:04d}").is_dir()}
        best = min((t for t in here.values() if t.state == TrialState.COMPLETE), key=_rank, default=None)
        waiting = {t.user_attrs.get("run") for t in trials if not t.state.is_finished()}
        for t in here.values():
            folder = self.folder / f"{t.number:04d}"
            if t.state.is_finished() and t is not best and str(folder.resolve()) not in waiting:
                rmtree(folder, ignore_errors=True)  # another process may be at it too


class _Watch:
    """Follows a training by the rows of its log: reports its measurements and says when it has no hope."""

    def __init__(self, trial: optuna.Trial, folder: Path, config: TrainConfig, tuner: Tuner):
        self.trial, self.folder, self.config, self.tuner = trial, folder, config, tuner
        self.log, self.offset, self.rung = folder / "log.jsonl", 0, 0
        self.score = self.newest = LOST
        self.is_hopeless = False

    def on_step(self, now: TrainStep) -> None:
        """Tell how far the trial is."""
        score = f", score {self.score:.4f}" if self.score != LOST else ""
        self.tuner._tell_progress(f"trial {self.trial.number}: {now.progress:.0%}{score}")

    def should_stop(self) -> bool:
        """Say whether training on is useless; asked after every step, so it reads nothing but what is new."""
        self.look()
        return self.is_hopeless or self.tuner.stop.is_set()

    def look(self) -> None:
        """Read the rows that are new, and report their scores, one for each eighth of the training."""
        if not self.log.exists() or self.log.stat().st_size <= self.offset:
            return
        with open(self.log, "rb") as file:
            file.seek(self.offset)
            lines = file.read().splitlines(keepends=True)
        for line in lines:
            if not line.endswith(b"\n"):
                break
            self.offset += len(line)
            self._report(json.loads(line))

    def _report(self, row: dict) -> None:
        score = held_out_score(row)
        if score is None:
            return
        self.score, self.newest, before = max(self.score, score), score, self.newest
        rung = int(RUNGS * self.config.progress(row["step"], row["seconds"]))
        if rung > self.rung:
            for skipped in range(self.rung + 1, rung if self.rung else 0):  # nothing newer was known there
                self.trial.report(before, skipped)
            self.rung = rung
            self.trial.report(score, rung)
            self.is_hopeless = rung < RUNGS and (self.trial.should_prune() or score == LOST)


def _rank(trial: FrozenTrial) -> tuple[float, int]:
    """Order trials: the best score first, the earlier of equals."""
    return -trial.value, trial.number


def describe_trial(trial: FrozenTrial, configs: tuple[ModelConfig, TrainConfig], names: list[str]) -> dict:
    """Return a finished trial as a row: number, state, value, settings searched, steps and seconds, why it ended."""
    used = flatten(*trial_configs(trial, configs, names))
    row = {"number": trial.number, "state": STATES[trial.state], "value": trial.value}
    row |= {"settings": {name: used[name] for name in names if name in trial.params}}
    return row | {k: trial.user_attrs[k] for k in ("steps", "seconds", "reason") if k in trial.user_attrs}


def trial_configs(
    trial: FrozenTrial, configs: tuple[ModelConfig, TrainConfig], names: list[str]
) -> tuple[ModelConfig, TrainConfig]:
    """Return the configurations that a trial trained with."""
    fixed = optuna.trial.FixedTrial(trial.params)
    values = {name: DIALS[name].suggest(fixed, name) for name in names if name in trial.params}
    return tuple(with_settings(c, values) for c in configs)


def summarise(
    study: optuna.Study, about: dict, configs: tuple[ModelConfig, TrainConfig], folder: Path, wanted: int
) -> TuneResult:
    """Return what a study knows; ``folder`` holds this machine's runs."""
    names, trials = about["search"], study.get_trials(deepcopy=False)
    rows = [describe_trial(t, configs, names) for t in trials if t.state.is_finished()]
    done = sum(t.state in DONE for t in trials)
    best = min((t for t in trials if t.state == TrialState.COMPLETE), key=_rank, default=None)
    if best is None:
        return TuneResult(about, rows, done >= wanted)
    start = [t.value for t in trials if t.user_attrs.get("is_start") and t.state == TrialState.COMPLETE]
    kept = folder / f"{best.number:04d}"
    return TuneResult(
        about=about,
        rows=rows,
        finished=done >= wanted,
        best=describe_trial(best, configs, names),
        start_value=start[0] if start else None,
        configs=trial_configs(best, configs, names),
        run_dir=kept if is_run(kept) else None,
        importance=find_importance(study, names),
    )
