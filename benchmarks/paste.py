"""The converter's own error: the align -> unalign round trip, and how still a pasted face stays on a still, noisy face.

python -m benchmarks.paste
"""

import tempfile
from pathlib import Path

import cv2
import numpy as np

from benchmarks.common import framed_clip, save
from fslab.blend import outline_mask, paste
from fslab.faces import Detector, FaceMesh, outline
from fslab.geometry import align_matrix, crop_from_frame, invert, transform_points
from fslab.media import RgbFrame, read_frames
from fslab.samples import sample_path
from fslab.tracking import smooth, track

SIZE, COVERAGE = 256, 0.64


def round_trip(clip: Path, step: int) -> dict[str, float]:
    """Worst PSNR inside the mask, and the largest change outside, over frames of a clip."""
    detector, mesh, psnr, outside = Detector(), FaceMesh(), [], 0
    for frame in read_frames(clip):
        if frame.index % step:
            continue
        still = RgbFrame(frame.rgb().copy())
        before = still.rgb().copy()
        for face in detector.detect(before, min_face=60):
            face = mesh.fit(still, face)
            matrix = align_matrix(face.landmarks, SIZE, COVERAGE)
            mask = outline_mask(transform_points(outline(face.mesh), matrix), SIZE, 0.04, 0.12)
            paste(still, crop_from_frame(still, matrix, SIZE), mask, matrix)
            wide = cv2.warpAffine(mask, invert(matrix), before.shape[1::-1])
            difference = np.abs(still.rgb().astype(float) - before)
            psnr.append(10 * np.log10(255**2 / max((difference[wide > 0.5] ** 2).mean(), 1e-9)))
            outside = max(outside, int(difference[wide == 0].max()))
    return {"frames": len(psnr), "psnr_inside_min_db": min(psnr), "psnr_inside_mean_db": float(np.mean(psnr)),
            "levels_outside_max": outside}  # fmt: skip


def still_face(clip: Path) -> dict[str, float]:
    """Mean frame-to-frame motion of the pasted face's centre and corners, pixels, before and after smoothing."""
    corners = (
        np.array([[0, 0], [SIZE - 1, 0], [SIZE - 1, SIZE - 1], [0, SIZE - 1], [SIZE / 2, SIZE / 2]]) * 0.5 + SIZE / 4
    )

    def motion(stream) -> float:
        places = [
            transform_points(corners, invert(align_matrix(f.faces[0].face.landmarks, SIZE, COVERAGE)))
            for f in stream
            if f.faces
        ]
        return float(np.linalg.norm(np.diff(places, axis=0), axis=2).mean())

    raw, steady = motion(track(read_frames(clip))), motion(smooth(track(read_frames(clip)), 4))
    return {"raw_px": raw, "smoothed_px": steady, "raw_over_smoothed": raw / steady}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        still = framed_clip(Path(folder) / "still.mp4", "ada.mp4", (720, 1280), 60, still=True)
        save("paste", {"round_trip": round_trip(sample_path("ada.mp4"), 20), "still_face_720p": still_face(still)})


if __name__ == "__main__":
    main()
