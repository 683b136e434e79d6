"""Where the points of the face mesh and the 68 iBUG points lie on a synthetic head: a triangle and weights for each.

The table was calibrated by `fslab.synth.calibrate`: the face-mesh network looked at many heads and its points were cast
onto them. So the points mean what the network means by them, on every head and under every expression.
"""

import zipfile
from functools import cache
from pathlib import Path

import numpy as np

from fslab.errors import FslabError
from fslab.synth.assets import DATA_FOLDER, load_assets

# The points of the face mesh that stand for the 68 of Sagonas et al. (2013), in their order: jaw, brows, nose, eyes,
# outer and inner lips; from the picture's left to its right.
IBUG = (
    127, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 356,
    70, 63, 105, 66, 107, 336, 296, 334, 293, 300,
    168, 197, 5, 4, 75, 97, 2, 326, 305,
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181,
    78, 82, 13, 312, 308, 317, 14, 87,
)  # fmt: skip


@cache
def mesh_points(folder: Path = DATA_FOLDER) -> tuple[np.ndarray, np.ndarray]:
    """Return where the 468 points lie: ``(468,)`` int32 triangles of the skin and ``(468, 3)`` float32 weights in them.

    Raises:
        FslabError: if the packaged table is missing or damaged.
    """
    path = folder / "points.npz"
    try:
        with np.load(path, allow_pickle=False) as data:
            return data["triangles"].astype(np.int32), data["weights"].astype(np.float32)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as reason:
        raise FslabError(
            "the packaged table of points 'points.npz'", f"none that can be read ({reason})", "install fslab again"
        ) from reason


def ibug_indices() -> np.ndarray:
    """Return ``(68,)`` int64 indices into the 468 points."""
    return np.array(IBUG)


def mesh_landmarks(skin: np.ndarray) -> np.ndarray:
    """Return the 468 points ``(468, 3)`` float32 on a head.

    Args:
        skin: ``(V, 3)`` the vertices of the part "skin".
    """
    triangles, weights = mesh_points()
    corners = skin[load_assets().triangles[triangles]]
    return (corners * weights[..., None]).sum(1).astype(np.float32)
