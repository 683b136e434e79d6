"""Eyelids that fit: they follow the gaze, and close over the whole eyeball."""

from collections.abc import Mapping

import numpy as np

from fslab.synth.shape import covered

GAZE_UNITS = {"Up": 11.0, "Down": 17.0, "In": 24.0, "Out": 24.0}  # degrees of gaze that an eyeLook unit stands for
RETREAT = 0.16  # how far a closed eye's ball lies further back, in radii; its cornea would stand out of the lid
GAINS = np.linspace(0.3, 1.5, 13)  # strengths of a blink that are tried
MARGIN = 0.06  # more than the strength that just closes


def closing(rest: np.ndarray, blink: np.ndarray, ball: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Return by how much a blink must be multiplied at each vertex, ``(V,)``, to just close an eye all along its width.

    The strength that each point of the eyeball needs to vanish is found on a grid; a parabola over the eye's width
    through the upper ends of these is the answer.

    Args:
        rest: ``(V, 3)`` base mesh at rest.
        blink: ``(V, 3)`` offsets of the blink as packaged.
        ball: ``(B, 3)`` points of the eyeball.
        triangles: ``(T, 3)`` the skin around it.
    """
    middle, width = ball[:, 0].mean(), np.ptp(ball[:, 0]) / 2
    seen = ball[~covered(ball, rest, triangles)]
    needed = np.full(len(seen), np.inf)
    for gain in GAINS:
        closed = covered(seen + retreat(gain, width), rest + gain * blink, triangles)
        needed = np.where(np.isinf(needed) & closed, gain, needed)
    seen, needed = seen[np.isfinite(needed)], needed[np.isfinite(needed)]
    if not len(seen):
        return np.ones(len(rest))
    place = (seen[:, 0] - middle) / width
    curve = np.polyfit(place, needed, 2)
    curve[2] += max(0.0, float((needed - np.polyval(curve, place)).max())) + MARGIN
    edges = np.clip((rest[:, 0] - middle) / width, place.min(), place.max())
    return np.clip(np.polyval(curve, edges), GAINS[0], GAINS[-1])


def retreat(blink: float, radius: float) -> np.ndarray:
    """Return the offset ``(3,)`` of an eyeball behind lids that close by ``blink``: it gives way, as real ones do."""
    return np.array([0.0, 0.0, -RETREAT * radius * min(1.0, 1.2 * max(blink, 0.0))])


def lids_after_gaze(expression: Mapping[str, float], gaze: tuple[float, float]) -> dict[str, float]:
    """Return the eyeLook units that go with a gaze: lids follow the eyeball, the less the more they are closed."""
    x, y = gaze
    wanted = {"Up": y, "Down": -y}
    units = {}
    for side, inward in (("Left", -x), ("Right", x)):  # the person's left eye is at the picture's right
        open_share = 1 - expression.get(f"eyeBlink{side}", 0.0)
        for way, angle in (wanted | {"In": inward, "Out": -inward}).items():
            name = f"eyeLook{way}{side}"
            units[name] = max(float(np.clip(angle / GAZE_UNITS[way], 0, 1)), expression.get(name, 0.0)) * open_share
    return units
