"""The exact answer of a face swap: one person's face in another's head.

The target keeps head, hair, ears, neck, clothes and light. Inside a smooth region (`fslab.synth.region`) the source's
shape stands, moved and scaled as a whole so that it sits where the target's face was, with the source's eyes, brows,
lashes and teeth, and the source's skin under the target's light: its colour follows the target's where the two meet.
"""

from dataclasses import replace
from functools import cache

import cv2
import numpy as np

from fslab.synth.assets import load_assets
from fslab.synth.head import Head, Layer
from fslab.synth.region import baked, face_region
from fslab.synth.studio import to_linear, to_srgb

FROM_SOURCE = ("eyes", "brows", "lashes", "teeth", "tongue")
CORE = 0.9  # the part of the region by which the source's face is placed and scaled
RING = 0.02, 0.98  # weights of the region between which skins meet and colours are compared
REACH = 1 / 20  # of the texture's side; how far the colour of the border reaches inwards
DARK = 0.004  # linear light that is added before a log is taken
LIMIT = 4.0  # log of the strongest change of colour


@cache
def painted_region(size: int) -> np.ndarray:
    """Return the face region painted into the skin's texture, ``(size, size)`` float32 in [0, 1]."""
    return baked(face_region(), size)


def matched_skin(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the target's skin with the source's inside the region.

    The log ratio of the two on the region's border, blurred and carried inwards, corrects the source's colour, so that
    no seam shows whatever the two tones are.

    Args:
        source: ``(H, H, 3)`` uint8 sRGB.
        target: the same; kept to the byte where the region is 0.
    """
    size = len(target)
    region = painted_region(size)
    ring = ((region > RING[0]) & (region < RING[1])).astype(np.float32)
    ours, theirs = to_linear(source), to_linear(target)
    ratio = (np.log(theirs + DARK) - np.log(ours + DARK)) * ring[..., None]
    mean = ratio.sum((0, 1)) / ring.sum()
    known = cv2.GaussianBlur(ring, (0, 0), size * REACH)[..., None] + 1e-6
    gain = (cv2.GaussianBlur(ratio, (0, 0), size * REACH) + 1e-6 * mean) / known
    matched = (ours + DARK) * np.exp(np.clip(gain, -LIMIT, LIMIT)) - DARK
    mixed = theirs + (matched - theirs) * region[..., None]
    return np.where(region[..., None] > 0, to_srgb(mixed), target)


def _placed(source: Head, target: Head) -> tuple[np.ndarray, float]:
    """Return the source's base mesh moved onto the target's face, and its scale."""
    core = np.flatnonzero(face_region()[: load_assets().n_skin] > CORE)
    ours, theirs = source.vertices[core], target.vertices[core]
    spread, aimed = (((points - points.mean(0)) ** 2).sum() for points in (ours, theirs))
    scale = float(np.sqrt(aimed / spread))
    return (source.vertices - ours.mean(0)) * scale + theirs.mean(0), scale


def _layers(source: Head, target: Head, vertices: np.ndarray, scale: float) -> list[Layer]:
    """Return the layers of the swapped head: the face's from the source, the others as they are."""
    layers = []
    theirs = {layer.kind: layer for layer in source.layers if layer.kind in FROM_SOURCE}
    for layer in target.layers:
        if layer.kind in FROM_SOURCE:
            taken = theirs[layer.kind]
            layers.append(replace(taken, offsets=taken.offsets * scale, turn=np.ones_like(taken.turn)))
        else:
            moved = layer.fit(target.vertices) - layer.fit(vertices)
            layers.append(replace(layer, offsets=layer.offsets + moved))
    return layers


def swap_head(source: Head, target: Head) -> Head:
    """Return the target's head with the source's face, on the same triangles as the target's.

    Under the same attributes it shows what a perfect swap of the target's frame would: outside the region nothing
    differs. Its ``identity`` is the target's. Two people of similar tone (`fslab.synth.identity.similar_tone`) look
    natural together; for others the face takes on the head's tone.
    """
    region = face_region()
    placed, scale = _placed(source, target)
    vertices = target.vertices + (placed - target.vertices) * region[:, None]
    gain = target.unit_gain + (source.unit_gain * scale - target.unit_gain) * region
    layers = _layers(source, target, vertices, scale)
    return Head.assembled(target.identity, vertices, gain, layers, matched_skin(source.texture, target.texture))
