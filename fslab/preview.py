"""Training previews: held-out faces through the very converter that swaps, as one picture."""

import numpy as np

from fslab.faces import Face
from fslab.faceset import FaceRecord, FaceSet
from fslab.geometry import transform_points
from fslab.media import RgbFrame
from fslab.run import Run
from fslab.swap import SwapConfig, Swapper


def face_of_crop(record: FaceRecord) -> Face:
    """Return a stored face in the pixels of its own crop, so that the crop can be treated as a small frame."""
    mesh = np.zeros((len(record.mesh), 3), np.float32)
    mesh[:, :2] = transform_points(record.mesh, record.matrix)
    corners = np.concatenate([mesh[:, :2].min(axis=0), mesh[:, :2].max(axis=0)])
    landmarks = transform_points(record.landmarks, record.matrix)
    return Face(corners, landmarks, record.score, mesh, record.mesh_score)


def preview_rows(run: Run, facesets: list[FaceSet], n_faces: int = 4) -> dict[str, list[np.ndarray]]:
    """Return rows of pictures per person: held-out faces, and each of them as every other person of the run.

    Args:
        run: the run as it is now.
        facesets: the face sets it trains on.
        n_faces: held-out faces a person, spread over the last tenth of the footage.

    Returns:
        Row title -> ``n_faces`` pictures ``(size, size, 3)``.
    """
    rows: dict[str, list[np.ndarray]] = {}
    for faceset in facesets:
        kept = faceset.kept
        picks = np.linspace(int(len(kept) * 0.9), len(kept) - 1, n_faces).round().astype(int)
        crops = faceset.crops()
        rows[faceset.identity] = [crops[i] for i in picks]
        for identity in run.identities:
            if identity == faceset.identity:
                continue
            swapper, pictures = Swapper(run, identity, SwapConfig()), []
            for i in picks:
                frame = RgbFrame(crops[i].copy())
                drawn = swapper.convert([swapper.align(frame, face_of_crop(kept[i]))])
                swapper.blend(frame, drawn[0])
                pictures.append(frame.rgb())
            rows[f"{faceset.identity} as {identity}"] = pictures
    return rows
