import cv2
import numpy as np
import pytest

from fslab import traits
from fslab.mesh import LEFT_EYE, RIGHT_EYE, five_points


def test_identity_gap_of_truth_target_and_half_way():
    rng = np.random.default_rng(3)
    target, truth = rng.normal(0, 1, (2, 6, 128))
    assert traits.identity_gap_closed(truth, target, truth) == 1
    assert traits.identity_gap_closed(target, target, truth) == 0
    assert traits.identity_gap_closed((target + truth) / 2, target, truth) == pytest.approx(0.5)
    assert np.isnan(traits.identity_gap_closed(truth, truth, truth))
    assert traits.identity_distance(np.zeros(128), np.ones(128)) == pytest.approx(np.sqrt(128))


def test_top1_counts_the_faces_whose_nearest_person_is_the_right_one():
    rng = np.random.default_rng(5)
    gallery = rng.normal(0, 1, (200, 128))
    near = gallery[[7, 7, 7, 12]] + rng.normal(0, 0.1, (4, 128))
    assert traits.top1(near, gallery, 7) == 0.75
    assert traits.top1(near[0], gallery, 7) == 1
    assert traits.top1(near, gallery, 12) == 0.25
    assert traits.top1(rng.normal(0, 1, (300, 128)), gallery, 7) < 0.05, "strangers are found by chance only"


@pytest.mark.parametrize("index", [-1, 200])
def test_top1_refuses_a_person_that_is_not_there(index):
    with pytest.raises(ValueError, match="index"):
        traits.top1(np.zeros(128), np.zeros((200, 128)), index)


def test_a_gallery_knows_the_row_of_the_person_put_in():
    assert traits.Gallery(np.array([1004, 3, 88]), np.zeros((3, 128)), 88).index == 2


@pytest.mark.parametrize(
    ("seeds", "shape", "source", "words"),
    [([1, 2], (3, 128), 1, r"seeds must be \(N,\)"), ([1, 2], (2,), 1, "seeds"), ([1, 2], (2, 128), 5, "one of the 2")],
)
def test_a_gallery_that_does_not_fit_is_refused(seeds, shape, source, words):
    with pytest.raises(ValueError, match=words):
        traits.Gallery(np.array(seeds), np.zeros(shape), source)


def test_pose_error_wraps_and_averages():
    assert traits.pose_error((10, 0, 0), (4, 3, 0)) == pytest.approx(3)
    assert traits.pose_error((0, 0, 179), (0, 0, -179)) == pytest.approx(2 / 3)


def test_expression_errors_are_differences_of_openings():
    a = {"mouth_open": 0.3, "eye_left_open": 0.2, "eye_right_open": 0.4}
    b = {"mouth_open": 0.1, "eye_left_open": 0.3, "eye_right_open": 0.1}
    assert traits.mouth_error(a, b) == pytest.approx(0.2)
    assert traits.eyes_error(a, b) == pytest.approx(0.2)


def drawn_eyes(offset, width=60.0, opening=0.4, angle=0.0, size=(200, 260)):
    """A picture of two eyes whose irises stand ``offset`` eye widths to the right, and the mesh points that hold them.

    ``angle`` turns the whole picture clockwise, degrees.
    """
    image = np.full((*size, 3), (190, 140, 120), np.uint8)
    mesh = np.zeros((468, 2))
    turn = np.radians(angle)
    along, across = np.array([np.cos(turn), np.sin(turn)]), np.array([-np.sin(turn), np.cos(turn)])
    middle = np.array([size[1], size[0]]) / 2
    for ids, side in ((LEFT_EYE, -1), (RIGHT_EYE, 1)):
        centre = middle + side * 0.9 * width * along
        t = np.pi + np.linspace(0, 2 * np.pi, 16, endpoint=False)  # from the left corner over the upper lid
        oval = 0.5 * width * np.cos(t)[:, None] * along + 0.5 * opening * width * np.sin(t)[:, None] * across
        mesh[list(ids)] = centre + oval
        inside, iris = (np.zeros(size, np.uint8) for _ in range(2))
        cv2.fillPoly(inside, [np.round((centre + oval) * 16).astype(np.int32)], 1, shift=4)
        at = np.round((centre + offset * width * along) * 16).astype(int)
        cv2.circle(iris, tuple(int(v) for v in at), round(0.17 * width * 16), 1, -1, shift=4)
        image[inside > 0] = 230
        image[(inside > 0) & (iris > 0)] = (60, 40, 30)
    return image, mesh


@pytest.mark.parametrize("offset", [-0.2, 0.0, 0.1, 0.2])
@pytest.mark.parametrize(("width", "angle"), [(60, 0), (60, 20), (14, 0), (9, -10)])
def test_the_iris_is_found_where_it_was_drawn(offset, width, angle):
    image, mesh = drawn_eyes(offset, width, angle=angle)
    assert traits.iris_offset(image, mesh) == pytest.approx(offset, abs=0.02 if width > 20 else 0.05)


def test_the_iris_does_not_depend_on_the_light():
    image, mesh = drawn_eyes(0.15)
    darker = (image * 0.5 + 8).astype(np.uint8)
    assert traits.iris_offset(darker, mesh) == pytest.approx(traits.iris_offset(image, mesh), abs=0.01)


def test_blur_leaves_the_iris_in_its_place():
    image, mesh = drawn_eyes(0.15)
    assert traits.iris_offset(cv2.GaussianBlur(image, (0, 0), 4), mesh) == pytest.approx(0.15, abs=0.04)


def test_closed_eyes_and_eyes_out_of_the_picture_tell_nothing():
    image, mesh = drawn_eyes(0.1, opening=0.15)
    assert np.isnan(traits.iris_offset(image, mesh))
    image, mesh = drawn_eyes(0.1)
    for shift in ((-400, 0), (400, 0), (0, -300), (0, 300)):
        assert np.isnan(traits.iris_offset(image, mesh + shift))
    one_gone = np.array(mesh)
    one_gone[list(LEFT_EYE)] -= 500
    assert traits.iris_offset(image, one_gone) == pytest.approx(0.1, abs=0.02)
    assert np.isnan(traits.iris_offset(np.full_like(image, 128), mesh)), "nothing dark"


def shown_in(image):
    """Where the drawn eyeballs are: brighter or darker than the skin."""
    return np.abs(image.astype(int) - (190, 140, 120)).sum(axis=2) > 0


@pytest.mark.parametrize(("width", "angle"), [(60, 0), (60, 20), (14, 0), (10, -10)])
def test_exact_eye_pixels_tell_the_iris_wherever_the_eyes_stand(width, angle):
    image, mesh = drawn_eyes(0.15, width, angle=angle)
    shown, tolerance = shown_in(image), 0.02 if width > 20 else 0.04
    still = traits.exact_iris_offset(image, mesh, shown, np.zeros((2, 2)))
    assert still == pytest.approx(0.15, abs=tolerance)
    shift = np.float32([[1, 0, 3.5], [0, 1, -2]])
    elsewhere = cv2.warpAffine(image, shift, image.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)
    moved = np.array([[3.5, -2], [3.5, -2]])
    assert traits.exact_iris_offset(elsewhere, mesh, shown, moved) == pytest.approx(still, abs=0.02)
    assert traits.eye_centres(np.add(mesh, (3.5, -2))) - traits.eye_centres(mesh) == pytest.approx(moved)


def test_dark_lashes_mislead_the_polygon_and_not_the_exact_pixels():
    image, mesh = drawn_eyes(0.15)
    shown, lashes = shown_in(image), image.copy()
    for eye in (LEFT_EYE, RIGHT_EYE):
        corner = mesh[list(eye)].min(axis=0)
        lashes[int(corner[1]) : int(corner[1]) + 26, int(corner[0]) - 4 : int(corner[0]) + 16] = 20
    lashes[shown] = image[shown]
    wider = mesh.copy()
    wider[list(LEFT_EYE + RIGHT_EYE)] += 0.35 * (
        mesh[list(LEFT_EYE + RIGHT_EYE)] - np.repeat(traits.eye_centres(mesh), 16, 0)
    )
    fooled = abs(traits.iris_offset(lashes, wider) - 0.15 / 1.35)
    assert abs(traits.exact_iris_offset(lashes, mesh, shown, np.zeros((2, 2))) - 0.15) < 0.02 < fooled


def test_eyeballs_that_are_hardly_shown_tell_nothing():
    image, mesh = drawn_eyes(0.1)
    assert np.isnan(traits.exact_iris_offset(image, mesh, np.zeros(image.shape[:2], bool), np.zeros((2, 2))))
    assert np.isnan(traits.exact_iris_offset(image, mesh + 900, shown_in(image), np.zeros((2, 2))))


def test_gaze_error_is_in_degrees():
    assert traits.gaze_error(0.1, 0.1) == 0
    turned = 12 * np.sin(np.radians(10)) / 30  # an iris 12 mm from the eyeball's centre, seen in an eye 30 mm wide
    assert traits.gaze_error(turned, 0) == traits.gaze_error(0, turned) == pytest.approx(10, abs=0.1)


def test_the_calibration_error_is_what_a_straight_line_leaves():
    rng = np.random.default_rng(6)
    estimates = rng.normal(0, 1, (400, 2))
    known = 140 * estimates[:, 0] - 3 * estimates[:, 1] + 7
    assert traits.calibration_error(estimates, known) == pytest.approx(0, abs=1e-9)
    noisy = known + rng.normal(0, 2, 400)
    assert traits.calibration_error(estimates, noisy) == pytest.approx(2 * np.sqrt(2 / np.pi), rel=0.1)
    nothing = rng.normal(0, 5, 400)
    assert traits.calibration_error(estimates, nothing) == pytest.approx(5 * np.sqrt(2 / np.pi), rel=0.1)
    few = [traits.calibration_error(rng.normal(0, 1, (12, 2)), rng.normal(0, 1, 12)) for _ in range(300)]
    assert np.mean(few) == pytest.approx(np.sqrt(2 / np.pi), rel=0.05), "no flattery for short clips"
    assert np.isnan(traits.calibration_error(estimates[:11], known[:11]))
    assert np.isnan(traits.calibration_error(np.empty((0, 2)), np.empty((0, 1))))


def face_points(seed=0):
    return np.random.default_rng(seed).uniform(20, 180, (468, 2))


def test_landmark_error_of_a_shift_is_the_shift_in_eye_distances():
    exact = face_points()
    distance = np.linalg.norm(np.subtract(*five_points(exact)[:2]))
    assert traits.landmark_error(exact, exact) == 0
    assert traits.landmark_error(np.add(exact, (3, 4)), exact) == pytest.approx(5 / distance)
    one = exact.copy()
    one[100] += (0, 46.8)
    assert traits.landmark_error(one, exact) == pytest.approx(0.1 / distance)
    assert traits.landmark_error(2 * exact + 2 * np.array([3, 4]), 2 * exact) == pytest.approx(5 / distance), "any size"
    deep = np.column_stack([exact, np.full(468, 99.0)])
    assert traits.landmark_error(deep, exact) == 0, "depth is not compared"


def test_the_area_under_a_curve_is_its_mean_over_log_time():
    assert traits.area_under_curve([1, 10, 100], [1, 1, 1]) == pytest.approx(1)
    assert traits.area_under_curve([1, 10, 100], [0, 0.5, 1]) == pytest.approx(0.5), "straight in log time"
    assert traits.area_under_curve([10, 20, 40], [0, 1, 1]) == pytest.approx(0.75), "each doubling counts alike"
    assert traits.area_under_curve([5, 50], [-1, 1]) == pytest.approx(0)
    soon, late = ([0, 0.8, 0.8, 0.8], [0, 0, 0, 0.8])
    assert traits.area_under_curve([1, 2, 4, 8], soon) > traits.area_under_curve([1, 2, 4, 8], late)


def test_curves_with_points_at_other_times_compare_over_one_span():
    line = {1: 0.0, 4: 0.2, 16: 0.4, 64: 0.6}
    often = {s: 0.1 * np.log2(s) for s in (1, 2, 3, 5, 9, 20, 40, 70)}
    a, b = (traits.area_under_curve(list(c), list(c.values()), (2, 32)) for c in (line, often))
    assert a == pytest.approx(b)
    assert a == pytest.approx(0.3)


def test_the_time_to_a_level_is_interpolated_and_none_if_it_never_comes():
    seconds, values = [1, 10, 100, 1000], [0.0, 0.2, 0.6, 0.5]
    assert traits.time_to(seconds, values, 0.2) == pytest.approx(10)
    assert traits.time_to(seconds, values, 0.4) == pytest.approx(10**1.5)
    assert traits.time_to(seconds, values, 0.6) == pytest.approx(100)
    assert traits.time_to(seconds, values, 0.61) is None
    assert traits.time_to(seconds, values, -1) == 1, "the first point is there already"


@pytest.mark.parametrize(
    ("seconds", "values", "words"),
    [
        ([1], [1], "two or more"),
        ([1, 2], [1, 2, 3], "two or more"),
        ([1, 2], [1, np.nan], "finite"),
        ([0, 2], [1, 2], "rise from above 0"),
        ([2, 2], [1, 2], "rise"),
        ([3, 2], [1, 2], "rise"),
    ],
)
def test_what_is_no_curve_is_refused(seconds, values, words):
    with pytest.raises(ValueError, match=words):
        traits.area_under_curve(seconds, values)
    with pytest.raises(ValueError, match=words):
        traits.time_to(seconds, values, 0.5)


@pytest.mark.parametrize("span", [(0.5, 4), (2, 9), (4, 2)])
def test_a_span_beyond_the_curve_is_refused(span):
    with pytest.raises(ValueError, match="span"):
        traits.area_under_curve([1, 2, 8], [0, 1, 1], span)
