import cv2
import numpy as np
import pytest

from fslab.visible import visible_face

SKIN, HAIR, WALL = (205, 160, 135), (60, 35, 25), (90, 100, 120)
SIZE = 128
T = np.linspace(0, 2 * np.pi, 36, endpoint=False)
OUTLINE = np.stack([64 + 40 * np.cos(T), 64 + 50 * np.sin(T)], axis=1).astype(np.float32)
FEATURES = np.array([[48, 52], [80, 52], [52, 90], [76, 90]], np.float32)
INSIDE = cv2.fillPoly(np.zeros((SIZE, SIZE), np.uint8), [OUTLINE.astype(np.int32)], 1) > 0


def face(seed=0):
    """A face of one tone with eyes and a mouth, a neck of the same, before a wall."""
    image = np.full((SIZE, SIZE, 3), WALL, np.uint8)
    cv2.rectangle(image, (44, 90), (84, 127), SKIN, -1)
    cv2.ellipse(image, (64, 64), (40, 50), 0, 0, 360, SKIN, -1)
    for x in (48, 80):
        cv2.circle(image, (x, 52), 5, (40, 40, 60), -1)
    cv2.ellipse(image, (64, 90), (12, 4), 0, 0, 360, (170, 80, 80), -1)
    noise = np.random.default_rng(seed).normal(0, 3, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def share(seen, where):
    return float(seen[where].mean())


def test_a_face_with_nothing_in_front_is_seen_whole():
    seen = visible_face(face(), OUTLINE, FEATURES)
    assert share(seen, INSIDE) > 0.97
    assert seen[~cv2.dilate(INSIDE.astype(np.uint8), np.ones((11, 11))).astype(bool)].max() == 0


def test_hair_over_a_cheek_is_not_the_face():
    image = face()
    lock = np.zeros((SIZE, SIZE), np.uint8)
    cv2.rectangle(lock, (92, 0), (127, 127), 1, -1)
    image[lock > 0] = HAIR
    seen = visible_face(image, OUTLINE, FEATURES)
    assert share(seen, INSIDE & (lock > 0)) < 0.15
    assert share(seen, INSIDE & (cv2.dilate(lock, np.ones((7, 7))) == 0)) > 0.95


def test_a_shadow_is_no_reason_to_cut():
    image = face().astype(np.float32)
    image *= np.linspace(1.0, 0.55, SIZE)[None, :, None]
    assert share(visible_face(image.astype(np.uint8), OUTLINE, FEATURES), INSIDE) > 0.95


def test_eyes_and_mouth_always_count_as_seen():
    image = face()
    image[40:64] = HAIR  # a bar over the eyes
    hull = cv2.fillPoly(np.zeros((SIZE, SIZE), np.uint8), [cv2.convexHull(FEATURES).astype(np.int32)], 1) > 0
    assert share(visible_face(image, OUTLINE, FEATURES), cv2.erode(hull.astype(np.uint8), np.ones((5, 5))) > 0) > 0.99


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_picture_of_one_colour_decides_nothing(level):
    seen = visible_face(np.full((SIZE, SIZE, 3), level, np.uint8), OUTLINE, FEATURES)
    assert share(seen, INSIDE) > 0.97


@pytest.mark.parametrize("scale", [0.02, 3.0])
def test_a_face_tiny_or_larger_than_its_crop_does_not_fail(scale):
    centre = np.array([64, 64], np.float32)
    seen = visible_face(face(), (OUTLINE - centre) * scale + centre, (FEATURES - centre) * scale + centre)
    assert seen.shape == (SIZE, SIZE)
    assert 0 <= seen.min() <= seen.max() <= 1


def test_the_same_picture_gives_the_same_mask():
    first, second = (visible_face(face(), OUTLINE, FEATURES) for _ in range(2))
    np.testing.assert_array_equal(first, second)
