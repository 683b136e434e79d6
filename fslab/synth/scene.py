"""What is rendered: parts of a head, where it looks, what it feels, the light on it and the camera in front of it.

World axes: x to the picture's right, y up, z towards the camera; the unit is the decimetre. Angles are degrees with the
signs of `fslab.mesh.estimate_pose`: yaw > 0 turns to the picture's right, pitch > 0 looks up, roll > 0 is clockwise.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import numpy as np

PARTS = ("background", "skin", "face", "eyes", "brows", "lashes", "mouth", "hair", "clothes", "occluder")
MATERIALS = ("skin", "eye", "hair", "lash", "tooth", "cloth", "glass", "plastic")
MAX_YAW, MAX_PITCH, MAX_ROLL, MAX_GAZE = 60.0, 40.0, 40.0, 30.0


@dataclass(frozen=True)
class Part:
    """One textured mesh in world coordinates.

    Attributes:
        name: one of `PARTS` but "background" and "face"; "skin" carries the face by its ``region``.
        material: one of `MATERIALS`; how it reflects.
        vertices: ``(V, 3)`` float32.
        triangles: ``(T, 3)`` int32 into ``vertices``.
        uv: ``(U, 2)`` float32 in [0, 1], v upwards.
        uv_triangles: ``(T, 3)`` int32 into ``uv``.
        texture: ``(H, W, 3)`` or ``(H, W, 4)`` uint8 sRGB; the fourth channel is opacity.
        region: ``(V,)`` float32 in [0, 1], how far a vertex belongs to the face a swap replaces; None elsewhere.
        bump: ``(H, W)`` float32 height map, decimetres, over the same uv; None where the surface is smooth.
    """

    name: str
    material: str
    vertices: np.ndarray
    triangles: np.ndarray
    uv: np.ndarray
    uv_triangles: np.ndarray
    texture: np.ndarray
    region: np.ndarray | None = None
    bump: np.ndarray | None = None


@dataclass(frozen=True)
class Light:
    """A soft key light, a fill from the other side, and light from everywhere.

    ``azimuth`` > 0 comes from the picture's right, ``elevation`` > 0 from above, degrees; ``strength`` scales all of
    it, ``contrast`` in [0, 1] is the key's share; ``warmth`` in [-1, 1] runs from bluish to orange.
    """

    azimuth: float = -30.0
    elevation: float = 30.0
    strength: float = 1.0
    contrast: float = 0.65
    warmth: float = 0.15


@dataclass(frozen=True)
class Camera:
    """A pinhole in front of the face, aimed a little below the eyes.

    ``fov`` is the vertical field of view, degrees; ``distance`` decimetres; ``shift`` moves the aim, decimetres (x, y).
    """

    fov: float = 13.0
    distance: float = 14.0
    shift: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class Attributes:
    """Everything in a frame but who is in it, so that two people can show exactly the same.

    ``expression`` maps ARKit unit names (`fslab.synth.assets.UNITS`, blinks among them) to [0, 1]; ``gaze`` is
    (x, y) degrees, x > 0 to the picture's right, y > 0 up, relative to the head; ``background`` linear RGB in [0, 1].

    Raises:
        ValueError: if a value is outside what a head can do.
    """

    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    gaze: tuple[float, float] = (0.0, 0.0)
    expression: Mapping[str, float] = field(default_factory=dict)
    light: Light = field(default_factory=Light)
    camera: Camera = field(default_factory=Camera)
    background: tuple[float, float, float] = (0.16, 0.19, 0.23)

    def __post_init__(self):
        for name, limit in (("yaw", MAX_YAW), ("pitch", MAX_PITCH), ("roll", MAX_ROLL)):
            if not abs(getattr(self, name)) <= limit:
                raise ValueError(f"{name} must be within {limit:g} degrees either way, got {getattr(self, name):g}")
        if not max(abs(g) for g in self.gaze) <= MAX_GAZE:
            raise ValueError(f"gaze must be within {MAX_GAZE:g} degrees either way, got {self.gaze}")
        if wrong := {k: v for k, v in self.expression.items() if not 0 <= v <= 1}:
            raise ValueError(f"expression units must be in [0, 1], got {wrong}")

    def to_dict(self) -> dict:
        """Return the attributes as JSON types."""
        return asdict(self) | {"expression": dict(self.expression)}

    @classmethod
    def from_dict(cls, data: dict) -> "Attributes":
        """Build attributes from `to_dict`; raises ValueError or TypeError if it is not one."""
        camera = {**data["camera"], "shift": tuple(data["camera"]["shift"])}
        pairs = {"gaze": tuple(data["gaze"]), "background": tuple(data["background"])}
        return cls(**{**data, **pairs, "light": Light(**data["light"]), "camera": Camera(**camera)})


def rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Return the ``(3, 3)`` matrix that turns a head: roll after pitch after yaw, in this module's signs and axes."""
    y, p, r = np.radians([yaw, -pitch, -roll])
    turn = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    nod = np.array([[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]])
    tilt = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    return tilt @ nod @ turn
