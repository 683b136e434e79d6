"""What the 468 points of the face mesh say: five steady landmarks, the outline, pose and expression. Plain geometry.

Point numbers are those of MediaPipe's face mesh (Kartynnik et al. 2019, arXiv:1907.06724); left and right as seen in
the picture.
"""

import numpy as np

N_POINTS = 468

# Closed polygons, clockwise from the top or from the left corner.
OUTLINE = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
LEFT_EYE = (33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7)
RIGHT_EYE = (362, 398, 384, 385, 386, 387, 388, 466, 263, 249, 390, 373, 374, 380, 381, 382)
EYES = (LEFT_EYE, RIGHT_EYE)
BROWS = (70, 63, 105, 66, 107, 336, 296, 334, 293, 300)  # their upper edges
CHIN = 152
MOUTH = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146)
FEATURES = (*LEFT_EYE, *RIGHT_EYE, *MOUTH)

# Around the eye sockets: these points hardly move with lids and gaze.
LEFT_SOCKET = (130, 25, 110, 24, 23, 22, 26, 112, 243, 190, 56, 28, 27, 29, 30, 247)
RIGHT_SOCKET = (359, 255, 339, 254, 253, 252, 256, 341, 463, 414, 286, 258, 257, 259, 260, 467)

# Five landmarks: the points whose mean stands for each, and how far MTCNN's landmark lies off it, in eye distances
# along and across the eye line (medians over rendered heads and photographs, made mirror-symmetric).
FIVE_GROUPS = (
    LEFT_SOCKET, RIGHT_SOCKET, (1, 4, 5, 19), (61, 76, 62, 57, 185, 146), (291, 306, 292, 287, 409, 375),
)  # fmt: skip
FIVE_OFFSETS = np.array([[0.017, -0.024], [-0.017, -0.024], [0.0, -0.017], [-0.01, 0.005], [0.01, 0.005]])

# (picture's left, picture's right) points of the skull, which expressions hardly move, and points that span its height.
SKULL_PAIRS = ((33, 263), (133, 362), (127, 356), (234, 454), (162, 389), (93, 323))
FOREHEAD, NOSE_BASE = (10, 151, 9), (2, 97, 326)
PITCH_REST, PITCH_GAIN = 7.4, 1.1  # how far that line leans to the camera at rest, degrees; its gain; on rendered heads


def five_points(mesh: np.ndarray) -> np.ndarray:
    """Return five landmarks, ``(5, 2)`` float32 frame pixels, from a mesh ``(468, 2 or 3)``.

    Each is a mean over points around it, which steadies it, plus a small offset along and across the eye line that
    makes it agree with MTCNN's landmark of the same name.
    """
    xy = np.asarray(mesh, np.float64)[:, :2]
    points = np.stack([xy[list(group)].mean(axis=0) for group in FIVE_GROUPS])
    along = points[1] - points[0]  # length: the eye distance
    across = np.array([-along[1], along[0]])  # clockwise from `along`: towards the mouth
    return (points + FIVE_OFFSETS @ np.stack([along, across])).astype(np.float32)


def mesh_box(mesh: np.ndarray) -> np.ndarray:
    """Return the box of a mesh, ``(4,)`` float32."""
    xy = np.asarray(mesh, np.float32)[:, :2]
    return np.concatenate([xy.min(axis=0), xy.max(axis=0)])


def face_region(mesh: np.ndarray, forehead: float) -> np.ndarray:
    """Return the outline with its part above the brows lowered, so that a fringe or a hairline can be left out.

    Args:
        mesh: ``(468, 2)`` or ``(468, 3)`` points.
        forehead: share of the forehead that stays, from 0 (the outline ends at the brows) to 1 (the whole outline).

    Returns:
        ``(36, 2)`` float32 polygon, in the units of ``mesh``.
    """
    points = outline(mesh).astype(np.float32)
    brows = np.asarray(mesh)[list(BROWS), :2].mean(axis=0)
    up = brows - np.asarray(mesh)[CHIN, :2]
    up = up / max(float(np.hypot(*up)), 1e-6)
    height = np.clip((points - brows) @ up, 0, None)
    return (points - (1 - forehead) * height[:, None] * up).astype(np.float32)


def outline(mesh: np.ndarray) -> np.ndarray:
    """Return the face oval, ``(36, 2)`` float32 polygon, clockwise from the middle of the forehead."""
    return np.asarray(mesh, np.float32)[list(OUTLINE), :2]


def estimate_pose(mesh: np.ndarray) -> tuple[float, float, float]:
    """Return the head's (yaw, pitch, roll), degrees.

    Yaw > 0 is turned to the picture's right, pitch > 0 looks up, roll > 0 is tilted clockwise. The head's axes are
    the mean line between points that mirror each other and the line from forehead to nose base made perpendicular to
    it; the rotation is read off as roll x yaw x pitch, pitch applied first.
    """
    mesh = np.asarray(mesh, np.float64)
    left, right = np.array(SKULL_PAIRS).T
    side = (mesh[right] - mesh[left]).sum(axis=0)
    side /= np.linalg.norm(side)
    down = mesh[list(NOSE_BASE)].mean(axis=0) - mesh[list(FOREHEAD)].mean(axis=0)
    down -= side * (side @ down)
    down /= np.linalg.norm(down)
    away = np.cross(side, down)  # z grows away from the camera
    yaw = np.arcsin(np.clip(side[2], -1, 1))
    pitch = -(np.degrees(np.arctan2(down[2], away[2])) + PITCH_REST) / PITCH_GAIN
    return float(np.degrees(yaw)), float(pitch), float(np.degrees(np.arctan2(side[1], side[0])))


def expression(mesh: np.ndarray) -> dict[str, float]:
    """Return opening ratios, free of scale and pose.

    Returns:
        ``mouth_open``: gap between the inner lips over the distance of the outer eye corners, 0 closed, 0.3 wide open;
        ``eye_left_open``, ``eye_right_open``: gap between the lids over the eye's width, 0.15 closed, 0.3 open;
        ``smile``: width of the mouth over the distance of the outer eye corners, 0.5 at rest.
    """
    mesh = np.asarray(mesh, np.float64)

    def distance(*pairs: tuple[int, int]) -> float:
        return float(np.mean([np.linalg.norm(mesh[a] - mesh[b]) for a, b in pairs]))

    eyes = distance((33, 263))
    return {
        "mouth_open": distance((13, 14), (82, 87), (312, 317)) / eyes,
        "eye_left_open": distance((160, 144), (159, 145), (158, 153)) / distance((33, 133)),
        "eye_right_open": distance((385, 380), (386, 374), (387, 373)) / distance((362, 263)),
        "smile": distance((61, 291)) / eyes,
    }
