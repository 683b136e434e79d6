"""What the swap step does on disk: pictures and live frames at once, clips as jobs, variants side by side."""

import secrets
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from fslab.blend import ColourShift
from fslab.devices import choose_device
from fslab.embedder import Embedder
from fslab.errors import NoFaceFound
from fslab.faces import Face, find_faces
from fslab.media import RgbFrame, is_image, read_image, read_samples
from fslab.provenance import save_marked_image
from fslab.run import Run
from fslab.storage import write_json
from fslab.swap import (
    AlignedFace,
    SwapConfig,
    SwappedFace,
    Swapper,
    choose_replaced,
    is_person,
    require_swap_consents,
    swap_image,
    swap_manifest,
)
from fslab.viz import image_grid
from fslab.webapp.folders import Visitor
from fslab.webapp.gpu import on_gpu
from fslab.webapp.store import ABOUT

N_RUNS = 2  # kept in memory
VARIANTS: dict[str, dict] = {
    "as set": {},
    "colour 0": {"colour": 0.0},
    "over the hair": {"keep_in_front": False},
    "mask outline": {"mask": "outline"},
    "mask decoder": {"mask": "decoder"},
    "feather 0.25": {"feather": 0.25},
    "forehead 1": {"forehead": 1.0},
    "sharpen 0": {"sharpen": 0.0},
}


@lru_cache(maxsize=N_RUNS)
def _run(folder: Path, stamp: float) -> Run:
    return Run.load(folder)


def load_run(folder: Path) -> Run:
    """Return a run, from memory if it is there and has not changed since."""
    return _run(folder, (folder / "config.json").stat().st_mtime)


def _draw(folder: Path, identity: str, config: SwapConfig, faces: Sequence[AlignedFace]) -> list[SwappedFace]:
    """Draw a batch of crops; the run is taken from this process's memory, so that no model travels to a GPU's."""
    run = load_run(folder)
    run.model.to(choose_device("auto"))  # asked here, not earlier: a lent GPU is there only during this call
    return Swapper(run, identity, config).convert(faces)


def _seconds(folder: Path, identity: str, config: SwapConfig, faces: Sequence[AlignedFace]) -> int:
    return 5 + len(faces) // 10


draw = on_gpu(_draw, _seconds)


class AppSwapper(Swapper):
    """A `Swapper` whose network runs wherever the app's runs."""

    def convert(self, faces: Sequence[AlignedFace]) -> list[SwappedFace]:
        """Draw the identity's face for a batch of aligned faces."""
        return draw(self.run.folder, self.identity, self.config, faces) if faces else []


def new_result(visitor: Visitor, target: Path, identity: str, replaced: str, name: str) -> Path:
    """Make a result's folder, which says what it is made of; returns the path of the output to come."""
    folder = visitor.results / secrets.token_hex(8)
    folder.mkdir()
    about = {"target": str(target), "output": str(folder / name), "identity": identity, "replaced": replaced}
    write_json(folder / ABOUT, about)
    return folder / name


def swap_picture(swapper: Swapper, source: Path, output: Path, replaced: str | None) -> Path:
    """Swap a picture at once; returns ``output``, marked."""
    swap_image(swapper, source, output, replaced)
    return output


def first_frame(target: Path) -> np.ndarray:
    """Return a picture, or a frame of a clip, ``(H, W, 3)`` uint8 RGB: what variants are compared on."""
    return read_image(target) if is_image(target) else next(iter(read_samples(target, 2))).rgb()


def person_faces(swapper: Swapper, frame: RgbFrame, person: str) -> list[Face]:
    """Return the faces of ``person`` in a picture; anybody else's, who agreed to nothing, are left alone."""
    faces = find_faces(frame)
    vectors = Embedder().embed(frame, faces) if faces else []
    run, limit = swapper.run, swapper.config.same_person
    return [f for f, v in zip(faces, vectors, strict=True) if is_person(v, run, person, limit)]


def make_variants(run: Run, identity: str, replaced: str | None, target: Path, config: SwapConfig) -> np.ndarray:
    """Swap one frame in several ways; returns them side by side, cut to the face, unmarked.

    Raises:
        ConsentError: without everybody's consent to swapping.
        NoFaceFound: if the frame does not show the person to replace.
    """
    require_swap_consents(run)
    person, picture = choose_replaced(run, identity, replaced), first_frame(target)
    mine = person_faces(Swapper(run, identity, config), RgbFrame(picture), person)
    if not mine:
        raise NoFaceFound("a face in the picture", "none", "use a larger or clearer picture")
    x0, y0, x1, y1 = (int(v) for v in mine[0].box)
    pad = (x1 - x0) // 3
    view = (slice(max(y0 - pad, 0), y1 + pad), slice(max(x0 - pad, 0), x1 + pad))
    pictures = []
    for changes in VARIANTS.values():
        swapper, copy = AppSwapper(run, identity, replace(config, **changes)), RgbFrame(picture.copy())
        swapper.blend(copy, swapper.convert([swapper.align(copy, mine[0])])[0])
        pictures.append(copy.rgb()[view])
    names = list(VARIANTS)
    halves = [image_grid([pictures[i : i + 4]], (), names[i : i + 4], 200, foot=f) for i, f in ((0, None), (4, ""))]
    width = max(half.shape[1] for half in halves)
    return np.vstack([np.pad(h, ((0, 0), (0, width - h.shape[1]), (0, 0)), mode="edge") for h in halves])


class LiveSwap:
    """Swaps a stream of pictures: each is marked and written; colours are smoothed over time."""

    def __init__(self, swapper: Swapper, replaced: str, folder: Path, key: object):
        """Check everybody's consent; raises ConsentError without it. ``key`` tells what was chosen on the page."""
        require_swap_consents(swapper.run)
        self.swapper, self.replaced, self.folder, self.key = swapper, replaced, folder, key
        self._colour: ColourShift | None = None
        self._n = 0

    def swap(self, picture: Path) -> Path:
        """Return the path of the marked picture; one without the person to replace comes back marked and unchanged."""
        frame = RgbFrame(read_image(picture))
        for face in person_faces(self.swapper, frame, self.replaced)[:1]:
            drawn = self.swapper.convert([self.swapper.align(frame, face)])
            self._colour = self.swapper.blend(frame, drawn[0], self._colour)
        self._n = (self._n + 1) % 8  # the page shows one while the next is written
        output = self.folder / f"live{self._n}.jpg"
        save_marked_image(output, frame.rgb(), swap_manifest(self.swapper, self.replaced, picture))
        return output
