"""What of a face can be seen: hair and whatever else in front of it is not skin, told by its colour."""

import cv2
import numpy as np

SIDE = 64  # pixels at which it is decided; edges finer than that are feathered anyway
CORE = 0.16  # how far inside the outline skin is looked for, share of the face's size
UNLIKE = 3.0  # standard deviations of skin colour beyond which a pixel is taken for something else
SPREAD = np.diag([9.0, 2.0, 2.0])  # added to the covariance of skin, CIE Lab: flat skin has some spread too
SPUR = 13  # pixels of `SIDE`: what is narrower is no part of a face, but skin-coloured hair beside it
LEAST = 64  # pixels of skin, below which nothing is decided


def visible_face(crop: np.ndarray, outline: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Return where in its outline a face can be seen.

    GrabCut (Rother, Kolmogorov and Blake 2004, "GrabCut: Interactive Foreground Extraction Using Iterated Graph Cuts",
    ACM TOG 23(3)), one round: seeds of the face are pixels well inside that look like most of them; seeds of what is
    not are pixels outside whose colour is none of skin. Neck, ears and a bare forehead are thus no reason to cut.

    Args:
        crop: ``(S, S, 3)`` uint8 RGB.
        outline: ``(N, 2)`` polygon that bounds the face, crop pixels.
        features: ``(M, 2)`` points of eyes and mouth, crop pixels; their hull always counts as seen.

    Returns:
        ``(S, S)`` float32: 1 where the face is seen, 0 outside and behind things, soft between.
    """
    size = len(crop)
    small, scale = cv2.resize(crop, (SIDE, SIDE), interpolation=cv2.INTER_AREA), SIDE / size
    inside = _fill(outline * scale)
    face_size = float(np.sqrt(max(inside.sum(), 1)))
    core = cv2.distanceTransform(inside, cv2.DIST_L2, 5) > CORE * face_size
    kept = core | ((_fill(cv2.convexHull(features.astype(np.float32))[:, 0] * scale) > 0) & (inside > 0))
    skin, distance = _skin(small, core)
    labels = np.full((SIDE, SIDE), cv2.GC_PR_FGD, np.uint8)
    labels[(inside > 0) & ~kept & (distance > UNLIKE)] = cv2.GC_PR_BGD
    labels[(inside == 0) & (distance > UNLIKE)] = cv2.GC_BGD
    labels[skin] = cv2.GC_FGD
    if skin.sum() >= LEAST and (labels == cv2.GC_BGD).any():
        cv2.setRNGSeed(0)  # its clustering draws random numbers
        cv2.grabCut(small, labels, None, np.zeros((1, 65)), np.zeros((1, 65)), 1, cv2.GC_INIT_WITH_MASK)
    seen = ((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD) | kept) & (inside > 0)
    return cv2.resize(_one_piece(seen).astype(np.float32), (size, size), interpolation=cv2.INTER_LINEAR)


def _fill(polygon: np.ndarray) -> np.ndarray:
    """Return ``(SIDE, SIDE)`` uint8, 1 inside the polygon."""
    image = np.zeros((SIDE, SIDE), np.uint8)
    cv2.fillPoly(image, [np.round(polygon * 16).astype(np.int32)], 1, shift=4)
    return image


def _skin(image: np.ndarray, core: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which pixels of the core look like most of it, and each pixel's deviations off their colour."""
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
    if core.sum() < LEAST:
        return np.zeros_like(core), np.zeros(core.shape, np.float32)
    middle = np.median(lab[core], axis=0)
    spread = np.median(np.abs(lab[core] - middle), axis=0) + 1
    skin = core & (np.abs(lab - middle) < 3 * spread).all(axis=-1)
    if skin.sum() < LEAST:
        return skin, np.zeros(core.shape, np.float32)
    off = lab - lab[skin].mean(axis=0)
    inverse = np.linalg.inv(np.cov(lab[skin].T) + SPREAD)
    return skin, np.sqrt(np.einsum("...i,ij,...j", off, inverse, off))


def _one_piece(seen: np.ndarray) -> np.ndarray:
    """Keep the largest piece, without its spurs, and fill its holes."""
    brush = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (SPUR, SPUR))
    margin = ((SPUR, SPUR), (SPUR, SPUR))  # beyond the crop there is no face
    smooth = cv2.morphologyEx(np.pad(seen.astype(np.uint8), margin), cv2.MORPH_OPEN, brush)[SPUR:-SPUR, SPUR:-SPUR]
    count, pieces, stats, _ = cv2.connectedComponentsWithStats(smooth)
    if count < 2:
        return seen
    piece = pieces == 1 + np.argmax(stats[1:, cv2.CC_STAT_AREA])
    _, gaps = cv2.connectedComponents(np.pad(~piece, 1, constant_values=True).astype(np.uint8), connectivity=4)
    return (gaps != gaps[0, 0])[1:-1, 1:-1]
