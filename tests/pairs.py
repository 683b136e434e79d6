"""A pair folder as the renderer writes it, made from the packaged clips: its labels come from the fitted mesh."""

from dataclasses import asdict
from fractions import Fraction
from itertools import islice

import cv2
import numpy as np

from fslab.consent import Consent
from fslab.labels import ClipLabels
from fslab.media import read_frames, write_video
from fslab.mesh import estimate_pose, expression, outline
from fslab.samples import sample_path
from fslab.storage import write_json
from fslab.synth.pair import SCHEMA, config_hash
from fslab.tracking import TrackConfig, track

UNITS = np.array([f"unit{i}" for i in range(52)])


def labels_of(meshes, size, pose=None, units=None):
    """Return labels of N frames from their meshes ``(N, 468, 2)``: the face is the filled outline."""
    n = len(meshes)
    face = np.zeros((n, size, size), np.uint8)
    for mask, mesh in zip(face, meshes):
        cv2.fillPoly(mask, [np.round(outline(mesh) * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
    return ClipLabels(
        parts=(face > 127).astype(np.uint8) * 2,
        face=face,
        flow=np.zeros((max(n - 1, 0), size, size, 2), np.float16),
        landmarks=meshes[:, :68].astype(np.float32),
        mesh=meshes.astype(np.float32),
        pose=np.zeros((n, 3), np.float32) if pose is None else np.asarray(pose, np.float32),
        gaze=np.zeros((n, 2), np.float32),
        expression=np.zeros((n, 52), np.float32) if units is None else np.asarray(units, np.float32),
        units=UNITS,
    )


def fitted(clip):
    """Return the fitted mesh of each frame of a clip, ``(N, 468, 3)``."""
    return np.stack([frame.faces[0].face.mesh for frame in track(read_frames(clip), TrackConfig())])


def make_pair(folder, config):
    """Write a pair of ada (target) and dan (source) that says it was rendered with ``config``."""
    size, n_train, n_target = config.size, config.n_train, config.n_target
    folder.mkdir(parents=True)
    clips = {"a_train": ("ada", n_train), "b_train": ("dan", n_train)}
    clips |= {"target": ("ada_target", n_target), "truth": ("ada_as_dan_truth", n_target)}
    for name, (sample, n) in clips.items():
        frames = islice(read_frames(sample_path(f"{sample}.mp4")), 0, 3 * n, 3)
        images = (cv2.resize(f.rgb(), (size, size), interpolation=cv2.INTER_AREA) for f in frames)
        write_video(folder / f"{name}.mp4", images, Fraction(25))
    for name in clips:
        meshes = fitted(folder / ("target.mp4" if name == "truth" else f"{name}.mp4"))
        looks = [expression(m) for m in meshes]
        units = np.zeros((len(meshes), 52))
        units[:, 0] = [min(e["mouth_open"] / 0.3, 1) for e in looks]
        labels_of(meshes[:, :, :2], size, [estimate_pose(m) for m in meshes], units).save(folder / f"{name}.labels.npz")
    for who, person in (("a", "ada"), ("b", "dan")):
        Consent.load(sample_path(f"consents/{person}.json")).save(folder / f"{who}.consent.json")
    about = {"config": asdict(config), "config_hash": config_hash(config), "hash": "0" * 64}
    write_json(folder / "pair.json", {"schema": SCHEMA, **about})
    return folder
