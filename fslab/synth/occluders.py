"""Things in front of a face, as parts of the scene, so that light, shadow and labels treat them like the rest.

Glasses are fitted to the head at rest and turn with it; a hand comes up, moves in front of mouth and chin, and
goes. Both keep clear of every head they are given, so that a target and the truth of its swap have the same thing in
the same place.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

import numpy as np

from fslab.synth.hand import hand_parts
from fslab.synth.head import AIM, Head, turned
from fslab.synth.scene import Attributes, Part, rotation
from fslab.synth.solids import tube

Occluder = Literal["none", "glasses", "hand"]
OCCLUDERS = get_args(Occluder)

_TAG = 0x61A55
_FRAMES = ((22, 22, 26), (62, 40, 28), (120, 122, 126), (150, 118, 70), (30, 44, 66))  # sRGB of the rims
_LENS = (130, 140, 146, 10)  # sRGB and opacity: a breath of reflection
_BEND = 0.12  # how much the lenses follow the curve of the face, per decimetre
_CLEAR = 0.012  # decimetres between a frame and the skin
_EYES_APART = 0.577  # decimetres between the eyes of the base mesh, for which the glasses are drawn


class Worn:
    """What a head wears or what passes before it, for every frame of a track."""

    def __init__(self, kind: Occluder, heads: Sequence[Head], n_frames: int, seed: int):
        """Make the thing once.

        Args:
            kind: one of `OCCLUDERS`.
            heads: the head it belongs to, whose pose it follows, and others that must have room behind it.
            n_frames: length of the track; the hand is before the face in its middle half.
            seed: of the make of the glasses, or of the hand's way.
        """
        if kind not in OCCLUDERS:
            raise ValueError(f"kind must be one of {', '.join(OCCLUDERS)}, got {kind!r}")
        self._kind, self._n_frames, self._seed = kind, n_frames, seed
        if kind == "none":
            return
        rests = [head.parts(Attributes()) for head in heads]
        if kind == "glasses":
            self._parts = glasses(rests, seed)
            return
        eyes, mouth = (_part(rests[0], name).vertices for name in ("eyes", "mouth"))
        self._parts = hand_parts(skin_colour(rests[0]), left=_side(seed) > 0)
        self._mouth = np.array([0.0, mouth[:, 1].mean(), _front(rests, eyes[:, 1].mean())])

    def parts(self, index: int, attributes: Attributes) -> list[Part]:
        """Return the parts "occluder" of frame ``index``, the same triangles in every frame."""
        if self._kind == "none":
            return []
        if self._kind == "glasses":
            return [replace(p, vertices=_with_head(p.vertices, attributes)) for p in self._parts]
        turn, offset = hand_way(index, self._n_frames, self._seed)
        place = _with_head(self._mouth[None], attributes)[0] + offset
        return [replace(p, vertices=(p.vertices @ turn.T + place).astype(np.float32)) for p in self._parts]


def _part(parts: Sequence[Part], name: str) -> Part:
    """Return the first part of a name."""
    return next(p for p in parts if p.name == name)


def _with_head(points: np.ndarray, attributes: Attributes) -> np.ndarray:
    """Return points ``(N, 3)`` that belong to the head at rest where its pose takes them."""
    matrix = rotation(attributes.yaw, attributes.pitch, attributes.roll)
    return turned(points + AIM, np.ones(len(points)), matrix)


def _front(rests: Sequence[Sequence[Part]], eye_height: float) -> float:
    """Return how far forward the noses of heads at rest reach, decimetres."""
    skins = [_part(parts, "skin").vertices for parts in rests]
    return max(float(v[(abs(v[:, 0]) < 0.4) & (abs(v[:, 1] - eye_height + 0.5) < 0.5), 2].max()) for v in skins)


def skin_colour(rest: Sequence[Part]) -> tuple[int, int, int]:
    """Return the median colour of the cheeks of a head at rest, sRGB."""
    skin, eyes = _part(rest, "skin"), _part(rest, "eyes").vertices
    centres = skin.vertices[skin.triangles].mean(axis=1) - [0, eyes[:, 1].mean(), eyes[:, 2].mean()]
    x, y, z = np.abs(centres[:, 0]), centres[:, 1], centres[:, 2]
    cheeks = (x > 0.22) & (x < 0.5) & (y > -0.55) & (y < -0.2) & (z > -0.4)
    uv = skin.uv[skin.uv_triangles[cheeks].ravel()] * [1, -1] + [0, 1]
    height, width = skin.texture.shape[:2]
    columns, rows = np.clip((uv * [width, height]).astype(int), 0, [width - 1, height - 1]).T
    return tuple(int(c) for c in np.median(skin.texture[rows, columns, :3], axis=0))


def _side(seed: int) -> float:
    """Return the side of the picture a hand comes from: -1 left, 1 right."""
    return float(np.random.default_rng([seed, _TAG, 1]).choice([-1, 1]))


def hand_way(index: int, n_frames: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rotation ``(3, 3)`` and offset from the mouth ``(3,)``, decimetres, of the hand in a frame.

    It waits below the picture, comes up after a tenth of the track, drifts before the face from a quarter to three
    quarters of it, and is gone for the last tenth.
    """
    rng, side = np.random.default_rng([seed, _TAG]), _side(seed)
    lean, phase = rng.uniform(0.35, 0.6), rng.uniform(0, 2 * np.pi)
    t = (index + 0.5) / n_frames
    near = float(np.clip(min(t - 0.1, 0.9 - t) / 0.15, 0, 1))
    near = near * near * (3 - 2 * near)
    drift = np.array([0.16 * np.sin(7 * t + phase), 0.12 * np.sin(11 * t + 2 * phase), 0.0])
    offset = (1 - near) * np.array([1.1 * side, -2.8, 0.5]) + drift + np.array([0.25 * side, -0.5, 0.24])
    angle = side * (lean + 0.12 * np.sin(9 * t + phase))
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    return turn, offset


def glasses(rests: Sequence[Sequence[Part]], seed: int) -> list[Part]:
    """Return glasses, rims and lenses, that sit on the first of some heads at rest and clear all of them.

    Args:
        rests: the parts of each head at rest.
        seed: of shape, thickness and colour.
    """
    rng = np.random.default_rng([seed, _TAG])
    eyes = _part(rests[0], "eyes").vertices
    left, right = eyes[eyes[:, 0] < 0].mean(0), eyes[eyes[:, 0] > 0].mean(0)
    scale, middle = float(np.linalg.norm(right - left)) / _EYES_APART, (left + right) / 2
    points = np.concatenate([_samples(_part(p, "skin")) for p in rests] + [_part(p, "eyes").vertices for p in rests])
    points = (points - middle)[np.abs(points[:, 1] - middle[1]) < 0.8]  # (P, 3)
    power, tall, thick = rng.uniform(2.1, 3.2), rng.uniform(0.17, 0.215) * scale, rng.uniform(0.014, 0.024) * scale
    half, centre = np.array([0.255 * scale, tall]), np.array([0.345, -0.035]) * scale
    angle = np.arange(56) * 2 * np.pi / 56
    cos, sin = np.cos(angle), np.sin(angle)
    outline = np.stack([np.sign(cos) * np.abs(cos) ** (2 / power), np.sign(sin) * np.abs(sin) ** (2 / power)], 1)
    flat = centre + half * outline
    front = _clearing(points, centre, half + thick, power) + thick + _CLEAR
    rim = np.column_stack([flat, front - _BEND * flat[:, 0] ** 2])
    radii = np.tile([thick, thick], (len(rim), 1))
    solids = [tube(rim, radii, closed=True), tube(rim * [-1, 1, 1], radii, closed=True)]
    solids += [tube(_bridge(points, rim, thick), np.full(13, thick * 0.9))]
    arm = _arm(points, rim, thick)
    arm_radii = np.tile([0.7 * thick, 1.2 * thick], (len(arm), 1))
    solids += [tube(arm, arm_radii), tube(arm * [-1, 1, 1], arm_radii)]
    colour = _FRAMES[rng.integers(len(_FRAMES))]
    frame = _solid_part(_joined(solids), "plastic", np.array(colour, np.uint8))
    lenses = [_fan(rim), _fan(rim * [-1, 1, 1])]
    lens = _solid_part(_joined(lenses), "glass", np.array(_LENS, np.uint8))
    return [replace(p, vertices=(p.vertices + middle).astype(np.float32)) for p in (frame, lens)]


def _samples(skin: Part) -> np.ndarray:
    """Return points spread over a part's triangles, ten for each, ``(P, 3)``: its vertices alone lie too far apart."""
    weights = np.array([[i, j, 3 - i - j] for i in range(4) for j in range(4 - i)]) / 3
    return np.einsum("wk,tkd->twd", weights, skin.vertices[skin.triangles]).reshape(-1, 3)


def _clearing(points: np.ndarray, centre: np.ndarray, half: np.ndarray, power: float) -> float:
    """Return the depth at which slightly bent lenses, superellipses seen from the front, clear the points behind."""
    place = np.column_stack([np.abs(points[:, 0]), points[:, 1]])
    covered = ((np.abs(place - centre) / half) ** power).sum(axis=1) < 1
    return float((points[covered, 2] + _BEND * place[covered, 0] ** 2).max())


def _bridge(points: np.ndarray, rim: np.ndarray, thick: float) -> np.ndarray:
    """Return the arch over the nose, ``(13, 3)``, from rim to rim."""
    inner = rim[np.argmin(rim[:, 0] - 0.6 * rim[:, 1])]
    t = np.linspace(-1, 1, 13)
    x, y = t * inner[0], inner[1] + 0.035 * (1 - t**2)
    near = points[(np.abs(points[:, 0]) < inner[0]) & (np.abs(points[:, 1] - y.mean()) < 0.06)]
    top = max(float(near[:, 2].max()) + thick + _CLEAR - inner[2], 0.02)
    return np.column_stack([x, y, inner[2] + top * (1 - t**2)])


def _arm(points: np.ndarray, rim: np.ndarray, thick: float) -> np.ndarray:
    """Return the right arm ``(N, 3)``: from the rim along the temple, over the ear and down behind it."""
    outer = rim[np.argmax(rim[:, 0] + 0.5 * rim[:, 1])]
    right = points[points[:, 0] > 0]
    temple = right[(right[:, 2] > -0.5) & (np.abs(right[:, 1] - outer[1]) < 0.15)]
    ear = right[(right[:, 0] > temple[:, 0].max() + 0.07) & (right[:, 1] < 0.5)]
    top, root = float(ear[:, 1].max()), float(ear[ear[:, 1] > ear[:, 1].max() - 0.1][:, 2].max())
    depth = np.linspace(outer[2], root - 0.12, 24)
    share = (outer[2] - depth) / (outer[2] - depth[-1])
    height = outer[1] + (top + thick - outer[1]) * share
    width = [outer[0]]
    for y, z in zip(height[1:], depth[1:]):
        beside = right[(np.abs(right[:, 1] - y) < 0.07) & (np.abs(right[:, 2] - z) < 0.07)]
        beside = beside[beside[:, 0] < temple[:, 0].max() + 0.07]  # the ear stands out beyond the arm
        width.append(max(float(beside[:, 0].max(initial=0)) + thick + _CLEAR, outer[0] * (1 - 0.4 * (outer[2] - z))))
    straight = np.column_stack([np.maximum.accumulate(width), height, depth])
    end = straight[-1]
    hook = [end + np.array([-0.05 * t, -0.26 * t * t, -0.22 * t]) for t in (0.25, 0.5, 0.75, 1.0)]
    return np.concatenate([straight, hook])


def _fan(rim: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a disc that fills a closed curve."""
    n = len(rim)
    side = np.arange(n)
    fan = np.stack([side, np.roll(side, -1), np.full(n, n)], 1)
    if np.cross(rim[1] - rim[0], rim.mean(0) - rim[0])[2] < 0:
        fan = fan[:, ::-1]
    return np.concatenate([rim, rim.mean(0, keepdims=True)]), fan


def _joined(solids: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    starts = np.cumsum([0, *(len(v) for v, _ in solids)])
    return np.concatenate([v for v, _ in solids]), np.concatenate([t + s for (_, t), s in zip(solids, starts)])


def _solid_part(solid: tuple[np.ndarray, np.ndarray], material: str, colour: np.ndarray) -> Part:
    """Return a part of one colour, ``(3,)`` or ``(4,)`` uint8."""
    vertices, triangles = solid
    uv = np.full((1, 2), 0.5, np.float32)
    texture = np.tile(colour, (4, 4, 1))
    triangles = triangles.astype(np.int32)
    return Part("occluder", material, vertices.astype(np.float32), triangles, uv, np.zeros_like(triangles), texture)
