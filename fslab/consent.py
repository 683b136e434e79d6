"""Consent: who agreed to what, until when, and how that was confirmed. No valid consent for a person, no work on them.

A record is a small JSON file that a human can read and write::

    {"schema": 1, "person": "ada", "scope": ["training", "swapping", "publishing"], "confirmed_by": "...",
     "date": "2026-11-22", "expires": null, "synthetic": false, "note": ""}
"""

import hashlib
import json
import unicodedata
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from fslab.errors import ConsentError
from fslab.storage import prepare_output, read_json, write_json

SCHEMA = 1
SCOPES = ("training", "swapping", "publishing")
_REQUIRED = ("schema", "person", "scope", "confirmed_by", "date")
_OPTIONAL = ("expires", "synthetic", "note")


def _malformed(found: str, fix: str) -> ConsentError:
    return ConsentError("a valid consent record", found, fix)


def _check_text(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise _malformed(f"'{name}' = {value!r}, which is not text", f"write '{name}' as text")
    if any(unicodedata.category(c) in ("Cc", "Cs") for c in value):
        raise _malformed(f"'{name}' with control characters", f"write '{name}' on one line of plain text")


def _parse_date(name: str, value: Any) -> date:
    """Read a YYYY-MM-DD date; the other ISO 8601 forms are refused so that a record reads the same everywhere."""
    _check_text(name, value)
    try:
        parsed = date.fromisoformat(value)
    except ValueError:
        parsed = None
    if parsed is None or parsed.isoformat() != value:
        raise _malformed(f"'{name}' = {value!r}, which is not a date", f"write '{name}' as YYYY-MM-DD")
    return parsed


@dataclass(frozen=True)
class Consent:
    """One person's consent.

    ``person`` is the identity's name, ``confirmed_by`` says who confirmed the consent and how, ``date`` and ``expires``
    are YYYY-MM-DD (``expires`` is the last valid day, None = no end), ``scope`` a choice of `SCOPES`, and ``synthetic``
    is true for a rendered person, nobody real.

    Raises:
        ConsentError: if a field is not what it should be.
    """

    person: str
    confirmed_by: str
    date: str
    scope: tuple[str, ...] = SCOPES
    expires: str | None = None
    synthetic: bool = False
    note: str = ""

    def __post_init__(self):
        for name in ("person", "confirmed_by", "note"):
            _check_text(name, getattr(self, name))
        if self.person != self.person.strip() or self.person in ("", ".", "..") or set(self.person) & set("/\\"):
            raise _malformed(f"the person {self.person!r}", "give a name without slashes or spaces around it")
        if not self.confirmed_by.strip():
            raise _malformed("an empty 'confirmed_by'", "say who confirmed the consent and how")
        if not isinstance(self.synthetic, bool):
            raise _malformed(f"'synthetic' = {self.synthetic!r}", "write true or false")
        self._check_scope()
        given = _parse_date("date", self.date)
        if self.expires is not None and _parse_date("expires", self.expires) < given:
            raise _malformed(f"an end ({self.expires}) before its date ({self.date})", "correct 'expires' or 'date'")

    def _check_scope(self) -> None:
        allowed = ", ".join(SCOPES)
        if not isinstance(self.scope, (list, tuple)) or not self.scope or not all(s in SCOPES for s in self.scope):
            raise _malformed(f"'scope' = {self.scope!r}", f"list one or more of {allowed}")
        object.__setattr__(self, "scope", tuple(s for s in SCOPES if s in self.scope))

    @classmethod
    def from_dict(cls, record: Any) -> "Consent":
        """Build a consent from a parsed JSON record.

        Raises:
            ConsentError: if the record is malformed. Unknown keys count: a misspelt "expires" must not mean "for ever".
        """
        if not isinstance(record, dict):
            raise _malformed(f"a JSON {type(record).__name__}", "write one JSON object")
        if record.get("schema", SCHEMA) != SCHEMA or isinstance(record.get("schema"), bool):
            raise _malformed(f"schema {record['schema']!r}, not {SCHEMA}", "update fslab or make the record again")
        missing = [name for name in _REQUIRED if name not in record]
        if missing:
            raise _malformed(f"no '{missing[0]}' in it", f"add {', '.join(missing)}")
        unknown = [str(name) for name in record if name not in _REQUIRED + _OPTIONAL]
        if unknown:
            raise _malformed(f"the unknown key {unknown[0]!r}", "correct its spelling or remove it")
        return cls(**{name: value for name, value in record.items() if name != "schema"})

    def to_dict(self) -> dict:
        """Return the record as JSON types."""
        return {
            "schema": SCHEMA, "person": self.person, "scope": list(self.scope), "confirmed_by": self.confirmed_by,
            "date": self.date, "expires": self.expires, "synthetic": self.synthetic, "note": self.note,
        }  # fmt: skip

    def public_record(self) -> dict:
        """Return what may be published with an output: everything but the free text, and the whole record's SHA-256.

        The hash ties the output to the record its owner keeps, without telling the world who signed it and where.
        """
        record = self.to_dict()
        canonical = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        public = {name: record[name] for name in ("person", "scope", "date", "expires", "synthetic")}
        return public | {"sha256": hashlib.sha256(canonical.encode()).hexdigest()}

    @classmethod
    def load(cls, path: Path) -> "Consent":
        """Read a consent record.

        Raises:
            ConsentError: if the file is missing, is not JSON or is not a valid record; the message names the file.
        """
        if not Path(path).exists():
            raise ConsentError("a consent record", f"no file '{path}'", "make it with `fslab consent new`")
        record = read_json(path, "a consent record", ConsentError)
        try:
            return cls.from_dict(record)
        except ConsentError as error:
            raise ConsentError(f"{error.expected} in '{path}'", error.found, error.fix) from error

    def save(self, path: Path, overwrite: bool = False) -> None:
        """Write the record as JSON, atomically.

        Raises:
            OutputError: if ``path`` exists and ``overwrite`` is false, or cannot be written.
        """
        write_json(prepare_output(path, overwrite), self.to_dict())


def require_consent(consent: Consent | None, person: str, scope: str, today: date | None = None) -> Consent:
    """Return ``consent`` if it covers ``scope`` for ``person`` today.

    Args:
        consent: the record, or None if there is none.
        person: whose consent is needed.
        scope: one of `SCOPES`.
        today: the day to judge by; default the current day in UTC.

    Raises:
        ConsentError: if there is no record, or it is another person's, does not cover ``scope``, is dated in the future
            (more than the one day that time zones explain) or has expired.
    """
    if scope not in SCOPES:
        raise ValueError(f"scope must be one of {', '.join(SCOPES)}, got {scope!r}")
    what = f"consent of '{person}' to {scope}"
    today = today or datetime.now(UTC).date()
    if consent is None:
        raise ConsentError(what, "none", f"ask them, then write it down with `fslab consent new {person}`")
    if unicodedata.normalize("NFC", consent.person) != unicodedata.normalize("NFC", person):
        raise ConsentError(what, f"that of '{consent.person}'", f"pass the consent of '{person}'")
    if scope not in consent.scope:
        raise ConsentError(what, f"consent to {', '.join(consent.scope)} only", f"ask '{person}' for a wider consent")
    if _parse_date("date", consent.date) > today + timedelta(days=1):
        raise ConsentError(what, f"one dated {consent.date}, in the future", "correct the record or the clock")
    if consent.expires is not None and _parse_date("expires", consent.expires) < today:
        raise ConsentError(what, f"one that expired on {consent.expires}", f"ask '{person}' to renew it")
    return consent
