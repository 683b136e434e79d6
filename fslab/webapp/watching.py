"""What became of a job: its record and the child's own words put together."""

import re
import time
from contextlib import suppress
from pathlib import Path

import psutil

from fslab.errors import FslabError
from fslab.storage import explained, read_json, write_json
from fslab.webapp.records import LOG, JobState, Record, Status
from fslab.webapp.settings import AppSettings
from fslab.webapp.worker import remove_parts

LOG_TAIL = 4096  # bytes of a log that are looked through for its last line
LOST = "the process ended without a word: the server was stopped, or memory ran out"
_BROKE = "something went wrong inside fslab"


def claim_home(home: Path) -> None:
    """Note that this process serves a folder.

    Raises:
        FslabError: if another one does.
    """
    path, me = home / "server.json", psutil.Process()
    other = _server_of(path)
    if other not in (None, me.pid):
        found = f"another (process {other}) in '{home}'"
        raise FslabError("one app for a folder", found, "stop it, or choose another --home")
    with explained(home):
        home.mkdir(parents=True, exist_ok=True)
    write_json(path, {"pid": me.pid, "born": me.create_time()})


def leave_home(home: Path) -> None:
    """Take this process's note away again."""
    path = home / "server.json"
    if _server_of(path) == psutil.Process().pid:
        path.unlink(missing_ok=True)


def _server_of(path: Path) -> int | None:
    """Return the number of the process that a server's note names, if it still works."""
    with suppress(FslabError, KeyError, TypeError, ValueError, psutil.Error):
        about = read_json(path, "a server's note", FslabError)
        other = psutil.Process(int(about["pid"]))
        if abs(other.create_time() - float(about["born"])) < 0.01 and other.is_running():
            return other.pid
    return None


def conclude(record: Record, code: int | None) -> None:
    """Write down how a job whose process is gone ended; one that was asked to stop keeps the state it was given.

    Args:
        record: of the job; changed in place, and saved if the disk has room.
        code: the process's exit code; None or negative if nobody saw it end in order.
    """
    status = Status.load(record.folder)
    code = status.exit if status.exit is not None else code
    if code is None or code < 0:
        remove_parts(record.folder.parent.parent, record.pid or 0)
    if record.state == "running":
        if code == 0:
            record.state = "done"
        elif status.exit is None and (code is None or code < 0):
            record.state, record.message = "lost", LOST
        else:
            record.state, record.error = "failed", status.error
            said = last_line(record.folder)  # a traceback stays in the log
            told = said.removeprefix("fslab: ") if said.startswith("fslab: ") else _BROKE
            record.message = str(FslabError(*status.error)) if status.error else told
    record.pid, record.born, record.ended = None, None, time.time()
    with suppress(FslabError):
        record.save()


def describe_job(record: Record, position: int, settings: AppSettings) -> JobState:
    """Return what the page shows of a job; the server's own paths are left out of every line.

    Args:
        record: of the job.
        position: jobs before it.
        settings: whose folders are left out.
    """
    status = Status.load(record.folder) if record.state != "queued" else Status()
    saving = record.pid is not None and record.state in ("stopped", "paused")
    message = record.message or (status.note if record.state == "running" else last_line(record.folder))
    error = tuple(hide_paths(word, settings) for word in record.error) if record.error else None
    return JobState(
        id=record.id, visitor=record.visitor, kind=record.kind, title=record.title, state=record.state,
        position=position, stage="saving" if saving else status.stage, done=status.done, total=status.total,
        message=hide_paths(message, settings), error=error, folder=record.folder, started=record.started,
        ended=record.ended,
    )  # fmt: skip


def last_line(folder: Path) -> str:
    """Return the last line of a job's log that is not empty; an empty text if there is none."""
    try:
        with open(folder / LOG, "rb") as file:
            file.seek(max(file.seek(0, 2) - LOG_TAIL, 0))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def hide_paths(text: str, settings: AppSettings) -> str:
    """Return a line without the server's folders: a visitor's file is named as the visitor sees it."""
    folder = re.escape(str(settings.visitors))
    return re.sub(folder + r"/[0-9a-f]{32}/(jobs/[0-9a-f-]+/)?", "", text).replace(str(settings.home), "")
