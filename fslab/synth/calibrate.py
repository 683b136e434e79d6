"""Finds where the face mesh's points lie on the heads, and writes the table that `fslab.synth.points` reads.

Run once, by the people who maintain the package, after the base mesh has changed::

    python -m fslab.synth.calibrate

Heads without hair are rendered at several poses, at rest and with an expression; `fslab.faces.FaceMesh` finds its
points; each is cast along its line of sight onto the head, and the place it hits is noted on the base mesh. The
component-wise median over all pictures, put back onto the base mesh, is the point.
"""

import logging
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from fslab.faces import Detector, FaceMesh
from fslab.media import RgbFrame
from fslab.storage import atomic_path
from fslab.synth.annotate import to_screen
from fslab.synth.assets import DATA_FOLDER, Assets, load_assets
from fslab.synth.head import Head
from fslab.synth.identity import TRAIN_SEEDS, draw_identity
from fslab.synth.render import Renderer
from fslab.synth.scene import Attributes

SIZE = 256
SEEDS, HELD_OUT = TRAIN_SEEDS[:12], TRAIN_SEEDS[12:18]
FACE_ISLAND = 0.63  # u of the skin's texture from which on it shows the outside of the head, not eye sockets or mouth
EXPRESSIONS = (
    {},
    {"jawOpen": 0.5, "browInnerUp": 0.6},
    {"mouthSmileLeft": 0.8, "mouthSmileRight": 0.8, "eyeSquintLeft": 0.6, "eyeSquintRight": 0.6},
    {"mouthPucker": 0.7, "browDownLeft": 0.6, "browDownRight": 0.6},
)
FINE = 12  # steps along a triangle's side in which a point's place is given
YAWS = (0.0, 20.0, -20.0)


def outside_triangles(assets: Assets) -> np.ndarray:
    """Return the indices of the skin's triangles that show the outside of the head."""
    return np.flatnonzero(
        (assets.uv[assets.uv_triangles, 0] > FACE_ISLAND).all(1) & (assets.uv[assets.uv_triangles, 1] > 0.15).all(1)
    )


def cast(points: np.ndarray, pixels: np.ndarray, triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find what picture points hit.

    Args:
        points: ``(N, 2)`` pixels.
        pixels: ``(V, 3)`` vertices as from `to_screen`.
        triangles: ``(T, 3)`` that can be hit from their front.

    Returns:
        ``(N,)`` index of the nearest triangle hit, or else of the one whose middle is nearest in the picture; and
        ``(N, 3)`` weights in it.
    """
    a, b, c = (pixels[triangles[:, k]] for k in range(3))
    ab, ac = (b - a)[:, :2], (c - a)[:, :2]
    area = ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0]
    front = area < -1e-6  # y points down in pictures: the outside runs clockwise there
    area = np.where(front, area, np.inf)
    offset = points[:, None] - a[None, :, :2]
    u = (offset[..., 0] * ac[:, 1] - offset[..., 1] * ac[:, 0]) / area
    v = (ab[:, 0] * offset[..., 1] - ab[:, 1] * offset[..., 0]) / area
    inside = front & (u >= 0) & (v >= 0) & (u + v <= 1)
    depth = np.where(inside, a[:, 2] + u * (b - a)[:, 2] + v * (c - a)[:, 2], np.inf)
    middle = (a + b + c)[:, :2] / 3
    gap = np.where(front, ((points[:, None] - middle) ** 2).sum(2), np.inf)
    best = np.where(inside.any(1), depth.argmin(1), gap.argmin(1))
    rows = np.arange(len(points))
    u, v = u[rows, best], v[rows, best]
    weights = np.clip(np.stack([1 - u - v, u, v], 1), 0, 1)
    return best, weights / weights.sum(1, keepdims=True)


def pictures(seeds: range, renderer: Renderer) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the skin's pixels ``(V, 3)`` and the network's points ``(468, 2)`` where it finds a face."""
    detector, network = Detector(), FaceMesh()
    for number, seed in enumerate(seeds):
        head = Head(replace(draw_identity(seed), hair="", beard=0.0))
        for k, yaw in enumerate(YAWS):
            attributes = Attributes(yaw=yaw, expression=EXPRESSIONS[(number + k) % len(EXPRESSIONS)])
            parts = head.parts(attributes)
            picture = renderer.render(parts, attributes)
            faces = detector.detect(picture, min_face=60)
            if faces:
                mesh = network.fit(RgbFrame(picture), faces[0]).mesh
                yield to_screen(parts[0].vertices.astype(np.float64), attributes.camera, SIZE), mesh[:, :2]


def calibrate(seeds: range) -> tuple[np.ndarray, np.ndarray]:
    """Return the table: triangles ``(468,)`` and weights ``(468, 3)``."""
    assets = load_assets()
    outside = outside_triangles(assets)
    triangles, rest = assets.triangles[outside], assets.vertices.astype(np.float64)
    places = []
    for pixels, points in pictures(seeds, Renderer(SIZE)):
        hit, weights = cast(points.astype(np.float64), pixels, triangles)
        places.append((rest[triangles[hit]] * weights[..., None]).sum(1))
    median = np.median(places, axis=0)
    hit, weights = nearest_on(median, rest, triangles)
    return outside[hit], weights


def nearest_on(points: np.ndarray, vertices: np.ndarray, triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest triangle ``(N,)`` to each point in space, and the place in it as weights ``(N, 3)``."""
    a, b, c = (vertices[triangles[:, k]] for k in range(3))
    steps = np.array([(FINE - i - j, i, j) for i in range(FINE + 1) for j in range(FINE + 1 - i)]) / FINE
    found, weights = [], []
    for point in points:
        near = np.argsort((((a + b + c) / 3 - point) ** 2).sum(1))[:24]
        places = np.einsum("sk,ktc->tsc", steps, np.stack([a[near], b[near], c[near]]))
        gap = ((places - point) ** 2).sum(2)
        triangle, step = np.unravel_index(gap.argmin(), gap.shape)
        found.append(near[triangle])
        weights.append(steps[step])
    return np.array(found), np.array(weights)


def disagreement(seeds: range, triangles: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return ``(pictures, 468)``: distance between table and network, in shares of that of the eyes' corners."""
    assets = load_assets()
    errors = []
    for pixels, points in pictures(seeds, Renderer(SIZE)):
        ours = (pixels[assets.triangles[triangles], :2] * weights[..., None]).sum(1)
        eyes = np.linalg.norm(points[33] - points[263])
        errors.append(np.linalg.norm(ours - points, axis=1) / eyes)
    return np.array(errors)


def main() -> None:
    """Write ``points.npz`` into the package and log how well it fits heads that it was not made from."""
    logging.basicConfig(level=logging.INFO)
    triangles, weights = calibrate(SEEDS)
    with atomic_path(DATA_FOLDER / "points.npz") as part, part.open("wb") as file:
        np.savez_compressed(file, triangles=triangles.astype(np.uint16), weights=weights.astype(np.float32))
    errors = disagreement(HELD_OUT, triangles, weights)
    log = logging.getLogger(__name__)
    log.info("held out: mean %.4f, median %.4f of the eye distance", errors.mean(), np.median(errors))


if __name__ == "__main__":
    main()
