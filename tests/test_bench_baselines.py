"""The baselines on constructed frames whose answer is known."""

from dataclasses import replace
from fractions import Fraction

import cv2
import numpy as np
import pytest
from drawn_people import drawn_mesh
from pairs import labels_of

from fslab.bench.baselines import (
    N_COLOURS,
    aligned_source,
    ceiling_change,
    colour_change,
    colour_transfer,
    face_colours,
    nearest_change,
    nearest_frames,
    paste_face,
    recolour,
    write_changed,
)
from fslab.blend import to_lab
from fslab.consent import Consent
from fslab.geometry import align_matrix
from fslab.media import RgbFrame, VideoOptions, read_frames, write_image, write_video
from fslab.mesh import five_points
from fslab.provenance import verify
from fslab.swap import SwapConfig

SIZE = 96
CONSENTS = [Consent(name, "drawn, nobody real", "2026-01-01", synthetic=True) for name in ("ada", "dan")]


def noisy(colour, seed, spread=8):
    noise = np.random.default_rng(seed).normal(0, spread, (SIZE, SIZE, 3))
    return np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)


def posed(poses, units=None):
    meshes = np.stack([drawn_mesh(SIZE) for _ in poses])
    return labels_of(meshes, SIZE, poses, units)


def test_the_nearest_frame_has_the_same_pose():
    poses = [(-30, 0, 0), (0, 0, 0), (30, 0, 0), (0, 15, 0)]
    order = [2, 0, 3, 1, 2]
    target = posed([np.add(poses[i], (2, -1, 1)) for i in order])
    assert nearest_frames(target, posed(poses)).tolist() == order


def test_where_poses_are_alike_the_expression_decides():
    units = np.zeros((3, 52))
    units[1, 0], units[2, 5] = 1.0, 1.0
    source = posed([(0, 0, 0)] * 3, units)
    assert nearest_frames(posed([(3, 0, 0)] * 3, units), source).tolist() == [0, 1, 2]


def test_gaze_counts_too():
    source = posed([(0, 0, 0)] * 2)
    source = replace(source, gaze=np.array([[-20, 0], [20, 0]], np.float32))
    target = replace(posed([(0, 0, 0)]), gaze=np.array([[15, 0]], np.float32))
    assert nearest_frames(target, source).tolist() == [1]


def test_colours_come_from_the_face_alone():
    image, face = noisy((20, 200, 20), 0), np.zeros((1, SIZE, SIZE), np.uint8)
    image[30:60, 30:60], face[0, 30:60, 30:60] = (200, 120, 90), 255
    face[0, 29, 30:60] = 128  # a soft edge mixes in what is behind
    pixels = face_colours([RgbFrame(image)], face)
    assert pixels.shape == (1, N_COLOURS, 3)
    assert (pixels == (200, 120, 90)).all()


def test_frames_without_a_face_are_refused():
    with pytest.raises(ValueError, match="no pixel"):
        face_colours([RgbFrame(noisy((0, 0, 0), 0))], np.zeros((1, SIZE, SIZE), np.uint8))


def test_colour_transfer_reaches_the_sources_mean_and_spread_and_touches_nothing_else():
    face = np.zeros((SIZE, SIZE), np.uint8)
    face[20:70, 20:70] = 255
    target, source = noisy((200, 150, 130), 1, 6), noisy((120, 80, 60), 2, 12)
    shift = colour_transfer(*(face_colours([RgbFrame(x)], face[None]) for x in (target, source)))
    frame = RgbFrame(target.copy())
    recolour(frame, face, shift)
    inside = face > 0
    got, want = to_lab(frame.rgb())[inside], to_lab(source)[inside]
    assert np.abs(got.mean(0) - want.mean(0)).max() < 0.6
    assert np.abs(got.std(0) - want.std(0)).max() < 1.5
    assert np.array_equal(frame.rgb()[~inside], target[~inside])


def test_half_a_mask_recolours_half_way():
    shift = colour_transfer(np.full((1, 50, 3), 200, np.uint8), np.full((1, 50, 3), 100, np.uint8))
    frame = RgbFrame(np.full((SIZE, SIZE, 3), 200, np.uint8))
    face = np.full((SIZE, SIZE), 128, np.uint8)
    recolour(frame, face, shift)
    assert abs(int(frame.rgb()[40, 40, 0]) - 150) <= 3


def test_a_face_pasted_onto_itself_changes_little_and_nothing_outside_its_outline():
    mesh = drawn_mesh(SIZE)
    image = noisy((150, 120, 100), 3, 4)
    image[40:44] = 30
    labels = posed([(0, 0, 0)])
    (crop,) = aligned_source([RgbFrame(image)], labels, [0], SIZE).values()
    frame = RgbFrame(image.copy())
    paste_face(frame, mesh, crop, align_matrix(five_points(mesh), SIZE, 0.64), SwapConfig(sharpen=0))
    outside = labels.face[0] == 0
    assert np.array_equal(frame.rgb()[outside], image[outside])
    assert np.abs(frame.rgb().astype(int) - image)[~outside].mean() < 4


def test_only_the_frames_wanted_are_aligned():
    labels = posed([(0, 0, 0)] * 4)
    frames = [RgbFrame(noisy((60 * i, 60, 60), i, 0)) for i in range(4)]
    crops = aligned_source(frames, labels, np.array([3, 1, 3]), 32)
    assert sorted(crops) == [1, 3]
    assert abs(int(crops[3][16, 16, 0]) - 180) <= 1


def test_the_ceiling_lays_the_twin_over_the_face_wherever_its_picture_has_it():
    labels, twin_labels = posed([(0, 0, 0)]), posed([(0, 0, 0)])
    image = noisy((150, 120, 100), 3, 0)
    image[30:34, 30:50] = 20  # something to recognise
    matrix = np.array([[0.9, 0, 6], [0, 0.9, 3]])  # the twin stands elsewhere, and smaller
    twin = cv2.warpAffine(image, matrix, (SIZE, SIZE), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    twin_labels.mesh[0] = twin_labels.mesh[0] * 0.9 + (6, 3)
    frame = RgbFrame(image.copy())
    ceiling_change(labels, [twin], twin_labels)(0, frame)
    inside = labels.face[0] == 255
    error = np.abs(frame.rgb().astype(int) - image)[inside].mean()
    shifted = RgbFrame(image.copy())
    ceiling_change(labels, [twin], labels)(0, shifted)  # without looking where it stands
    assert error < 0.4 * np.abs(shifted.rgb().astype(int) - image)[inside].mean()


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "target.mp4"
    write_video(path, [noisy((180, 140, 120), i, 3) for i in range(4)], Fraction(25))
    return path


def test_both_baselines_are_written_as_marked_clips_with_the_targets_frames(clip, tmp_path):
    stills = tmp_path / "b_train"
    stills.mkdir()
    for i in range(3):
        write_image(stills / f"{i}.png", noisy((100, 70, 60), 10 + i, 3))
    labels, source = posed([(0, 0, 0)] * 4), posed([(0, 0, 0), (5, 0, 0), (9, 0, 0)])
    changes = {
        "colour": colour_change(clip, labels, stills, source),
        "nearest": nearest_change(labels, stills, source),
    }
    for name, change in changes.items():
        out = write_changed(clip, tmp_path / f"{name}.mp4", change, CONSENTS, VideoOptions(crf=8))
        assert verify(out).state == "marked"
        frames = [f.rgb() for f in read_frames(out)]
        assert len(frames) == 4
        centre = frames[2][40:56, 40:56].mean((0, 1))
        wanted = (100, 70, 60) if name == "colour" else (180, 140, 120)  # a paste is given the target's colours
        assert np.abs(centre - wanted).max() < 6
