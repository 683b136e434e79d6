"""Takes: one head under a track of attributes, frame by frame onto disk without loss, resumed where it was stopped.

A work folder holds ``take.json`` (what is rendered: another content starts over) and for each finished frame a PNG and
its exact labels.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from fslab import __version__
from fslab.errors import MediaError, OutputError
from fslab.labels import UNKNOWN, ClipLabels
from fslab.media import decode_image, encode_image
from fslab.pipeline import prefetch
from fslab.storage import atomic_path, explained, read_json, write_bytes, write_json
from fslab.synth.annotate import annotate, flow_between, project
from fslab.synth.assets import UNITS
from fslab.synth.degrade import DEGRADATIONS, Degradation, degrade
from fslab.synth.head import Head
from fslab.synth.identity import draw_identity
from fslab.synth.occluders import OCCLUDERS, Occluder, Worn
from fslab.synth.points import ibug_indices, mesh_landmarks
from fslab.synth.render import Quality, Renderer
from fslab.synth.scene import Attributes, Part
from fslab.synth.truth import swap_head

OnFrame = Callable[[], None]
_AGAIN = "delete the '.part' folder and render again"
MAX_SIZE = 2048  # the textures hold no more, and the renderer's memory grows with the square


@dataclass(frozen=True)
class Take:
    """What is rendered, all of it; equal takes give equal frames.

    Attributes:
        head: seed of the person who is seen.
        track: the attributes of each frame.
        size: side of the frames, pixels; even, 64 or more.
        face: seed of the person whose face is in that head: the truth of a swap; None for the head's own.
        fits: seed of a person whose face must fit behind the occluder too; None for nobody.
        occluder: what is in front of the face.
        degrade: what the camera does to the frames.
        clean: without the camera's noise, as a truth must be: noise is nothing that a swap could get right.
        seed: of a hand's way and of the camera's noise.
        quality: as in `Renderer`.
        still: the frames are pictures on their own, and nothing flows from one to the next.
    """

    head: int
    track: tuple[Attributes, ...]
    size: int
    face: int | None = None
    fits: int | None = None
    occluder: Occluder = "none"
    degrade: Degradation = "none"
    clean: bool = False
    seed: int = 0
    quality: Quality = "bulk"
    still: bool = False

    def __post_init__(self):
        check_size(self.size)
        check_choices(self.occluder, self.degrade)
        if not self.track:
            raise ValueError("a take needs at least one frame")

    def to_dict(self) -> dict:
        """Return the take as JSON types, with the version that renders it and who its people are."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "track"}
        people = [draw_identity(s).to_dict() for s in (self.head, self.face, self.fits) if s is not None]
        track = [attributes.to_dict() for attributes in self.track]
        return {"fslab": __version__, **fields, "people": people, "track": track}


def check_size(size: int) -> None:
    """Raise ValueError unless frames of a size can be rendered and compressed."""
    if not 64 <= size <= MAX_SIZE or size % 2:
        raise ValueError(f"size must be even and 64 pixels or more, at most {MAX_SIZE}, got {size}")


def check_choices(occluder: Occluder, degrade: Degradation) -> None:
    """Raise ValueError unless both are among what there is."""
    for name, value, known in (("occluder", occluder, OCCLUDERS), ("degrade", degrade, DEGRADATIONS)):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")


@lru_cache(maxsize=4)
def head_of(person: int, face: int | None = None) -> Head:
    """Return a person's head, or the head with another's face in it; the last few are kept."""
    return Head(draw_identity(person)) if face is None else swap_head(head_of(face), head_of(person))


def start_work(folder: Path, what: dict) -> None:
    """Make a work folder, or go on with the one that stands if it is of the same work.

    Raises:
        OutputError: if other files stand there, or it cannot be written.
    """
    marker = folder / "take.json"
    what = json.loads(json.dumps(what))
    if marker.is_file():
        try:
            same = read_json(marker, "a work folder", OutputError) == what
        except OutputError:  # stopped while it was being written
            same = False
        if same:
            return
        with explained(folder):
            shutil.rmtree(folder)
    elif folder.exists() and any(folder.iterdir()):
        raise OutputError(f"a folder of an unfinished render at '{folder}'", "other files", "move them away")
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_json(marker, what)


def render_take(take: Take, folder: Path, on_frame: OnFrame | None = None) -> None:
    """Render the frames that a work folder lacks.

    Args:
        take: what to render.
        folder: the work folder; made if there is none, emptied if it is of another take.
        on_frame: called for every frame, those that were there included.

    Raises:
        ValueError: if the person is not known or an attribute is impossible.
        OutputError: if the folder cannot be written.
    """
    own, head = head_of(take.head), head_of(take.head, take.face)
    others = [head_of(take.head, take.fits)] if take.fits is not None else []
    seed = take.head if take.occluder == "glasses" else take.seed  # a person has one pair of glasses
    worn = Worn(take.occluder, [own, *others], len(take.track), seed)
    start_work(folder, take.to_dict())
    missing = [i for i in range(len(take.track)) if not (folder / f"{i:06d}.png").is_file()]
    for _ in range(len(take.track) - len(missing)):
        if on_frame:
            on_frame()
    renderer = Renderer(take.size, take.quality)
    # A core for the labels while light takes them all.
    with closing(prefetch(_labelled(take, head, worn, missing), 2)) as labelled:
        for i, parts, labels in labelled:
            path = folder / f"{i:06d}.png"
            with atomic_path(path.with_suffix(".npz")) as part, part.open("wb") as file:
                np.savez_compressed(file, **labels)
            frame = degrade(renderer.render(parts, take.track[i]), take.degrade, take.seed, i, not take.clean)
            write_bytes(path, encode_image(frame, ".png"))  # last: where it stands, the labels stand
            if on_frame:
                on_frame()


def _labelled(
    take: Take, head: Head, worn: Worn, frames: Sequence[int]
) -> Iterator[tuple[int, list[Part], dict[str, np.ndarray]]]:
    """Yield the number, the parts and the labels of frames; ``flow`` is that from the frame before."""

    def scene(i: int) -> tuple[list[Part], Attributes]:
        return [*head.parts(take.track[i]), *worn.parts(i, take.track[i])], take.track[i]

    done, before = -1, None
    for i in frames:
        if i and not take.still and done != i - 1:
            before = annotate(*scene(i - 1), take.size)
        parts, attributes = scene(i)
        labels = annotate(parts, attributes, take.size)
        flow = {} if before is None or take.still else {"flow": flow_between(before, labels)}
        mesh = mesh_positions(parts, attributes, take.size)
        yield i, parts, {"parts": labels.parts, "face": labels.face, "mesh": mesh, **flow}
        done, before = i, labels


def mesh_positions(parts: Sequence[Part], attributes: Attributes, size: int) -> np.ndarray:
    """Return where the 468 points of the face mesh appear, ``(468, 2)`` float32 pixels."""
    skin = next(p for p in parts if p.name == "skin")
    return project(mesh_landmarks(skin.vertices), attributes.camera, size).astype(np.float32)


def load_frames(folder: Path, take: Take) -> Iterator[np.ndarray]:
    """Yield the finished frames of a work folder, ``(size, size, 3)`` uint8.

    Raises:
        MediaError: if one is missing or damaged.
    """
    for i in range(len(take.track)):
        path = folder / f"{i:06d}.png"
        try:
            yield decode_image(path.read_bytes())
        except (OSError, ValueError) as reason:
            raise MediaError(f"a rendered frame '{path}'", "none that can be read", _AGAIN) from reason


def load_labels(folder: Path, take: Take) -> ClipLabels:
    """Return the exact labels of a work folder's frames; of stills, nothing is known to flow.

    Raises:
        MediaError: if some are missing or damaged.
    """
    n, size = len(take.track), take.size
    parts, face = np.empty((n, size, size), np.uint8), np.empty((n, size, size), np.uint8)
    flow, mesh = np.full((max(n - 1, 0), size, size, 2), UNKNOWN), np.empty((n, 468, 2), np.float32)
    for i in range(n):
        path = folder / f"{i:06d}.npz"
        try:
            with np.load(path, allow_pickle=False) as data:
                parts[i], face[i], mesh[i] = data["parts"], data["face"], data["mesh"]
                if i and not take.still:
                    flow[i - 1] = data["flow"]
        except (OSError, ValueError, KeyError, BadZipFile) as reason:
            raise MediaError(f"the labels of a frame '{path}'", "none that can be read", _AGAIN) from reason
    return ClipLabels(
        parts=parts,
        face=face,
        flow=flow,
        landmarks=mesh[:, ibug_indices()],
        mesh=mesh,
        pose=np.array([(a.yaw, a.pitch, a.roll) for a in take.track], np.float32),
        gaze=np.array([a.gaze for a in take.track], np.float32),
        expression=np.array([[a.expression.get(u, 0.0) for u in UNITS] for a in take.track], np.float32),
        units=np.array(UNITS),
    )
