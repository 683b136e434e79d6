import cv2
import numpy as np
import pytest
from skimage.color import rgb2lab

from fslab import blend
from fslab.geometry import align_matrix, crop_bounds, crop_from_frame
from fslab.media import RgbFrame


def circle(size, radius):
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    return np.stack([np.cos(angles), np.sin(angles)], 1) * radius + (size - 1) / 2


def texture(height, width, seed=0, sigma=3):
    noise = np.random.default_rng(seed).normal(0, 1, (height, width, 3))
    smooth = cv2.GaussianBlur(noise, (0, 0), sigma)
    return np.clip(128 + 60 * smooth / smooth.std(), 0, 255).astype(np.uint8)


def test_mask_is_one_inside_zero_outside_and_falls_monotonically():
    mask = blend.outline_mask(circle(101, 40), 101, erode=0.04, feather=0.1)
    row = mask[50, 50:]
    assert row[0] == 1
    assert row[41:].max() == 0
    assert (np.diff(row) <= 1e-6).all()
    assert mask.min() >= 0
    assert mask.max() <= 1


def test_half_of_the_mask_lies_where_erode_says():
    face_size = np.sqrt(np.pi) * 80
    mask = blend.outline_mask(circle(201, 80), 201, erode=0.05, feather=0.1)
    half = np.argmin(np.abs(mask[100, 100:] - 0.5))
    assert half == pytest.approx(80 - 0.05 * face_size, abs=1.5)


def test_mask_never_touches_the_border_of_the_crop():
    mask = blend.outline_mask(circle(64, 100), 64, 0.0, 0.1)
    assert mask[0].max() == mask[-1].max() == mask[:, 0].max() == mask[:, -1].max() == 0
    assert mask[32, 32] == 1


def test_a_wider_feather_is_softer():
    narrow, wide = (blend.outline_mask(circle(101, 40), 101, 0.05, f) for f in (0.02, 0.2))
    soft = [((m > 0.01) & (m < 0.99)).sum() for m in (narrow, wide)]
    assert soft[1] > 3 * soft[0]


def test_lab_agrees_with_scikit_image():
    image = texture(40, 40)
    assert np.abs(blend.to_lab(image) - rgb2lab(image)).max() < 0.6


@pytest.mark.parametrize("cast", [(1.0, 0.85, 0.8), (0.8, 0.9, 1.0)])
def test_a_known_colour_cast_is_taken_back(cast):
    light = 0.6 + texture(96, 96, sigma=6)[..., :1] / 400.0
    target = np.clip(light * np.array([205, 160, 140]), 0, 255).astype(np.uint8)  # skin under uneven light
    swapped = np.clip(target * np.array(cast), 0, 255).astype(np.uint8)
    mask = blend.outline_mask(circle(96, 40), 96, 0.02, 0.05)
    out = blend.apply_colour(swapped, blend.colour_shift(swapped, target, mask))
    inside = mask > 0.95
    before = np.abs(blend.to_lab(swapped) - blend.to_lab(target))[inside].mean()
    after = np.abs(blend.to_lab(out) - blend.to_lab(target))[inside].mean()
    assert after < 0.2 * before


def test_equal_colours_stay_as_they_are():
    image = texture(64, 64)
    mask = np.ones((64, 64), np.float32)
    out = blend.apply_colour(image, blend.colour_shift(image, image, mask))
    assert np.abs(out.astype(int) - image).max() <= 1


def test_colour_keeps_the_order_of_light_and_dark():
    ramp = np.repeat(np.linspace(20, 200, 64).astype(np.uint8)[None, :, None], 64, 0).repeat(3, 2)
    out = blend.apply_colour(ramp, blend.colour_shift(ramp, texture(64, 64), np.ones((64, 64), np.float32)))
    assert (np.diff(out[32].astype(int).sum(axis=1)) >= 0).all()


def test_contrast_gain_is_limited():
    flat, strong = np.full((64, 64, 3), 120, np.uint8), texture(64, 64)
    shift = blend.colour_shift(flat, strong, np.ones((64, 64), np.float32), limit=1.4)
    assert shift.gain.max() <= 1.4 + 1e-6


def test_no_inside_no_shift():
    assert blend.colour_shift(texture(32, 32), texture(32, 32), np.zeros((32, 32), np.float32)) is None


def test_memory_moves_a_shift_towards_the_new_one():
    a = blend.ColourShift(*np.zeros((3, 3), np.float32))
    b = blend.ColourShift(*np.ones((3, 3), np.float32))
    assert np.allclose(a.towards(b, 0.25).offset, 0.25)


def test_sharpening_stops_at_its_share_of_the_footage_s_own_sharpness():
    target = np.full((96, 96, 3), 128, np.uint8)
    target[20:76, 20:76] = texture(56, 56, sigma=1.5)  # within smooth skin: texture all over would be taken for noise
    soft = cv2.GaussianBlur(target, (0, 0), 0.8)
    inside = np.ones((96, 96), bool)
    mask = inside.astype(np.float32)
    own = blend.gradient_energy(target, inside)
    energies = [blend.gradient_energy(blend.sharpen(soft, target, mask, share), inside) for share in (0, 0.8, 1)]
    assert energies[0] == blend.gradient_energy(soft, inside) < 0.7 * own
    assert energies[1:] == pytest.approx([0.8 * own, own], rel=0.03)
    assert np.array_equal(blend.sharpen(target, soft, mask, 1), target)  # already sharper than the footage
    blurred = cv2.GaussianBlur(target, (0, 0), 3)
    assert blend.gradient_energy(blend.sharpen(blurred, target, mask, 1), inside) < 0.6 * own  # no further than halos


@pytest.mark.parametrize("soft", [0, 1.0])
@pytest.mark.parametrize("sigma", [0.0, 6.0, 15.0])
def test_the_energy_of_noise_is_told_from_that_of_edges(sigma, soft):
    """White or smoothed, as it is in a scaled crop; a flat face with an eye in it."""
    noise = np.random.default_rng(1).normal(0, sigma, (128, 128, 1)).repeat(3, 2)
    noise = cv2.GaussianBlur(noise, (0, 0), soft) if soft else noise
    face = cv2.circle(np.full((128, 128, 3), 128, np.uint8), (64, 64), 20, (40, 40, 40), -1)
    inside = np.ones((128, 128), bool)
    own = blend.gradient_energy(np.clip(128 + noise, 0, 255).astype(np.uint8), inside)
    found = blend.noise_energy(np.clip(face + noise, 0, 255).astype(np.uint8), inside)
    assert found == pytest.approx(own, rel=0.15, abs=0.5)


def test_noise_in_the_footage_is_not_sharpened_to():
    target, mask = texture(96, 96, sigma=4), np.ones((96, 96), np.float32)
    noisy = np.clip(target + np.random.default_rng(2).normal(0, 15, (96, 96, 1)), 0, 255).astype(np.uint8)
    soft = cv2.GaussianBlur(target, (0, 0), 1.2)
    clean, spoiled = (
        blend.gradient_energy(blend.sharpen(soft, reference, mask, 1), mask > 0) for reference in (target, noisy)
    )
    assert spoiled < 1.3 * clean


LANDMARKS = np.array([[170.3, 160.2], [229.1, 158.7], [200.4, 196.0], [177.2, 228.4], [224.0, 226.9]], np.float32)


def test_an_untouched_crop_comes_back_as_it_was():
    frame = RgbFrame(texture(400, 400, sigma=2.5))
    before = frame.rgb().copy()
    matrix = align_matrix(LANDMARKS, 256, 0.58)
    crop = crop_from_frame(frame, matrix, 256)
    mask = blend.outline_mask(circle(256, 100), 256, 0.04, 0.12)
    blend.paste(frame, crop, mask, matrix)
    x0, y0, x1, y1 = crop_bounds(matrix, 256, frame.size)
    difference = np.abs(frame.rgb().astype(float) - before)
    changed = difference.max(axis=2) > 0
    assert not changed[:y0].any()
    assert not changed[:, :x0].any()
    assert not changed[y1:].any()
    assert not changed[:, x1:].any()
    inside = np.zeros(changed.shape, np.uint8)
    cv2.circle(inside, (200, 190), 40, 1, -1)
    psnr = 10 * np.log10(255**2 / (difference[inside > 0] ** 2).mean())
    assert psnr >= 45


def test_where_the_mask_is_zero_not_a_level_changes():
    frame = RgbFrame(texture(300, 300))
    before = frame.rgb().copy()
    matrix = align_matrix(LANDMARKS - 50, 128, 0.58)
    mask = blend.outline_mask(circle(128, 40), 128, 0.04, 0.1)
    blend.paste(frame, np.full((128, 128, 3), 255, np.uint8), mask, matrix)
    full = cv2.warpAffine(mask, cv2.invertAffineTransform(matrix), (300, 300))
    assert np.abs(frame.rgb().astype(int) - before)[full == 0].max() == 0
    assert (frame.rgb()[full > 0.99] > 250).all()


def test_a_face_at_the_edge_of_the_frame_is_pasted_without_wrapping():
    frame = RgbFrame(texture(200, 200))
    before = frame.rgb().copy()
    matrix = align_matrix(LANDMARKS - [180, 170], 128, 0.58)  # half of the face lies outside
    blend.paste(frame, np.zeros((128, 128, 3), np.uint8), blend.outline_mask(circle(128, 40), 128, 0.04, 0.1), matrix)
    changed = np.abs(frame.rgb().astype(int) - before).max(axis=2) > 0
    assert changed[:100, :100].any()
    assert not changed[150:].any()
    assert not changed[:, 150:].any()


def test_a_large_crop_on_a_small_face_does_not_alias():
    frame = RgbFrame(np.full((200, 200, 3), 128, np.uint8))
    checker = (np.indices((256, 256)).sum(axis=0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, 2)
    matrix = align_matrix((LANDMARKS - [200, 190]) * 0.5 + 100, 256, 0.58)
    blend.paste(frame, checker, blend.outline_mask(circle(256, 90), 256, 0.0, 0.05), matrix)
    assert np.abs(frame.rgb().astype(int) - 128).max() <= 4
