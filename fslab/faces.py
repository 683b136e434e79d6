"""Faces in a picture: MTCNN finds them, the mesh describes them, the embedder says who they are."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from ai_edge_litert.interpreter import Interpreter
from facenet_pytorch import MTCNN

from fslab.embedder import Embedder, chip_matrix, load_embedder
from fslab.geometry import crop_from_frame, invert, matrix_scale, transform_points
from fslab.media import Frame
from fslab.mesh import N_POINTS, estimate_pose, expression, five_points, mesh_box, outline
from fslab.weights import weights_path

__all__ = [
    "Detector", "Embedder", "Face", "FaceMesh",
    "chip_matrix", "estimate_pose", "expression", "five_points", "load_embedder", "outline",
]  # fmt: skip

MIN_FACE = 20.0  # pixels; the smallest face MTCNN was trained for
WORK_FACE = 48.0  # pixels; MTCNN's last network looks at faces of this size, more resolution is wasted on it
_STDERR_LOCK = threading.Lock()  # the error stream is the process's: two threads must not swap it at once
BEYOND_DOUBT = 0.9995  # detector score
MIN_TURNED_SCORE = 0.95  # seven more looks at an image bring seven times the false faces
ROLLS = (45, -45, 90, -90, 135, -135, 180)  # degrees; MTCNN finds faces within 45 degrees of upright


@dataclass(frozen=True)
class Face:
    """A face in a frame.

    Attributes:
        box: ``(4,)`` x0, y0, x1, y1, frame pixels; may reach beyond the frame.
        landmarks: ``(5, 2)`` eyes, nose tip, mouth corners, frame pixels; left and right as in the face turned upright.
        score: the detector's, in [0, 1]; of the last detection if the face was followed since.
        mesh: ``(468, 3)`` frame pixels, z on the same scale and smaller towards the camera; None until fitted.
        mesh_score: the mesh network's belief that it sees a face, in [0, 1].
    """

    box: np.ndarray
    landmarks: np.ndarray
    score: float
    mesh: np.ndarray | None = None
    mesh_score: float = 0.0


def box_iou(a: np.ndarray, b: np.ndarray) -> float:
    """Return the intersection over union of two boxes, in [0, 1]."""
    sides = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None)
    overlap = float(np.prod(sides))
    total = float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2])) - overlap
    return overlap / total if total > 0 else 0.0


def is_plausible(box: np.ndarray, landmarks: np.ndarray) -> bool:
    """Tell whether box and landmarks can belong to a face: sane sizes, points in or near it, mouth below the eyes."""
    width, height = box[2:] - box[:2]
    if not (np.isfinite(box).all() and np.isfinite(landmarks).all()) or min(width, height) < 4:
        return False
    if not 0.5 < width / height < 2.0:
        return False
    side = max(width, height)
    near = (landmarks > box[:2] - 0.3 * side) & (landmarks < box[2:] + 0.3 * side)
    eyes, mouth = landmarks[:2], landmarks[3:]
    along = eyes[1] - eyes[0]
    drop = mouth.mean(axis=0) - eyes.mean(axis=0)
    upright = along[0] * drop[1] - along[1] * drop[0] > 0  # the mouth lies clockwise from the eye line
    sizes = np.hypot(*along) / side, np.hypot(*drop) / side
    return bool(near.all() and upright and 0.08 < sizes[0] < 0.9 and 0.12 < sizes[1] < 0.9)


class Detector:
    """MTCNN (Zhang et al. 2016, arXiv:1604.02878) with facenet-pytorch's weights, guarded against its known faults."""

    def __init__(self, device: str | torch.device = "cpu"):
        """Load the networks; on Apple's ``mps`` they stay on the CPU, where their odd-sized area resize works."""
        device = torch.device(device)
        self.network = MTCNN(keep_all=True, device=torch.device("cpu") if device.type == "mps" else device)

    def detect(self, image: np.ndarray, min_face: float = MIN_FACE) -> list[Face]:
        """Find faces rolled by less than about 45 degrees.

        Args:
            image: ``(H, W, 3)`` uint8 RGB.
            min_face: faces with a smaller box side are not looked for, pixels; the larger, the faster.

        Returns:
            Faces without a mesh, largest first.
        """
        small, scale = _reduced(image, min_face)
        return [scale_face(face, 1 / scale) for face in self._search(small, min_face * scale)]

    def detect_any_roll(self, image: np.ndarray, min_face: float = MIN_FACE) -> list[Face]:
        """Find faces at any roll.

        As `detect`; if that gives no face beyond doubt, the image is searched turned by each angle of `ROLLS` too, and
        the surest finding of each face stands, because MTCNN takes some faces that are upside down for upright ones.
        """
        small, scale = _reduced(image, min_face)
        found = self._search(small, min_face * scale)
        if min(small.shape[:2]) >= MIN_FACE and all(face.score < BEYOND_DOUBT for face in found):
            for angle in ROLLS:
                turned, matrix = _turn(small, angle)
                sure = [face for face in self._search(turned, min_face * scale) if face.score >= MIN_TURNED_SCORE]
                found += [_map_face(face, invert(matrix)) for face in sure]
        return [scale_face(face, 1 / scale) for face in _distinct(found)]

    def _search(self, image: np.ndarray, min_face: float) -> list[Face]:
        """Run MTCNN and keep what can be a face."""
        smallest = max(min_face, MIN_FACE)
        if min(image.shape[:2]) <= smallest:  # MTCNN's pyramid would be empty, which it does not survive
            return []
        self.network.min_face_size = smallest
        boxes, scores, landmarks = self.network.detect(np.ascontiguousarray(image), landmarks=True)
        if boxes is None:
            return []
        found = [  # half a pixel: MTCNN's landmarks count from a pixel's edge, ours from its centre
            Face(np.asarray(box, np.float64), np.asarray(points, np.float64) - 0.5, float(score))
            for box, score, points in zip(boxes, scores, landmarks)
        ]
        return _distinct([face for face in found if is_plausible(face.box, face.landmarks)])


def _reduced(image: np.ndarray, min_face: float) -> tuple[np.ndarray, float]:
    """Return the image scaled down as far as the smallest face allows, and the scale, at most 1."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"image must be (H, W, 3) uint8 RGB, got {image.shape} {image.dtype}")
    scale = min(WORK_FACE / max(min_face, MIN_FACE), 1.0)
    if scale == 1:
        return image, scale
    size = max(round(image.shape[1] * scale), 1), max(round(image.shape[0] * scale), 1)
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA), scale


def _distinct(faces: list[Face]) -> list[Face]:
    """Return the surest of the faces that share a place, largest first."""
    kept: list[Face] = []
    for face in sorted(faces, key=lambda f: -f.score):
        if all(box_iou(face.box, other.box) < 0.4 for other in kept):
            kept.append(face)
    return sorted(kept, key=lambda f: -float(np.prod(f.box[2:] - f.box[:2])))


def scale_face(face: Face, factor: float) -> Face:
    """Return a face without a mesh in the pixels of an image ``factor`` times as large."""
    box, landmarks = ((points + 0.5) * factor - 0.5 for points in (face.box, face.landmarks))
    return replace(face, box=box.astype(np.float32), landmarks=landmarks.astype(np.float32))


def _turn(image: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the image turned by ``angle`` degrees on a canvas that holds all of it, and the matrix image -> canvas."""
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1.0)
    cos, sin = abs(matrix[0, 0]), abs(matrix[0, 1])
    new_width, new_height = round(width * cos + height * sin), round(width * sin + height * cos)
    matrix[:, 2] += (new_width - width) / 2, (new_height - height) / 2
    return cv2.warpAffine(image, matrix, (new_width, new_height), flags=cv2.INTER_LINEAR), matrix


def _map_face(face: Face, matrix: np.ndarray) -> Face:
    """Return a face with its landmarks mapped by ``matrix`` and a square box of its size about the mapped centre."""
    centre = transform_points(face.box.reshape(2, 2).mean(axis=0)[None], matrix)[0]
    half = float((face.box[2:] - face.box[:2]).max()) / 2
    box = np.concatenate([centre - half, centre + half]).astype(np.float32)
    return replace(face, box=box, landmarks=transform_points(face.landmarks, matrix))


class FaceMesh:
    """The 468-point face mesh (Kartynnik et al. 2019, arXiv:1907.06724) of MediaPipe, run by LiteRT on one core.

    One instance serves one thread: the interpreter's buffers are its own.
    """

    SIZE = 192  # side of the network's input, pixels
    MARGIN = 1.5  # side of the crop over that of the face

    def __init__(self):
        """Load the packaged network."""
        with _quiet_stderr():
            self._network = Interpreter(str(weights_path("face_landmark.tflite")), num_threads=1)
            self._network.allocate_tensors()
        self._input = self._network.get_input_details()[0]["index"]
        outputs = {int(np.prod(o["shape"])): o["index"] for o in self._network.get_output_details()}
        self._points, self._flag = outputs[3 * N_POINTS], outputs[1]

    def fit(self, frame: Frame, face: Face) -> Face:
        """Fit the mesh to a face.

        Args:
            frame: a `fslab.media.Frame`.
            face: with a mesh, of the frame before: followed from there in one pass; without: found from box and
                landmarks in two passes, so that the result does not depend on where exactly the box lies.

        Returns:
            The face with new mesh, mesh score, box (of the mesh) and landmarks (`five_points`); the detector's score
            is kept.
        """
        if face.mesh is None:
            corners = np.array([[face.box[i], face.box[j]] for i in (0, 2) for j in (1, 3)])
            face = self._fit_once(frame, face, corners, face.landmarks[:2])
        return self._fit_once(frame, face, face.mesh[:, :2], five_points(face.mesh)[:2])

    def _fit_once(self, frame: Frame, face: Face, points: np.ndarray, eyes: np.ndarray) -> Face:
        matrix = _upright_matrix(points, eyes, self.SIZE, self.MARGIN)
        crop = crop_from_frame(frame, matrix, self.SIZE)
        self._network.set_tensor(self._input, crop[None].astype(np.float32) / 255)
        self._network.invoke()
        local = self._network.get_tensor(self._points).reshape(N_POINTS, 3)
        flag = float(self._network.get_tensor(self._flag).ravel()[0])
        mesh = np.empty((N_POINTS, 3), np.float32)
        mesh[:, :2] = transform_points(local[:, :2], invert(matrix))
        mesh[:, 2] = local[:, 2] / matrix_scale(matrix)
        return replace(
            face,
            box=mesh_box(mesh),
            landmarks=five_points(mesh),
            mesh=mesh,
            mesh_score=float(1 / (1 + np.exp(-np.clip(flag, -50, 50)))),
        )


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Drop what native code writes to the error stream: LiteRT greets every network and has no switch for it."""
    with _STDERR_LOCK:
        try:
            saved = os.dup(2)
        except OSError:  # no error stream at all, as under pythonw
            yield
            return
        try:
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), 2)
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def _upright_matrix(points: np.ndarray, eyes: np.ndarray, size: int, margin: float) -> np.ndarray:
    """Return the ``(2, 3)`` similarity frame -> crop: eye line level, the points' box times ``margin`` filling it."""
    along = np.asarray(eyes[1], np.float64) - eyes[0]
    angle = np.arctan2(along[1], along[0])
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    level = np.asarray(points, np.float64) @ turn.T
    low, high = level.min(axis=0), level.max(axis=0)
    scale = size / max(margin * float((high - low).max()), 1.0)
    return np.column_stack([scale * turn, (size - 1) / 2 - scale * (low + high) / 2])


def find_faces(frame: Frame, min_mesh_score: float = 0.5) -> list[Face]:
    """Find the faces of one still frame, at any roll, with their meshes.

    Args:
        frame: the picture.
        min_mesh_score: faces the mesh network believes in less are dropped, in [0, 1].

    Returns:
        Faces with a mesh, largest first.
    """
    found = Detector().detect_any_roll(frame.rgb(), min_face=max(MIN_FACE, 0.05 * min(frame.size)))
    mesh = FaceMesh()
    return [face for face in (mesh.fit(frame, f) for f in found) if face.mesh_score >= min_mesh_score]
