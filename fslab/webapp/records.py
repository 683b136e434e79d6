"""A job as it lies on disk: ``job.json`` is the server's, ``status.json`` and ``log.txt`` its child process's."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Literal, get_args

from fslab.errors import FslabError
from fslab.storage import read_json, write_json

Kind = Literal["extract", "train", "swap", "evaluate"]
State = Literal["queued", "running", "paused", "stopped", "done", "failed", "lost"]
JOB, STATUS, LOG = "job.json", "status.json", "log.txt"


@dataclass(frozen=True)
class JobState:
    """What the page shows of a job.

    Attributes:
        id: the job's name; it grows with time.
        visitor: whose it is.
        kind: what it does.
        title: in words of the page.
        state: a "stopped" or "paused" one may still be ``stage`` "saving" for a moment.
        position: jobs before it; 0 where it runs or has ended.
        stage: what it does now, in the command line's words; empty before the first.
        done: how much of the stage is done.
        total: how much there is; 0 if not known.
        message: the last clear line.
        error: what a failed one expected, found, and what to do; None if it did not fail or has no such words.
        folder: its own folder.
        started: seconds since the epoch.
        ended: seconds since the epoch.
    """

    id: str
    visitor: str
    kind: Kind
    title: str
    state: State
    position: int
    stage: str
    done: int
    total: int
    message: str
    error: tuple[str, str, str] | None
    folder: Path
    started: float | None
    ended: float | None


@dataclass
class Record:
    """What the server remembers of a job, in memory and as ``job.json``; times are seconds since the epoch.

    ``pid`` and ``born`` name the child process: a process of that number that was born at another time is another one.
    """

    id: str
    visitor: str
    kind: Kind
    title: str
    argv: list[str]
    submitted: float
    state: State = "queued"
    message: str = ""
    error: tuple[str, str, str] | None = None
    started: float | None = None
    ended: float | None = None
    pid: int | None = None
    born: float | None = None
    folder: Path = field(default=Path(), repr=False)

    @property
    def is_active(self) -> bool:
        """Whether it runs, waits, or is still saving."""
        return self.state in ("queued", "running") or self.pid is not None

    def save(self) -> None:
        """Write ``job.json``.

        Raises:
            OutputError: if it cannot be written.
        """
        body = asdict(self)
        del body["folder"]
        write_json(self.folder / JOB, body)

    @classmethod
    def load(cls, folder: Path) -> "Record":
        """Read ``job.json`` of a job's folder.

        Raises:
            FslabError: if it is missing or damaged.
        """
        known = {f.name for f in fields(cls)} - {"folder"}
        try:
            body = read_json(folder / JOB, "a job", FslabError)
            record = cls(**{name: body[name] for name in known}, folder=folder)
        except (KeyError, TypeError) as reason:
            raise FslabError("a job", f"'{folder.name}' damaged", "start it again") from reason
        if record.id != folder.name or record.kind not in get_args(Kind) or record.state not in get_args(State):
            raise FslabError("a job", f"'{folder.name}' damaged", "start it again")
        record.error = tuple(record.error) if record.error else None
        return record


def read_records(folder: Path) -> Iterator[Record]:
    """Yield the jobs in a visitor's folder of jobs, oldest first, without damaged ones."""
    for path in sorted(folder.glob(f"*/{JOB}")):
        try:
            yield Record.load(path.parent)
        except FslabError:
            continue


@dataclass(frozen=True)
class Status:
    """What the child process last said; ``exit`` is its exit code once it has ended in order."""

    stage: str = ""
    done: int = 0
    total: int = 0
    note: str = ""
    error: tuple[str, str, str] | None = None
    exit: int | None = None

    @classmethod
    def load(cls, folder: Path) -> "Status":
        """Read ``status.json``; what is missing or damaged is as if nothing was said."""
        try:
            body = json.loads((folder / STATUS).read_text(encoding="utf-8"))
            error = tuple(str(word) for word in body["error"]) if body.get("error") else None
            return cls(
                str(body.get("stage", "")),
                int(body.get("done", 0)),
                int(body.get("total", 0)),
                str(body.get("note", "")),
                error if error and len(error) == 3 else None,
                None if body.get("exit") is None else int(body["exit"]),
            )
        except (OSError, ValueError, TypeError, AttributeError, RecursionError):
            return cls()
