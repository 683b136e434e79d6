"""What is known exactly about a rendered clip, frame by frame, as one ``.npz`` beside it."""

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from fslab.errors import MediaError
from fslab.storage import atomic_path

UNKNOWN = np.float16("nan")


@dataclass(frozen=True)
class ClipLabels:
    """Exact labels of N frames of ``(H, W)`` pixels; x, y in pixels, (0, 0) the centre of the top-left pixel.

    Attributes:
        parts: ``(N, H, W)`` uint8, index into `fslab.synth.scene.PARTS` of what is seen most in a pixel.
        face: ``(N, H, W)`` uint8, 255 times the share of a pixel that a swap replaces (visible, smooth at the edge).
        flow: ``(N - 1, H, W, 2)`` float16, where the surface seen in frame t goes by t + 1, pixels; NaN where it is
            hidden then or nothing is known (the background).
        landmarks: ``(N, 68, 2)`` float32, the iBUG 68 points.
        mesh: ``(N, 468, 2)`` float32, the points of the face mesh.
        pose: ``(N, 3)`` float32, (yaw, pitch, roll) degrees, signs as in `fslab.mesh.estimate_pose`.
        gaze: ``(N, 2)`` float32 degrees relative to the head, x > 0 to the picture's right, y > 0 up.
        expression: ``(N, 52)`` float32 in [0, 1], in the order of ``units``.
        units: ``(52,)`` names.
    """

    parts: np.ndarray
    face: np.ndarray
    flow: np.ndarray
    landmarks: np.ndarray
    mesh: np.ndarray
    pose: np.ndarray
    gaze: np.ndarray
    expression: np.ndarray
    units: np.ndarray

    def __post_init__(self):
        n, height, width = self.face.shape
        shapes = {
            "parts": (n, height, width), "flow": (max(n - 1, 0), height, width, 2), "landmarks": (n, 68, 2),
            "mesh": (n, 468, 2), "pose": (n, 3), "gaze": (n, 2), "expression": (n, len(self.units)),
        }  # fmt: skip
        if wrong := {k: getattr(self, k).shape for k, s in shapes.items() if getattr(self, k).shape != s}:
            raise ValueError(f"labels of {n} frames of {width} x {height} do not fit together: {wrong}")

    def __len__(self) -> int:
        return len(self.face)

    @property
    def size(self) -> tuple[int, int]:
        """Return (height, width)."""
        return self.face.shape[1:]

    def save(self, path: Path) -> None:
        """Write the labels, whole or not at all."""
        with atomic_path(Path(path)) as part, part.open("wb") as file:
            np.savez_compressed(file, **{f.name: getattr(self, f.name) for f in fields(self)})

    @classmethod
    def load(cls, path: Path) -> "ClipLabels":
        """Read labels.

        Raises:
            MediaError: if the file is missing or holds something else.
        """
        try:
            with np.load(path, allow_pickle=False) as data:
                return cls(**{f.name: data[f.name] for f in fields(cls)})
        except FileNotFoundError as reason:
            raise MediaError("exact labels", f"no file '{path}'", "render the clip again") from reason
        except (OSError, ValueError, KeyError) as reason:
            raise MediaError(f"exact labels in '{path}'", f"a file that cannot be read as such ({reason})",
                             "render the clip again") from reason  # fmt: skip
