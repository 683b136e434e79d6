import cv2
import numpy as np
import pytest
from skimage.color import deltaE_ciede2000, rgb2lab
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from fslab import measures as m


@pytest.fixture
def clip():
    """Five frames of target and truth, smooth noise, and a mask: an ellipse."""
    rng = np.random.default_rng(0)

    def noise():
        frames = rng.normal(0, 1, (5, 64, 72, 3)).astype(np.float32)
        frames = np.stack([cv2.GaussianBlur(f, (0, 0), 2) for f in frames])
        return np.clip(128 + 200 * frames, 0, 255)

    mask = np.zeros((64, 72), np.uint8)
    cv2.ellipse(mask, (36, 32), (20, 24), 0, 0, 360, 1, -1)
    return {"target": noise(), "truth": noise(), "mask": np.broadcast_to(mask.astype(bool), (5, 64, 72))}


def scores(swap, clip):
    arguments = (swap, clip["target"], clip["truth"], clip["mask"])
    return m.closure(*arguments), m.leak(*arguments)


def test_truth_scores_closure_1_and_leak_0(clip):
    assert scores(clip["truth"], clip) == (1, 0)


def test_the_untouched_target_scores_closure_0_and_leak_1(clip):
    assert scores(clip["target"], clip) == pytest.approx((0, 1), abs=1e-12)


@pytest.mark.parametrize("share", [0.25, 0.5, 0.9])
def test_a_blend_leaks_its_share_and_closes_one_minus_its_square(clip, share):
    blend = share * clip["target"] + (1 - share) * clip["truth"]
    assert scores(blend, clip) == pytest.approx((1 - share**2, share), abs=1e-5)


def test_an_error_that_has_nothing_of_the_target_costs_closure_but_does_not_leak(clip):
    gap = clip["target"] - clip["truth"]
    noise = np.random.default_rng(1).normal(0, 20, gap.shape)
    weights = clip["mask"][..., None]
    noise -= gap * (noise * gap * weights).sum() / (gap * gap * weights).sum()  # orthogonal to the gap
    closure, leak = scores(clip["truth"] + noise, clip)
    assert leak == pytest.approx(0, abs=1e-5)
    assert 0 < closure < 1


def test_worse_than_nothing_is_negative_and_overshooting_too(clip):
    beyond = clip["truth"] - 0.5 * (clip["target"] - clip["truth"])
    assert scores(beyond, clip) == pytest.approx((0.75, -0.5), abs=1e-5)
    assert scores(clip["target"] + 255, clip)[0] < 0


def test_only_pixels_in_the_mask_count_and_soft_masks_weigh(clip):
    broken = np.where(clip["mask"][..., None], clip["truth"], 0)
    assert scores(broken, clip) == (1, 0)
    soft = dict(clip, mask=clip["mask"] * 0.5)
    blend = 0.5 * clip["target"] + 0.5 * clip["truth"]
    assert scores(blend, soft) == pytest.approx(scores(blend, clip))


def test_sums_of_frames_are_the_sums_of_the_clip(clip):
    swap = clip["truth"][::-1]
    frames = [m.TruthSums.of(*parts) for parts in zip(swap, clip["target"], clip["truth"], clip["mask"])]
    total = sum(frames, m.TruthSums())
    assert total.closure == pytest.approx(m.closure(swap, clip["target"], clip["truth"], clip["mask"]))
    assert total.psnr == pytest.approx(m.psnr(swap, clip["truth"], clip["mask"]))
    assert total.sharpness == pytest.approx(m.sharpness_ratio(swap, clip["truth"], clip["mask"]))


def test_nothing_to_compare_is_nan(clip):
    swap, target, truth, empty = clip["target"], clip["target"], clip["truth"], np.zeros((5, 64, 72), bool)
    values = [m.closure(swap, target, truth, empty), m.leak(swap, truth, truth, clip["mask"])]
    values += [
        m.psnr(swap, truth, empty),
        m.ssim(swap[0], truth[0], empty[0]),
        m.band_error(swap[0], truth[0], empty[0]),
    ]
    assert np.isnan(values).all()


def test_shapes_that_do_not_fit_are_refused(clip):
    one = clip["mask"][0]
    with pytest.raises(ValueError, match=r"the mask's \(64, 72\) with 3 channels, got \(5, 64, 72, 3\)"):
        m.closure(clip["target"], clip["target"], clip["truth"], one)
    with pytest.raises(ValueError, match="3 channels"):
        m.mean_difference(clip["truth"][0, :, :-1], clip["truth"][0], one)


def test_psnr_agrees_with_skimage_and_has_a_ceiling(clip):
    a, b = (clip[k].astype(np.uint8) for k in ("target", "truth"))
    assert m.psnr(a, b, np.ones(a.shape[:3])) == pytest.approx(peak_signal_noise_ratio(b, a, data_range=255), abs=1e-6)
    assert m.psnr(a, a, clip["mask"]) == m.PSNR_MAX
    assert m.psnr(a * 0 + 10, a * 0, clip["mask"]) == pytest.approx(20 * np.log10(25.5))


def test_ssim_agrees_with_skimage(clip):
    a, b = (cv2.cvtColor(clip[k][0].astype(np.uint8), cv2.COLOR_RGB2GRAY) for k in ("target", "truth"))
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    _, expected = structural_similarity(a, b, full=True, **options)
    assert np.abs(m.gaussian_ssim_map(a, b) - expected).max() < 1e-4
    mask = clip["mask"][0]
    assert m.ssim(a, b, mask) == pytest.approx(expected[mask].mean(), abs=1e-5)


def test_ssim_of_colour_images_is_that_of_their_grey(clip):
    image = clip["truth"][0]
    assert m.ssim(image, image, clip["mask"][0]) == pytest.approx(1, abs=1e-5)
    grey = image @ [0.299, 0.587, 0.114]
    noisy = np.clip(image + 20, 0, 255)
    assert m.ssim(noisy, image, clip["mask"][0]) == pytest.approx(
        m.ssim(noisy @ [0.299, 0.587, 0.114], grey, clip["mask"][0]), abs=1e-4
    )


def test_blur_lowers_sharpness_and_noise_raises_it(clip):
    truth, mask = clip["truth"][0], clip["mask"][0]
    ratios = [m.sharpness_ratio(cv2.GaussianBlur(truth, (0, 0), s), truth, mask) for s in (1, 2, 4)]
    assert 1 > ratios[0] > ratios[1] > ratios[2] > 0
    assert m.sharpness_ratio(truth, truth, mask) == 1
    assert m.sharpness_ratio(truth + np.random.default_rng(2).normal(0, 15, truth.shape), truth, mask) > 1
    assert m.sharpness_ratio(truth + 30, truth, mask) == pytest.approx(1, abs=1e-4), "a cast has no edges"


def test_gradient_power_agrees_with_numpy(clip):
    grey = clip["truth"][0] @ [0.299, 0.587, 0.114]
    gy, gx = np.gradient(grey)
    inner = np.s_[1:-1, 1:-1]
    expected = ((gx**2 + gy**2) * clip["mask"][0])[inner].sum()
    assert m.gradient_power(clip["truth"][0], clip["mask"][0]) == pytest.approx(expected, rel=1e-4)


def test_a_constant_cast_does_not_flicker_and_an_alternating_one_does(clip):
    truth, mask = clip["truth"], clip["mask"][0]
    assert m.flicker(truth[1] + 9, truth[0] + 9, truth[1], truth[0], mask) == pytest.approx(0, abs=1e-4)
    assert m.flicker(truth[1] + 9, truth[0] - 9, truth[1], truth[0], mask) == pytest.approx(18, abs=1e-4)


def test_even_motion_has_no_second_difference_and_trembling_has():
    ramp = [np.full((8, 8, 3), 10.0 * i) for i in range(3)]
    mask = np.ones((8, 8))
    assert m.second_difference(ramp[2], ramp[1], ramp[0], mask) == 0
    assert m.second_difference(ramp[2], ramp[1] + 3, ramp[0], mask) == 6


def test_a_jittered_copy_is_less_steady_than_the_clip():
    x = np.arange(64)
    frames = [
        np.repeat(np.tile(127 + 100 * np.sin((x - 0.5 * t) / 4), (64, 1))[..., None], 3, axis=2) for t in range(3)
    ]
    jittered = [np.roll(f, shift, axis=1) for f, shift in zip(frames, (0, 1, 0))]
    mask = np.ones((64, 64))
    assert m.second_difference(*jittered[::-1], mask) > 3 * m.second_difference(*frames[::-1], mask)


def test_the_band_lies_within_its_width_of_the_edge():
    mask = np.zeros((60, 60), bool)
    mask[20:40, :] = True  # runs out of the image at both sides
    rows = np.flatnonzero(m.edge_band(mask, 3).all(axis=1))
    assert rows.tolist() == [17, 18, 19, 20, 21, 22, 37, 38, 39, 40, 41, 42]
    assert not m.edge_band(np.ones((9, 9)), 3).any()


def test_a_seam_shows_in_the_band_and_not_far_inside():
    mask = np.zeros((60, 60), bool)
    mask[15:45, 15:45] = True
    truth = np.full((60, 60, 3), 100.0)
    seam = truth + 20 * m.edge_band(mask, 1)[..., None]
    assert m.band_error(seam, truth, mask, 1) == pytest.approx(20)
    assert 0 < m.band_error(seam, truth, mask, 8) < 5
    assert m.mean_difference(seam, truth, cv2.erode(mask.astype(np.uint8), np.ones((5, 5)))) == 0


def drawn(seed=0, size=(256, 240), blur=1.5):
    """Smooth noise with detail on every scale, ``(H, W, 3)`` float."""
    rng = np.random.default_rng(seed)
    layers = [cv2.GaussianBlur(rng.normal(0, 1, (*size, 3)), (0, 0), blur * 2**k) * 2**k for k in range(5)]
    return np.clip(128 + 60 * sum(layers), 0, 255)


def ellipse(size, axes):
    mask = np.zeros(size, np.uint8)
    return cv2.ellipse(mask, (size[1] // 2, size[0] // 2), axes, 0, 0, 360, 1, -1).astype(np.float32)


def test_ms_ssim_of_the_truth_is_1_and_falls_with_blur_and_shift():
    truth, mask = drawn(), ellipse((256, 240), (90, 100))
    assert m.ms_ssim(truth, truth, mask) == pytest.approx(1, abs=1e-6)
    blurred = [m.ms_ssim(cv2.GaussianBlur(truth, (0, 0), s), truth, mask) for s in (1, 2, 4)]
    shifted = [m.ms_ssim(np.roll(truth, n, axis=1), truth, mask) for n in (1, 3, 8)]
    for scores in (blurred, shifted):
        assert 1 > scores[0] > scores[1] > scores[2] > 0


def test_ms_ssim_forgives_fine_errors_that_ssim_does_not():
    truth, mask = drawn(), ellipse((256, 240), (90, 100))
    noisy = truth + np.random.default_rng(1).normal(0, 12, truth.shape)
    assert m.ms_ssim(noisy, truth, mask) > m.ssim(noisy, truth, mask) + 0.05


def test_ms_ssim_is_the_product_of_powers_of_five_scales():
    truth = drawn(2)
    other, mask = cv2.GaussianBlur(truth, (0, 0), 1) + 20, np.ones(truth.shape[:2], np.float32)
    a, b, expected = (x @ [0.299, 0.587, 0.114] for x in (other, truth)), None, 1.0
    a, b = a
    for j, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
        full = structural_similarity(a, b, full=True, **options)[1]
        if j < 4:  # contrast and structure alone: take the luminance factor out
            ma, mb = (cv2.GaussianBlur(x, (11, 11), 1.5, borderType=cv2.BORDER_REFLECT) for x in (a, b))
            full = full / ((2 * ma * mb + 6.5025) / (ma**2 + mb**2 + 6.5025))
        expected *= full.mean() ** weight
        a, b = (cv2.resize(x, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for x in (a, b))
    assert m.ms_ssim(other, truth, mask) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("side", "scales"), [(300, 5), (176, 5), (175, 4), (60, 3), (12, 1), (4, 1)])
def test_ms_ssim_uses_the_scales_that_the_face_is_large_enough_for(side, scales):
    truth = np.full((320, 320, 3), 100.0)
    mask = np.zeros((320, 320), np.float32)
    mask[10 : 10 + side, 10 : 10 + side] = 1
    brighter = truth + 50  # only the luminance of the coarsest scale differs
    luminance = (2 * 100 * 150 + 6.5025) / (100**2 + 150**2 + 6.5025)
    weights = m.MS_SSIM_WEIGHTS[:scales]
    assert m.ms_ssim(brighter, truth, mask) == pytest.approx(luminance ** (weights[-1] / sum(weights)), abs=3e-4)


def test_ms_ssim_counts_only_the_mask_and_never_turns_negative():
    truth, mask = drawn(), ellipse((256, 240), (60, 70))
    broken = np.where(cv2.dilate(mask, np.ones((191, 191)))[..., None] > 0, truth, 0)
    assert m.ms_ssim(broken, truth, mask) == pytest.approx(1, abs=1e-4)
    assert m.ms_ssim(255 - truth, truth, mask) == 0
    assert np.isnan(m.ms_ssim(truth, truth, mask * 0))


def test_lab_and_ciede2000_agree_with_skimage():
    a, b = np.random.default_rng(4).integers(0, 256, (2, 40, 50, 3)).astype(np.uint8)
    b[:, :10] = b[:, :10, :1]  # greys have no hue
    assert np.abs(m.lab(a) - rgb2lab(a)).max() < 1e-3
    assert np.abs(m.ciede2000(m.lab(a), m.lab(b)) - deltaE_ciede2000(rgb2lab(a), rgb2lab(b))).max() < 2e-3


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, -1.3802, -84.2814), (50, 0, -82.7485), 1.0000),
        ((50, 2.49, -0.001), (50, -2.49, 0.0009), 7.1792),
        ((50, 2.49, -0.001), (50, -2.49, 0.0011), 7.2195),
        ((50, -0.001, 2.49), (50, 0.0011, -2.49), 4.7461),
        ((50, 0, 0), (50, -1, 2), 2.3669),
        ((2.0776, 0.0795, -1.135), (0.9033, -0.0636, -0.5514), 0.9082),
    ],
)
def test_ciede2000_gives_the_values_sharma_published(a, b, expected):
    assert m.ciede2000(np.array(a, float), np.array(b, float)) == pytest.approx(expected, abs=1e-4)
    assert m.ciede2000(np.array(b, float), np.array(a, float)) == pytest.approx(expected, abs=1e-4)


def test_a_cast_shifts_the_colour_and_wrong_detail_does_not(clip):
    truth, mask, cast = clip["truth"][0], np.ones((64, 72)), np.array([10, 0, -10])
    assert m.colour_difference(truth, truth, mask) == (0, 0)
    assert 1 < m.colour_difference(truth + cast, truth, mask)[0] < m.colour_difference(truth + 2 * cast, truth, mask)[0]
    shift, error = m.colour_difference(truth[:, ::-1], truth, mask)
    assert shift == pytest.approx(0, abs=1e-4), "other detail, the same mean colour"
    assert error > 5
    assert np.isnan(m.colour_difference(truth, truth, mask * 0)).all()


def test_the_colour_shift_is_that_of_the_masked_means():
    truth = np.full((20, 20, 3), (180, 130, 110), np.uint8)
    swap, mask = truth.copy(), np.zeros((20, 20))
    swap[:10], mask[:10] = (170, 130, 125), 1
    expected = deltaE_ciede2000(rgb2lab(truth)[0, 0], rgb2lab(swap)[0, 0])
    assert m.colour_difference(swap, truth, mask) == pytest.approx((expected, expected), abs=1e-3)
    shift, error = m.colour_difference(swap, truth, np.ones((20, 20)))
    assert error == pytest.approx(expected / 2, abs=1e-3)
    assert 0 < shift < expected


def moving(shift, n=2, seed=0):
    """Frames of one texture that moves by ``shift`` pixels (x, y) a frame, their flow and a mask that stays inside."""
    base = drawn(seed, (120, 120))
    frames = [np.roll(base, (shift[1] * t, shift[0] * t), axis=(0, 1))[20:100, 20:100] for t in range(n)]
    flow = np.broadcast_to(np.float16(shift), (80, 80, 2)).copy()
    return frames, flow, ellipse((80, 80), (28, 30))


def test_exact_flow_follows_what_moves():
    (now, after), flow, mask = moving((3, -2))
    assert m.warping_error(now, after, flow, mask) == pytest.approx(0, abs=1e-4)
    assert m.warping_error(now, after, -flow, mask) > 5, "the other way round it does not fit"
    assert m.warping_error(now, after, flow * 0, mask) > 2
    assert m.warping_error(now, after + 7, flow, mask) == pytest.approx(7, abs=1e-4)


def test_flow_between_pixels_is_read_bilinearly():
    x = np.arange(40, dtype=np.float64)
    now, after = (np.repeat(np.tile(3 * (x - d), (40, 1))[..., None], 3, axis=2) for d in (0, 0.5))
    flow = np.full((40, 40, 2), (0.5, 0), np.float16)
    assert m.warping_error(now, after, flow, np.ones((40, 40))) == pytest.approx(0, abs=1e-4)


def test_a_trembling_swap_warps_worse_than_the_truth_and_a_blurred_one_better():
    truth, flow, mask = moving((2, 1))
    truth = [f + np.random.default_rng(i).normal(0, 3, f.shape) for i, f in enumerate(truth)]  # its own grain
    own = m.warping_error(*truth, flow, mask)
    assert m.warping_error(truth[0], np.roll(truth[1], 1, axis=1), flow, mask) > 1.5 * own
    blurred = [cv2.GaussianBlur(f, (0, 0), 2) for f in truth]
    assert m.warping_error(*blurred, flow, mask) < own


def test_pixels_without_flow_or_that_leave_the_picture_do_not_count():
    (now, after), flow, mask = moving((3, 0))
    flow[:, 40:] = np.nan
    after[:, 60:] = 0
    assert m.warping_error(now, after, flow, mask) == pytest.approx(0, abs=1e-4)
    assert np.isnan(m.warping_error(now, after, flow + np.float16("nan"), mask))
    assert np.isnan(m.warping_error(now, after, flow + np.float16(200), mask))


def test_a_polygon_fills_its_inside_and_is_cut_at_the_border():
    mask = m.polygon_mask(np.array([[2, 3], [6, 3], [6, 8], [2, 8]]), (10, 10))
    assert mask.sum() == 5 * 6
    assert mask[3:9, 2:7].all()
    assert m.polygon_mask(np.array([[-5, -5], [4, -5], [4, 4], [-5, 4]]), (10, 10)).sum() == 25
    assert not m.polygon_mask(np.array([[-9, -9], [-5, -9], [-5, -5]]), (10, 10)).any()
