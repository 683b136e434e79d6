"""A folder for each visitor, under a name that cannot be guessed. Whoever has the name has the folder, nobody else."""

import re
import secrets
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fslab.errors import FslabError
from fslab.storage import explained, write_bytes
from fslab.webapp.records import read_records
from fslab.webapp.settings import MEGABYTE, AppSettings

if TYPE_CHECKING:
    from fslab.webapp.jobs import JobBook

_NAME = re.compile(r"[0-9a-f]{32}")  # 128 random bits


@dataclass(frozen=True)
class Visitor:
    """One visitor's folder; ``name`` is the secret that leads to it."""

    name: str
    root: Path

    @property
    def uploads(self) -> Path:
        """What the visitor sent, under names of ours."""
        return self._folder("uploads")

    @property
    def people(self) -> Path:
        """Consent records and face sets."""
        return self._folder("people")

    @property
    def runs(self) -> Path:
        """Trained runs."""
        return self._folder("runs")

    @property
    def results(self) -> Path:
        """Swapped files and reports."""
        return self._folder("results")

    @property
    def jobs(self) -> Path:
        """A folder for each job: job.json, status.json, log.txt."""
        return self._folder("jobs")

    def _folder(self, name: str) -> Path:
        path = self.root / name
        with explained(path):
            path.mkdir(exist_ok=True)  # not its parents: a visitor who was forgotten stays so
        return path


def new_visitor(settings: AppSettings) -> Visitor:
    """Make a folder for a new visitor.

    Raises:
        OutputError: if it cannot be made.
    """
    name = secrets.token_hex(16)
    root = settings.visitors / name
    with explained(root):
        root.mkdir(parents=True, mode=0o700)
    return Visitor(name, root)


def find_visitor(settings: AppSettings, name: str) -> Visitor | None:
    """Return the visitor of that name, and count this as a visit; None for anything that is not a name we gave."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        return None
    root = settings.visitors / name
    if root.is_symlink() or not root.is_dir():
        return None
    with suppress(OSError):
        (root / ".seen").touch()
    return Visitor(name, root)


def forget(settings: AppSettings, name: str, book: "JobBook | None" = None) -> None:
    """Delete everything a visitor has, after stopping what works on it.

    Args:
        settings: where visitors are kept.
        name: the visitor's; one that is not known is no error.
        book: the jobs; without it, the visitor must have none.
    """
    visitor = find_visitor(settings, name)
    if visitor is None:
        return
    if book is not None:
        book.drop(visitor)
    _forget_cached(settings, visitor)
    with explained(visitor.root):
        shutil.rmtree(visitor.root)


def remember_cached(settings: AppSettings, visitor: Visitor, path: Path) -> None:
    """Note that a file in the served cache is this visitor's, so that `forget` removes it too."""
    folder = Path(path).absolute().parent
    if folder.parent == settings.cache:
        with suppress(OSError), open(visitor.root / ".cached", "a", encoding="utf-8") as file:
            file.write(f"{folder.name}\n")


def _forget_cached(settings: AppSettings, visitor: Visitor) -> None:
    """Remove the served copies of a visitor's uploads and results; each lies in a folder named after its content."""
    from gradio.processing_utils import hash_file

    names = set()
    with suppress(OSError, UnicodeDecodeError):
        names |= set((visitor.root / ".cached").read_text(encoding="utf-8").split())
    if settings.cache.is_dir():
        names |= {hash_file(path) for path in visitor.root.rglob("*") if path.is_file()}
    for name in names:
        if re.fullmatch(r"[0-9a-f]{64}", name):
            shutil.rmtree(settings.cache / name, ignore_errors=True)


def sweep(settings: AppSettings) -> int:
    """Remove the folders of visitors who were last here more than ``keep_hours`` ago and have no job at work.

    Returns:
        How many were removed.
    """
    n, oldest = 0, time.time() - settings.keep_hours * 3600
    for root in settings.visitors.glob("*") if settings.visitors.is_dir() else ():
        if not _NAME.fullmatch(root.name) or _last_seen(root) > oldest:
            continue
        if any(record.is_active for record in read_records(root / "jobs")):
            continue
        _forget_cached(settings, Visitor(root.name, root))
        shutil.rmtree(root, ignore_errors=True)
        n += not root.exists()
    return n


def _last_seen(root: Path) -> float:
    for path in (root / ".seen", root):
        with suppress(OSError):
            return path.stat().st_mtime
    return time.time()


def check_space(settings: AppSettings, visitor: Visitor, n_bytes: int = 0) -> None:
    """Check that the disk and the visitor's share of it have room for something new.

    Args:
        settings: the limits.
        visitor: whose files count.
        n_bytes: size of what comes.

    Raises:
        FslabError: if there is too little.
    """
    free = shutil.disk_usage(visitor.root).free / MEGABYTE
    if free - n_bytes / MEGABYTE < settings.min_free_mb:
        raise FslabError(
            f"{settings.min_free_mb} MB of free disk space", f"{free:.0f} MB", "delete files, or come back later"
        )
    used = n_bytes
    for path in visitor.root.rglob("*"):
        with suppress(OSError):
            used += path.lstat().st_size
    if used > settings.max_visitor_mb * MEGABYTE:
        found = f"{used / MEGABYTE:.0f} MB with this"
        raise FslabError(f"at most {settings.max_visitor_mb} MB of files a visitor", found, "delete your files")


def server_secret(settings: AppSettings) -> str:
    """Return the server's own secret, made at its first start; what the page encrypts its memory in the browser with.

    Raises:
        OutputError: if it cannot be written.
    """
    path = settings.home / "secret"
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, secrets.token_urlsafe(32).encode())
        with explained(path):
            path.chmod(0o600)
            return path.read_text(encoding="utf-8")
