"""Reading the marks of a file back, one `Layer` for each kind."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fslab.errors import FslabError, MediaError
from fslab.label import MATCH, VisibleLabel
from fslab.media import read_image, read_marks, read_samples
from fslab.provenance.manifest import TOOL, Manifest
from fslab.provenance.metadata import SOURCE_TYPE, declared, produce_id
from fslab.provenance.writing import sidecar_path
from fslab.storage import read_json, sha256_file

IMAGES, VIDEOS = (".png", ".jpg", ".jpeg", ".webp"), (".mp4", ".mov")
_SAMPLED_FRAMES = 5  # of a clip, for the visible label

State = Literal["intact", "broken", "missing"]


@dataclass(frozen=True)
class Layer:
    """One kind of mark, and how it was found."""

    name: str
    state: State
    note: str = ""


@dataclass(frozen=True)
class VerifyReport:
    """What `verify` found; ``manifest`` is the embedded one, or None."""

    layers: tuple[Layer, ...]
    manifest: Manifest | None = None

    @property
    def state(self) -> Literal["marked", "broken", "unmarked"]:
        """Return the verdict over all layers.

        "unmarked" if nothing was found; "broken" if a mark is damaged, or the visible label or the metadata is gone
        while another mark is left; else "marked". A file whose sidecar was left behind is marked.
        """
        found = {layer.name: layer.state for layer in self.layers}
        if set(found.values()) == {"missing"}:
            return "unmarked"
        if "broken" in found.values() or "missing" in (found["visible label"], found["metadata"]):
            return "broken"
        return "marked"


@dataclass(frozen=True)
class _Evidence:
    """A file with everything but its pixels read; ``sidecar`` is its JSON, None if it is missing, "" if damaged."""

    path: Path
    tags: dict[str, str]
    declared: dict[str, tuple[str, ...]]
    manifest: Manifest | None
    sidecar: Any


def verify(path: Path) -> VerifyReport:
    """Read back the marks of a PNG, JPEG, WebP, MP4 or MOV file.

    Raises:
        MediaError: if it is another kind of file, is missing, or cannot be read.
    """
    path = Path(path)
    if path.suffix.lower() not in IMAGES + VIDEOS:
        raise MediaError("a PNG, JPEG, WebP, MP4 or MOV file", f"'{path.name}'", "choose a file that fslab can mark")
    marks = read_marks(path)
    tags = {name: value for name, value in marks["tags"].items() if isinstance(value, str)}
    manifest = embedded_manifest(tags)
    evidence = _Evidence(path, tags, declared(marks["xmp"], tags), manifest, _read_sidecar(path))
    return VerifyReport(tuple(check(evidence) for check in _LAYERS), manifest)


def _read_sidecar(path: Path) -> Any:
    sidecar = sidecar_path(path)
    if not sidecar.exists():
        return None
    try:
        return read_json(sidecar, "a manifest", MediaError) or ""
    except (FslabError, RecursionError):
        return ""


def embedded_manifest(tags: dict[str, str]) -> Manifest | None:
    """Return the manifest among a file's tags (`fslab.media.read_marks`); None if there is none that can be read."""
    try:
        return Manifest.from_dict(json.loads(tags.get(TOOL, "")))
    except (ValueError, RecursionError):
        return None


def _quote(text: str) -> str:
    """Return a stranger's text fit for a terminal: one short printable line."""
    return "".join(c for c in text[:120] if c.isprintable())


def _check_label(evidence: _Evidence) -> Layer:
    """Look for the label in the image, or in frames spread over the clip."""
    name = "visible label"
    label, scores = None, []
    for image in _pictures(evidence.path):
        try:
            label = label or VisibleLabel(image.shape[:2])
        except MediaError:
            return Layer(name, "missing", "the picture is too small to carry one")
        scores.append(label.match(image))
    there = np.array(scores) >= MATCH  # (pictures, pieces of the label)
    worst = f"{np.min(scores):.2f}"
    if there.all():
        return Layer(name, "intact", f"correlation {worst} or better in {len(scores)} picture(s)")
    if not there.any():
        return Layer(name, "missing")
    whole = int(there.all(axis=1).sum())
    return Layer(name, "broken", f"whole in {whole} of {len(scores)} picture(s), correlation down to {worst}")


def _pictures(path: Path) -> Iterator[np.ndarray]:
    if path.suffix.lower() in IMAGES:
        yield read_image(path)
        return
    for frame in read_samples(path, _SAMPLED_FRAMES):
        yield frame.rgb()


def _check_metadata(evidence: _Evidence) -> Layer:
    name, types, labels = "metadata", *evidence.declared.values()
    if not types and not labels:
        return Layer(name, "missing")
    ids = [produce_id(text) for text in labels]
    if TOOL not in evidence.tags and not any(ids):
        return Layer(name, "missing", f"another tool says {_quote((types + labels)[0])}")
    if not types or set(types) != {SOURCE_TYPE}:
        return Layer(name, "broken", "DigitalSourceType is missing or was changed")
    if not labels or not all(ids):
        return Layer(name, "broken", "AIGC is missing or was changed")
    if evidence.manifest and set(ids) != {evidence.manifest.id}:
        return Layer(name, "broken", "AIGC names another manifest")
    return Layer(name, "intact", "DigitalSourceType and AIGC say that a trained model composed this")


def _check_manifest(evidence: _Evidence) -> Layer:
    name, manifest = "manifest", evidence.manifest
    if TOOL not in evidence.tags:
        return Layer(name, "missing", "" if evidence.sidecar is None else "only beside the file, not inside")
    if manifest is None:
        return Layer(name, "broken", "the one inside the file cannot be read")
    made = _quote(f"{manifest.action} by {manifest.tool} {manifest.version}, {manifest.created}")
    if evidence.sidecar is None:
        return Layer(name, "intact", made)
    try:
        beside = Manifest.from_dict(evidence.sidecar["manifest"])
    except (KeyError, TypeError, ValueError):
        return Layer(name, "broken", "the one beside the file cannot be read")
    if beside.id != manifest.id or manifest.frames not in (None, beside.frames):
        return Layer(name, "broken", "the one inside the file and the one beside it differ")
    counts = "" if beside.frames is None else f", {beside.swapped_frames} of {beside.frames} frames swapped"
    return Layer(name, "intact", made + counts)


def _check_hash(evidence: _Evidence) -> Layer:
    name, sidecar = "file hash", evidence.sidecar
    if sidecar is None:
        return Layer(name, "missing", f"no '{sidecar_path(evidence.path).name}' beside it")
    try:
        recorded = sidecar["file"]["sha256"]
    except (KeyError, TypeError):
        return Layer(name, "broken", f"'{sidecar_path(evidence.path).name}' cannot be read")
    if recorded != sha256_file(evidence.path):
        return Layer(name, "broken", "the file was changed after it was made")
    return Layer(name, "intact", "not a byte was changed since it was made")


_LAYERS: tuple[Callable[[_Evidence], Layer], ...] = (_check_label, _check_metadata, _check_manifest, _check_hash)
