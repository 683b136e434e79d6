"""What the command line shows while it works: stages with a progress bar and their time, tables, one-line errors."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

OUT = Console(highlight=False, soft_wrap=True)
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

        def report(done: int, total: int, note: str = "") -> None:
            progress.update(task, completed=done, total=total or None, note=note)

        yield report
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


def complain(text: str) -> None:
    """Print one error line to standard error, as it is."""
    ERR.print(f"fslab: {' '.join(text.split())}", markup=False, style="red")
