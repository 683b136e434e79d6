"""An Optuna study in a database that any number of processes can work on: opened, checked, its errors told in one line.

A trial whose process dies is noticed by its missing heartbeat and put back in line.
"""

import json
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import DuplicatedStudyError, ExperimentalWarning, StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from fslab.errors import RunError

NAME = "fslab tune"  # of the study in its database
RUNGS = 8  # measurements in a training, at which it is compared with the others
WARMUP = 4  # of them are waited for: swaps take shape late, and what scores 0 half-way may yet win
COMPARED = 4  # trials at least that a training is compared with
STARTUP = 6  # trials drawn at random before the sampler and the pruner have something to go by
HEARTBEAT = 10  # seconds between signs of life of a trial
GRACE = 60  # seconds without one after which its process counts as dead
RETRIES = 2  # so often is a trial whose process died tried again
LOCK_WAIT = 30.0  # seconds to wait for a database that another process writes to
DONE = (TrialState.COMPLETE, TrialState.PRUNED)
TARGETS = 5  # PED-ANOVA's authors want so many trials among the good ones


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Keep Optuna from writing to the terminal: what it has to say is told by hooks."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


@contextmanager
def study_errors(url: str) -> Iterator[None]:
    """Turn what the database of the block says into a `RunError` of one sentence."""
    what, fix = f"a study at '{url}'", "name another with --study, or restore it from a copy"
    try:
        yield
    except (ArgumentError, ImportError) as reason:
        raise RunError(what, f"no such database ({reason})", "use sqlite:///FILE, or install its driver") from reason
    except (SQLAlchemyError, StorageInternalError) as reason:
        words = f"{reason} {reason.__cause__ or ''}"
        if "locked" in words:
            found, fix = "one that another program keeps locked", "close that program and run the same command again"
        elif "unable to open" in words:
            found, fix = "a place where no file can be opened", "make its folder first, or name another with --study"
        elif "readonly" in words or "disk is full" in words:
            found, fix = "one that cannot be written to", "free some space, or choose a place you own"
        else:
            found = f"a damaged or foreign one ({str(reason.__cause__ or reason).splitlines()[0]})"
        raise RunError(what, found, fix) from reason


class Sampler(optuna.samplers.BaseSampler):
    """The tree-structured Parzen estimator, each trial with a seed of its own.

    Bergstra et al. (2011), "Algorithms for hyper-parameter optimization", NeurIPS, section 4. The seed comes from the
    trial's number in the study, not counting those put back in line: processes that share it never draw the same, and a
    search that goes on draws what it would have drawn.
    """

    def __init__(self, seed: int, storage: RDBStorage):
        self.seed, self.storage = seed, storage
        self.inner = optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Seed the estimator, and give the first sign of life: a trial that never gave one is never missed."""
        self.storage.record_heartbeat(trial._trial_id)
        trials = study.get_trials(deepcopy=False)[: trial.number]
        place = trial.number - sum("again" in t.user_attrs for t in trials)
        seed = int(np.random.SeedSequence([self.seed, place]).generate_state(1)[0])
        self.inner = optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP)
        self.inner.before_trial(study, trial)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Pass on to the estimator."""
        return self.inner.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Pass on to the estimator."""
        return self.inner.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Pass on to the estimator."""
        return self.inner.sample_independent(study, trial, param_name, param_distribution)


def open_study(url: str, about: dict, start: dict[str, Any], seed: int) -> optuna.Study:
    """Open the study at ``url``, or make it.

    Args:
        url: of a database that SQLAlchemy knows.
        about: what makes trials comparable, see `fslab.tune.describe_search`.
        start: the first trial's values.
        seed: of the sampler.

    Raises:
        RunError: if the study there is about something else, or not of this program.
    """
    engine = {"connect_args": {"timeout": LOCK_WAIT}} if url.startswith("sqlite") else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # that is what heartbeats are called since Optuna 2.5
        try:
            storage = RDBStorage(
                url,
                engine,
                heartbeat_interval=HEARTBEAT,
                grace_period=GRACE,
                heartbeat_stale_trial_callback=after_death,
            )
        except RuntimeError as reason:  # how Optuna refuses tables of another version
            raise RunError(
                f"a study at '{url}'", "one of another Optuna", "use that version, or another study"
            ) from reason
    pruner = optuna.pruners.MedianPruner(STARTUP, WARMUP, n_min_trials=COMPARED)
    parts = {"study_name": NAME, "storage": storage, "sampler": Sampler(seed, storage), "pruner": pruner}
    try:
        study = optuna.create_study(direction="maximize", **parts)
    except DuplicatedStudyError:
        study = optuna.load_study(**parts)
        _check_same(url, _read_about(study, about), about)
        return study
    study.enqueue_trial(start, user_attrs={"is_start": True})
    study.set_user_attr("about", json.dumps(about))
    return study


def _read_about(study: optuna.Study, about: dict) -> dict:
    """Return what a study is about; whoever makes it right now may be a moment behind, or may have died before."""
    deadline = time.monotonic() + LOCK_WAIT
    while "about" not in study.user_attrs and time.monotonic() < deadline:
        time.sleep(0.1)
    if "about" not in study.user_attrs:
        study.set_user_attr("about", json.dumps(about))
    return json.loads(study.user_attrs["about"])


def _check_same(url: str, then: dict, now: dict) -> None:
    """Refuse a study of other people, searched settings or fixed settings: its scores would not compare."""
    fix = "name another with --study or --out, or ask for what it has"
    if then["people"] != now["people"]:
        names = " and ".join(then["people"])
        other = f"one of {names}" if list(then["people"]) != list(now["people"]) else f"one of other faces of {names}"
        raise RunError(f"a study of {' and '.join(now['people'])} at '{url}'", other, fix)
    if then["search"] != now["search"]:
        found = f"one that searches {', '.join(then['search'])}"
        raise RunError(f"a study at '{url}' that searches {', '.join(now['search'])}", found, fix)
    differs = [k for k, v in now["settings"].items() if then["settings"].get(k) != v and k not in now["search"]]
    if differs:
        wanted, found = (", ".join(f"{k} {one['settings'].get(k)}" for k in differs) for one in (now, then))
        raise RunError(f"a study at '{url}' with {wanted}", f"one with {found}", fix)


def fail_dead_trials(study: optuna.Study) -> None:
    """Mark trials without a recent sign of life as failed, and put them back in line."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        optuna.storages.fail_stale_trials(study)


def after_death(study: optuna.Study, trial: FrozenTrial) -> None:
    """Put a trial whose process died back in line, unless that has happened too often."""
    deaths = trial.user_attrs.get("deaths", 0) + 1
    if deaths <= RETRIES:
        put_back(study, trial, {"deaths": deaths})


def put_back(study: optuna.Study, trial: FrozenTrial, attrs: dict[str, Any]) -> None:
    """Put the values of a trial that did not come to its end back in line, as a trial that is to be run next."""
    again = optuna.create_trial(
        state=TrialState.WAITING, params=trial.params, distributions=trial.distributions,
        user_attrs=trial.user_attrs | attrs | {"again": trial.number},
    )  # fmt: skip
    study.add_trial(again)


def find_importance(study: optuna.Study, names: list[str]) -> dict[str, float]:
    """Return how much each setting decided whether a trial was among the best; they sum to 1.

    Watanabe et al. (2023), "PED-ANOVA", arXiv:2304.10255, algorithm 1.

    Args:
        study: with trials that came to their end.
        names: the settings searched.

    Returns:
        Shares in falling order; nothing below twice `TARGETS` trials, where it would be a guess.
    """
    n = len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))
    if n < 2 * TARGETS:
        return {}
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=max(0.1, TARGETS / n))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return optuna.importance.get_param_importances(study, evaluator=evaluator, params=names)
