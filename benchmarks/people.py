"""The synthetic people: seconds a frame, how many faces a detector finds, and how far apart a recogniser sees them.

python -m benchmarks.people [docs/people.jpg]

With an argument it also renders the picture of some of them, and of the truth of a swap, in high quality.
"""

import hashlib
import statistics
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.common import save
from fslab.embedder import load_embedder
from fslab.faces import Detector, FaceMesh, chip_matrix
from fslab.geometry import crop_from_frame
from fslab.media import RgbFrame, write_image
from fslab.synth.annotate import annotate
from fslab.synth.head import Head
from fslab.synth.identity import BENCH_SEEDS, draw_identity, gallery
from fslab.synth.motion import draw_attributes
from fslab.synth.render import Renderer
from fslab.synth.scene import Attributes, Camera, Light
from fslab.synth.truth import swap_head
from fslab.viz import image_grid

SIZES = (128, 192, 256)
EACH, SIZE = 10, 256
SHOWN, SHOWN_PAIR, CELL = (11, 13, 8, 15, 5, 7, 16, 6, 14, 12, 10, 1), (11, 5), 224


def seconds_a_frame(n: int = 12) -> dict[str, dict[str, float]]:
    """Median wall seconds to pose, to render and to label a frame of a head already built, by size, and CPU seconds."""
    head = Head(draw_identity(BENCH_SEEDS[7]))
    looks = [draw_attributes(seed) for seed in range(n)]
    found = {}
    for size in SIZES:
        renderer = Renderer(size)
        renderer.render(head.parts(looks[0]), looks[0])
        wall, cpu, labels = [], [], []
        for look in looks:
            w, c = time.perf_counter(), time.process_time()
            parts = head.parts(look)
            renderer.render(parts, look)
            wall.append(time.perf_counter() - w)
            cpu.append(time.process_time() - c)
            w = time.perf_counter()
            annotate(parts, look, size)
            labels.append(time.perf_counter() - w)
        found[str(size)] = {
            "frame_wall_s": statistics.median(wall), "frame_wall_min_s": min(wall),
            "frame_cpu_s": statistics.median(cpu), "labels_wall_s": statistics.median(labels),
        }  # fmt: skip
    return found


def seen_by_others() -> dict[str, float]:
    """Detection rate and identity distances over many people in random poses; and whether two renders are one."""
    renderer, detector, mesh, embedder = Renderer(SIZE), Detector(), FaceMesh(), load_embedder("dlib")
    found, vectors, digests = 0, [], []
    for seed in BENCH_SEEDS:
        head, own = Head(draw_identity(seed)), []
        for i in range(EACH):
            look = draw_attributes(1000 * seed + i)
            image = renderer.render(head.parts(look), look)
            faces = detector.detect(image, min_face=40)
            found += bool(faces)
            if faces:
                frame = RgbFrame(image)
                chip = crop_from_frame(frame, chip_matrix(mesh.fit(frame, faces[0]).landmarks), 150)
                own.append(embedder.embed_chips(chip[None])[0])
            if i == 0:
                again = Renderer(SIZE).render(Head(draw_identity(seed)).parts(look), look)
                digests.append(hashlib.sha256(image).digest() == hashlib.sha256(again).digest())
        vectors.append(np.array(own))
    same = [np.linalg.norm(a - b) for own in vectors for i, a in enumerate(own) for b in own[:i]]
    means = np.array([own.mean(0) for own in vectors if len(own)])
    apart = np.linalg.norm(means[:, None] - means[None], axis=-1)[np.triu_indices(len(means), 1)]
    return {
        "frames": len(BENCH_SEEDS) * EACH, "mtcnn_found": found / (len(BENCH_SEEDS) * EACH),
        "rendered_twice_identical": all(digests),
        "distance_same_person_mean": float(np.mean(same)), "distance_means_of_two_people_mean": float(apart.mean()),
        "distance_means_of_two_people_min": float(apart.min()),
    }  # fmt: skip


def shipped_table() -> dict[str, float]:
    """How far apart the people of the shipped table are, by the frontal pictures they were chosen on."""
    seeds, embeddings = gallery()
    apart = np.linalg.norm(embeddings[:, None].astype(float) - embeddings[None], axis=-1)
    np.fill_diagonal(apart, np.inf)
    bench = np.isin(seeds, list(BENCH_SEEDS))
    return {
        "people": len(seeds), "closest_two": float(apart.min()), "bench_people": int(bench.sum()),
        "closest_two_of_the_bench": float(apart[np.ix_(bench, bench)].min()),
    }  # fmt: skip


def picture() -> np.ndarray:
    """Render twelve of the people and, below them, two moments of a target, the truth and the source."""
    renderer, camera = Renderer(CELL, "high"), Camera(fov=11.3, shift=(0.0, 0.2))
    smile = {"mouthSmileLeft": 0.3, "mouthSmileRight": 0.3, "browInnerUp": 0.15}
    people = []
    for i, seed in enumerate(SHOWN):
        turned = Attributes(
            yaw=(-14, 10, 16, -9)[i % 4], expression=smile, camera=camera, light=Light(30 if i % 2 else -30)
        )
        people.append(renderer.render(Head(draw_identity(seed)).parts(turned), turned).copy())
    source, target = (Head(draw_identity(seed)) for seed in SHOWN_PAIR)
    moments = []
    for look in (
        Attributes(yaw=-18, pitch=4, expression={**smile, "jawOpen": 0.1}, camera=camera),
        Attributes(yaw=22, roll=5, expression={"jawOpen": 0.35, "mouthFunnel": 0.3}, camera=camera),
    ):
        heads = (target, swap_head(source, target), source)
        moments += [renderer.render(head.parts(look), look).copy() for head in heads]
    return image_grid([people[:6], people[6:], moments])


if __name__ == "__main__":
    if len(sys.argv) > 1:
        write_image(Path(sys.argv[1]), picture())
    save("people", {"table": shipped_table(), "speed": seconds_a_frame(), "seen": seen_by_others()})
