"""The part of a head that a face swap replaces, as a smooth weight per vertex of the base mesh."""

from functools import cache

import numpy as np

from fslab.synth.assets import load_assets

CENTRE_DROP = 0.35  # dm from between the eyes down to the centre of the region
HALF_WIDTH, HALF_ABOVE, HALF_BELOW = 2.05, 2.15, 2.6  # in units of half the eye distance
EDGE = 0.3  # share of the radius over which the region fades
DEPTH, DEPTH_EDGE = 1.6, 1.0  # in the same units: it ends this far behind the eyes, fading over so much


def _smooth(x: np.ndarray) -> np.ndarray:
    t = np.clip(x, 0, 1)
    return t * t * (3 - 2 * t)


@cache
def face_region() -> np.ndarray:
    """Return ``(V,)`` float64 in [0, 1]: 1 in the face, 0 on ears, scalp and neck; eyes, teeth and tongue are 1.

    An ellipse about the face of the base mesh, the same vertices for every head.
    """
    assets = load_assets()
    eyes = [assets.vertices[assets.helpers[name]].mean(0) for name in ("helper-l-eye", "helper-r-eye")]
    unit = abs(float(eyes[0][0] - eyes[1][0])) / 2
    offset = (assets.vertices - np.mean(eyes, axis=0) + [0, CENTRE_DROP, 0]) / unit
    height = np.where(offset[:, 1] > 0, offset[:, 1] / HALF_ABOVE, offset[:, 1] / HALF_BELOW)
    radius = np.hypot(offset[:, 0] / HALF_WIDTH, height)
    region = _smooth((1 - radius) / EDGE) * _smooth((offset[:, 2] + DEPTH) / DEPTH_EDGE)
    region[np.concatenate(list(assets.helpers.values()))] = 1.0
    region.setflags(write=False)
    return region
