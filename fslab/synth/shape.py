"""The base mesh of a person: targets added up, and noses kept whole."""

from collections.abc import Mapping
from functools import cache

import numpy as np

from fslab.synth.assets import Assets, load_assets

EYE_HELPERS = ("helper-l-eye", "helper-r-eye")
NOSE_BOX = (-0.34, -0.62, 0.0), (0.34, -0.15, 0.7)  # dm from between the eyes of the base mesh
AROUND_BOX = (-0.75, -1.0, -0.6), (0.75, 0.2, 0.9)
FACING = -0.05  # a triangle whose normal has a smaller z shows its inside
SOFTER = 0.7  # by which a folded nose's weights are multiplied, again and again


def shape_of(weights: Mapping[str, float], assets: Assets) -> np.ndarray:
    """Return the base mesh ``(V, 3)`` float64 with targets added, dm, with the origin between the eyes.

    Raises:
        ValueError: if a target is not packaged.
    """
    vertices = assets.vertices.astype(np.float64)
    for name, weight in weights.items():
        if (target := assets.targets.get(name)) is None:
            raise ValueError(f"an identity has a shape that is not packaged: {name}")
        vertices[target.indices] += weight * target.offsets
    return vertices - np.mean([vertices[assets.helpers[name]].mean(0) for name in EYE_HELPERS], axis=0)


def normals(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Return the unit normals ``(T, 3)`` of triangles."""
    a, b, c = (vertices[triangles[:, k]] for k in range(3))
    n = np.cross(b - a, c - a)
    return n / np.maximum(np.linalg.norm(n, axis=1, keepdims=True), 1e-12)


def covered(points: np.ndarray, vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Tell which points ``(N, 3)`` lie behind a triangle as seen from the front (from +z), ``(N,)`` bool."""
    low, high = points.min(0), points.max(0)
    corners = vertices[triangles][..., :2]
    near = (corners.max(1) >= low[:2]).all(1) & (corners.min(1) <= high[:2]).all(1)
    a, b, c = (vertices[triangles[near, k]] for k in range(3))
    ab, ac = b - a, c - a
    area = ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0]
    good = np.abs(area) > 1e-12
    a, ab, ac, area = a[good], ab[good], ac[good], area[good]
    offset = points[:, None, :2] - a[None, :, :2]
    u = (offset[..., 0] * ac[:, 1] - offset[..., 1] * ac[:, 0]) / area
    v = (ab[:, 0] * offset[..., 1] - ab[:, 1] * offset[..., 0]) / area
    inside = (u >= 0) & (v >= 0) & (u + v <= 1)
    depth = a[:, 2] + u * ab[:, 2] + v * ac[:, 2]
    return (inside & (depth > points[:, 2:])).any(1)


@cache
def _nose(assets: Assets) -> tuple[np.ndarray, np.ndarray]:
    """Return the triangles ``(T, 3)`` about the nose, and which of them are its wings and tip, ``(T,)`` bool."""
    eyes = np.mean([assets.vertices[assets.helpers[name]].mean(0) for name in EYE_HELPERS], axis=0)
    offset = assets.vertices[assets.triangles].mean(1) - eyes
    around, nose = (((offset > low) & (offset < high)).all(1) for low, high in (AROUND_BOX, NOSE_BOX))
    return assets.triangles[around], nose[around]


def n_folds(vertices: np.ndarray, assets: Assets) -> int:
    """Return how many triangles of the nose show their inside, seen from the front."""
    triangles, nose = _nose(assets)
    inside_out = triangles[nose & (normals(vertices, triangles)[:, 2] < FACING)]
    middles = vertices[inside_out].mean(1) + np.array([0, 0, 0.002])
    return int((~covered(middles, vertices, triangles)).sum())


def without_folds(macro: Mapping[str, float], local: Mapping[str, float]) -> dict[str, float]:
    """Return local weights, those of the nose made smaller until its wings don't sink into the cheeks."""
    assets = load_assets()
    local = dict(local)
    for attempt in range(12):
        if n_folds(shape_of({**macro, **local}, assets), assets) == 0:
            break
        softened = ("nose/",) if attempt < 4 else ("",)  # a cheek or a lip can do it too
        local = {name: weight * (SOFTER if name.startswith(softened) else 1) for name, weight in local.items()}
    return {name: round(weight, 3) for name, weight in local.items()}
