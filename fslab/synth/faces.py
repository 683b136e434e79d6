"""Labelled aligned faces of many people: what a base model is trained on before it ever sees its own two.

The folder holds, for each person, ``faces/SEED/NN.jpg`` (the crop), ``NN.face.png`` (255 times the share of a pixel
that a swap replaces) and ``NN.parts.png`` (index into `fslab.synth.scene.PARTS`); ``labels.npz`` the numbers of all
pictures, row by row; ``images.jsonl`` the file and the attributes of each row; ``people.jsonl`` the identities;
``index.json`` the configuration, counts and a content hash.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
from typing_extensions import Doc

from fslab import __version__
from fslab.errors import FslabError, OutputError
from fslab.geometry import align_matrix, invert, transform_points, warp
from fslab.media import encode_image
from fslab.mesh import five_points
from fslab.pipeline import prefetch
from fslab.storage import (
    atomic_dir,
    atomic_path,
    explained,
    prepare_folder,
    read_json,
    write_bytes,
    write_json,
    write_json_lines,
)
from fslab.synth.annotate import FrameLabels, annotate
from fslab.synth.assets import UNITS
from fslab.synth.clip import OnProgress
from fslab.synth.head import Head
from fslab.synth.identity import TRAIN_SEEDS, draw_identity
from fslab.synth.motion import draw_attributes
from fslab.synth.points import ibug_indices
from fslab.synth.ranges import RangeName, motion_range
from fslab.synth.render import Quality, Renderer
from fslab.synth.scene import Attributes, Camera, Part
from fslab.synth.takes import MAX_SIZE, head_of, mesh_positions, start_work

SCHEMA = 1
IMAGE_KEYS = ("file", "seed", "number", "attributes")
_QUALITY = 95
_MARGIN = 1.02  # rendered around the crop, for interpolation at its edges


@dataclass(frozen=True)
class FacesConfig:
    """Which faces are rendered, and how they are cut."""

    people: Annotated[int, Doc("how many people")] = 200
    each: Annotated[int, Doc("pictures of each")] = 10
    size: Annotated[int, Doc("side of the aligned crops, pixels; 64 to 2048")] = 192
    coverage: Annotated[float, Doc("share of the crop's side that the face template spans, 0 to 1")] = 0.64
    first: Annotated[int, Doc("seed of the first person; 1000 to 2999 are kept for training")] = TRAIN_SEEDS.start
    sharing: Annotated[
        int, Doc("how many people in a row show the same poses, expressions and lights; 1 nobody, 0 everybody")
    ] = 1
    masks: Annotated[bool, Doc("write the masks of the face and of all parts too; without them it is faster")] = True
    motion: Annotated[RangeName, Doc("what the people never do, or everything: full")] = "full"
    seed: Annotated[int, Doc("of the attributes")] = 0
    quality: Annotated[Quality, Doc("bulk is fast, high is cleaner and takes ten times as long")] = "bulk"
    processes: Annotated[int, Doc("how many render at once, 0 for half the number of cores")] = 0

    def __post_init__(self):
        motion_range(self.motion)
        last = self.first + self.people - 1
        if self.people < 1 or self.first not in TRAIN_SEEDS or last not in TRAIN_SEEDS:
            raise ValueError(
                f"people for training have seeds {TRAIN_SEEDS.start} to {TRAIN_SEEDS.stop - 1} (those below are for "
                f"benchmarks), got {self.people} people from seed {self.first}"
            )
        if min(self.processes, self.sharing) < 0:
            raise ValueError(f"processes and sharing must be 0 or more, got {self.processes} and {self.sharing}")
        if not 64 <= self.size <= MAX_SIZE or not 0.2 <= self.coverage <= 1:
            raise ValueError(
                f"size must be 64 to {MAX_SIZE} and coverage 0.2 to 1, got {self.size} and {self.coverage:g}"
            )
        if not 1 <= self.each <= 10_000 or self.seed < 0:
            raise ValueError(f"each must be 1 to 10000 and seed 0 or more, got {self.each} and {self.seed}")

    def attributes(self, person: int, number: int) -> Attributes:
        """Return what a person's picture ``number`` shows."""
        seed = int(np.random.default_rng([self.seed, self.scene(person), number]).integers(2**31))
        return draw_attributes(seed, motion_range(self.motion))

    def scene(self, person: int) -> int:
        """Return the seed of the first person who shows the same as ``person``, 0 if everybody does."""
        return person - (person - self.first) % self.sharing if self.sharing else 0


@dataclass(frozen=True)
class Face:
    """One aligned picture and its exact labels, in crop pixels.

    ``crop`` ``(S, S, 3)`` uint8; ``mesh`` ``(468, 2)`` float32; ``attributes`` with the camera used; ``masks`` by name,
    ``(S, S)`` uint8, empty where not asked for: "face", 255 times the share of a pixel that a swap replaces, and
    "parts", index into `PARTS`.
    """

    crop: np.ndarray
    masks: dict[str, np.ndarray]
    mesh: np.ndarray
    attributes: Attributes


@dataclass(frozen=True)
class _Scene:
    """A head before a camera that looks at its face: what is rendered, at which size, and its labels."""

    parts: list[Part]
    attributes: Attributes
    side: int
    labels: FrameLabels | None


def frame_face(parts: Sequence[Part], attributes: Attributes, size: int, coverage: float) -> tuple[Camera, int]:
    """Return a camera whose picture is filled by a face's crop, and the side of that picture, pixels.

    The camera looks straight ahead from where the crop's middle is, so it moves sideways a little and zooms in.

    Args:
        parts: the head in its pose.
        attributes: their camera is where the search starts.
        size: side of the crop, pixels.
        coverage: see `fslab.geometry.crop_template`.
    """
    camera, side = attributes.camera, float(size)
    depth = float(np.median(next(p for p in parts if p.name == "eyes").vertices[:, 2]))
    for _ in range(3):
        mesh = mesh_positions(parts, replace(attributes, camera=camera), size)
        matrix = align_matrix(five_points(mesh), size, coverage)
        corners = np.array([[0, 0], [size, 0], [size, size], [0, size]]) - 0.5
        corners = transform_points(corners, invert(matrix)).astype(float)
        low, high = corners.min(0), corners.max(0)
        reach = camera.distance - depth
        unit = 2 * reach * np.tan(np.radians(camera.fov / 2)) / size  # decimetres a pixel at the eyes
        x, y = ((low + high) / 2 - (size - 1) / 2) * unit
        wide = float((high - low).max()) * unit * _MARGIN
        shift = (float(camera.shift[0] + x), float(camera.shift[1] - y))
        camera = replace(camera, shift=shift, fov=float(np.degrees(2 * np.arctan(wide / 2 / reach))))
        side = (high - low).max() * np.hypot(*matrix[0, :2]) * _MARGIN
    return camera, int(np.ceil(side))


def _scene(head: Head, attributes: Attributes, size: int, coverage: float, masks: bool = True) -> _Scene:
    parts = head.parts(attributes)
    camera, side = frame_face(parts, attributes, size, coverage)
    attributes = replace(attributes, camera=camera)
    return _Scene(parts, attributes, side, annotate(parts, attributes, side) if masks else None)


def _face(scene: _Scene, renderer: Renderer, size: int, coverage: float) -> Face:
    """Render a scene and cut the aligned crop out of it."""
    renderer.size = scene.side  # one renderer for all sizes, so that textures are made once a head
    frame = renderer.render(scene.parts, scene.attributes)
    mesh = mesh_positions(scene.parts, scene.attributes, scene.side)
    matrix = align_matrix(five_points(mesh), size, coverage)
    masks = {}
    if scene.labels:
        masks["face"] = warp(scene.labels.face, matrix, size)
        masks["parts"] = cv2.warpAffine(
            scene.labels.parts, matrix, (size, size), flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE
        )
    return Face(warp(frame, matrix, size, smooth=True), masks, transform_points(mesh, matrix), scene.attributes)


def render_face(head: Head, attributes: Attributes, size: int, coverage: float, quality: Quality = "bulk") -> Face:
    """Render one aligned face.

    Args:
        head: the person.
        attributes: what is shown; the camera keeps its distance but aims at the face and zooms to it.
        size: side of the crop, pixels.
        coverage: see `fslab.geometry.crop_template`.
        quality: as in `Renderer`.
    """
    return _face(_scene(head, attributes, size, coverage), Renderer(size, quality), size, coverage)


def render_person(config: FacesConfig, person: int, work: Path) -> int:
    """Render the pictures of a person that a work folder lacks, and return how many the person has.

    ``done/SEED/NN.json`` stands only if the picture and its masks do, and holds the other labels.

    Raises:
        OutputError: if nothing can be written.
    """
    done, faces = work / "done" / str(person), work / "faces" / str(person)
    for folder in (done, faces):
        with explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
    written = ((done / f"{n:02d}.json", faces / f"{n:02d}.jpg") for n in range(config.each))
    missing = [n for n, files in enumerate(written) if not all(path.is_file() for path in files)]
    if not missing:
        return config.each
    head, renderer = head_of(person), Renderer(config.size, config.quality)
    scenes = (_scene(head, config.attributes(person, n), config.size, config.coverage, config.masks) for n in missing)
    with closing(prefetch(scenes, 2)) as labelled:  # labels take a core while light takes all
        for number, scene in zip(missing, labelled):
            face = _face(scene, renderer, config.size, config.coverage)
            name = f"{number:02d}"
            write_bytes(faces / f"{name}.jpg", encode_image(face.crop, ".jpg", _QUALITY))
            for mask, values in face.masks.items():
                write_bytes(faces / f"{name}.{mask}.png", cv2.imencode(".png", values)[1].tobytes())
            write_json(done / f"{name}.json", {"mesh": face.mesh.tolist(), "attributes": face.attributes.to_dict()})
    return config.each


def render_faces(
    config: FacesConfig, out: Path, overwrite: bool = False, on_progress: OnProgress | None = None
) -> Path:
    """Render labelled aligned faces; the same call goes on where one was stopped.

    Args:
        config: see `FacesConfig`.
        out: the folder to make.
        overwrite: replace an earlier one there.
        on_progress: called with (pictures done, pictures) after each person.

    Returns:
        ``out``.

    Raises:
        OutputError: if something stands there, or nothing can be written.
        FslabError: if a rendering process was killed.
    """
    out = prepare_folder(Path(out), overwrite, "index.json")
    work = out.with_name(f"{out.name}.part")
    what = {k: v for k, v in asdict(config).items() if k != "processes"}
    start_work(work, {"fslab": __version__, **what})
    people = range(config.first, config.first + config.people)
    n_done = 0
    for n in _each_person(config, people, work):
        n_done += n
        if on_progress:
            on_progress(n_done, config.people * config.each)
    return _finish(config, people, work, out)


def _each_person(config: FacesConfig, people: range, work: Path) -> Iterator[int]:
    """Render everybody, in processes of their own if there are to be several; yield the pictures of each."""
    count = min(config.processes or max((os.cpu_count() or 1) // 2, 1), len(people))
    if count == 1:
        yield from (render_person(config, person, work) for person in people)
        return
    with ProcessPoolExecutor(count, get_context("spawn")) as pool:
        jobs = [pool.submit(render_person, config, person, work) for person in people]
        try:
            for job in as_completed(jobs):
                yield job.result()
        except BrokenProcessPool as reason:
            fix = "free some memory or pass a smaller --processes, and run it again: it goes on"
            raise FslabError("rendering processes that live", "one that was killed", fix) from reason
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _finish(config: FacesConfig, people: range, work: Path, out: Path) -> Path:
    """Gather the labels of all pictures, hash them, and give the folder its name."""
    rows, digest = [], hashlib.sha256()
    for person in people:
        for number in range(config.each):
            name = f"{person}/{number:02d}"
            digest.update((work / "faces" / f"{name}.jpg").read_bytes())
            done = read_json(work / "done" / f"{name}.json", "a rendered face", OutputError)
            rows.append({"file": f"faces/{name}.jpg", "seed": person, "number": number, **done})
    counts = {"images": len(rows), "people": len(people)}
    with atomic_dir(out) as part:
        with atomic_path(part / "labels.npz") as path, path.open("wb") as file:
            np.savez_compressed(file, **_labels(rows))
        write_json_lines(part / "images.jsonl", [{k: row[k] for k in IMAGE_KEYS} for row in rows])
        write_json_lines(part / "people.jsonl", [draw_identity(person).to_dict() for person in people])
        write_json(
            part / "index.json", {"schema": SCHEMA, **counts, "config": asdict(config), "hash": digest.hexdigest()}
        )
        os.replace(work / "faces", part / "faces")  # last: up to here, a failure loses nothing
    shutil.rmtree(work, ignore_errors=True)
    return out


def _labels(rows: list[dict]) -> dict[str, np.ndarray]:
    """Return the arrays of ``labels.npz``, one row a picture; angles in degrees, points in crop pixels."""
    mesh = np.array([row["mesh"] for row in rows], np.float32)
    shown = [Attributes.from_dict(row["attributes"]) for row in rows]
    lights = [(a.light.azimuth, a.light.elevation, a.light.strength, a.light.contrast, a.light.warmth) for a in shown]
    return {
        "seed": np.array([row["seed"] for row in rows], np.int32),
        "number": np.array([row["number"] for row in rows], np.int32),
        "five": np.stack([five_points(points) for points in mesh]),
        "landmarks": mesh[:, ibug_indices()],
        "mesh": mesh,
        "pose": np.array([(a.yaw, a.pitch, a.roll) for a in shown], np.float32),
        "gaze": np.array([a.gaze for a in shown], np.float32),
        "expression": np.array([[a.expression.get(u, 0.0) for u in UNITS] for a in shown], np.float32),
        "light": np.array(lights, np.float32),
        "units": np.array(UNITS),
    }
