import cv2
import numpy as np
import pytest

from fslab import geometry as g
from fslab.media import RgbFrame


def similarity(scale, degrees, shift):
    a = np.radians(degrees)
    rotation = scale * np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    return np.column_stack([rotation, shift])


@pytest.mark.parametrize("n", [2, 3, 5, 68])
@pytest.mark.parametrize("degrees", [0, 37, 90, 180, -135])
def test_recovers_a_known_transform(n, degrees):
    rng = np.random.default_rng(n)
    points = rng.normal(0, 50, (n, 2))
    matrix = similarity(2.5, degrees, [10, -20])
    assert np.allclose(g.umeyama(points, points @ matrix[:, :2].T + matrix[:, 2]), matrix, atol=1e-8)


def test_agrees_with_opencv_on_noisy_points():
    rng = np.random.default_rng(0)
    src = rng.normal(0, 40, (30, 2))
    dst = src @ similarity(0.7, 20, [5, 6])[:, :2].T + [5, 6] + rng.normal(0, 0.5, (30, 2))
    reference, _ = cv2.estimateAffinePartial2D(src, dst, method=cv2.LMEDS)
    assert np.abs(g.umeyama(src, dst) - reference).max() < 0.2


def test_never_mirrors():
    src = np.array([[0, 0], [1, 0], [0, 1.0]])
    assert np.linalg.det(g.umeyama(src, src * [-1, 1])[:, :2]) > 0


def test_coincident_points_are_refused():
    with pytest.raises(ValueError, match="coincide"):
        g.umeyama(np.ones((5, 2)), np.ones((5, 2)))
    with pytest.raises(ValueError, match="must both be"):
        g.umeyama(np.ones((5, 2)), np.ones((4, 2)))


def test_a_face_that_lies_on_the_template_needs_no_move():
    points = g.crop_template(128, 0.6)
    assert np.allclose(g.align_matrix(points, 128, 0.6), [[1, 0, 0], [0, 1, 0]], atol=1e-9)


def test_coverage_is_the_share_the_template_spans():
    wide, narrow = g.crop_template(100, 0.8), g.crop_template(100, 0.4)
    assert np.allclose((wide - 49.5) / 2, narrow - 49.5)
    for bad in (0, 1.2):
        with pytest.raises(ValueError, match="coverage"):
            g.crop_template(100, bad)


def test_invert_undoes_and_points_follow():
    matrix = similarity(1.7, 25, [3, 4])
    points = np.random.default_rng(1).normal(0, 100, (10, 2))
    assert np.allclose(g.transform_points(g.transform_points(points, matrix), g.invert(matrix)), points, atol=1e-3)
    assert g.matrix_scale(matrix) == pytest.approx(1.7)


def test_rescaled_matrix_shows_the_same_part_of_the_frame():
    image = cv2.GaussianBlur(np.random.default_rng(2).integers(0, 255, (200, 200, 3), np.uint8), (0, 0), 6)
    matrix = similarity(0.8, 10, [2, 3])
    big = g.warp(image, g.rescale_matrix(matrix, 100, 200), 200)
    small = g.warp(image, matrix, 100)
    assert np.abs(cv2.resize(big, (100, 100), interpolation=cv2.INTER_AREA).astype(int) - small).max() <= 2


def test_warp_matches_a_transform_of_coordinates():
    yy, xx = np.mgrid[:120, :160].astype(np.float32)
    matrix = similarity(1.3, 15, [-20, -15])
    out = g.warp(np.dstack([xx, yy]), matrix, (50, 60))
    back = g.transform_points(np.array([[30, 20]]), g.invert(matrix))[0]
    assert np.abs(out[20, 30] - back).max() < 0.05


def test_strong_shrinking_does_not_alias():
    checker = (np.indices((400, 400)).sum(axis=0) % 2 * 255).astype(np.uint8)
    out = g.warp(checker, similarity(0.125, 0, [0, 0]), 48)
    assert np.abs(out[4:-4, 4:-4].astype(int) - 127).max() <= 3


def test_shrinking_keeps_the_place():
    yy, xx = np.mgrid[:400, :400].astype(np.float32)
    matrix = similarity(0.2, 30, [20, -5])
    out = g.warp(np.dstack([xx, yy]), matrix, 64)
    back = g.transform_points(np.array([[30, 33]]), g.invert(matrix))[0]
    assert np.abs(out[33, 30] - back).max() < 0.3


def test_crop_bounds_hold_the_crop_and_stay_inside():
    matrix = g.invert(similarity(2, 30, [50, 60]))
    x0, y0, x1, y1 = g.crop_bounds(matrix, 40, (300, 300))
    corners = g.transform_points(np.array([[0, 0], [39, 0], [39, 39], [0, 39]]), g.invert(matrix))
    assert x0 <= corners[:, 0].min()
    assert x1 - 1 >= corners[:, 0].max()
    assert 0 <= y0 < y1 <= 300
    for far in ([-5000, -5000], [5000, 5000]):
        x0, y0, x1, y1 = g.crop_bounds(g.invert(similarity(1, 0, far)), 40, (300, 200))
        assert 0 <= x0 < x1 <= 200
        assert 0 <= y0 < y1 <= 300


def test_shifted_matrix_serves_a_cut_out_region():
    image = np.random.default_rng(3).integers(0, 255, (150, 150, 3), np.uint8)
    matrix = similarity(1.1, 12, [-30, -25])
    whole = g.warp(image, matrix, 50)
    x0, y0, x1, y1 = g.crop_bounds(matrix, 50, image.shape[:2])
    part = g.warp(image[y0:y1, x0:x1], g.shift_matrix(matrix, x0, y0), 50)
    assert np.abs(whole.astype(int) - part).max() <= 1


@pytest.mark.parametrize("scale", [2.0, 0.7, 0.4, 0.2, 0.06])
@pytest.mark.parametrize("shift", [(20, -5), (-60, -40), (0, 0)])
def test_a_crop_from_a_frame_equals_the_warp_of_its_pixels(scale, shift):
    image = cv2.GaussianBlur(np.random.default_rng(4).integers(0, 255, (402, 614, 3), np.uint8), (0, 0), 12)
    matrix = similarity(scale, 20, shift)
    crop = g.crop_from_frame(RgbFrame(image), matrix, 48)
    whole = g.warp(image, matrix, 48)
    corners = g.transform_points(np.array([[0, 0], [47, 0], [47, 47], [0, 47]]), g.invert(matrix))
    assert crop.shape == (48, 48, 3)
    if (corners >= 0).all() and (corners < [600, 390]).all():
        assert np.abs(crop.astype(int) - whole).max() <= 3
    else:
        assert np.abs(crop.astype(int) - whole).mean() <= 6  # at the frame's edge the border is repeated from a block
