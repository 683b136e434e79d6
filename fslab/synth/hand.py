"""A hand with a sleeve, built from round cones that flow into each other: seen from its back, fingers up."""

from dataclasses import replace

import numpy as np

from fslab.synth.scene import Part
from fslab.synth.solids import surface, tube

# Fingers from index to little: knuckle (x, y), spread in degrees, lengths of the three bones, radii at root and tip.
_FINGERS = (
    (-0.27, 0.00, 6, (0.44, 0.26, 0.21), (0.098, 0.074)),
    (-0.08, 0.05, 1, (0.48, 0.30, 0.22), (0.100, 0.076)),
    (0.10, 0.02, -3, (0.45, 0.28, 0.22), (0.095, 0.072)),
    (0.27, -0.07, -8, (0.36, 0.21, 0.19), (0.084, 0.064)),
)
_CURL = (5.0, 9.0, 7.0)  # degrees by which each joint bends towards the palm
_THUMB = ((-0.22, -0.68, -0.06), (-0.43, -0.36, -0.16), (-0.47, -0.06, -0.24), (-0.44, 0.18, -0.29))
_THUMB_RADII = (0.15, 0.115, 0.10, 0.078)
_WRIST = np.array([0.0, -0.92, 0.0])
_BLEND, _STEP = 0.07, 0.03
_SLEEVE = (58, 66, 84)  # sRGB


def _bones() -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the round cones ``(B, 8)`` of a right hand and the joints of its fingers, four ``(4, 3)``."""
    bones, fingers = [], []
    for x, y, spread, lengths, (thick, thin) in _FINGERS:
        joints, bend, radii = [np.array([x, y, 0.02])], 0.0, np.linspace(thick, thin, 4)
        for length, curl in zip(lengths, _CURL):
            bend += np.radians(curl)
            aside = np.radians(spread)
            way = np.array([-np.sin(aside) * np.cos(bend), np.cos(aside) * np.cos(bend), -np.sin(bend)])
            joints.append(joints[-1] + length * way)
        for i in range(3):
            bones.append([*joints[i], *joints[i + 1], radii[i], radii[i + 1]])
        bones.append([0.55 * x, _WRIST[1] + 0.1, 0.0, *joints[0], 0.17, 0.115])
        fingers.append(np.array(joints))
    for i in range(3):
        bones.append([*_THUMB[i], *_THUMB[i + 1], _THUMB_RADII[i], _THUMB_RADII[i + 1]])
    bones.append([*_WRIST, *(_WRIST + np.array([0, -0.5, 0.02])), 0.24, 0.27])
    return np.array(bones), fingers


def _paint(colour: np.ndarray, vertices: np.ndarray, fingers: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return the texture of a hand, ``(256, 256, 3)`` uint8, and its uv: seen straight from the back."""
    low, high = vertices[:, :2].min(0), vertices[:, :2].max(0)
    uv = (vertices[:, :2] - low) / (high - low)
    y, x = np.mgrid[0:256, 0:256]
    place = np.stack([(x + 0.5) / 256, 1 - (y + 0.5) / 256], -1) * (high - low) + low
    picture = np.broadcast_to(np.asarray(colour, float), (256, 256, 3)).copy()
    tips = [f[[2, 3], :2] for f in fingers]
    for joints in fingers:
        for joint, wide, deep in zip(joints, (0.11, 0.07, 0.06), (0.10, 0.13, 0.10)):
            glow = np.exp(-(((place - joint[:2]) ** 2).sum(-1)) / wide**2)
            picture *= 1 - deep * glow[..., None] * np.array([0.3, 0.9, 0.9])  # redder over the knuckles
    for before, tip in tips:
        along = (tip - before) / np.linalg.norm(tip - before)
        offset = place - (tip - 0.01 * along)
        u, v = offset @ along, offset @ np.array([-along[1], along[0]])
        nail = np.clip(1.5 * (1 - np.hypot(u / 0.085, v / 0.052)) / 0.4, 0, 1)[..., None]
        picture = picture * (1 - 0.55 * nail) + 0.55 * nail * (0.6 * picture + 0.4 * np.array([250, 215, 205]))
    return np.clip(picture, 0, 255).astype(np.uint8), uv.astype(np.float32)


def hand_parts(colour: tuple[int, int, int], left: bool = False) -> list[Part]:
    """Return a hand seen from its back and a sleeve, palm towards -z.

    Args:
        colour: of its skin, sRGB.
        left: the left hand, whose thumb points to the picture's right; the right one otherwise.

    Returns:
        Parts "occluder" in decimetres; the origin lies at the root of the middle finger, y runs along the fingers.
    """
    bones, fingers = _bones()
    vertices, triangles = surface(bones, _BLEND, _STEP)  # (V, 3), (T, 3)
    texture, uv = _paint(np.array(colour), vertices, fingers)
    skin = Part("occluder", "skin", vertices, triangles, uv, triangles, texture)
    t = np.linspace(0, 1, 24)
    path = _WRIST + np.stack([0.25 * t**2, -0.34 - 3.4 * t, 0.03 + 0 * t], 1)
    folds = 0.30 + 0.14 * t + 0.012 * np.sin(40 * t) - 0.05 * np.exp(-((t / 0.03) ** 2))
    sleeve, faces = tube(path, np.stack([folds, 0.85 * folds], 1), 24)
    flat = np.full((1, 2), 0.5, np.float32)
    cloth = np.tile(np.array(_SLEEVE, np.uint8), (4, 4, 1))
    parts = [skin, Part("occluder", "cloth", sleeve, faces, flat, np.zeros_like(faces), cloth)]
    return [_mirrored(part) for part in parts] if left else parts


def _mirrored(part: Part) -> Part:
    """Return a part's mirror image in x, still facing outwards."""
    sides = {"triangles": part.triangles[:, ::-1].copy(), "uv_triangles": part.uv_triangles[:, ::-1].copy()}
    return replace(part, vertices=part.vertices * np.float32([-1, 1, 1]), **sides)
