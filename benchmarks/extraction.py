"""Extraction of a 1080p clip against a per-frame MTCNN loop and against decoding alone.

python -m benchmarks.extraction
"""

import tempfile
from pathlib import Path

import numpy as np
from facenet_pytorch import MTCNN

from benchmarks.common import compare, framed_clip, save
from fslab.consent import Consent
from fslab.extract import extract_faces
from fslab.faces import box_iou
from fslab.media import read_frames
from fslab.samples import sample_path
from fslab.tracking import smooth, track

N_FRAMES, N_LOOP, STILL = 400, 24, 30


def loop_faces(clip: Path, picks: set[int]) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Run the per-frame loop on chosen frames: index -> (boxes, landmarks)."""
    detector, found = MTCNN(keep_all=True), {}
    for frame in read_frames(clip):
        if frame.index in picks:
            boxes, scores, points = detector.detect(frame.rgb(), landmarks=True)
            good = [i for i, s in enumerate(scores) if s is not None and s > 0.9] if boxes is not None else []
            found[frame.index] = tuple(np.array([a[i] for i in good], np.float64) for a in (boxes, points))
    return found


def agreement(clip: Path, picks: set[int]) -> dict[str, float]:
    """Recall and landmark distance of the tracker against the loop, on the same frames."""
    reference, ours = loop_faces(clip, picks), {}
    for faces in smooth(track(read_frames(clip)), 3):
        if faces.frame.index in picks:
            ours[faces.frame.index] = [t.face for t in faces.faces]
    hits = total = 0
    errors = []
    for index, (boxes, points) in reference.items():
        for box, landmarks in zip(boxes, points, strict=True):
            total += 1
            best = max(ours.get(index, []), key=lambda f: box_iou(f.box, box), default=None)
            if best is not None and box_iou(best.box, box) >= 0.5:
                hits += 1
                eyes = np.linalg.norm(landmarks[1] - landmarks[0])
                errors.append(np.linalg.norm(best.landmarks - landmarks, axis=1) / eyes)
    median = np.median(errors, axis=0)
    return {
        "faces": total, "recall_iou_0.5": hits / total,
        "eyes_median_share_of_eye_distance": float(median[:2].mean()),
        "mouth_median_share_of_eye_distance": float(median[3:].mean()),
    }  # fmt: skip


def jitter(clip: Path) -> dict[str, float]:
    """Mean frame-to-frame motion of the eye and mouth points on a still, noisy face, pixels."""
    loop = loop_faces(clip, set(range(STILL)))
    raw = np.array([loop[i][1][0] for i in sorted(loop) if len(loop[i][1])])
    tracked = [f.faces[0].face.landmarks for f in track(read_frames(clip)) if f.faces]
    smoothed = [f.faces[0].face.landmarks for f in smooth(track(read_frames(clip)), 3) if f.faces]

    def motion(points: np.ndarray) -> float:
        return float(np.linalg.norm(np.diff(np.asarray(points), axis=0)[:, [0, 1, 3, 4]], axis=2).mean())

    eyes = float(np.linalg.norm(raw[0, 1] - raw[0, 0]))
    return {
        "eye_distance_px": eyes,
        "mtcnn_px": motion(raw),
        "mesh_px": motion(tracked),
        "smoothed_px": motion(smoothed),
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        clip = framed_clip(folder / "ada1080.mp4", "ada.mp4", (1080, 1920), N_FRAMES)
        still = framed_clip(folder / "still.mp4", "ada.mp4", (1080, 1920), STILL, still=True)
        consent = Consent.load(sample_path("consents/ada.json"))
        picks = set(range(0, N_FRAMES, N_FRAMES // N_LOOP))
        few = set(range(0, 8))
        times = compare(
            {
                "decode": lambda: sum(1 for _ in read_frames(clip)),
                "mtcnn_loop_8_frames": lambda: loop_faces(clip, few),
                "decode_again": lambda: sum(1 for _ in read_frames(clip)),
                "extract": lambda: extract_faces(clip, folder / "faces", consent, overwrite=True),
            },
            repeats=3,
        )
        decode = min(times["decode"]["wall_s"], times["decode_again"]["wall_s"])
        fps = {
            "decode": N_FRAMES / decode, "extract": N_FRAMES / times["extract"]["wall_s"],
            # the loop decodes the whole clip but detects on eight frames: take the decoding off
            "mtcnn_loop": len(few) / max(times["mtcnn_loop_8_frames"]["wall_s"] - decode, 1e-9),
        }  # fmt: skip
        ratios = {
            "extract_over_mtcnn_loop": fps["extract"] / fps["mtcnn_loop"],
            "extract_over_decode": fps["extract"] / fps["decode"],
        }
        result = {"clip": "1080p25, one face", "frames": N_FRAMES, "seconds": times, "fps": fps, "ratios": ratios}
        save("extraction", result | {"agreement": agreement(clip, picks), "still_face": jitter(still)})


if __name__ == "__main__":
    main()
