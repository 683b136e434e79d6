"""The line of heavy jobs: one at work over the whole server, the others wait; all of it survives a restart."""

import atexit
import re
import secrets
import shutil
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import get_args

from fslab.errors import FslabError
from fslab.samples import sample_path
from fslab.storage import explained
from fslab.webapp.folders import Visitor, check_space, sweep
from fslab.webapp.records import JobState, Kind, Record, read_records
from fslab.webapp.settings import AppSettings
from fslab.webapp.watching import claim_home, conclude, describe_job, hide_paths, leave_home
from fslab.webapp.worker import Worker

SWEEP_EVERY = 600.0  # seconds
LOOK_EVERY = 0.1  # seconds between looks at the process at work
STOPS_WITHIN = 0.8  # seconds that `stop` waits for the process to end
_ID = re.compile(r"[0-9]{13}-[0-9a-f]{8}")
RESUMABLE = ("paused", "stopped", "failed", "lost")


class JobBook:
    """All visitors' jobs. Every method may be called from any thread; what one visitor has, no other sees."""

    def __init__(self, settings: AppSettings):
        """Take up what is on disk: jobs at work are followed on, those whose process is gone are "lost".

        Raises:
            FslabError: if another server works in the same folder, or it cannot be written.
        """
        self.settings = settings
        with explained(settings.visitors):
            settings.visitors.mkdir(parents=True, exist_ok=True)
        claim_home(settings.home)
        self._records: dict[str, Record] = {}
        self._worker: tuple[Record, Worker] | None = None
        self._changed, self._closing = threading.Condition(threading.RLock()), False
        for folder in settings.visitors.iterdir():
            for record in read_records(folder / "jobs"):
                self._records[record.id] = record
        for record in self._records.values():
            self._take_up(record)
        self._thread = threading.Thread(target=self._work, name="fslab jobs", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def _take_up(self, record: Record) -> None:
        """Follow a process that outlived the server, or say how it ended."""
        if record.pid is None:
            return
        worker = Worker.find(record.pid, record.born)
        if worker and self._worker is None:
            self._worker = (record, worker)
            return
        if worker:
            worker.kill()
        conclude(record, None)

    def submit(self, visitor: Visitor, kind: Kind, title: str, argv: Sequence[str]) -> JobState:
        """Put a job in the line.

        Args:
            visitor: whose it is.
            kind: what it does; the command is named the same.
            title: shown to the visitor.
            argv: as after ``fslab``; every path in it lies in the visitor's folder or among what is packaged.

        Raises:
            FslabError: if the line or the disk is full, the visitor has too many jobs, or training is not offered.
            ValueError: if ``argv`` is another command's or leads out of the visitor's folder.
        """
        argv, settings = [str(word) for word in argv], self.settings
        if kind not in get_args(Kind) or argv[:1] != [kind]:
            raise ValueError(f"argv must begin with its kind, one of {get_args(Kind)}, got {kind!r} and {argv[:1]}")
        if kind == "train" and not settings.train_allowed:
            raise FslabError("a server that trains", "one that does not", "install fslab on your own machine to train")
        job_id = f"{time.time_ns() // 1_000_000:013d}-{secrets.token_hex(4)}"
        folder = visitor.jobs / job_id
        self._check_paths(visitor, folder, argv)
        check_space(settings, visitor)
        with self._changed:
            self._check_line(visitor)
            record = Record(job_id, visitor.name, kind, title, argv, time.time(), folder=folder)
            self._lay_down(record)
            self._records[job_id] = record
            self._changed.notify_all()
            return self._describe(record)

    def _lay_down(self, record: Record) -> None:
        try:
            with explained(record.folder):
                record.folder.mkdir()
            record.save()
        except FslabError as error:
            shutil.rmtree(record.folder, ignore_errors=True)
            words = (error.expected, error.found, error.fix)
            raise type(error)(*(hide_paths(word, self.settings) for word in words)) from error

    def _check_line(self, visitor: Visitor) -> None:
        limits, active = self.settings, [r for r in self._records.values() if r.state in ("queued", "running")]
        waiting = sum(r.state == "queued" for r in active)
        if waiting >= limits.max_jobs_queued:
            raise FslabError(
                f"at most {limits.max_jobs_queued} jobs in line", str(waiting), "come back in some minutes"
            )
        own = sum(r.visitor == visitor.name for r in active)
        if own >= limits.max_jobs_visitor:
            raise FslabError(
                f"at most {limits.max_jobs_visitor} jobs of yours at a time", str(own), "wait, or stop one"
            )

    def _check_paths(self, visitor: Visitor, folder: Path, argv: list[str]) -> None:
        packaged = [sample_path("ada.mp4").parent]
        packaged += [self.settings.packaged_run] if self.settings.packaged_run else []
        allowed = [path.resolve() for path in (visitor.root, *packaged)]
        for word in argv:
            for part in (word, word.partition("=")[2]):
                path = (folder / part).resolve() if "\0" not in part else Path("/")
                if not any(path.is_relative_to(root) for root in allowed):
                    raise ValueError(f"argv must stay in the visitor's folder, got {part!r}")

    def state(self, visitor: Visitor, job_id: str) -> JobState:
        """Return where a job is.

        Raises:
            FslabError: if the visitor has no such job.
        """
        with self._changed:
            return self._describe(self._record(visitor, job_id))

    def latest(self, visitor: Visitor, kind: Kind | None = None) -> JobState | None:
        """Return the visitor's newest job, of that kind if one is given; None if there is none."""
        with self._changed:
            own = [r for r in self._records.values() if r.visitor == visitor.name and kind in (None, r.kind)]
            return self._describe(max(own, key=lambda r: r.id)) if own else None

    def stop(self, visitor: Visitor, job_id: str) -> JobState:
        """Stop a job; training saves its run, which `resume` goes on with.

        Returns:
            Its state within a second: "stopped", and of stage "saving" if its process is not yet gone.

        Raises:
            FslabError: if the visitor has no such job.
        """
        return self._halt(visitor, job_id, "stopped")

    def pause(self, visitor: Visitor, job_id: str) -> JobState:
        """Stop a job as `stop` does, and call it "paused"."""
        return self._halt(visitor, job_id, "paused")

    def resume(self, visitor: Visitor, job_id: str) -> JobState:
        """Put a job that was paused, stopped, lost or failed in the line again; training goes on where it was saved.

        Raises:
            FslabError: if the visitor has no such job, or the line is full.
        """
        with self._changed:
            record = self._record(visitor, job_id)
            if record.state in RESUMABLE:
                self._check_line(visitor)
                check_space(self.settings, visitor)
                record.state, record.message, record.error, record.ended = "queued", "", None, None
                record.submitted = time.time()
                record.save()
                self._changed.notify_all()
            return self._describe(record)

    def drop(self, visitor: Visitor) -> None:
        """Forget all jobs of a visitor; what is at work ends at once, unsaved."""
        with self._changed:
            for record in [r for r in self._records.values() if r.visitor == visitor.name]:
                del self._records[record.id]
            while self._worker and self._worker[0].visitor == visitor.name:
                self._worker[1].kill()
                self._changed.wait(LOOK_EVERY)

    def close(self) -> None:
        """End the server's part: a training at work is saved and "paused", another job "stopped"; the line stays."""
        with self._changed:
            if self._closing:
                return
            self._closing = True
            self._changed.notify_all()
            if self._worker:
                record = self._worker[0]
                self._ask(record, "paused" if record.kind == "train" else "stopped")
        self._thread.join()
        leave_home(self.settings.home)
        atexit.unregister(self.close)

    def _record(self, visitor: Visitor, job_id: str) -> Record:
        record = self._records.get(job_id) if isinstance(job_id, str) and _ID.fullmatch(job_id) else None
        if record is None or record.visitor != visitor.name:
            raise FslabError("a job of yours", "none of that name", "start it again")
        return record

    def _describe(self, record: Record) -> JobState:
        waiting = sorted((r for r in self._records.values() if r.state == "queued"), key=lambda r: (r.submitted, r.id))
        before = waiting.index(record) + (self._worker is not None) if record in waiting else 0
        return describe_job(record, before, self.settings)

    def _halt(self, visitor: Visitor, job_id: str, state: str) -> JobState:
        deadline = time.monotonic() + STOPS_WITHIN
        with self._changed:
            record = self._record(visitor, job_id)
            if record.state == "running" or (record.state == "queued" and record.pid is None):
                self._ask(record, state)
            while record.pid is not None and time.monotonic() < deadline:
                self._changed.wait(LOOK_EVERY)
            return self._describe(record)

    def _ask(self, record: Record, state: str) -> None:
        record.state, record.message = state, ""
        if self._worker and self._worker[0] is record:
            self._worker[1].ask_to_stop(record.kind)
        else:
            record.ended = time.time()
        with suppress(FslabError):  # a full disk: the memory knows
            record.save()

    def _work(self) -> None:
        """Work the line off, one job after another, until closed."""
        swept = 0.0
        while True:
            with self._changed:
                if self._worker is None and not self._closing:
                    self._start_next()
                if self._worker is None:
                    if self._closing:
                        return
                    self._changed.wait(SWEEP_EVERY if swept else LOOK_EVERY)
            if self._worker:
                self._follow(*self._worker)
            if time.monotonic() - swept > SWEEP_EVERY:
                swept = time.monotonic()
                self._sweep()

    def _start_next(self) -> None:
        waiting = sorted((r for r in self._records.values() if r.state == "queued"), key=lambda r: (r.submitted, r.id))
        if not waiting:
            return
        record = waiting[0]
        record.started = time.time()
        try:
            worker = Worker.start(record.argv, record.folder)
            record.state, record.pid, record.born = "running", worker.pid, worker.born
            self._worker = (record, worker)
            record.save()
        except FslabError as error:
            if self._worker:
                return  # it works; only the note on disk is missing
            record.state, record.ended = "failed", time.time()
            record.error, record.message = (error.expected, error.found, error.fix), str(error)

    def _follow(self, record: Record, worker: Worker) -> None:
        """Watch the job at work to its end."""
        latest = time.monotonic() + self.settings.max_job_minutes * 60
        while (code := worker.wait(LOOK_EVERY)) is None:
            if time.monotonic() > latest and record.state == "running":
                limit = (f"at most {self.settings.max_job_minutes:g} minutes", "more", "choose a shorter clip or time")
                with self._changed:
                    self._ask(record, "failed")
                    record.error, record.message = limit, str(FslabError(*limit))
        with self._changed:
            self._worker = None
            conclude(record, code)
            self._changed.notify_all()

    def _sweep(self) -> None:
        if sweep(self.settings):
            with self._changed:
                gone = [r.id for r in self._records.values() if not r.folder.exists() and not r.is_active]
                for job_id in gone:
                    del self._records[job_id]
