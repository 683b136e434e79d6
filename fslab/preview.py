"""Training previews: held-out faces through the very converter that swaps, as one picture."""

import numpy as np

from fslab.dataset import held_out_records
from fslab.errors import ConsentError
from fslab.faces import Face
from fslab.faceset import FaceRecord, FaceSet
from fslab.geometry import transform_points
from fslab.media import RgbFrame
from fslab.run import Run
from fslab.swap import Swapper, require_swap_consents


def face_of_crop(record: FaceRecord) -> Face:
    """Return a stored face in the pixels of its own crop, so that the crop can be treated as a small frame."""
    mesh = np.zeros((len(record.mesh), 3), np.float32)
    mesh[:, :2] = transform_points(record.mesh, record.matrix)
    corners = np.concatenate([mesh[:, :2].min(axis=0), mesh[:, :2].max(axis=0)])
    landmarks = transform_points(record.landmarks, record.matrix)
    return Face(corners, landmarks, record.score, mesh, record.mesh_score)


def preview_rows(run: Run, facesets: list[FaceSet], n_faces: int = 4) -> dict[str, list[np.ndarray]]:
    """Return rows of pictures per person: held-out faces, and each of them as every other person of the run.

    Without everybody's consent to swapping, people are shown as themselves only.

    Args:
        run: the run as it is now.
        facesets: the face sets it trains on.
        n_faces: held-out faces a person, evenly spread.

    Returns:
        Row title -> ``n_faces`` pictures ``(size, size, 3)``.
    """
    try:
        require_swap_consents(run)
        may_swap = True
    except ConsentError:
        may_swap = False
    rows: dict[str, list[np.ndarray]] = {}
    for faceset in facesets:
        records = held_out_records(faceset, run.train_config.data)
        records = [records[i] for i in np.linspace(0, len(records) - 1, n_faces).round().astype(int)]
        crops = faceset.crops(records=records)
        rows[faceset.identity] = list(crops)
        for identity in run.identities:
            if (identity == faceset.identity) == may_swap:
                continue
            swapper, pictures = Swapper(run, identity), []
            for record, crop in zip(records, crops, strict=True):
                frame = RgbFrame(crop.copy())
                drawn = swapper.convert([swapper.align(frame, face_of_crop(record))])
                swapper.blend(frame, drawn[0])
                pictures.append(frame.rgb())
            rows[f"{faceset.identity} as {identity}"] = pictures
    return rows
