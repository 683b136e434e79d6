"""What the command line shows while it works: stages with a progress bar and their time, tables, one-line errors.

Where the environment variable FSLAB_STATUS names a file, the same is written there for whoever started the command.
"""

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from fslab.distribute import is_main_process
from fslab.errors import FslabError

STATUS_VARIABLE = "FSLAB_STATUS"
STATUS_EVERY = 0.2  # seconds between two writes of the status file at least
OUT = Console(highlight=False, soft_wrap=True, quiet=not is_main_process())  # of several processes, one speaks
ERR = Console(stderr=True, highlight=False, soft_wrap=True)


@contextmanager
def stage(name: str, unit: str = "frames") -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar for one stage and, when it ends, a line with its time.

    Args:
        name: what is being done, as shown.
        unit: what is counted.

    Yields:
        A callback (done, total); total 0 means unknown.
    """
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn(unit + " {task.fields[note]}"),
        TimeElapsedColumn(),
    )
    started = time.monotonic()
    with Progress(*columns, console=OUT, transient=True) as progress:
        task = progress.add_task(escape(name), total=None, note="")

        status = StatusFile.from_environment()
        status.tell(stage=name, done=0, total=0, note="")

        def report(done: int, total: int, note: str = "") -> None:
            progress.update(task, completed=done, total=total or None, note=note)
            status.tell_sometimes(done=done, total=total or 0, note=note)

        yield report
        status.tell()
    OUT.print(f"[green]✓[/] {escape(name)} [dim]({time.monotonic() - started:.1f} s)[/]")


def table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print a table."""
    view = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1))
    for i, column in enumerate(columns):
        view.add_column(column, justify="left" if i == 0 else "right", no_wrap=True)
    for row in rows:
        view.add_row(*row)
    OUT.print(view)


def say(text: str) -> None:
    """Print one line to standard output, as it is."""
    OUT.print(text, markup=False)


class StatusFile:
    """The file that says what the command does: ``{"stage", "done", "total", "note"}``, ``"error"`` and ``"exit"``.

    ``error`` is [expected, found, fix] of what ended the command, ``exit`` its exit code. The file is replaced whole
    but not flushed: it is worth nothing after a power cut. A disk that is full or gone is no reason to end the work.
    """

    def __init__(self, path: Path | None):
        """Write to ``path``; nothing at all if it is None."""
        self.path, self._last, self._said = path, 0.0, {}

    @classmethod
    def from_environment(cls) -> "StatusFile":
        """Return the file that the environment names."""
        name = os.environ.get(STATUS_VARIABLE)
        return cls(Path(name) if name and is_main_process() else None)

    def tell(self, **values: object) -> None:
        """Write what was said so far and some new values."""
        self._last = time.monotonic()
        if self.path is None:
            return
        if not self._said:
            with suppress(OSError, ValueError):
                self._said = json.loads(self.path.read_text(encoding="utf-8"))
        self._said |= values
        part = self.path.with_name(f".{self.path.name}.{os.getpid()}.part")
        with suppress(OSError):
            part.write_text(json.dumps(self._said), encoding="utf-8")
            os.replace(part, self.path)

    def tell_sometimes(self, **values: object) -> None:
        """Keep some values, and write them if the last were written long enough ago."""
        self._said |= values
        if time.monotonic() - self._last >= STATUS_EVERY:
            self.tell()


def finish(code: int, error: FslabError | None = None) -> int:
    """Tell the status file how the command ended; return ``code``."""
    words = {"error": [error.expected, error.found, error.fix]} if error else {}
    StatusFile.from_environment().tell(exit=code, **words)
    return code


def complain(text: str) -> None:
    """Print one error line to standard error, as it is."""
    ERR.print(f"fslab: {' '.join(text.split())}", markup=False, style="red")
