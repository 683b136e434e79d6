"""What all steps share: settings, the job book, who is asking, how files are handed over and errors are told."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from html import escape
from pathlib import Path

import gradio as gr

from fslab.errors import FslabError, MediaError
from fslab.webapp.folders import Visitor, find_visitor, forget, new_visitor
from fslab.webapp.jobs import JobBook
from fslab.webapp.limiter import Limiter, client_of
from fslab.webapp.records import JobState, Record
from fslab.webapp.settings import AppSettings
from fslab.webapp.words import language_of, phrase, say, text

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Lab:
    """The app's parts behind the page."""

    settings: AppSettings
    book: JobBook
    limiter: Limiter

    def enter(self, name: str | None) -> Visitor:
        """Return the visitor whose browser keeps ``name``, or somebody new."""
        return find_visitor(self.settings, name) or new_visitor(self.settings)

    def visitor(self, name: str | None) -> Visitor:
        """Return who is asking; raises FslabError for a name that is none of ours or was deleted."""
        found = find_visitor(self.settings, name)
        if found is None:
            raise FslabError("a page that knows you", "one whose files are gone", "reload it")
        return found

    def worker(self, name: str | None, request: gr.Request) -> Visitor:
        """Return who is asking for work, and count it; raises FslabError for too many calls."""
        self.limiter.check(client_of(request, self.settings.trust_proxy))
        return self.visitor(name)

    def forget(self, visitor: Visitor) -> None:
        """Delete everything of a visitor's, also the copies that were served."""
        forget(self.settings, visitor.name, self.book)

    def change(self, visitor: Visitor, kind: str, seen: str) -> tuple[JobState | None, str]:
        """Return the visitor's newest job of a kind if it is news, and what has been seen then."""
        job = self.book.latest(visitor, kind)
        now = f"{job.id} {job.state}" if job else ""
        return (job if now != seen else None), now


def given(path: str | None) -> Path:
    """Return the path of a file that a visitor chose; raises MediaError if none was."""
    if not path:
        raise MediaError("a picture or a video", "nothing", "choose a file")
    return Path(path)


def command_of(job: JobState) -> list[str]:
    """Return a job's command, as after ``fslab``."""
    return Record.load(job.folder).argv


def told(handler: Callable) -> Callable:
    """Let a handler's errors reach the visitor as a sentence in their language.

    Whatever is no `FslabError` and no bad value is a bug: it is logged, and the visitor learns only that.
    """

    @wraps(handler)
    def safe(*args: object) -> object:
        request = next((a for a in args if isinstance(a, gr.Request)), None)
        try:
            return handler(*args)
        except (FslabError, ValueError) as error:
            log.info("%s: %s", handler.__name__, error)
            raise gr.Error(say(error, request), duration=12, print_exception=False) from error
        except gr.Error:
            raise
        except Exception as error:
            log.exception("%s failed", handler.__name__)
            message = text("unknown_failure", language_of(request))
            raise gr.Error(message, print_exception=False) from error

    return safe


def describe_job(job: JobState | None, request: gr.Request) -> str:
    """Return the line of a job as HTML, with a bar while it works; screen readers are told of changes."""
    language = language_of(request)
    if job is None:
        return f'<div class="fs-job" role="status">{text("idle", language)}</div>'
    share = f"{job.done / job.total:.0%}" if job.total else ""
    reason = ""
    if job.state == "failed":
        reason = say(FslabError(*job.error), request) if job.error else text("unknown_failure", language)
    kind = text(f"step_{job.kind}", language).split(" ", 1)[1]
    note = phrase(job.message, language) or (f"{job.done} / {job.total}" if job.total else "")
    line = text(f"job_{job.state}", language, kind=kind, share=share, note=note, reason=reason, position=job.position)
    bar = f'<progress max="{job.total or 1}" value="{job.done}" aria-label="{escape(kind)}"></progress>'
    busy = job.state in ("running", "queued")
    return f'<div class="fs-job fs-{job.state}" role="status"><span>{escape(line)}</span>{bar if busy else ""}</div>'
