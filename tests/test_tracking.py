from dataclasses import replace
from itertools import combinations, islice

import cv2
import numpy as np
import pytest
import skimage.data

from fslab.embedder import Embedder
from fslab.faces import Detector, Face, FaceMesh
from fslab.media import RgbFrame, decode_image, encode_image, read_frames
from fslab.mesh import five_points, mesh_box
from fslab.samples import sample_path
from fslab.tracking import (
    CutDetector,
    FaceTracker,
    FrameFaces,
    TrackConfig,
    TrackedFace,
    group_people,
    smooth,
    track,
)


@pytest.fixture(scope="module")
def ada():
    return [frame.rgb() for frame in islice(read_frames(sample_path("ada.mp4")), 60)]


@pytest.fixture(scope="module")
def dan():
    return [frame.rgb() for frame in islice(read_frames(sample_path("dan.mp4")), 60)]


@pytest.fixture(scope="module")
def ada_mesh(ada):
    return FaceMesh().fit(RgbFrame(ada[0]), Detector().detect(ada[0], min_face=60)[0]).mesh


def follow(images, **options):
    """Return the stream of `track` over images."""
    return list(track((RgbFrame(image.copy(), i) for i, image in enumerate(images)), TrackConfig(**options)))


def numbers(stream):
    """Return the track numbers of each frame."""
    return [tuple(f.track for f in faces.faces) for faces in stream]


def cuts(stream):
    return [i for i, faces in enumerate(stream) if faces.cut]


def shifted(image, dx):
    matrix = np.array([[1.0, 0, dx], [0, 1, 0]])
    return cv2.warpAffine(image, matrix, image.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)


def made_stream(meshes, track_number=0, cut_at=None):
    """Return a stream with one face a frame; a mesh of None is a frame without the face."""
    stream = []
    for i, mesh in enumerate(meshes):
        faces = ()
        if mesh is not None:
            mesh = mesh.astype(np.float32)
            faces = (TrackedFace(track_number, Face(mesh_box(mesh), five_points(mesh), 1.0, mesh, 1.0)),)
        stream.append(FrameFaces(RgbFrame(np.zeros((4, 4, 3), np.uint8), i), faces, i == cut_at))
    return stream


def moved(mesh, dx, dy=0.0):
    return mesh + np.array([dx, dy, 0.0])


def landmarks(stream):
    return np.array([faces.faces[0].face.landmarks for faces in stream], np.float64)


def jitter(points):
    """Return the root mean square motion from frame to frame, pixels."""
    return float(np.sqrt((np.diff(points, axis=0) ** 2).sum(axis=-1).mean()))


# Known answers


def test_one_person_is_one_track(ada):
    stream = follow(ada)
    assert numbers(stream) == [(0,)] * len(ada)
    assert cuts(stream) == []
    assert [faces.frame.index for faces in stream] == list(range(len(ada)))
    centres = np.array([f.faces[0].face.landmarks.mean(axis=0) for f in stream])
    assert np.abs(np.diff(centres, axis=0)).max() < 10


def test_tracks_end_at_a_cut(ada, dan):
    stream = follow(ada[:12] + dan[:12] + ada[40:52])
    assert cuts(stream) == [12, 24]
    assert numbers(stream) == [(0,)] * 12 + [(1,)] * 12 + [(2,)] * 12


def test_two_people_side_by_side_are_two_tracks(ada, dan):
    stream = follow([np.concatenate(pair, axis=1) for pair in zip(ada[:30], dan[:30])])
    assert numbers(stream) == [(0, 1)] * 30
    for faces in stream:
        first, second = (f.face.box.reshape(2, 2).mean(axis=0)[0] for f in faces.faces)
        assert abs(first - second) > 250


def test_a_hard_cut_is_told_from_motion_and_light(ada, dan):
    detector = CutDetector(TrackConfig().cut_threshold)
    pan = [shifted(ada[0], 6 * i) for i in range(12)]
    fade = [(ada[0] * (1 - 0.03 * i)).astype(np.uint8) for i in range(12)]
    found = [detector.is_cut(RgbFrame(image)) for image in [*pan, *dan[:5], *ada[:5], *fade]]
    assert [i for i, cut in enumerate(found) if cut] == [12, 17]


def test_a_fast_pan_is_no_cut_once_it_is_under_way():
    image, detector = skimage.data.coffee(), CutDetector(0.05)
    changes = []
    for step in np.cumsum([0, 4, 8, 14, 22, 32, 40, 40, 40]):
        changes.append(detector.is_cut(RgbFrame(np.ascontiguousarray(np.roll(image, -step, axis=1)))))
    assert not any(changes)
    fresh = CutDetector(0.05)
    assert [fresh.is_cut(RgbFrame(np.ascontiguousarray(np.roll(image, -x, axis=1)))) for x in (0, 40)] == [False, True]


def test_tracks_of_one_person_are_grouped():
    rng = np.random.default_rng(0)
    people = rng.normal(size=(3, 128))
    who = [0, 1, 0, 2, 1, 0]
    embeddings = np.array([people[i] for i in who]) + rng.normal(0, 0.01, (6, 128))
    assert group_people(embeddings, [1] * 6, 0.6) == who


def test_tracks_that_share_a_frame_are_never_one_person():
    embeddings = np.array([[0.0, 0], [0.1, 0], [0.25, 0]])
    assert group_people(embeddings, [1, 1, 1], 0.6) == [0, 0, 0]
    assert group_people(embeddings, [1, 1, 1], 0.6, {(0, 1)}) == [0, 1, 1]
    assert group_people(embeddings, [1, 1, 1], 0.6, {(0, 1), (2, 1)}) == [0, 1, 0]


def test_average_linkage_weighs_tracks_by_their_faces():
    embeddings = np.array([[0.0], [0.4], [0.85]])  # first pair merges; its mean distance to the third decides
    assert group_people(embeddings, [9, 1, 1], 0.6) == [0, 0, 1]  # 0.9 * 0.85 + 0.1 * 0.45 = 0.81
    assert group_people(embeddings, [1, 9, 1], 0.6) == [0, 0, 0]  # 0.1 * 0.85 + 0.9 * 0.45 = 0.49


# Properties of tracking


def test_a_hidden_face_is_not_reported_and_is_found_again(ada):
    images = [image.copy() for image in ada]
    for i in range(10, 16):
        images[i][100:330, 90:310] = 60
    found = numbers(follow(images, cut_threshold=1.0))
    assert all(found[:10])
    assert not any(found[10:16])
    assert all(found[22:]), "found again within a few frames"


def test_a_face_that_leaves_and_returns_gets_a_new_number(ada):
    path = [*range(0, 320, 16), *[320] * 20, *range(320, 0, -16)]
    stream = follow([shifted(ada[i], dx) for i, dx in enumerate(path)], cut_threshold=1.0)
    found = numbers(stream)
    assert found[0] == (0,)
    assert found[25:35] == [()] * 10
    assert found[-1] == (1,)
    assert all(f.face.box[2] > 0 and np.isfinite(f.face.mesh).all() for faces in stream for f in faces.faces)


def test_people_who_cross_never_share_a_track(ada, dan):
    mask = cv2.ellipse(np.zeros((384, 384), np.uint8), (192, 192), (110, 150), 0, 0, 360, 1, -1).astype(bool)
    images = []
    for i in range(60):
        image = np.full((384, 768, 3), 120, np.uint8)
        x = round(384 * i / 59)
        image[:, 384 - x : 768 - x] = dan[i]
        image[:, x : x + 384][mask] = ada[i][mask]
        images.append(image)
    stream = follow(images)
    embedder, seen = Embedder(), {}
    for faces in (faces for i, faces in enumerate(stream) if i < 15 or i > 50):
        for f in faces.faces:
            seen.setdefault(f.track, []).append(embedder.embed(faces.frame, [f.face])[0])
    assert len(stream[0].faces) == len(stream[-1].faces) == 2
    assert not {f.track for f in stream[0].faces} & {f.track for f in stream[-1].faces}
    for vectors in seen.values():
        assert max(np.linalg.norm(a - b) for a, b in combinations(vectors, 2)) < 0.55


def test_a_lying_face_is_found_at_the_start_of_a_shot(ada):
    stream = follow([np.ascontiguousarray(np.rot90(image)) for image in ada[:5]])
    assert numbers(stream) == [(0,)] * 5
    eyes = stream[0].faces[0].face.landmarks[:2]
    assert abs(eyes[1][1] - eyes[0][1]) > 3 * abs(eyes[1][0] - eyes[0][0])


def test_a_face_that_flashes_up_for_one_frame_is_dropped(ada, dan):
    images = [np.concatenate([a, np.full_like(a, 110)], axis=1) for a in ada[:8]]
    images[4][:, 384:] = dan[4]
    assert numbers(follow(images, detect_every=1, cut_threshold=1.0)) == [(0,)] * 8


def test_frames_without_a_face_pass(ada):
    grey = [np.full_like(ada[0], 110)] * 7
    stream = follow([*grey, *ada[:6]], cut_threshold=1.0)
    assert numbers(stream)[:7] == [()] * 7
    assert numbers(stream)[-1] == (0,)


def test_a_still_picture_is_a_clip_of_one_frame(ada):
    assert numbers(follow(ada[:1])) == [(0,)]
    assert follow([]) == []
    assert numbers(follow([np.zeros((1, 1, 3), np.uint8)] * 3)) == [()] * 3


def test_frames_of_changing_size_are_a_cut_not_an_error(ada):
    stream = follow([ada[0], ada[1], ada[2][:300], ada[3][:300]])
    assert cuts(stream) == [2]
    assert all(numbers(stream))


# Smoothing


def test_a_still_noisy_face_stands_still(ada):
    rng, images = np.random.default_rng(0), []
    for _ in range(24):
        image = np.clip(ada[0] + rng.normal(0, 6, ada[0].shape), 0, 255).astype(np.uint8)
        images.append(decode_image(encode_image(image, ".jpg", 50)))
    raw = follow(images)
    steady = list(smooth(raw, 3))
    inner = slice(3, -3)
    assert jitter(landmarks(steady)[inner]) < jitter(landmarks(raw)[inner]) / 4
    assert jitter(landmarks(steady)) < 0.12  # pixels, at 65 px between the eyes


@pytest.mark.parametrize("speed", [0.3, 2.0, 12.0])
def test_a_face_at_constant_speed_does_not_lag(ada_mesh, speed):
    raw = made_stream([moved(ada_mesh, speed * i, -0.5 * speed * i) for i in range(20)])
    lag = np.linalg.norm(landmarks(smooth(raw, 4)) - landmarks(raw), axis=-1) / speed
    assert lag.max() < 0.1  # frames, also at both ends of the track


def test_a_jump_is_kept(ada_mesh):
    raw = made_stream([moved(ada_mesh, 0 if i < 10 else 30) for i in range(20)])
    assert np.abs(landmarks(smooth(raw, 4)) - landmarks(raw)).max() < 0.1


def test_nothing_crosses_a_cut_or_passes_between_tracks(ada_mesh):
    meshes = [moved(ada_mesh, 0.0 if i < 10 else 1.5) for i in range(20)]
    whole = landmarks(smooth(made_stream(meshes), 4))
    assert np.abs(whole - landmarks(made_stream(meshes)))[8:12].max() > 0.1, "without a cut the step is smoothed"
    cut = made_stream(meshes, cut_at=10)
    np.testing.assert_allclose(landmarks(smooth(cut, 4)), landmarks(cut), atol=1e-4)
    two = made_stream(meshes[:10], 0) + made_stream(meshes[10:], 1)
    np.testing.assert_allclose(landmarks(smooth(two, 4)), landmarks(two), atol=1e-4)


def test_missing_frames_stay_missing_and_keep_their_time(ada_mesh):
    raw = made_stream([None if i in (4, 5, 9) else moved(ada_mesh, 2 * i) for i in range(14)])
    steady = list(smooth(raw, 3))
    assert numbers(steady) == numbers(raw)
    seen = [(a, b) for a, b in zip(steady, raw) if b.faces]
    np.testing.assert_allclose(landmarks([a for a, _ in seen]), landmarks([b for _, b in seen]), atol=0.2)


def test_mesh_landmarks_and_box_stay_consistent(ada_mesh):
    rng = np.random.default_rng(0)
    raw = made_stream([ada_mesh + rng.normal(0, 0.3, ada_mesh.shape) for _ in range(9)])
    for faces in smooth(raw, 2):
        face = faces.faces[0].face
        np.testing.assert_array_equal(face.landmarks, five_points(face.mesh))
        np.testing.assert_array_equal(face.box, mesh_box(face.mesh))
        assert face.mesh.dtype == np.float32


@pytest.mark.parametrize("radius", [0, 1, 5, 40])
def test_smoothing_keeps_frames_order_and_count(ada_mesh, radius):
    raw = made_stream([ada_mesh] * 12)
    assert [f.frame for f in smooth(raw, radius)] == [f.frame for f in raw]
    assert list(smooth([], radius)) == []


def test_smoothing_reads_no_further_ahead_than_its_radius(ada_mesh):
    read = 0

    def source():
        nonlocal read
        for faces in made_stream([ada_mesh] * 50):
            read += 1
            yield faces

    steady = smooth(source(), 3)
    for done in range(1, 40):
        next(steady)
        assert read == done + 3


def test_two_faces_are_smoothed_each_by_itself(ada_mesh):
    rng = np.random.default_rng(0)
    left = made_stream([ada_mesh + rng.normal(0, 0.3, ada_mesh.shape) for _ in range(9)], 0)
    right = made_stream([moved(ada_mesh, 200) + rng.normal(0, 0.3, ada_mesh.shape) for _ in range(9)], 7)
    both = [replace(a, faces=a.faces + b.faces) for a, b in zip(left, right)]
    alone = [a.faces + b.faces for a, b in zip(smooth(left, 3), smooth(right, 3))]
    for together, apart in zip(smooth(both, 3), alone):
        for a, b in zip(together.faces, apart):
            np.testing.assert_array_equal(a.face.mesh, b.face.mesh)


# Edges and refusals of grouping


def test_grouping_of_none_and_one():
    assert group_people(np.empty((0, 128)), [], 0.6) == []
    assert group_people(np.ones((1, 128)), [3], 0.6) == [0]


def test_grouping_does_not_depend_on_the_order_of_tracks():
    rng = np.random.default_rng(1)
    embeddings, weights = rng.normal(0, 0.06, (12, 128)), rng.integers(1, 50, 12)
    order = rng.permutation(12)
    first = np.array(group_people(embeddings, weights, 0.85))
    second = np.array(group_people(embeddings[order], weights[order], 0.85))
    np.testing.assert_array_equal(first[order][:, None] == first[order], second[:, None] == second)
    assert 1 < len(set(first)) < 12


def test_grouping_refuses_weights_that_do_not_fit():
    with pytest.raises(ValueError, match="2 positive numbers"):
        group_people(np.ones((2, 128)), [1, 0], 0.6)
    with pytest.raises(ValueError, match="2 positive numbers"):
        group_people(np.ones((2, 128)), [1], 0.6)


@pytest.mark.parametrize(
    "options",
    [
        {"detect_every": 0},
        {"lost_after": 0},
        {"detect_long_side": 10},
        {"min_face": 0},
        {"min_score": 1.5},
        {"cut_threshold": -1},
    ],
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        TrackConfig(**options)


def test_a_negative_radius_is_refused():
    with pytest.raises(ValueError, match="radius"):
        next(smooth([], -1))


# Determinism


def test_tracking_twice_gives_the_same_faces(ada):
    first, second = follow(ada[:10]), follow(ada[:10])
    np.testing.assert_array_equal(landmarks(first), landmarks(second))


def test_the_tracker_works_frame_by_frame(ada):
    tracker = FaceTracker()
    online = [tracker.update(RgbFrame(image)) for image in ada[:6]]
    np.testing.assert_array_equal(landmarks(online), landmarks(follow(ada[:6])))
