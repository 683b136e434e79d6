"""Chooses people who are told apart: draws again whoever comes too near to an earlier one, and writes the table.

Run once, by the people who maintain the package, after anything that changes how people are drawn or rendered::

    python -m fslab.synth.choose

Each candidate is rendered from the front and described by dlib's network (`fslab.embedder`). The seeds of
`fslab.synth.identity.BENCH_SEEDS` come first and must be `DISTANCE` apart from all before them; those of the gallery
`GALLERY_DISTANCE`, where `GALLERY_ATTEMPTS` draws suffice; otherwise the farthest of them stands. dlib's network puts
people of one group near one another, rendered ones as real ones, so that 0.6 cannot be had for many.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fslab.errors import FslabError
from fslab.faces import Embedder, Face, FaceMesh
from fslab.media.frames import RgbFrame
from fslab.storage import atomic_path
from fslab.synth.assets import DATA_FOLDER
from fslab.synth.head import Head
from fslab.synth.identity import BENCH_SEEDS, GALLERY_SEEDS, Identity, draw
from fslab.synth.render import Renderer
from fslab.synth.scene import Attributes, Camera

DISTANCE = 0.6  # dlib's own threshold between one person and two
BENCH_ATTEMPTS, GALLERY_ATTEMPTS, GALLERY_DISTANCE = 100, 2, 0.45
SIZE, CAMERA = 112, Camera(fov=7.0, shift=(0.0, 0.2))
LOOK = np.array([[36, 34], [76, 34], [56, 58], [42, 78], [70, 78]], np.float32)  # pixels, about, in that view
BOX = np.array([12.0, 2.0, 100.0, 110.0], np.float32)


@dataclass(frozen=True)
class Chosen:
    """The table: ``seeds (N,)``, the accepted ``attempts (N,)``, and ``embeddings (N, 128)`` float16."""

    seeds: np.ndarray
    attempts: np.ndarray
    embeddings: np.ndarray

    def save(self, path: Path) -> None:
        """Write the table."""
        with atomic_path(path) as part, part.open("wb") as file:
            np.savez_compressed(file, seeds=self.seeds, attempts=self.attempts, embeddings=self.embeddings)


class Describer:
    """Renders a person from the front and describes the picture."""

    def __init__(self):
        self._renderer, self._mesh, self._embedder = Renderer(SIZE), FaceMesh(), Embedder()

    def picture(self, identity: Identity) -> np.ndarray:
        """Return the ``(SIZE, SIZE, 3)`` uint8 picture."""
        attributes = Attributes(camera=CAMERA)
        return self._renderer.render(Head(identity).parts(attributes), attributes)

    def describe(self, picture: np.ndarray) -> np.ndarray:
        """Return the ``(128,)`` float32 embedding."""
        frame = RgbFrame(picture)
        face = self._mesh.fit(frame, Face(BOX, LOOK, 1.0))
        return self._embedder.embed(frame, [face])[0]


def nearest(embedding: np.ndarray, others: list[np.ndarray]) -> float:
    """Return the distance to the nearest of ``others``; infinite without any."""
    return min((float(np.linalg.norm(embedding - other)) for other in others), default=np.inf)


def choose(
    describe: Callable[[Identity], np.ndarray], seeds: Iterable[int], on_chosen: Callable[[int, int, float], None]
) -> Chosen:
    """Draw people until each is far from all before.

    Args:
        describe: an identity to its embedding.
        seeds: in the order in which they choose.
        on_chosen: is told the seed, the attempt and its distance to the nearest earlier one.

    Raises:
        FslabError: if a benchmark person cannot be drawn far enough from the others.
    """
    chosen: list[tuple[int, int]] = []
    embeddings: list[np.ndarray] = []
    for seed in seeds:
        best = (-1.0, 0, np.empty(0))
        attempts, wanted = (BENCH_ATTEMPTS, DISTANCE) if seed in BENCH_SEEDS else (GALLERY_ATTEMPTS, GALLERY_DISTANCE)
        for attempt in range(attempts):
            embedding = np.float16(describe(draw(seed, attempt))).astype(np.float32)
            distance = nearest(embedding, embeddings)
            if distance > best[0]:
                best = (distance, attempt, embedding)
            if distance >= wanted:
                break
        if seed in BENCH_SEEDS and best[0] < DISTANCE:
            raise FslabError(f"seed {seed} {DISTANCE} from all others", f"{best[0]:.3f}", "vary the draws more")
        chosen.append((seed, best[1]))
        embeddings.append(best[2])
        on_chosen(seed, best[1], best[0])
    table = np.array(chosen, np.int32)
    return Chosen(table[:, 0], table[:, 1], np.array(embeddings, np.float16))


def main() -> None:
    """Write ``people.npz`` into the package."""
    logging.basicConfig(level=logging.INFO)
    describer, log = Describer(), logging.getLogger(__name__)
    chosen = choose(
        lambda identity: describer.describe(describer.picture(identity)),
        [*BENCH_SEEDS, *GALLERY_SEEDS],
        lambda seed, attempt, distance: log.info("seed %d: attempt %d, distance %.3f", seed, attempt, distance),
    )
    chosen.save(DATA_FOLDER / "people.npz")


if __name__ == "__main__":
    main()
