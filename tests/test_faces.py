import json

import cv2
import matplotlib.cbook
import numpy as np
import pytest
import skimage.data

from fslab.faces import Detector, Face, FaceMesh, box_iou, find_faces, is_plausible, scale_face
from fslab.geometry import invert, transform_points
from fslab.media import RgbFrame, decode_image, encode_image, read_frames, read_image
from fslab.mesh import (
    N_POINTS,
    NOSE_BASE,
    PITCH_REST,
    SKULL_PAIRS,
    estimate_pose,
    expression,
    face_region,
    five_points,
    mesh_box,
    outline,
)
from fslab.samples import sample_path

EYE_LEFT, EYE_RIGHT = 0, 1


@pytest.fixture(scope="module")
def detector():
    return Detector()


@pytest.fixture(scope="module")
def mesh():
    return FaceMesh()


@pytest.fixture(scope="module")
def astronaut():
    return skimage.data.astronaut()


@pytest.fixture(scope="module")
def portraits(astronaut):
    """Images with one face each: every 15th frame of ada and dan, and two photographs."""
    images = [f.rgb() for name in ("ada", "dan") for f in read_frames(sample_path(f"{name}.mp4")) if f.index % 15 == 0]
    hopper = read_image(matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))
    return [*images, astronaut, hopper]


@pytest.fixture(scope="module")
def target_meshes(detector, mesh):
    """Meshes of ada_target.mp4, followed from the first frame."""
    face, found = None, []
    for frame in read_frames(sample_path("ada_target.mp4")):
        face = mesh.fit(frame, face or detector.detect(frame.rgb(), min_face=60)[0])
        found.append(face.mesh)
    return found


def eye_distance(landmarks):
    return float(np.hypot(*(landmarks[EYE_RIGHT] - landmarks[EYE_LEFT])))


def turned(image, angle):
    """Return the image turned about its centre on a canvas that holds it, and the matrix image -> canvas."""
    height, width = image.shape[:2]
    side = int(np.hypot(height, width)) + 1
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1.0)
    matrix[:, 2] += (side - width) / 2, (side - height) / 2
    return cv2.warpAffine(image, matrix, (side, side)), matrix


def noisy(image, rng):
    """Add Gaussian noise (sigma 6) and JPEG artefacts (quality 50)."""
    image = np.clip(image + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8)
    return decode_image(encode_image(image, ".jpg", 50))


# Known answers


def head_of(yaw, pitch, roll):
    """Return a mesh whose skull points are those of a mirror-symmetric head turned by known angles, degrees."""
    points = np.zeros((N_POINTS, 3))
    for i, (left, right) in enumerate(SKULL_PAIRS):
        points[left], points[right] = (-30 - 5 * i, 4 * i - 10, 3 * i), (30 + 5 * i, 4 * i - 10, 3 * i)
    lean = np.deg2rad(PITCH_REST)
    points[list(NOSE_BASE)] = (0, 50 * np.cos(lean), -50 * np.sin(lean))
    y, p, r = np.deg2rad([yaw, -pitch, roll])  # pitch: y points down, so looking up turns the other way
    about_y = np.array([[np.cos(y), 0, -np.sin(y)], [0, 1, 0], [np.sin(y), 0, np.cos(y)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]])
    about_z = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    return points @ (about_z @ about_y @ about_x).T


@pytest.mark.parametrize("angles", [(0, 0, 0), (30, 0, 0), (0, 15, 0), (0, 0, -40), (-25, -12, 20)])
def test_the_pose_of_a_head_turned_by_known_angles_is_read_back(angles):
    yaw, pitch, roll = estimate_pose(head_of(*angles) * 3.7 + [100, 200, 0])
    np.testing.assert_allclose([yaw, roll], [angles[0], angles[2]], atol=1e-6)
    assert abs(pitch - angles[1]) < 0.1 * abs(angles[1]) + 1e-6  # the gain corrects the mesh network, not geometry


def test_pose_signs_are_right_up_and_clockwise():
    """The construction itself: a head turned right has its far side there, one that looks up its chin nearer."""
    left, right = SKULL_PAIRS[0]
    assert head_of(20, 0, 0)[right, 2] > head_of(20, 0, 0)[left, 2]  # z grows away from the camera
    assert head_of(0, 20, 0)[NOSE_BASE[0], 2] < head_of(0, 0, 0)[NOSE_BASE[0], 2]
    assert head_of(0, 0, 20)[right, 1] > head_of(0, 0, 20)[left, 1]


def test_overlap_of_boxes():
    a = np.array([0.0, 0.0, 10.0, 10.0])
    assert box_iou(a, a) == 1
    assert box_iou(a, a + np.array([5, 0, 5, 0])) == pytest.approx(1 / 3)
    assert box_iou(a, a + 20) == 0


def test_scaling_a_face_keeps_the_centre_of_the_picture_at_its_centre():
    small = Face(np.array([-0.5, -0.5, 9.5, 9.5]), np.full((5, 2), 4.5), 1.0)  # a picture of 10 x 10, edge to edge
    large = scale_face(small, 4)
    np.testing.assert_allclose(large.box, [-0.5, -0.5, 39.5, 39.5])
    np.testing.assert_allclose(large.landmarks, 19.5)


def test_what_cannot_be_a_face_is_told_from_what_can():
    box = np.array([10.0, 10.0, 90.0, 110.0])
    landmarks = np.array([[33.0, 48.0], [67, 48], [50, 68], [37, 88], [63, 88]])
    assert is_plausible(box, landmarks)
    assert not is_plausible(box, landmarks[[1, 0, 2, 4, 3]]), "eyes swapped"
    assert not is_plausible(box, landmarks[[3, 4, 2, 0, 1]]), "mouth above the eyes"
    assert not is_plausible(box, landmarks + 200), "points far from the box"
    assert not is_plausible(box, landmarks * [0, 1]), "no distance between the eyes"
    assert not is_plausible(np.array([10.0, 10.0, 20.0, 110.0]), landmarks), "a stripe"
    assert not is_plausible(box, landmarks * np.nan)


# Trusted references


def test_five_points_agree_with_mtcnn(detector, mesh, portraits):
    errors = []
    for image in portraits:
        found = detector.detect(image, min_face=40)[0]
        fitted = mesh.fit(RgbFrame(image), found)
        errors.append(np.linalg.norm(fitted.landmarks - found.landmarks, axis=1) / eye_distance(found.landmarks))
        assert box_iou(fitted.box, found.box) > 0.6
    assert np.median(errors, axis=0).max() < 0.04  # of the eye distance


def test_five_points_of_a_still_noisy_face_are_steadier_than_mtcnns(detector, mesh, portraits):
    rng, face, ours, theirs = np.random.default_rng(0), None, [], []
    for _ in range(12):
        image = noisy(portraits[0], rng)
        found = detector.detect(image, min_face=60)[0]
        face = mesh.fit(RgbFrame(image), face or found)
        ours.append(face.landmarks)
        theirs.append(found.landmarks)

    def jitter(points):
        return np.sqrt((np.diff(points, axis=0) ** 2).sum(axis=2).mean())

    assert jitter(ours) < 0.5 * jitter(theirs)


def test_pose_and_mouth_agree_with_the_renderers_truth(target_meshes):
    motion = json.loads(sample_path("motion.json").read_text())["target"]
    truth = np.array([frame["pose"] for frame in motion])
    found = np.array([estimate_pose(m) for m in target_meshes])
    slope, offset = np.polyfit(truth[:, 0], found[:, 0], 1)
    assert np.corrcoef(truth[:, 0], found[:, 0])[0, 1] > 0.97
    assert 0.8 < slope < 1.1  # a head turned far is taken for one turned a little less
    assert abs(offset) < 1.5  # degrees
    assert (np.abs(found - truth).mean(axis=0) < 4).all(), "pitch and roll vary too little here for a slope"
    jaw = [frame["expression"].get("jawOpen", 0) for frame in motion]
    opened = [expression(m)["mouth_open"] for m in target_meshes]
    assert np.corrcoef(jaw, opened)[0, 1] > 0.9


def test_closed_eyes_are_told_from_open_ones(target_meshes):
    motion = json.loads(sample_path("motion.json").read_text())["target"]
    closed = np.array([frame["expression"].get("eyeBlinkLeft", 0) for frame in motion])
    ratios = np.array([[expression(m)["eye_left_open"], expression(m)["eye_right_open"]] for m in target_meshes])
    assert ratios[closed > 0.8].max() < ratios[closed < 0.05].min()


# Properties


def test_five_points_outline_and_box_move_with_the_mesh(target_meshes):
    points = target_meshes[0][:, :2].astype(np.float64)
    turn = np.deg2rad(37)
    move = 2.5 * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    moved = points @ move.T + [30, -7]
    np.testing.assert_allclose(five_points(moved), five_points(points) @ move.T + [30, -7], atol=1e-3)
    np.testing.assert_allclose(outline(moved), outline(points) @ move.T + [30, -7], atol=1e-3)
    assert outline(points).shape == (36, 2)
    np.testing.assert_allclose(mesh_box(points), [*points.min(axis=0), *points.max(axis=0)], atol=1e-4)


def test_the_outline_is_a_clockwise_polygon_around_the_landmarks(target_meshes):
    polygon, landmarks = outline(target_meshes[0]), five_points(target_meshes[0])
    assert all(cv2.pointPolygonTest(polygon, (float(x), float(y)), False) > 0 for x, y in landmarks)
    x, y = polygon.T
    assert (x * np.roll(y, -1) - y * np.roll(x, -1)).sum() > 0  # clockwise where y points down


def test_following_a_still_picture_does_not_drift(detector, mesh, portraits):
    frame = RgbFrame(portraits[3])
    face = mesh.fit(frame, detector.detect(portraits[3], min_face=60)[0])
    path = []
    for _ in range(100):
        face = mesh.fit(frame, face)
        path.append(face.landmarks)
    assert np.abs(np.array(path[5:]) - path[5]).max() < 0.25  # pixels
    assert np.linalg.norm(np.mean(path[80:], axis=0) - np.mean(path[5:25], axis=0), axis=1).max() < 0.1


def test_the_mesh_hardly_depends_on_the_box_it_starts_from(detector, mesh, astronaut):
    frame, found = RgbFrame(astronaut), detector.detect(astronaut, min_face=60)[0]
    side = found.box[2] - found.box[0]
    other = Face(found.box + np.array([-0.1, 0.05, 0.1, 0.15]) * side, found.landmarks + 2, found.score)
    difference = mesh.fit(frame, found).landmarks - mesh.fit(frame, other).landmarks
    assert np.abs(difference).max() < 0.03 * eye_distance(found.landmarks)


def test_a_larger_picture_gives_the_same_face_larger(detector, mesh, astronaut):
    small = mesh.fit(RgbFrame(astronaut), detector.detect(astronaut, min_face=60)[0])
    large_image = cv2.resize(astronaut, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
    found = detector.detect(large_image, min_face=240)[0]  # searched on a reduced copy
    large = mesh.fit(RgbFrame(large_image), found)
    tolerance = 0.03 * eye_distance(large.landmarks)
    np.testing.assert_allclose(large.landmarks, (small.landmarks + 0.5) * 4 - 0.5, atol=tolerance)
    assert box_iou(large.box, found.box) > 0.6


@pytest.mark.parametrize("angle", [-150, -60, 30, 90, 180])
def test_a_face_at_any_roll_is_found_and_its_landmarks_keep_their_meaning(detector, mesh, portraits, angle):
    hopper = portraits[-1]
    upright = mesh.fit(RgbFrame(hopper), detector.detect(hopper, min_face=60)[0])
    image, matrix = turned(hopper, angle)
    fitted = mesh.fit(RgbFrame(image), detector.detect_any_roll(image, min_face=60)[0])
    back = transform_points(fitted.landmarks, invert(matrix))
    assert np.linalg.norm(back - upright.landmarks, axis=1).mean() < 0.08 * eye_distance(upright.landmarks)
    assert fitted.mesh_score > 0.9


def test_video_frames_and_images_give_the_same_mesh(detector, mesh):
    frame = next(read_frames(sample_path("dan.mp4")))
    face = detector.detect(frame.rgb(), min_face=60)[0]
    difference = mesh.fit(frame, face).mesh - mesh.fit(RgbFrame(frame.rgb()), face).mesh
    assert np.abs(difference).max() < 0.01


# Edges


def test_a_face_cut_by_the_frame_is_fitted_where_it_would_continue(detector, mesh, astronaut):
    whole = mesh.fit(RgbFrame(astronaut), detector.detect(astronaut, min_face=60)[0])
    left = int(whole.box[0] + 0.3 * (whole.box[2] - whole.box[0]))
    cut = mesh.fit(RgbFrame(np.ascontiguousarray(astronaut[:, left:])), whole_shifted(whole, -left))
    assert cut.box[0] < 0
    assert np.isfinite(cut.mesh).all()
    error = np.linalg.norm(cut.landmarks - whole.landmarks + [left, 0], axis=1)
    assert error.max() < 0.3 * eye_distance(whole.landmarks)


def whole_shifted(face, dx):
    return Face(face.box + np.array([dx, 0, dx, 0]), face.landmarks + np.array([dx, 0]), face.score)


def test_a_box_outside_the_frame_gives_a_low_score_not_an_error(mesh, astronaut):
    box = np.array([-400.0, -300.0, -200.0, -100.0])
    landmarks = np.array([[-340.0, -230.0], [-260, -230], [-300, -180], [-330, -140], [-270, -140]])
    assert mesh.fit(RgbFrame(astronaut), Face(box, landmarks, 1.0)).mesh_score < 0.5


@pytest.mark.parametrize("name", ["coffee", "rocket", "retina"])
def test_pictures_without_a_face_give_none_and_the_mesh_scores_them_low(detector, mesh, name):
    image = np.ascontiguousarray(getattr(skimage.data, name)()[:400, :600])
    assert all(face.score < 0.95 for face in detector.detect(image, min_face=40))
    box = np.array([100.0, 100.0, 300.0, 300.0])
    landmarks = np.array([[160.0, 170.0], [240, 170], [200, 220], [170, 260], [230, 260]])
    assert mesh.fit(RgbFrame(image), Face(box, landmarks, 1.0)).mesh_score < 0.5


@pytest.mark.parametrize("size", [(1, 1), (15, 400), (400, 15), (20, 20), (21, 21), (1, 3000)])
def test_tiny_pictures_give_no_faces(detector, size):
    image = np.full((*size, 3), 128, np.uint8)
    assert detector.detect(image, 0.0) == []
    assert detector.detect_any_roll(image) == []


def test_loading_the_mesh_writes_nothing(capfd):
    FaceMesh()
    assert capfd.readouterr() == ("", "")


# Refusals


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((99, 99), np.uint8),
        np.zeros((99, 99, 4), np.uint8),
        np.zeros((99, 99, 3)),
        np.zeros((3, 99, 99), np.uint8),
    ],
    ids=["grey", "RGBA", "floats", "channels first"],
)
def test_what_mtcnn_would_misread_is_refused(detector, image):
    with pytest.raises(ValueError, match="uint8 RGB"):
        detector.detect(image)


# Determinism


def test_the_same_picture_gives_the_same_face(detector, mesh, astronaut):
    first, second = (
        FaceMesh().fit(RgbFrame(astronaut), Detector().detect(astronaut, min_face=60)[0]) for _ in range(2)
    )
    np.testing.assert_array_equal(first.mesh, second.mesh)
    assert first.score == second.score


def test_a_still_is_searched_for_faces_with_meshes():
    frame = RgbFrame(next(iter(read_frames(sample_path("ada.mp4")))).rgb())
    (face,) = find_faces(frame)
    assert face.mesh.shape == (468, 3)
    assert face.mesh_score > 0.5
    assert find_faces(frame, min_mesh_score=1.1) == []
    assert find_faces(RgbFrame(np.full((200, 200, 3), 90, np.uint8))) == []


def test_the_region_keeps_the_chin_and_lowers_the_forehead():
    frame = RgbFrame(next(iter(read_frames(sample_path("ada.mp4")))).rgb())
    mesh = find_faces(frame)[0].mesh
    whole, half, none = (face_region(mesh, share) for share in (1.0, 0.5, 0.0))
    assert np.array_equal(whole, outline(mesh))
    brow = mesh[[105, 334], 1].mean()
    assert whole[:, 1].min() < half[:, 1].min() < none[:, 1].min()
    assert abs(half[:, 1].min() - (whole[:, 1].min() + brow) / 2) < 3
    below = whole[:, 1] > brow + 5
    assert np.abs(whole - none)[below].max() < 1e-3
