"""Footage to face set: find, follow and align every face, tell the people apart, keep one person's usable faces."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
from typing_extensions import Doc

from fslab.consent import Consent, require_consent
from fslab.embedder import SAME_PERSON, SAME_PERSON_MEANS, Embedder
from fslab.errors import NoFaceFound, OutputError
from fslab.faces import find_faces
from fslab.faceset import FaceRecord, FaceSet
from fslab.geometry import align_matrix, crop_from_frame
from fslab.media import RgbFrame, count_footage, encode_image, read_footage, read_image
from fslab.mesh import estimate_pose, expression
from fslab.pipeline import prefetch
from fslab.storage import atomic_dir, prepare_folder, sha256_file, write_json, write_json_lines
from fslab.tracking import FrameFaces, TrackConfig, TrackedFace, group_people, smooth, track


@dataclass(frozen=True)
class ExtractConfig:
    """How faces are cut and which are kept."""

    size: Annotated[int, Doc("side of the stored crops, pixels")] = 256
    coverage: Annotated[float, Doc("share of the crop's side that the face template spans, 0 to 1")] = 0.64
    quality: Annotated[int, Doc("JPEG quality of the stored crops, 1 to 100")] = 95
    smooth: Annotated[int, Doc("landmarks are averaged over this many frames before and after, 0 = off")] = 3
    embed_every: Annotated[int, Doc("an identity embedding is taken of every n-th face of a track")] = 25
    min_eyes: Annotated[float, Doc("faces with a smaller eye distance are dropped, pixels")] = 16.0
    min_sharpness: Annotated[float, Doc("faces below this share of the person's median sharpness are dropped")] = 0.3
    min_difference: Annotated[float, Doc("a face that differs less from the last kept one is dropped, grey levels")] = (
        0.6
    )
    max_yaw: Annotated[float, Doc("faces turned further away are dropped, degrees")] = 75.0
    same_person: Annotated[float, Doc("distance of mean embeddings below which two tracks are one person")] = (
        SAME_PERSON_MEANS
    )
    example: Annotated[Path | None, Doc("a photograph of the person to keep; without one, the most frequent")] = None
    track: Annotated[TrackConfig, Doc("how faces are followed")] = field(default_factory=TrackConfig)

    def __post_init__(self):
        if self.size < 32 or not 0 < self.coverage <= 1 or not 1 <= self.quality <= 100:
            raise ValueError(
                f"size >= 32, coverage in (0, 1], quality 1 to 100; got {self.size}, {self.coverage}, {self.quality}"
            )
        if self.smooth < 0 or self.embed_every < 1:
            raise ValueError(f"smooth must be >= 0 and embed_every >= 1, got {self.smooth} and {self.embed_every}")


@dataclass(frozen=True)
class Extraction:
    """What `extract_faces` made: the face set, and how its person was chosen.

    ``people`` counts the faces of everyone in the footage; ``chosen`` is the index of the person of the face set;
    ``reason`` says why, in words.
    """

    faceset: FaceSet
    people: dict[int, int]
    chosen: int
    reason: str


def sharpness(crop: np.ndarray) -> float:
    """Return the variance of the Laplacian over the middle of a crop at 128 px, squared grey levels; higher is sharper.

    Pertuz et al. (2013), "Analysis of focus measure operators", Pattern Recognition 46(5), operator LAP4.
    """
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    grey = cv2.resize(grey, (128, 128), interpolation=cv2.INTER_AREA)[24:104, 24:104]
    return float(cv2.Laplacian(grey, cv2.CV_32F).var())


class _Collector:
    """Takes tracked faces one by one, writes their crops, and remembers a record and a thumbnail of each."""

    def __init__(self, crops_dir: Path, config: ExtractConfig):
        self.crops_dir, self.config, self.embedder = crops_dir, config, Embedder()
        self.records: list[FaceRecord] = []
        self.thumbnails: list[np.ndarray] = []
        self.together: set[tuple[int, int]] = set()
        self._ages: Counter[int] = Counter()

    def add(self, source: str, faces: FrameFaces, first_track: int) -> None:
        """Record every face of one frame; ``first_track`` makes track numbers unique across sources."""
        numbers = sorted(first_track + f.track for f in faces.faces)
        self.together.update((a, b) for i, a in enumerate(numbers) for b in numbers[i + 1 :])
        for tracked in faces.faces:
            self._add_face(source, faces, tracked, first_track + tracked.track)

    def _add_face(self, source: str, faces: FrameFaces, tracked: TrackedFace, number: int) -> None:
        face, frame, config = tracked.face, faces.frame, self.config
        matrix = align_matrix(face.landmarks, config.size, config.coverage)
        crop = crop_from_frame(frame, matrix, config.size)
        name = f"{len(self.records):06d}.jpg"
        (self.crops_dir / name).write_bytes(encode_image(crop, ".jpg", config.quality))
        embedding = self.embedder.embed(frame, [face])[0] if self._ages[number] % config.embed_every == 0 else None
        self._ages[number] += 1
        self.records.append(
            FaceRecord(
                crop=name,
                source=source,
                frame=frame.index,
                time=frame.time,
                track=number,
                person=-1,
                box=face.box,
                landmarks=face.landmarks,
                matrix=matrix,
                mesh=face.mesh[:, :2],
                score=face.score,
                mesh_score=face.mesh_score,
                sharpness=sharpness(crop),
                pose=estimate_pose(face.mesh),
                expression=expression(face.mesh),
                embedding=embedding,
            )
        )
        self.thumbnails.append(cv2.resize(crop, (32, 32), interpolation=cv2.INTER_AREA))


def _tracked(footage: Path, config: ExtractConfig) -> Iterator[tuple[str, FrameFaces]]:
    """Yield (source name, faces) for every frame of the footage; tracks never cross from one source to the next."""
    frames = prefetch(read_footage(footage), 8)
    pending = next(frames, None)
    while pending is not None:
        source = pending[0]

        def of_source(source: str = source) -> Iterator:
            nonlocal pending
            while pending is not None and pending[0] == source:
                yield pending[1]
                pending = next(frames, None)

        stream = track(of_source(), config.track)
        yield from ((source, faces) for faces in (smooth(stream, config.smooth) if config.smooth else stream))


def _people(collector: _Collector, threshold: float) -> dict[int, int]:
    """Return the person of each track, people numbered from the one with most faces."""
    tracks = sorted({r.track for r in collector.records})
    vectors = [
        np.mean([r.embedding for r in collector.records if r.track == t and r.embedding is not None], axis=0)
        for t in tracks
    ]
    sizes = Counter(r.track for r in collector.records)
    place = {t: i for i, t in enumerate(tracks)}
    together = {(place[a], place[b]) for a, b in collector.together}
    groups = group_people(np.stack(vectors), [sizes[t] for t in tracks], threshold, together)
    totals = Counter()
    for t, group in zip(tracks, groups, strict=True):
        totals[group] += sizes[t]
    order = {group: i for i, (group, _) in enumerate(totals.most_common())}
    return {t: order[group] for t, group in zip(tracks, groups, strict=True)}


def embed_photo(path: Path) -> np.ndarray:
    """Return the embedding, ``(128,)``, of the largest face of a photograph.

    Raises:
        NoFaceFound: if it shows none.
    """
    frame = RgbFrame(read_image(path))
    faces = find_faces(frame)
    if not faces:
        raise NoFaceFound(f"a face in '{Path(path).name}'", "none", "choose a clearer picture")
    return Embedder().embed(frame, faces[:1])[0]


def _choose(records: list[FaceRecord], example: Path | None, wanted: np.ndarray | None) -> tuple[int, str]:
    """Return the person to keep and why; ``wanted`` is the example's embedding."""
    people = sorted({r.person for r in records})
    if wanted is None:
        count = sum(r.person == 0 for r in records)
        return 0, f"the most frequent of {len(people)} ({count} of {len(records)} faces)"
    distances = {}
    for person in people:
        vectors = [r.embedding for r in records if r.person == person and r.embedding is not None]
        distances[person] = float(np.linalg.norm(np.mean(vectors, axis=0) - wanted))
    nearest = min(distances, key=distances.get)
    if distances[nearest] >= SAME_PERSON:
        raise NoFaceFound(
            f"the person of '{Path(example).name}' (embedding distance below {SAME_PERSON})",
            f"{len(people)} other people, the nearest at {distances[nearest]:.2f}",
            "check the example or the footage",
        )
    return (
        nearest,
        f"the nearest of {len(people)} to '{Path(example).name}' (embedding distance {distances[nearest]:.2f})",
    )


def judge(
    records: list[FaceRecord], thumbnails: list[np.ndarray], person: int, config: ExtractConfig
) -> list[FaceRecord]:
    """Mark which faces training may use; nothing is deleted.

    Rules, in this order: wrong person, tiny, turned away, blurry (against the person's median), near-duplicate of the
    last kept face of the same track.

    Args:
        records: all faces of the footage, in its order.
        thumbnails: ``(32, 32, 3)`` uint8 of each.
        person: who is kept.
        config: the thresholds.
    """
    mine = [r.sharpness for r in records if r.person == person]
    floor = config.min_sharpness * float(np.median(mine)) if mine else 0.0
    last: dict[int, np.ndarray] = {}
    judged = []
    for record, thumbnail in zip(records, thumbnails, strict=True):
        eyes = float(np.linalg.norm(record.landmarks[1] - record.landmarks[0]))
        why = ""
        if record.person != person:
            why = f"another person ({record.person})"
        elif eyes < config.min_eyes:
            why = f"tiny: eye distance {eyes:.0f} px"
        elif abs(record.pose[0]) > config.max_yaw:
            why = f"turned away: yaw {record.pose[0]:.0f} degrees"
        elif record.sharpness < floor:
            why = f"blurry: sharpness {record.sharpness:.0f} below {floor:.0f}"
        elif record.track in last:
            difference = float(np.abs(thumbnail.astype(np.int16) - last[record.track]).mean())
            if difference < config.min_difference:
                why = f"duplicate: differs by {difference:.1f} levels"
        if not why:
            last[record.track] = thumbnail
        judged.append(replace(record, keep=not why, why=why))
    return judged


def extract_faces(
    footage: Path,
    out: Path,
    consent: Consent,
    config: ExtractConfig | None = None,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Extraction:
    """Turn footage of a person into a face set.

    Args:
        footage: a video, an image, or a folder of them.
        out: the face set folder to make.
        consent: the person's consent; names the identity.
        config: see `ExtractConfig`.
        overwrite: replace an existing ``out``.
        on_progress: called with (frames done, frames expected or 0).

    Raises:
        ConsentError: without a valid consent to training.
        NoFaceFound: if the footage shows no face, or not the person of the example.
    """
    config = config or ExtractConfig()
    require_consent(consent, consent.person, "training")
    footage, wanted = Path(footage), None
    if footage.resolve().is_relative_to(Path(out).resolve()):
        raise OutputError("a face set folder apart from the footage", f"'{out}' holds it", "choose another folder")
    out = prepare_folder(out, overwrite, "faceset.json")
    if config.example is not None:
        wanted = embed_photo(config.example)  # before the long part, so that a bad picture costs no time
    total = count_footage(footage)
    with atomic_dir(out) as part:
        (part / "crops").mkdir()
        collector, done, first_track, source, n_tracks = _Collector(part / "crops", config), 0, 0, None, 0
        for name, faces in prefetch(_tracked(footage, config), 4):
            if name != source:
                source, first_track = name, n_tracks
            n_tracks = max([n_tracks, *(first_track + f.track + 1 for f in faces.faces)])
            collector.add(name, faces, first_track)
            done += 1
            if on_progress:
                on_progress(done, total)
        if not collector.records:
            raise NoFaceFound(
                f"a face in '{footage.name}'", f"none in {done} frames", "use footage with a larger, clearer face"
            )
        person_of = _people(collector, config.same_person)
        records = [replace(r, person=person_of[r.track]) for r in collector.records]
        chosen, reason = _choose(records, config.example, wanted)
        records = judge(records, collector.thumbnails, chosen, config)
        names = sorted({r.source for r in records})
        sources = {n: sha256_file(footage if footage.is_file() else footage / n) for n in names}
        settings = asdict(config) | {"example": config.example and Path(config.example).name}
        faceset = FaceSet(out, consent.person, consent, config.size, config.coverage, sources, settings, tuple(records))
        write_json(part / "faceset.json", faceset.head())
        write_json_lines(part / "faces.jsonl", [r.to_row() for r in records])
    people = Counter(r.person for r in records)
    return Extraction(faceset, dict(people), chosen, reason)
