"""The textures of one person: skins mixed and toned, hair and clothes dyed."""

from collections.abc import Mapping
from functools import cache

import cv2
import numpy as np

from fslab.synth.assets import load_assets, load_texture
from fslab.synth.identity import Identity
from fslab.synth.region import baked, beard_region
from fslab.synth.studio import to_linear, to_srgb

BUMP = 0.05  # dm of height for the whole range from black to white
FINE = 0.03  # of that range; what differs more from its surroundings is paint, such as bristles and moles, not relief
EYE_SATURATION = 0.6  # the packaged irises are more colourful than any eye
IRIS_DARK = 0.45  # and lighter, too
LIFT = 0.8  # how much of the contrast between strands of hair stays, as an exponent

GREY_WEIGHTS = np.array([0.2126, 0.7152, 0.0722], np.float32)  # Rec. 709, linear light


def mix_skins(shares: Mapping[str, float]) -> np.ndarray:
    """Return the ``(512, 512, 3)`` float32 linear mean of skins, weighted in the log so that dark ones count."""
    total = sum(shares.values())
    mixed = sum(np.log(to_linear(load_texture(f"skin/{k}")) + 0.004) * (w / total) for k, w in shares.items())
    return np.exp(mixed) - 0.004


def freckles(rng: np.random.Generator, size: int, amount: float) -> np.ndarray:
    """Return a ``(size, size)`` float32 gain of the skin: spots a pixel or two wide, and a few moles."""
    spots = np.zeros((size, size), np.float32)
    for count, radius, depth in ((int(9000 * amount), 0.8, 1.2 * amount), (30, 1.3, 4.0)):
        layer = np.zeros_like(spots)
        np.add.at(layer, tuple(rng.integers(0, size, (2, count))), rng.random(count).astype(np.float32))
        spots += depth * cv2.GaussianBlur(layer, (0, 0), radius)
    blotches = cv2.GaussianBlur(rng.standard_normal((size, size)).astype(np.float32), (0, 0), size / 40)
    return np.exp(-np.minimum(spots, 0.6) + 0.05 * blotches / blotches.std())


@cache
def beard_map() -> np.ndarray:
    """Return ``(512, 512)`` float32 in [0, 1], where a beard can grow: not on the lips."""
    return cv2.GaussianBlur(baked(beard_region(), 512), (0, 0), 3.0) * (1 - np.clip(2 * lips_map(), 0, 1))


@cache
def lips_map() -> np.ndarray:
    """Return ``(512, 512)`` float32 in [0, 1], 1 on the lips."""
    lips = load_texture("masks/lips")[..., 0].astype(np.float32) / 255
    return cv2.GaussianBlur(lips, (0, 0), 1.0)


def made_up(skin: np.ndarray, identity: Identity) -> np.ndarray:
    """Return the linear skin with the person's lips and beard."""
    lips = (lips_map() * identity.lip_strength)[..., None]
    skin = skin * np.exp(lips * np.log(np.array(identity.lip_colour, np.float32)))
    if not identity.beard:
        return skin
    rng = np.random.default_rng([identity.seed, 13])
    bristles = cv2.GaussianBlur(rng.standard_normal(beard_map().shape).astype(np.float32), (0, 0), 0.7)
    cover = np.clip(identity.beard * (beard_map() * (1 + 0.35 * bristles)), 0, 0.95)[..., None]
    return skin * (1 - cover) + cover * 0.4 * np.array(brow_colour(identity), np.float32)


def skin_texture(identity: Identity) -> np.ndarray:
    """Return a person's ``(512, 512, 3)`` uint8 sRGB skin."""
    skin = mix_skins(identity.skin) * np.array(identity.tone, np.float32)
    rng = np.random.default_rng([identity.seed, int(identity.freckles * 1000), 11])
    spots = freckles(rng, len(skin), identity.freckles)[..., None] ** np.array([0.7, 1.0, 1.2], np.float32)
    return to_srgb(made_up(skin * spots, identity))


def skin_bump(texture: np.ndarray) -> np.ndarray:
    """Return a ``(H, W)`` float32 height map, dm, from what is fine in a skin: dark lines and pores lie deep."""
    grey = texture.astype(np.float32) @ GREY_WEIGHTS / 255
    return BUMP * np.clip(grey - cv2.GaussianBlur(grey, (0, 0), len(grey) / 340), -FINE, FINE)


def dyed(texture: np.ndarray, colour: tuple[float, float, float], contrast: float, top: float) -> np.ndarray:
    """Return a texture in one colour with the light and dark of its own.

    Args:
        texture: ``(H, W, 3)`` or ``(H, W, 4)`` uint8.
        colour: linear RGB that the ``top`` quantile of its brightness gets.
        contrast: exponent of the brightness; 1 keeps the contrast, 0 removes it.
        top: in [0, 1].
    """
    grey = to_linear(texture[..., :3]) @ GREY_WEIGHTS + 1e-3
    seen = grey[texture[..., 3] > 128] if texture.shape[2] == 4 else grey
    gain = np.minimum(grey / max(np.quantile(seen, top), 1e-3), 2.0) ** contrast
    return np.dstack([to_srgb(gain[..., None] * np.array(colour, np.float32)), texture[..., 3:]])


def eye_texture(name: str) -> np.ndarray:
    """Return a ``(H, W, 4)`` uint8 eye with a calmer colour than the packaged one."""
    eye = load_texture(f"eyes/{name}")
    linear = to_linear(eye[..., :3])
    grey = (linear @ GREY_WEIGHTS)[..., None]
    chroma = np.ptp(linear, axis=2, keepdims=True)
    dark = 1 - IRIS_DARK * np.clip(chroma / np.quantile(chroma, 0.97), 0, 1)
    return np.dstack([to_srgb((grey + EYE_SATURATION * (linear - grey)) * dark), eye[..., 3:]])


def brow_colour(identity: Identity) -> tuple[float, ...]:
    """Return the colour of the brows: the hair's, darker, since light brows vanish on light skin."""
    return tuple(0.15 * np.array([0.1, 0.08, 0.06]) + 0.5 * np.array(identity.hair_colour))


def layer_textures(identity: Identity) -> dict[str, np.ndarray]:
    """Return the textures of all parts but the skin, by the name of the proxy (``kind/name``)."""
    assets = load_assets()
    textures = {
        "eyes/HighPolyEyes": eye_texture(identity.eyes),
        f"brows/{identity.brows}": dyed(load_texture(f"brows/{identity.brows}"), brow_colour(identity), LIFT, 0.9),
        f"lashes/{identity.lashes}": load_texture(f"lashes/{identity.lashes}"),
        f"clothes/{identity.clothes}": dyed(
            load_texture(f"clothes/{identity.clothes}"), identity.clothes_colour, 0.5, 0.5
        ),
        **{name: load_texture(name) for name in ("teeth/Teeth_Base", "tongue/tongue01")},
    }
    if identity.hair:
        name = f"hair/{identity.hair}"
        textures[name] = dyed(load_texture(name), identity.hair_colour, LIFT, 0.8)
    if missing := [name for name in textures if name not in assets.proxies]:
        raise ValueError(f"an identity wears what is not packaged: {missing}")
    return textures
