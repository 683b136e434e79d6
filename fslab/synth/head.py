"""One person's head and shoulders, ready to be posed: `Head(identity).parts(attributes)` gives the meshes of a frame.

The origin of the world is the camera's aim: 0.55 dm below the middle between the two eyeballs of the head at rest.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fslab.synth.assets import UNITS, Assets, Proxy, Target, load_assets
from fslab.synth.eyelids import closing, lids_after_gaze, retreat
from fslab.synth.identity import Identity
from fslab.synth.looks import layer_textures, skin_bump, skin_texture
from fslab.synth.region import face_region
from fslab.synth.scene import Attributes, Part, rotation
from fslab.synth.shape import EYE_HELPERS, normals, shape_of

AIM = np.array([0.0, -0.55, 0.0])  # dm from the middle between the eyes to the world's origin
PIVOT = np.array([0.0, -1.3, -1.0])  # dm from there to the joint that the head turns about
NECK = (-2.15, -1.1)  # dm from there: torso below, head above, and the neck between twists smoothly
NECK_LEAN = 0.15  # the neck's base lies higher at the back: dm of height per dm of depth
COLLAR, TUCK = (-1.6, -1.95), 0.1  # dm: between these heights the skin begins to be drawn in, by so much
LIDS = 1.8  # the skin that can cover an eyeball lies this near to its centre, in radii along each axis
EYE_RADIUS = 0.163  # dm; of the base mesh, to whose eyes the units of the lids are made
KINDS = {
    "eyes": ("eyes", "eye"), "brows": ("brows", "hair"), "lashes": ("lashes", "lash"), "teeth": ("mouth", "tooth"),
    "tongue": ("mouth", "tooth"), "hair": ("hair", "hair"), "clothes": ("clothes", "cloth"),
}  # fmt: skip


@dataclass(frozen=True)
class Layer:
    """A proxy on one head: its offsets ``(V, 3)`` dm scaled, how far it turns with the head ``(V,)``, its texture."""

    kind: str
    proxy: Proxy
    offsets: np.ndarray
    turn: np.ndarray
    texture: np.ndarray

    def fit(self, vertices: np.ndarray) -> np.ndarray:
        """Return its ``(V, 3)`` vertices on the base mesh's."""
        return self.proxy.fit(vertices, self.offsets)


def turn_weights(points: np.ndarray) -> np.ndarray:
    """Return how far points ``(N, 3)``, dm from between the eyes, turn with the head: 0 torso to 1 head."""
    low, high = NECK
    t = np.clip((points[:, 1] + NECK_LEAN * points[:, 2] - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def tucked(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Return offsets ``(N, 3)`` that draw the skin below the collar in a little, so that it stays under the clothes."""
    normal = np.zeros_like(vertices)
    face = normals(vertices, triangles)
    for corner in range(3):
        np.add.at(normal, triangles[:, corner], face)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    start, end = COLLAR
    return -TUCK * np.clip((start - vertices[:, 1:2]) / (start - end), 0, 1) * normal


def turned(points: np.ndarray, weights: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Turn points ``(N, 3)`` about the neck by ``matrix``, each by its share of the angle; eyes to world origin."""
    angle = np.arccos(np.clip((np.trace(matrix) - 1) / 2, -1, 1))
    if angle < 1e-9:
        return (points - AIM).astype(np.float32)
    axis = np.array([matrix[2, 1] - matrix[1, 2], matrix[0, 2] - matrix[2, 0], matrix[1, 0] - matrix[0, 1]])
    axis /= 2 * np.sin(angle)
    arm = points - PIVOT
    cos, sin = np.cos(angle * weights)[:, None], np.sin(angle * weights)[:, None]
    out = arm * cos + np.cross(axis, arm) * sin + axis * ((arm @ axis)[:, None] * (1 - cos))  # Rodrigues
    return (out + (PIVOT - AIM)).astype(np.float32)


class Head:
    """A person's head and shoulders at rest, and the way to any frame of it.

    Attributes:
        identity: who.
        vertices: ``(V, 3)`` float64 base mesh at rest, dm from between the eyes.
        unit_gain: ``(V,)`` by which expression offsets are multiplied.
        layers: what is fitted to the base mesh.
        texture: ``(H, W, 3)`` uint8 sRGB skin; ``bump`` its height map, dm.
    """

    def __init__(self, identity: Identity):
        assets = load_assets()
        vertices = shape_of({**identity.macro, **identity.local}, assets)
        scale = assets.proxy_scale(vertices)
        layers = []
        for name, texture in layer_textures(identity).items():
            proxy = assets.proxies[name]
            layers.append(fitted_layer(name.split("/")[0], proxy, proxy.offsets * scale, texture, vertices))
        self._assemble(identity, vertices, np.ones(len(vertices)), layers, skin_texture(identity))

    @classmethod
    def assembled(
        cls, identity: Identity, vertices: np.ndarray, unit_gain: np.ndarray, layers: list[Layer], texture: np.ndarray
    ) -> "Head":
        """Return a head from its pieces; see the attributes of the class."""
        head = cls.__new__(cls)
        head._assemble(identity, vertices, unit_gain, layers, texture)
        return head

    def _assemble(
        self, identity: Identity, vertices: np.ndarray, unit_gain: np.ndarray, layers: list[Layer], texture: np.ndarray
    ) -> None:
        assets = load_assets()
        self.identity, self.vertices, self.unit_gain, self.layers = identity, vertices, unit_gain, tuple(layers)
        self.texture, self.bump = texture, skin_bump(texture)
        self.region = face_region()[: assets.n_skin].astype(np.float32)
        self._tuck = tucked(vertices[: assets.n_skin], assets.triangles)
        self._turn = turn_weights(vertices[: assets.n_skin])
        self._eyes = [vertices[assets.helpers[name]].mean(0) for name in EYE_HELPERS]
        self._radii = [float(np.linalg.norm(ball - eye, axis=1).max()) for ball, eye in zip(self._balls(), self._eyes)]

    def _balls(self) -> list[np.ndarray]:
        """Return points on the fronts of the two eyeballs at rest, the person's left one first."""
        layer = next(layer for layer in self.layers if layer.kind == "eyes")
        balls = layer.fit(self.vertices)
        balls = np.concatenate([balls, balls[layer.proxy.triangles].mean(1)])
        return [balls[(sign * balls[:, 0] > 0) & (balls[:, 2] > eye[2])] for sign, eye in zip((1, -1), self._eyes)]

    @cached_property
    def _units(self) -> dict[str, Target]:
        """The expression units on this head: those of the lids fit the eyeballs, and blinks close them."""
        assets = load_assets()
        units = scaled_units(assets, self.unit_gain)
        for side, ball, centre, radius in zip(("Left", "Right"), self._balls(), self._eyes, self._radii):
            for name in (name for name in UNITS if name.startswith("eye") and name.endswith(side)):
                units[name] = stretched(units[name], radius / EYE_RADIUS)
            unit = units[f"eyeBlink{side}"]
            blink = np.zeros_like(self.vertices)
            blink[unit.indices] = unit.offsets
            near = np.abs(self.vertices[assets.triangles] - centre).max((1, 2)) < LIDS * radius
            gain = closing(self.vertices, blink, ball, assets.triangles[near])
            units[f"eyeBlink{side}"] = stretched(unit, gain[unit.indices, None])
        return units

    def shaped(self, expression: Mapping[str, float], gaze: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
        """Return the base mesh ``(V, 3)`` float64 of an expression, unturned, dm from between the eyes.

        Raises:
            ValueError: if a unit is not one of `fslab.synth.assets.UNITS`.
        """
        if unknown := sorted(set(expression) - set(UNITS)):
            raise ValueError(f"expression units must be among ARKit's 52, got {', '.join(unknown)}")
        vertices = self.vertices.copy()
        for name, weight in {**expression, **lids_after_gaze(expression, gaze)}.items():
            if weight:
                unit = self._units[name]
                vertices[unit.indices] += weight * unit.offsets
        return vertices

    def parts(self, attributes: Attributes) -> list[Part]:
        """Return the meshes of a frame in world coordinates: the skin first, then what is on it.

        Only ``vertices`` differ between two frames; all other arrays are the same objects.
        """
        assets = load_assets()
        vertices = self.shaped(attributes.expression, attributes.gaze)
        matrix = rotation(attributes.yaw, attributes.pitch, attributes.roll)
        skin = turned(vertices[: assets.n_skin] + self._tuck, self._turn, matrix)
        parts = [
            Part("skin", "skin", skin, assets.triangles, assets.uv, assets.uv_triangles, self.texture, self.region,
                 self.bump)
        ]  # fmt: skip
        for layer in self.layers:
            points = layer.fit(vertices)
            if layer.kind == "eyes":
                points = self._look(points, attributes)
            name, material = KINDS[layer.kind]
            proxy = layer.proxy
            points = turned(points, layer.turn, matrix)
            parts.append(Part(name, material, points, proxy.triangles, proxy.uv, proxy.uv_triangles, layer.texture))
        return parts

    def _look(self, points: np.ndarray, attributes: Attributes) -> np.ndarray:
        """Return the eyeballs' vertices turned about their centres, and behind closing lids set back."""
        matrix = rotation(*attributes.gaze, 0)
        out = np.empty_like(points)
        for side, sign, centre, radius in zip(("Left", "Right"), (1, -1), self._eyes, self._radii):
            own = sign * points[:, 0] > 0
            back = retreat(attributes.expression.get(f"eyeBlink{side}", 0.0), radius)
            out[own] = (points[own] - centre) @ matrix.T + centre + back
        return out


def fitted_layer(kind: str, proxy: Proxy, offsets: np.ndarray, texture: np.ndarray, vertices: np.ndarray) -> Layer:
    """Return a layer on the base mesh at rest."""
    rest = proxy.fit(vertices, offsets)
    return Layer(kind, proxy, offsets, turn_weights(rest), texture)


def stretched(target: Target, gain: float | np.ndarray) -> Target:
    """Return a target with its offsets times ``gain``."""
    return Target(target.indices, target.offsets * gain)


def scaled_units(assets: Assets, gain: np.ndarray) -> dict[str, Target]:
    """Return the expression units, offsets times ``gain``; those of the eyes are scaled later, by the eyeballs' size.

    The eyeballs don't move with them but with the gaze.
    """
    still = np.zeros(len(gain), bool)
    still[np.concatenate([assets.helpers[name] for name in EYE_HELPERS])] = True
    units = {}
    for name in UNITS:
        target = assets.targets[f"units/{name}"]
        keep = ~still[target.indices]
        if name.startswith("eye"):
            keep &= face_region()[target.indices] > 0  # so that other eyes move nothing outside the region
        indices = target.indices[keep]
        scale = 1.0 if name.startswith("eye") else gain[indices, None]
        units[name] = Target(indices, target.offsets[keep] * scale)
    return units
