"""The part of a head that a face swap replaces, as a smooth weight per vertex of the base mesh."""

from functools import cache

import numpy as np

from fslab.synth.assets import load_assets

CENTRE_DROP = 0.25  # dm from between the eyes down to the centre of the region
HALF_WIDTH, HALF_ABOVE, HALF_BELOW = 2.45, 2.3, 2.9  # in units of half the eye distance
ROUND = 3  # exponent of its outline; 2 is an ellipse, which would cut the outer corners of the eyes
EDGE = 0.3  # share of the radius over which the region fades
DEPTH, DEPTH_EDGE = 1.6, 1.0  # in the same units: it ends this far behind the eyes, fading over so much


def _smooth(x: np.ndarray) -> np.ndarray:
    t = np.clip(x, 0, 1)
    return t * t * (3 - 2 * t)


@cache
def face_region() -> np.ndarray:
    """Return ``(V,)`` float64 in [0, 1]: 1 in the face, 0 on ears, scalp and neck; eyes, teeth and tongue are 1.

    A rounded shape about the face of the base mesh, the same vertices for every head.
    """
    assets = load_assets()
    eyes = [assets.vertices[assets.helpers[name]].mean(0) for name in ("helper-l-eye", "helper-r-eye")]
    unit = abs(float(eyes[0][0] - eyes[1][0])) / 2
    offset = (assets.vertices - np.mean(eyes, axis=0) + [0, CENTRE_DROP, 0]) / unit
    height = np.where(offset[:, 1] > 0, offset[:, 1] / HALF_ABOVE, offset[:, 1] / HALF_BELOW)
    radius = (np.abs(offset[:, 0] / HALF_WIDTH) ** ROUND + np.abs(height) ** ROUND) ** (1 / ROUND)
    region = _smooth((1 - radius) / EDGE) * _smooth((offset[:, 2] + DEPTH) / DEPTH_EDGE)
    region[np.concatenate(list(assets.helpers.values()))] = 1.0
    region.setflags(write=False)
    return region


@cache
def beard_region() -> np.ndarray:
    """Return ``(V,)`` float64 in [0, 1]: where a beard grows, upper lip, cheeks' lower part, chin and under the jaw."""
    assets = load_assets()
    eyes = np.mean([assets.vertices[assets.helpers[name]].mean(0) for name in ("helper-l-eye", "helper-r-eye")], axis=0)
    x, y, z = (assets.vertices - eyes).T
    side = np.abs(x)
    top = -0.45 + 0.5 * np.clip(side - 0.3, 0, 1)  # rises from under the nose to the sideburns
    return _smooth((top - y) / 0.08) * _smooth((y + 1.55) / 0.2) * _smooth((z + 0.75) / 0.4)


def baked(weights: np.ndarray, size: int) -> np.ndarray:
    """Return weights in [0, 1] of the base mesh's vertices painted into the skin's texture, ``(size, size)``."""
    assets = load_assets()
    out = np.zeros((size, size), np.float32)
    corners = assets.uv[assets.uv_triangles] * [size, -size] + [-0.5, size - 0.5]
    values_of = weights[assets.triangles]
    some = values_of.any(1)
    for points, values in zip(corners[some], values_of[some]):
        low = np.maximum(np.floor(points.min(0)).astype(int) - 1, 0)
        high = np.minimum(np.ceil(points.max(0)).astype(int) + 2, size)
        edges = np.vstack([points[1] - points[0], points[2] - points[0]]).T
        if abs(np.linalg.det(edges)) < 1e-9:
            continue
        x, y = np.meshgrid(np.arange(low[0], high[0]), np.arange(low[1], high[1]))
        u, v = np.linalg.inv(edges) @ (np.stack([x.ravel(), y.ravel()]) - points[0][:, None])
        inside = (u > -0.15) & (v > -0.15) & (u + v < 1.15)  # a little over the edge, so that no texel is missed
        value = np.clip(values[0] + u * (values[1] - values[0]) + v * (values[2] - values[0]), 0, 1)
        out[y.ravel()[inside], x.ravel()[inside]] = value[inside]
    return out
