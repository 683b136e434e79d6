"""The studio round a head: soft lamps and a backdrop as one picture of all that shines, and the film it falls on."""

import numpy as np

from fslab.synth.scene import Light

WIDTH, HEIGHT = 256, 128  # of the surroundings: 1.4 degrees a pixel, finer than a lamp's soft edge
KEY, FILL, RIM, AMBIENT = 35.0, 3.4, 8.0, 0.75
KEY_HALF, FILL_HALF, RIM_HALF = 11.0, 18.0, 12.0  # half the side of each lamp, degrees
WARM, COOL = np.array([0.16, 0.0, -0.24]), np.array([-0.04, 0.0, 0.05])
KNEE = 0.55

_STEPS = np.arange(256) / 255
_LINEAR = np.where(_STEPS <= 0.04045, _STEPS / 12.92, ((_STEPS + 0.055) / 1.055) ** 2.4).astype(np.float32)


def _directions() -> np.ndarray:
    """Return the unit vectors ``(HEIGHT, WIDTH, 3)`` of the pixels; the middle column looks away from the camera."""
    azimuth = (np.arange(WIDTH) + 0.5) / WIDTH * 2 * np.pi - np.pi
    polar = ((np.arange(HEIGHT) + 0.5) / HEIGHT * np.pi)[:, None]
    x, y, z = np.sin(azimuth) * np.sin(polar), np.cos(polar) + 0 * azimuth, -np.cos(azimuth) * np.sin(polar)
    return np.stack([x, y, z], -1)


def towards(azimuth: float, elevation: float) -> np.ndarray:
    """Return the unit vector towards an azimuth (0 = the camera, > 0 = the picture's right) and elevation, degrees."""
    a, e = np.radians([azimuth, elevation])
    return np.array([np.sin(a) * np.cos(e), np.sin(e), np.cos(a) * np.cos(e)])


def _lamp(directions: np.ndarray, azimuth: float, elevation: float, half: float) -> np.ndarray:
    """Return how much of a square, soft-edged lamp ``(H, W)`` shines from each direction, in [0, 1]."""
    ahead = towards(azimuth, elevation)
    right = np.array([ahead[2], 0.0, -ahead[0]])
    right /= max(np.linalg.norm(right), 1e-6)
    depth = directions @ ahead
    side, rise = (np.degrees(np.arctan2(directions @ v, depth)) for v in (right, np.cross(ahead, right)))
    reach = (np.abs(side) ** 6 + np.abs(rise) ** 6) ** (1 / 6)
    return np.clip((half * 1.15 - reach) / (half * 0.3), 0, 1) * (depth > 0)


def tint(warmth: float, hue: np.ndarray = WARM) -> np.ndarray:
    """Return the ``(3,)`` linear RGB of a light, green 1; ``warmth`` in [-1, 1] runs from bluish to orange."""
    return np.exp2(hue * warmth * 2)


def surroundings(light: Light, background: tuple[float, float, float]) -> np.ndarray:
    """Paint what a head sees: key, fill and rim lamp, light from everywhere, and the backdrop behind it.

    Args:
        light: where the key stands, how strong, hard and warm it is; the fill stands on the other side.
        background: linear RGB of the backdrop.

    Returns:
        ``(HEIGHT, WIDTH, 3)`` float32 linear radiance by latitude and longitude; the middle looks away from the camera.
    """
    d = _directions()
    soft = 1 - 0.92 * light.contrast
    side = np.tanh(light.azimuth / 25)  # the fill crosses over smoothly when the key does
    key = _lamp(d, light.azimuth, light.elevation, KEY_HALF) * KEY * light.contrast
    fill = _lamp(d, -48 * side, 6, FILL_HALF) * FILL * soft
    rim = _lamp(d, -140 * side if side else 140, 35, RIM_HALF) * RIM * soft * abs(side)
    sky = AMBIENT * soft * (0.75 + 0.35 * d[..., 1])
    warm, cool = tint(light.warmth), tint(1.0, COOL) * tint(light.warmth * 0.3)
    lit = key[..., None] * warm + (fill + rim + sky)[..., None] * cool
    glow = np.clip(-d[..., 2], 0, 1) ** 2
    spot = 0.55 + 0.9 * np.exp(-(((d[..., 0] + 0.05 * side) / 0.11) ** 2 + ((d[..., 1] + 0.01) / 0.12) ** 2))
    behind = (glow * spot)[..., None] * np.asarray(background)
    mix = np.clip((-d[..., 2] - 0.8) / 0.15, 0, 1)[..., None]
    return (light.strength * (lit * (1 - mix) + behind * mix)).astype(np.float32)


def develop(linear: np.ndarray) -> np.ndarray:
    """Turn radiance into a picture: linear up to a knee, then rolling off so that highlights keep their shape.

    Args:
        linear: ``(..., 3)`` float, >= 0.

    Returns:
        The same shape, uint8 sRGB.
    """
    x = np.maximum(linear, 0)
    x = np.where(x < KNEE, x, 1 - (1 - KNEE) * np.exp(-(x - KNEE) / (1 - KNEE)))
    x = np.where(x <= 0.0031308, x * 12.92, 1.055 * np.maximum(x, 1e-9) ** (1 / 2.4) - 0.055)
    return (x * 255 + 0.5).astype(np.uint8)


def to_linear(srgb: np.ndarray) -> np.ndarray:
    """Return uint8 sRGB as float32 linear light in [0, 1], any shape."""
    return _LINEAR[srgb]


def to_srgb(linear: np.ndarray) -> np.ndarray:
    """Return linear light, any shape, as uint8 sRGB; values outside [0, 1] are clipped. The inverse of `to_linear`."""
    x = np.clip(linear, 0, 1)
    return np.rint(255 * np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)).astype(np.uint8)
