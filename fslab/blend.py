"""Put a swapped crop back into its frame: mask, colour, paste. Each step is a few lines and can be looked at alone."""

from dataclasses import dataclass

import cv2
import numpy as np

from fslab.geometry import crop_bounds, invert, shift_matrix, warp
from fslab.media import Frame

MOST_UNSHARP = 1.5


def outline_mask(
    outline: np.ndarray, size: int, erode: float, feather: float, seen: np.ndarray | None = None
) -> np.ndarray:
    """Return the soft mask of a face outline: 1 inside, 0 outside and at the crop's border.

    Args:
        outline: ``(N, 2)`` polygon, crop pixels.
        size: side of the crop, pixels.
        erode: how far the half-way line lies inside the outline, as a share of the face's size, >= 0.
        feather: width of the soft edge, as a share of the face's size, >= 0. The edge ends at the outline's inside.
        seen: ``(size, size)`` in [0, 1], below 0.5 where something hides the face; nothing hides it where left out.

    Returns:
        ``(size, size)`` float32 in [0, 1].
    """
    hard = np.zeros((size, size), np.uint8)
    polygon = np.round(outline * 16).astype(np.int32)  # 4 fractional bits
    cv2.fillPoly(hard, [polygon], 255, lineType=cv2.LINE_AA, shift=4)
    hard[[0, -1]] = hard[:, [0, -1]] = 0  # what the crop does not show cannot be replaced
    face_size = float(np.sqrt(max((hard > 127).sum(), 1)))
    if seen is not None:
        hard[seen < 0.5] = 0
    distance = cv2.distanceTransform((hard > 127).astype(np.uint8), cv2.DIST_L2, 5)
    edge = max(feather * face_size, 1.0)
    ramp = np.clip((distance - erode * face_size) / edge + 0.5, 0, 1)
    ramp[distance == 0] = 0
    return (ramp * ramp * (3 - 2 * ramp)).astype(np.float32)


@dataclass(frozen=True)
class ColourShift:
    """A per-channel change of CIE Lab colours: ``out = (x - mean) * gain + mean + offset``, each ``(3,)`` float32."""

    mean: np.ndarray
    gain: np.ndarray
    offset: np.ndarray

    def towards(self, other: "ColourShift", share: float) -> "ColourShift":
        """Return the mix ``(1 - share) * self + share * other``; used to smooth the colour over time."""
        return ColourShift(
            *(a + share * (b - a) for a, b in zip(self.arrays(), other.arrays(), strict=True))  # keeps float32
        )

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (mean, gain, offset)."""
        return self.mean, self.gain, self.offset


def to_lab(image: np.ndarray) -> np.ndarray:
    """Convert RGB, uint8 or float32 in [0, 1], to float32 CIE Lab (L in [0, 100], D65)."""
    if image.dtype == np.uint8:
        image = image.astype(np.float32) / 255
    return cv2.cvtColor(image, cv2.COLOR_RGB2Lab)


def colour_shift(swapped: np.ndarray, target: np.ndarray, mask: np.ndarray, limit: float = 1.4) -> ColourShift | None:
    """Measure the colour change that gives ``swapped`` the target's colour statistics under the mask.

    Reinhard et al. (2001), "Color Transfer between Images", IEEE CG&A 21(5), eqs. 10-11, in CIE Lab, on the inside
    of the mask only (its soft edge mixes in hair and background), with the gain clipped so that an open mouth or a
    shadow cannot blow up the contrast.

    Args:
        swapped: ``(S, S, 3)`` the decoder's face.
        target: ``(S, S, 3)`` the target's crop.
        mask: ``(S, S)`` in [0, 1].
        limit: the gain lies in [1 / limit, limit].

    Returns:
        The shift, or None if the mask has no inside.
    """
    inside = mask > 0.95
    if inside.sum() < 16:
        return None
    a, b = to_lab(swapped)[inside], to_lab(target)[inside]
    mean = a.mean(axis=0)
    gain = np.clip((b.std(axis=0) + 1) / (a.std(axis=0) + 1), 1 / limit, limit)  # + 1: flat areas have no contrast
    return ColourShift(mean, gain.astype(np.float32), b.mean(axis=0) - mean)


def apply_colour(image: np.ndarray, shift: ColourShift, strength: float = 1.0) -> np.ndarray:
    """Apply a `ColourShift`; ``strength`` in [0, 1] scales it. Returns uint8 RGB."""
    lab = to_lab(image)
    lab += strength * ((lab - shift.mean) * (shift.gain - 1) + shift.offset)
    return np.round(np.clip(cv2.cvtColor(lab, cv2.COLOR_Lab2RGB), 0, 1) * 255).astype(np.uint8)


def sharpen(image: np.ndarray, reference: np.ndarray, mask: np.ndarray, share: float) -> np.ndarray:
    """Give ``image`` a share of the gradient energy of ``reference`` by unsharp masking; what has it stays as it is.

    The reference's noise is no detail: of its energy that of its noise is taken off.

    Of ``x + a (x - blurred x)`` the energy is a parabola in the amount a: ``E(x) + 2 a <x, h> + a^2 E(h)`` with h the
    detail ``x - blurred x`` and products of gradients; the amount is where that is reached, at most `MOST_UNSHARP`:
    halos show beyond.

    Args:
        image: ``(S, S, 3)`` uint8, the soft face.
        reference: ``(S, S, 3)`` uint8, the target's crop: how sharp this footage is.
        mask: ``(S, S)`` in [0, 1], where to measure.
        share: of the reference's gradient energy, >= 0; 0 leaves the image as it is.
    """
    inside = mask > 0.95
    if share <= 0 or inside.sum() < 16:
        return image
    low = cv2.GaussianBlur(image, (0, 0), max(image.shape[0] / 64, 0.8))
    own, soft = luma_gradients(image)[:, inside], luma_gradients(low)[:, inside]  # (2, pixels)
    detail, count = own - soft, own.shape[1]
    wanted = max(gradient_energy(reference, inside) - noise_energy(reference, inside), 0.0)
    missing = share * wanted - float((own * own).sum()) / count
    slope, bend = float((own * detail).sum()) / count, float((detail * detail).sum()) / count
    if missing <= 0 or bend < 1e-6:
        return image
    amount = float(np.clip((np.sqrt(slope * slope + bend * missing) - slope) / bend, 0, MOST_UNSHARP))
    return cv2.addWeighted(image, 1 + amount, low, -amount, 0)


def luma_gradients(image: np.ndarray) -> np.ndarray:
    """Return the luma's central differences of ``image`` (H, W, 3), down and across, ``(2, H, W)`` float32."""
    return np.stack(np.gradient(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)))


def gradient_energy(image: np.ndarray, inside: np.ndarray) -> float:
    """Return the mean squared luma gradient of ``image`` where ``inside``, squared levels per pixel."""
    return float((luma_gradients(image) ** 2).sum(axis=0)[inside].mean())


def noise_energy(image: np.ndarray, inside: np.ndarray) -> float:
    """Return the part of `gradient_energy` that is noise, squared levels per pixel.

    The weakest quarter of a face's gradients lies on smooth skin and is noise alone. Squared gradients of noise, sums
    of the squares of two normal variables, are distributed exponentially: a quarter lies below ``ln(4/3)`` of their
    mean. So noise is measured as it is in this crop, scaled and compressed, and need not be white.
    """
    squared = (luma_gradients(image) ** 2).sum(axis=0)[inside]
    return float(np.quantile(squared, 0.25) / np.log(4 / 3))


def paste(frame: Frame, crop: np.ndarray, mask: np.ndarray, matrix: np.ndarray) -> None:
    """Blend a crop into its frame, in place; pixels where the mask is 0 are not written.

    Args:
        frame: the frame to change.
        crop: ``(S, S, 3)`` uint8 RGB.
        mask: ``(S, S)`` float32 in [0, 1].
        matrix: ``(2, 3)`` frame -> crop, pixels.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return
    used = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    x0, y0, x1, y1 = crop_bounds(matrix, used, frame.size)
    region = frame.crop(x0, y0, x1, y1)
    unalign, size = invert(shift_matrix(matrix, x0, y0)), (y1 - y0, x1 - x0)
    alpha = warp(np.pad(mask[1:-1, 1:-1], 1), unalign, size)  # a border of zeros, repeated, stays zero
    face = warp(crop, unalign, size, smooth=True)
    changed = alpha > 1 / 512
    blended = cv2.blendLinear(face, region, alpha, 1 - alpha)
    frame.paste(blended, x0, y0, changed)
