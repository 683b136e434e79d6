"""Face sets of drawn people, made in milliseconds: for tests of training that don't need a detector."""

import cv2
import numpy as np

from fslab.consent import Consent
from fslab.faceset import FaceRecord, FaceSet
from fslab.media import encode_image
from fslab.mesh import LEFT_EYE, MOUTH, N_POINTS, OUTLINE, RIGHT_EYE
from fslab.storage import write_json, write_json_lines

SKIN = {"ada": (230, 190, 170), "dan": (150, 105, 80), "eve": (190, 150, 90), "fay": (215, 170, 150)}


def ellipse(centre, axes, n):
    angle = np.linspace(0, 2 * np.pi, n, endpoint=False)
    return np.stack([centre[0] + axes[0] * np.cos(angle), centre[1] + axes[1] * np.sin(angle)], 1)


def drawn_mesh(size, turn=0.0, opened=0.5):
    """Return a ``(468, 2)`` mesh: outline, eyes and mouth are ellipses; the mouth is ``opened`` by 0 to 1."""
    x, scale = size / 2 + turn * size * 0.1, size / 64
    mesh = np.full((N_POINTS, 2), size / 2, np.float32)
    mesh[list(OUTLINE)] = ellipse((size / 2, size / 2), (20 * scale, 26 * scale), len(OUTLINE))
    for points, side in ((LEFT_EYE, -1), (RIGHT_EYE, 1)):
        mesh[list(points)] = ellipse((x + side * 8 * scale, size * 0.42), (4 * scale, 2 * scale), len(points))
    mesh[list(MOUTH)] = ellipse((x, size * 0.7), (7 * scale, (1 + 4 * opened) * scale), len(MOUTH))
    return mesh


def drawn_crop(name, size, mesh, rng):
    """Return the picture of a drawn person, ``(size, size, 3)`` uint8."""
    image = np.full((size, size, 3), 60 + 20 * len(name), np.uint8)
    for points, colour in (
        (OUTLINE, SKIN[name]),
        (LEFT_EYE, (250, 250, 250)),
        (RIGHT_EYE, (250, 250, 250)),
        (MOUTH, (160, 40, 50)),
    ):
        cv2.fillPoly(image, [np.round(mesh[list(points)] * 16).astype(np.int32)], colour, cv2.LINE_AA, shift=4)
    return np.clip(image + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8)


def drawn_faces(name, n=40, size=64, seed=0):
    """Return crops ``(n, size, size, 3)``, meshes ``(n, 468, 2)`` and times of a drawn person, turning and talking."""
    rng = np.random.default_rng(seed)
    meshes = [drawn_mesh(size, np.sin(i / 5), 0.5 + 0.5 * np.sin(i / 3)) for i in range(n)]
    crops = [drawn_crop(name, size, mesh, rng) for mesh in meshes]
    return np.stack(crops), np.stack(meshes), np.arange(n) / 25


def drawn_faceset(folder, name, n=40, size=64, coverage=0.58, consent=None):
    """Write the face set of a drawn person and return it."""
    crops, meshes, times = drawn_faces(name, n, size)
    (folder / "crops").mkdir(parents=True)
    embedding = np.random.default_rng(len(name) + ord(name[0])).normal(0, 0.1, 128).astype(np.float32)
    matrix = np.array([[1.0, 0, 0], [0, 1, 0]])
    records = []
    for i, (crop, mesh, time) in enumerate(zip(crops, meshes, times, strict=True)):
        (folder / "crops" / f"{i:06d}.jpg").write_bytes(encode_image(crop, ".jpg", 95))
        records.append(
            FaceRecord(
                crop=f"{i:06d}.jpg", source=f"{name}.mp4", frame=i, time=float(time), track=0, person=0,
                box=np.array([0, 0, size, size]), landmarks=mesh[:5], matrix=matrix, mesh=mesh, score=1.0,
                mesh_score=1.0, sharpness=100.0, pose=(0.0, 0.0, 0.0), expression={}, embedding=embedding,
            )
        )  # fmt: skip
    consent = consent or Consent(name, "drawn, nobody real", "2026-01-01", synthetic=True)
    faceset = FaceSet(folder, name, consent, size, coverage, {f"{name}.mp4": "0" * 64}, {}, tuple(records))
    write_json(folder / "faceset.json", faceset.head())
    write_json_lines(folder / "faces.jsonl", [r.to_row() for r in records])
    return faceset
