"""Where in a frame the face is that counts, and what it does there."""

from dataclasses import dataclass

import numpy as np

from fslab.faces import Face, estimate_pose, expression, five_points
from fslab.labels import ClipLabels
from fslab.measures import SSIM_RADIUS, edge_band, polygon_mask
from fslab.mesh import mesh_box
from fslab.traits import exact_iris_offset, eye_centres, eyes_error, gaze_error, iris_offset, mouth_error, pose_error

EYES_PART = 3  # "eyes" in `fslab.synth.scene.PARTS`
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Patch:
    """The part of the frame around the face: whole-pixel box, the face's mask and the band along its edge."""

    box: Box
    mask: np.ndarray
    band: np.ndarray

    @classmethod
    def around(cls, polygon: np.ndarray, size: tuple[int, int], band: float, exclude: Box | None) -> "Patch | None":
        """Cut the patch of an outline, less the box ``exclude``; None where nothing of the face is in the frame."""
        box = _with_margin(np.floor(polygon.min(axis=0)), np.ceil(polygon.max(axis=0)), size, band)
        if min(box[2] - box[0], box[3] - box[1]) < 3:
            return None
        return cls._less(box, polygon_mask(polygon - box[:2], (box[3] - box[1], box[2] - box[0])), band, exclude)

    @classmethod
    def of(cls, mask: np.ndarray, band: float, exclude: Box | None) -> "Patch | None":
        """Cut the patch of a frame's mask, ``(H, W)`` in [0, 1]; the rest as `around`."""
        y, x = np.nonzero(mask)
        if not len(x):
            return None
        box = _with_margin(np.array([x.min(), y.min()]), np.array([x.max(), y.max()]), mask.shape, band)
        return cls._less(box, mask[box[1] : box[3], box[0] : box[2]].astype(np.float32), band, exclude)

    @classmethod
    def _less(cls, box: Box, mask: np.ndarray, band: float, exclude: Box | None) -> "Patch | None":
        edge = edge_band(mask, band)
        if exclude:
            x0, y0, x1, y1 = (max(e - b, 0) for e, b in zip(exclude, box[:2] * 2))
            mask[y0:y1, x0:x1] = edge[y0:y1, x0:x1] = False
        return cls(box, mask, edge) if mask.any() else None


def _with_margin(low: np.ndarray, high: np.ndarray, size: tuple[int, int], band: float) -> Box:
    """Return the box of two corners and room for band and windows around it, cut at the frame."""
    margin = int(np.ceil(band)) + 2 * SSIM_RADIUS
    x0, y0 = np.clip(low.astype(int) - margin, 0, size[::-1]).tolist()
    x1, y1 = np.clip(high.astype(int) + margin + 1, 0, size[::-1]).tolist()
    return x0, y0, x1, y1


def exact_face(labels: ClipLabels, index: int) -> Face:
    """Return the labelled face of a frame; its mesh lies in the plane."""
    mesh = np.pad(labels.mesh[index], ((0, 0), (0, 1)))
    return Face(mesh_box(mesh), five_points(mesh), 1.0, mesh, 1.0)


@dataclass(frozen=True)
class ExactEyes:
    """The truth's eyes: exact points ``(468, 2)``, eyeball pixels of a patch, and the mesh found in its picture."""

    mesh: np.ndarray
    shown: np.ndarray
    found: np.ndarray

    @classmethod
    def of(cls, labels: ClipLabels, index: int, box: Box, truth: Face) -> "ExactEyes":
        """Cut the eyes of a labelled frame; ``truth`` is the face that the mesh network finds there."""
        return cls(labels.mesh[index], labels.parts[index, box[1] : box[3], box[0] : box[2]] == EYES_PART, truth.mesh)


@dataclass(frozen=True)
class Reading:
    """What a face does, as its mesh tells: points, (yaw, pitch, roll), openings, and where the irises stand."""

    mesh: np.ndarray
    pose: tuple[float, float, float]
    look: dict[str, float]
    iris: float

    @classmethod
    def of(cls, face: Face, crop: np.ndarray, box: Box, eyes: "ExactEyes | None" = None) -> "Reading":
        """Read a face with a mesh; ``crop`` is ``box`` of its frame, ``eyes`` those of the truth where known."""
        if eyes is None:
            iris = iris_offset(crop, face.mesh[:, :2] - box[:2])
        else:
            moved = eye_centres(face.mesh) - eye_centres(eyes.found)
            iris = exact_iris_offset(crop, eyes.mesh - box[:2], eyes.shown, moved)
        return cls(face.mesh, estimate_pose(face.mesh), expression(face.mesh), iris)

    def errors(self, other: "Reading", suffix: str) -> dict[str, float]:
        """Return how far two readings are apart; ``suffix`` ends the names."""
        return {
            f"pose{suffix}": pose_error(self.pose, other.pose),
            f"gaze{suffix}": gaze_error(self.iris, other.iris),
            f"mouth{suffix}": mouth_error(self.look, other.look),
            f"eyes{suffix}": eyes_error(self.look, other.look),
        }
