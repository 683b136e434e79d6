"""How skin, eyes, hair, lashes, teeth and cloth reflect: textures and heights as Mitsuba materials."""

import importlib
from functools import cache
from types import ModuleType
from typing import Any

import cv2
import numpy as np

from fslab.errors import FslabError
from fslab.synth.scene import Part
from fslab.synth.studio import to_linear

BUMP_GAIN = 2.0  # twice the true height: what relief a painted skin has is smoothed by its 512 pixels
WET = 0.035  # of the light that the cornea mirrors; water mirrors 0.02, but lamps in a studio are brighter than here
STRAND_RELIEF = 0.06  # dm between the darkest and the lightest strand painted on a hair card
HAIR_GAIN = 1.3  # hair cards are painted thin; a little more opacity closes the scalp without hardening the edge


@cache
def load_mitsuba() -> ModuleType:
    """Return Mitsuba, set up once for the process: plain CPU rendering, errors only.

    Raises:
        FslabError: if it is not installed.
    """
    try:
        mitsuba = importlib.import_module("mitsuba")
    except ImportError as reason:
        raise FslabError("the renderer Mitsuba", f"none ({reason})", "run 'pip install mitsuba pyoidn'") from reason
    mitsuba.set_variant("scalar_rgb")
    mitsuba.set_log_level(mitsuba.LogLevel.Error)
    return mitsuba


def _texture(values: np.ndarray) -> dict[str, Any]:
    """Return a bitmap texture of linear values ``(H, W, C)``."""
    bitmap = load_mitsuba().Bitmap(np.ascontiguousarray(values, dtype=np.float32))
    return {"type": "bitmap", "bitmap": bitmap, "raw": True, "wrap_mode": "clamp"}


def _surface(part: Part, colour: np.ndarray) -> dict[str, Any]:
    """Return the reflection of an opaque piece of ``part`` with linear ``colour (H, W, 3)``."""
    base = {"base_color": _texture(colour)}
    if part.material == "skin":
        return {"type": "principled", "roughness": 0.5, "specular": 0.35, "sheen": 0.2, "flatness": 0.7, **base}
    if part.material == "eye":
        return {"type": "principled", "roughness": 0.35, "specular": 0.3, **base}
    if part.material == "hair":
        return _hair(colour)
    if part.material == "lash":
        return {"type": "twosided", "bsdf": {"type": "diffuse", "reflectance": base["base_color"]}}
    if part.material == "tooth":
        return {"type": "principled", "roughness": 0.2, "specular": 0.5, **base}
    if part.material == "cloth":
        return {"type": "twosided", "bsdf": {"type": "principled", "roughness": 0.8, "sheen": 0.4, **base}}
    if part.material == "glass":
        return {"type": "twosided", "bsdf": {"type": "principled", "roughness": 0.05, "specular": 0.6, **base}}
    return {"type": "twosided", "bsdf": {"type": "principled", "roughness": 0.3, "specular": 0.5, **base}}


def _hair(colour: np.ndarray) -> dict[str, Any]:
    """Return strands: a stripe of light across them, some light through them, and relief from how they are painted."""
    base = {"base_color": _texture(colour)}
    gloss = {"type": "principled", "roughness": 0.5, "anisotropic": 0.8, "specular": 0.5, **base}
    thin = {"type": "principledthin", "roughness": 0.6, "diff_trans": 1.2, **base}
    both = {"type": "blendbsdf", "weight": 0.4, "gloss": {"type": "twosided", "bsdf": gloss}, "thin": thin}
    height = np.sqrt(colour.mean(-1))
    height = (height - cv2.GaussianBlur(height, (0, 0), len(height) / 64)) * STRAND_RELIEF
    return {"type": "bumpmap", "arbitrary": _texture(height[..., None]), "bsdf": both}


def _eye(opacity: np.ndarray, inner: dict[str, Any]) -> dict[str, Any]:
    """Return an eye: where the texture is clear lies the wet cornea, which mirrors a little of the light."""
    wet = {"type": "twosided", "bsdf": {"type": "roughconductor", "material": "none", "alpha": 0.02}}
    shell = {"type": "mask", "opacity": WET, "bsdf": wet}
    return {"type": "blendbsdf", "weight": _texture(opacity), "clear": shell, "inner": inner}


def opacity_of(part: Part) -> np.ndarray | None:
    """Return how much of the light ``part``'s texture stops, ``(H, W)`` float32 in [0, 1], or None if all of it."""
    if part.texture.shape[-1] == 3 or part.texture[..., 3].min() == 255:
        return None
    gain = HAIR_GAIN if part.material == "hair" else 1.0
    return np.minimum(part.texture[..., 3] * np.float32(gain / 255), 1)


def material(part: Part) -> Any:
    """Return the Mitsuba BSDF of ``part``'s texture, bump and material."""
    surface = _surface(part, to_linear(part.texture[..., :3]))
    if part.bump is not None:
        surface = {
            "type": "bumpmap",
            "arbitrary": _texture(part.bump[..., None] * np.float32(BUMP_GAIN)),
            "bsdf": surface,
        }
    opacity = opacity_of(part)
    if opacity is not None and part.material == "eye":
        surface = _eye(opacity[..., None], surface)
    elif opacity is not None:
        surface = {"type": "mask", "opacity": _texture(opacity[..., None]), "bsdf": surface}
    return load_mitsuba().load_dict(surface)
