import cv2
import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from fslab import metrics as m


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


def test_identity_gap_of_truth_target_and_half_way():
    rng = np.random.default_rng(3)
    target, truth = rng.normal(0, 1, (2, 6, 128))
    assert m.identity_gap_closed(truth, target, truth) == 1
    assert m.identity_gap_closed(target, target, truth) == 0
    assert m.identity_gap_closed((target + truth) / 2, target, truth) == pytest.approx(0.5)
    assert m.identity_distance(np.zeros(128), np.ones(128)) == pytest.approx(np.sqrt(128))


def test_pose_error_wraps_and_averages():
    assert m.pose_error((10, 0, 0), (4, 3, 0)) == pytest.approx(3)
    assert m.pose_error((0, 0, 179), (0, 0, -179)) == pytest.approx(2 / 3)


def test_expression_errors_are_differences_of_openings():
    a = {"mouth_open": 0.3, "eye_left_open": 0.2, "eye_right_open": 0.4}
    b = {"mouth_open": 0.1, "eye_left_open": 0.3, "eye_right_open": 0.1}
    assert m.mouth_error(a, b) == pytest.approx(0.2)
    assert m.eyes_error(a, b) == pytest.approx(0.2)


def test_a_polygon_fills_its_inside_and_is_cut_at_the_border():
    mask = m.polygon_mask(np.array([[2, 3], [6, 3], [6, 8], [2, 8]]), (10, 10))
    assert mask.sum() == 5 * 6
    assert mask[3:9, 2:7].all()
    assert m.polygon_mask(np.array([[-5, -5], [4, -5], [4, 4], [-5, 4]]), (10, 10)).sum() == 25
    assert not m.polygon_mask(np.array([[-9, -9], [-5, -9], [-5, -5]]), (10, 10)).any()


def test_the_table_says_each_metric_once_and_how_to_read_it():
    for name, metric in m.METRICS.items():
        assert metric.title, name
        assert metric.meaning.endswith("."), name
        assert metric.better in ("higher", "lower", "near 0", "near 1"), name
    assert len({x.title for x in m.METRICS.values()}) == len(m.METRICS)
    assert m.METRICS["share_swapped"].text(0.5) == "50"
    assert m.METRICS["psnr"].text(20.46) == "20.5"
    assert m.METRICS["closure"].text(-0.25) == "−0.250"
    assert m.METRICS["closure"].text(None) == m.METRICS["closure"].text(float("nan")) == "–"
