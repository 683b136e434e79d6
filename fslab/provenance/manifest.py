"""The manifest: how a file was made, without saying where or by whom."""

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from datetime import UTC, datetime
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any

import numpy as np

from fslab import __version__
from fslab.consent import Consent
from fslab.errors import MediaError
from fslab.storage import sha256_file

SCHEMA = 1
TOOL = "fslab"


@dataclass(frozen=True)
class Manifest:
    """How a file was made. Names of files, never their folders; hashes tie it to the things themselves.

    ``inputs`` holds {"name", "sha256"} of each file, ``run`` {"id", "sha256", "identities"}, ``consents`` the public
    records, ``settings`` the options by stage, ``label`` {"text", "box"}. ``frames`` and ``swapped_frames`` are known
    only when a clip is finished, so a clip carries them in its sidecar alone.
    """

    action: str
    inputs: tuple[dict, ...]
    run: dict
    consents: tuple[dict, ...]
    settings: dict
    created: str
    tool: str = TOOL
    version: str = __version__
    label: dict = field(default_factory=dict)
    frames: int | None = None
    swapped_frames: int | None = None

    @classmethod
    def new(
        cls, action: str, inputs: Iterable[Path], run: dict, consents: Iterable[Consent], settings: dict
    ) -> "Manifest":
        """Describe what is about to be made, now.

        Args:
            action: "swap", or what else was done.
            inputs: the files that went in; they are hashed.
            run: {"id", "sha256", "identities"} of the model.
            consents: everybody's whose face is involved.
            settings: options; dataclasses, paths and NumPy numbers become JSON, paths lose their folders.

        Raises:
            MediaError: if an input cannot be read.
        """
        created = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        records = tuple(consent.public_record() for consent in consents)
        return cls(action, tuple(map(_hash_input, inputs)), _plain(run), records, _plain(settings), created)

    def with_frames(self, frames: int, swapped_frames: int) -> "Manifest":
        """Return a copy that says how many frames were written, and in how many a face was swapped."""
        return replace(self, frames=frames, swapped_frames=swapped_frames)

    @property
    def id(self) -> str:
        """32 hexadecimal digits of the manifest's SHA-256, the frame counts left out; AIGC's ``ProduceID``."""
        body = {k: v for k, v in self.to_dict().items() if k not in ("frames", "swapped_frames")}
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:32]

    def to_dict(self) -> dict:
        """Return the manifest as JSON types."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {"schema": SCHEMA, **values, "inputs": list(self.inputs), "consents": list(self.consents)}

    @classmethod
    def from_dict(cls, value: Any) -> "Manifest":
        """Build a manifest from parsed JSON.

        Raises:
            ValueError: if it is not one of this version.
        """
        kinds = {"inputs": list, "consents": list, "run": dict, "settings": dict, "label": dict}
        kinds |= {"frames": int | None, "swapped_frames": int | None}
        if not isinstance(value, dict) or value.get("schema") != SCHEMA:
            raise ValueError(f"manifest must be a JSON object of schema {SCHEMA}")
        values = {name: item for name, item in value.items() if name != "schema"}
        if set(values) != {f.name for f in fields(cls)}:
            raise ValueError("manifest must have exactly its own keys")
        for name, item in values.items():
            if not isinstance(item, kinds.get(name, str)):
                raise ValueError(f"manifest has the wrong type in {name!r}")
        return cls(**values | {"inputs": tuple(values["inputs"]), "consents": tuple(values["consents"])})


def _hash_input(path: Path) -> dict[str, str]:
    try:
        return {"name": Path(path).name, "sha256": sha256_file(path)}
    except OSError as reason:
        raise MediaError("a file that can be read", f"'{path}' ({reason.strerror})", "check the path") from reason


def _plain(value: Any) -> Any:
    """Return ``value`` as JSON types, every path cut down to its last part."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, PurePath):
        return value.name
    if isinstance(value, str):
        absolute = value.startswith(("/", "~")) or PureWindowsPath(value).is_absolute()
        return PureWindowsPath(value).name if absolute else value
    if value is None or isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise ValueError(f"settings must be numbers, text, lists and dicts, got {value!r}")
