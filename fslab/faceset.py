"""A face set: one person's aligned crops, what is known of each, and the consent they were taken under.

Folder: ``faceset.json`` (identity, consent, source, settings), ``faces.jsonl`` (one row a face), ``crops/NNNNNN.jpg``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

import cv2
import numpy as np

from fslab.consent import Consent
from fslab.errors import FaceSetError
from fslab.geometry import rescale_matrix, transform_points
from fslab.media import decode_image
from fslab.storage import read_json, read_json_lines

SCHEMA = 1


@dataclass(frozen=True)
class FaceRecord:
    """One face of the footage; a row of ``faces.jsonl``.

    Points are in frame pixels. ``mesh`` holds x and y of the 468 mesh points, ``pose`` (yaw, pitch, roll) in degrees,
    ``expression`` opening ratios by name, ``embedding`` 128 numbers or None where the face was not embedded.
    """

    crop: str
    source: str
    frame: int
    time: float
    track: int
    person: int
    box: np.ndarray
    landmarks: np.ndarray
    matrix: np.ndarray
    mesh: np.ndarray
    score: float
    mesh_score: float
    sharpness: float
    pose: tuple[float, float, float]
    expression: dict[str, float]
    embedding: np.ndarray | None = None
    keep: bool = True
    why: str = ""

    def to_row(self) -> dict:
        """Return the record as JSON types; pixels rounded to a tenth, matrices kept exactly."""
        row = {f.name: getattr(self, f.name) for f in fields(self)}
        for name in ("box", "landmarks", "mesh"):
            row[name] = np.round(np.asarray(row[name], np.float64), 1).tolist()
        row["matrix"] = np.asarray(self.matrix, np.float64).tolist()
        row["embedding"] = None if self.embedding is None else np.round(self.embedding.astype(float), 5).tolist()
        row["pose"] = [round(float(a), 2) for a in self.pose]
        row["expression"] = {k: round(float(v), 4) for k, v in self.expression.items()}
        return row | {k: round(float(row[k]), 4) for k in ("time", "score", "mesh_score", "sharpness")}

    @classmethod
    def from_row(cls, row: dict) -> "FaceRecord":
        """Build a record from a row; raises KeyError or TypeError if the row is not one."""
        values = {f.name: row[f.name] for f in fields(cls)}
        for name in ("box", "landmarks", "mesh"):
            values[name] = np.asarray(values[name], np.float32)
        values["matrix"] = np.asarray(values["matrix"], np.float64)
        if values["embedding"] is not None:
            values["embedding"] = np.asarray(values["embedding"], np.float32)
        return cls(**values | {"pose": tuple(values["pose"])})


@dataclass(frozen=True)
class FaceSet:
    """One person's faces on disk.

    ``size`` is the side of the stored crops in pixels, ``coverage`` their coverage; ``sources`` maps a file name to its
    SHA-256; ``settings`` is the `ExtractConfig` as a dict.
    """

    folder: Path
    identity: str
    consent: Consent
    size: int
    coverage: float
    sources: dict[str, str]
    settings: dict
    records: tuple[FaceRecord, ...] = field(repr=False)

    @property
    def kept(self) -> tuple[FaceRecord, ...]:
        """The records that training may use, in the order of the footage."""
        return tuple(r for r in self.records if r.keep)

    def embedding(self) -> np.ndarray:
        """Return the person's mean embedding, ``(128,)``, over the kept and embedded faces."""
        vectors = [r.embedding for r in self.kept if r.embedding is not None]
        if not vectors:
            raise FaceSetError(f"embedded faces in '{self.folder}'", "none", "extract it again")
        return np.mean(vectors, axis=0)

    def crops(self, size: int | None = None, records: Sequence[FaceRecord] | None = None) -> np.ndarray:
        """Return the crops of ``records`` (default: all that are kept), ``(N, size, size, 3)`` uint8 RGB.

        Raises:
            FaceSetError: if a crop is missing or damaged.
        """
        size, records = size or self.size, self.kept if records is None else records
        stack = np.empty((len(records), size, size, 3), np.uint8)
        for i, record in enumerate(records):
            try:
                crop = decode_image((self.folder / "crops" / record.crop).read_bytes())
            except (OSError, ValueError) as reason:
                raise FaceSetError(
                    f"the crop '{record.crop}' in '{self.folder}'", "a missing or damaged file", "extract it again"
                ) from reason
            how = cv2.INTER_AREA if size < crop.shape[0] else cv2.INTER_LINEAR
            stack[i] = crop if crop.shape[0] == size else cv2.resize(crop, (size, size), interpolation=how)
        return stack

    def crop_meshes(self, size: int | None = None) -> np.ndarray:
        """Return the kept faces' mesh points in crop pixels, ``(N, 468, 2)`` float32."""
        size = size or self.size
        return np.stack([transform_points(r.mesh, rescale_matrix(r.matrix, self.size, size)) for r in self.kept])

    @classmethod
    def load(cls, folder: Path) -> "FaceSet":
        """Read a face set folder.

        Raises:
            FaceSetError: if the folder is not a face set, is damaged, or was written by a newer version.
        """
        folder = Path(folder)
        what = f"a face set folder (made by `fslab extract`) at '{folder}'"
        head = read_json(folder / "faceset.json", what, FaceSetError)
        rows = read_json_lines(folder / "faces.jsonl", what, FaceSetError)
        if not isinstance(head, dict) or head.get("schema") != SCHEMA:
            raise FaceSetError(what, "one of another version", "extract it again")
        try:
            return cls(
                folder, head["identity"], Consent.from_dict(head["consent"]), head["size"], head["coverage"],
                head["sources"], head["settings"], tuple(FaceRecord.from_row(row) for row in rows),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError) as reason:
            raise FaceSetError(what, f"a damaged one ({reason!r})", "extract it again") from reason

    def head(self) -> dict:
        """Return ``faceset.json`` as a dict."""
        names = ("identity", "size", "coverage", "sources", "settings")
        return {"schema": SCHEMA, **{n: getattr(self, n) for n in names}, "consent": self.consent.to_dict()}


def check_people(facesets: Sequence[FaceSet]) -> None:
    """Check that face sets can be trained on together; raises FaceSetError if not."""
    names = [f.identity for f in facesets]
    if len(names) < 2 or len(set(names)) < len(names):
        raise FaceSetError("face sets of two or more people", " and ".join(names) or "none", "name one folder a person")
    coverages = {f.coverage for f in facesets}
    if len(coverages) > 1:
        found = ", ".join(f"{f.identity} {f.coverage}" for f in facesets)
        raise FaceSetError("face sets of one coverage", found, "extract them again with the same --coverage")
