"""Files on disk: atomic writes, JSON, hashes. A reader sees the old file or the new one, never half of one."""

import errno
import hashlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fslab.errors import FslabError, OutputError


def _explain(path: Path, error: OSError) -> OutputError:
    """Turn an operating-system error at ``path`` into one sentence."""
    reasons = {
        errno.ENOSPC: ("enough free disk space", "the disk is full", "free some space or choose another disk"),
        errno.EDQUOT: ("enough free disk quota", "the quota is used up", "free some space or choose another disk"),
        errno.EACCES: ("permission to write", "none", "choose a folder you own"),
        errno.EPERM: ("permission to write", "none", "choose a folder you own"),
        errno.EROFS: ("a writable disk", "a read-only one", "choose another folder"),
    }
    default = ("a writable path", error.strerror or str(error), "choose another path")
    expected, found, fix = reasons.get(error.errno, default)
    return OutputError(f"{expected} for '{path}'", found, fix)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn every ``OSError`` of the block into an `OutputError` that names ``path``."""
    try:
        yield
    except OSError as error:
        raise _explain(Path(path), error) from error


def prepare_output(path: Path, overwrite: bool) -> Path:
    """Check that ``path`` may be written and make its parent folder.

    Raises:
        OutputError: if ``path`` exists and ``overwrite`` is false, or its folder cannot be written.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise OutputError("a new path", f"'{path}', which exists", "choose another name or pass --overwrite")
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    return path


def prepare_folder(path: Path, overwrite: bool, marker: str) -> Path:
    """Check that a folder may be made, or made anew, at ``path``: as `prepare_output`, but never over other files.

    Args:
        path: the folder to make.
        overwrite: whether an earlier one may be replaced.
        marker: file that every folder of this kind holds; a folder without it is not replaced, empty ones apart.

    Raises:
        OutputError: if something else stands there, or ``overwrite`` is false.
    """
    path = Path(path)
    is_other = path.exists() and not (path.is_dir() and ((path / marker).is_file() or not any(path.iterdir())))
    if is_other and overwrite:
        raise OutputError(f"a new folder, or one with '{marker}'", f"'{path}' with other files", "choose another name")
    return prepare_output(path, overwrite)


def _part_of(path: Path) -> Path:
    """Return a temporary sibling's name: with the suffix kept, and never that of another process, thread or attempt."""
    return path.with_name(f".{path.stem}.{os.getpid()}-{secrets.token_hex(4)}.part{path.suffix}")


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling of ``path`` that takes its place when the block ends without an error.

    The temporary file keeps the suffix, is flushed to disk before the rename, and is removed on an error.
    """
    path = Path(path)
    part = _part_of(path)
    try:
        with explained(path):
            yield part
            with open(part, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(part, path)
    finally:
        with suppress(OSError):  # a disk that went read-only has its own message
            part.unlink(missing_ok=True)


@contextmanager
def kept_as(path: Path, other: Path) -> Iterator[None]:
    """Keep the file at ``path`` while the block replaces it; then let it take the place of ``other``.

    Whenever the process is killed, ``other`` is what it was or the whole file from ``path``.
    """
    held = _part_of(Path(other))
    try:
        try:
            os.link(path, held)
        except OSError:  # a disk on which a file cannot have two names
            shutil.copyfile(path, held)
        yield
        os.replace(held, other)
    finally:
        with suppress(OSError):
            held.unlink(missing_ok=True)


def clear_parts(folder: Path) -> None:
    """Remove what killed writes left behind in a folder; nobody else may be writing there."""
    for part in Path(folder).glob(".*.part*"):
        if part.is_file():
            part.unlink(missing_ok=True)


@contextmanager
def atomic_dir(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling folder that takes the place of ``path`` when the block ends without an error.

    An existing ``path`` is moved aside first and removed only after the new folder stands. Files inside are flushed to
    disk only if they were written with `atomic_path`: hundreds of pictures would cost seconds.
    """
    path = Path(path)
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = _part_of(path)
        part.mkdir()  # not mkdtemp, which makes folders that only their owner can read
    old = part.with_name(f"{part.name}.old")
    try:
        with explained(path):
            yield part
            if path.exists():
                os.replace(path, old)
            os.replace(part, path)
            shutil.rmtree(old, ignore_errors=True)
    finally:
        if old.exists() and not path.exists():
            os.replace(old, path)
        shutil.rmtree(part, ignore_errors=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` atomically."""
    with atomic_path(path) as part:
        part.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented UTF-8 JSON, atomically."""
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def write_json_lines(path: Path, rows: list[dict]) -> None:
    """Write one compact JSON object a line, atomically."""
    dumps = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
    write_bytes(path, "".join(dumps(row) + "\n" for row in rows).encode())


def read_json(path: Path, what: str, error: type[FslabError]) -> Any:
    """Read a JSON file.

    Args:
        path: the file.
        what: what it should be, for the message ("a consent record").
        error: the exception class to raise.

    Raises:
        FslabError: of class ``error``, if the file is missing or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise error(what, f"no file '{path}'", "check the path") from None
    except OSError as reason:
        raise error(what, f"'{path}' cannot be read ({reason.strerror})", "check the path") from reason
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as reason:
        raise error(what, f"'{path}' is not JSON", "make it again") from reason


def read_json_lines(path: Path, what: str, error: type[FslabError]) -> list[dict]:
    """Read one JSON object a line; raises ``error`` as `read_json` does."""
    try:
        return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
    except FileNotFoundError:
        raise error(what, f"no file '{path}'", "check the path") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as reason:
        raise error(what, f"'{path}' is damaged", "make it again") from reason


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
