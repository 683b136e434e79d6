"""A job's child process: the same command line as anybody's, in a process group of its own, stopped politely first."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil

import fslab
from fslab.console import STATUS_VARIABLE
from fslab.storage import explained
from fslab.webapp.records import LOG, STATUS

INSIST = 0.5  # seconds after the first signal until the second
GRACE = {"train": 30.0}  # seconds from the first signal to the last word; training saves its run in them
HURRY = 0.8  # seconds, for every other kind: it writes whole files or none, so there is nothing to save
LOST = -1  # exit code of a process that ended without anybody seeing it


class Worker:
    """A child process at work, started here or found again after the server was."""

    def __init__(self, process: psutil.Process, popen: subprocess.Popen | None = None):
        """Take charge of a process; ``popen`` if it is a child of this one."""
        self._process, self._popen, self._asked = process, popen, 0.0
        self._patience, self._insisted = GRACE["train"], False
        self.pid, self.born = process.pid, process.create_time()

    @classmethod
    def start(cls, argv: Sequence[str], folder: Path) -> "Worker":
        """Start ``fslab`` in a job's folder; what it prints goes to ``log.txt`` there.

        Args:
            argv: as after ``fslab``.
            folder: the job's.

        Raises:
            OutputError: if the log cannot be written, or no process started.
        """
        package = str(Path(fslab.__file__).parents[1])  # where it is only a folder beside the app, not installed
        path = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
        ours = {STATUS_VARIABLE: str(folder / STATUS), "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "COLUMNS": "120"}
        environment = os.environ | ours
        own_group = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP} if sys.platform == "win32" else {}
        with explained(folder):
            (folder / STATUS).unlink(missing_ok=True)
            with open(folder / LOG, "ab") as log:
                popen = subprocess.Popen(
                    [sys.executable, "-m", "fslab", *argv],
                    cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    start_new_session=True, **own_group,
                )  # fmt: skip
        return cls(psutil.Process(popen.pid), popen)

    @classmethod
    def find(cls, pid: int | None, born: float | None) -> "Worker | None":
        """Return the process of that number and birth if it still works, else None."""
        try:
            worker = cls(psutil.Process(pid)) if pid else None
            alive = worker and abs(worker.born - (born or 0)) < 0.01 and worker.wait(0) is None
            return worker if alive else None
        except psutil.Error:
            return None

    def wait(self, seconds: float) -> int | None:
        """Wait for the end, at most so long; return the exit code, `LOST` if it cannot be known, None if it works on.

        Meanwhile a process that was asked to stop is asked again, and ended after its grace.
        """
        if self._asked:
            self._insist()
        if self._popen is not None:
            with suppress(subprocess.TimeoutExpired):
                return self._popen.wait(seconds)
            return None
        try:
            if self._process.status() == psutil.STATUS_ZOMBIE:
                return LOST
            self._process.wait(seconds)
            return LOST
        except psutil.TimeoutExpired:
            return None
        except psutil.NoSuchProcess:
            return LOST

    def ask_to_stop(self, kind: str) -> None:
        """Ask the process to end; `wait` insists."""
        if not self._asked:
            self._asked, self._patience = time.monotonic(), GRACE.get(kind, HURRY)
            self._signal(signal.SIGINT)

    def _insist(self) -> None:
        late = time.monotonic() - self._asked
        if late > self._patience:
            self.kill()
        elif late > INSIST and not self._insisted:
            self._insisted = True
            self._signal(signal.SIGTERM)  # training saves on either; one that still loads ends

    def kill(self) -> None:
        """End the process and its own children at once."""
        with suppress(psutil.Error):
            family = [*self._process.children(recursive=True), self._process]
            for process in family:
                with suppress(psutil.Error):
                    process.kill()

    def _signal(self, number: int) -> None:
        with suppress(OSError, psutil.Error):
            if sys.platform == "win32":  # no other process can send it Ctrl-C; training goes on from its checkpoint
                self._process.terminate()
            elif self._process.is_running():
                os.killpg(self.pid, number)


def remove_parts(root: Path, pid: int) -> None:
    """Remove what a process that was killed left half-written in a visitor's folder."""
    for part in root.rglob(f".*.{pid}-*.part*"):
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            with suppress(OSError):
                part.unlink(missing_ok=True)
