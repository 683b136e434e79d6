import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from fslab.losses import (
    LossConfig,
    PatchCritic,
    PerceptualLoss,
    critic_loss,
    dssim_loss,
    gradient_loss,
    image_loss,
    l1_loss,
    mask_loss,
    moment_matching,
    mse_loss,
    ssim_map,
    weighted_mean,
)

IMAGE_LOSSES = (l1_loss, mse_loss, dssim_loss, gradient_loss)


def pictures(seed=0, n=2, size=32):
    g = torch.Generator().manual_seed(seed)
    smooth = torch.rand(n, 3, 8, 8, generator=g)
    x = torch.nn.functional.interpolate(smooth, size=(size, size), mode="bicubic").clamp(0, 1)
    y = (x + torch.randn(n, 3, size, size, generator=g) * 0.1).clamp(0, 1)
    return x, y, torch.ones(n, 1, size, size)


def test_l1_and_mse_of_a_constant_difference_are_it_and_its_square():
    x, w = torch.full((2, 3, 8, 8), 0.5), torch.ones(2, 1, 8, 8)
    assert float(l1_loss(x, x + 0.2, w)) == pytest.approx(0.2)
    assert float(mse_loss(x, x + 0.2, w)) == pytest.approx(0.04)


def test_the_gradient_loss_of_a_ramp_against_flat_is_its_slope_in_each_direction():
    across = (torch.arange(8.0) * 0.1).expand(1, 1, 8, 8)
    flat, w = torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 8, 8)
    assert float(gradient_loss(across, flat, w)) == pytest.approx(0.1)
    assert float(gradient_loss(across + across.transpose(2, 3), flat, w)) == pytest.approx(0.2)
    assert float(gradient_loss(flat + 0.3, flat, w)) == pytest.approx(0)


def test_a_weight_counts_pixels_and_zero_leaves_them_out():
    values = torch.tensor([[[[1.0, 3.0]]]])
    assert float(weighted_mean(values, torch.tensor([[[[1.0, 3.0]]]]))) == pytest.approx(2.5)
    x, y, w = pictures()
    w[..., 16:] = 0
    spoilt = y.clone()
    spoilt[..., 24:] = 1 - spoilt[..., 24:]  # further than a window from the weighted half
    for loss in IMAGE_LOSSES:
        assert float(loss(x, y, w)) == pytest.approx(float(loss(x, spoilt, w)), rel=1e-5)


@pytest.mark.parametrize("window", [7, 11])
def test_ssim_is_that_of_scikit_image(window):
    x, y, _ = pictures(size=40)
    ours = ssim_map(x, y, window)[0].numpy()
    reference = (p[0].permute(1, 2, 0).numpy() for p in (x, y))
    _, full = structural_similarity(*reference, win_size=window, channel_axis=2, data_range=1.0, full=True)
    edge = window // 2
    assert np.abs(ours - full.transpose(2, 0, 1)[:, edge:-edge, edge:-edge]).max() < 1e-4


def test_cross_entropy_of_masks_is_torchs_and_survives_certainty():
    mask, target = torch.tensor([0.9, 0.2]).view(1, 1, 1, 2), torch.tensor([1.0, 0.0]).view(1, 1, 1, 2)
    assert float(mask_loss(mask, target)) == pytest.approx(-(np.log(0.9) + np.log(0.8)) / 2, rel=1e-5)
    assert torch.isfinite(mask_loss(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)))


def test_moment_matching_of_known_codes_is_the_squared_gap_in_units_of_the_common_variance():
    """Codes +-1 about 0 and about 2: means differ by 2, spreads by 0, common variance 2 (up to n / (n - 1))."""
    a = torch.tensor([-1.0, 1.0] * 500).view(1000, 1, 1, 1)
    assert float(moment_matching([a, a + 2])) == pytest.approx(4 / 2, rel=1e-2)
    # About 0 both, spreads 1 and 3: the common variance is (1 + 9) / 2.
    assert float(moment_matching([a, a * 3])) == pytest.approx(4 / 5, rel=1e-2)


def test_moment_matching_ignores_the_codes_scale_and_the_order_of_people():
    g = torch.Generator().manual_seed(0)
    a, b, c = (torch.randn(16, 8, 3, 3, generator=g) * s + s for s in (1.0, 2.0, 0.5))
    one = float(moment_matching([a, b, c]))
    assert one > 0
    assert float(moment_matching([c * 10, a * 10, b * 10])) == pytest.approx(one, rel=1e-3)
    assert float(moment_matching([a])) == 0
    assert float(moment_matching([a, a.clone()])) == pytest.approx(0, abs=1e-6)


def test_training_on_moment_matching_alone_brings_two_code_clouds_together():
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(32, 4, 2, 2, generator=g), torch.randn(32, 4, 2, 2, generator=g) * 2 + 3
    shift, scale = torch.zeros(1, 4, 2, 2, requires_grad=True), torch.ones(1, 4, 1, 1, requires_grad=True)
    optimizer = torch.optim.Adam([shift, scale], 0.1)
    before = float(moment_matching([a, b]))
    for _ in range(200):
        optimizer.zero_grad()
        moment_matching([a, b * scale + shift]).backward()
        optimizer.step()
    assert moment_matching([a, b * scale + shift]).item() < 0.05 * before


@pytest.mark.parametrize("loss", IMAGE_LOSSES)
def test_equal_pictures_cost_nothing_and_worse_ones_cost_more(loss):
    x, y, w = pictures()
    assert float(loss(x, x, w)) == pytest.approx(0, abs=1e-5)
    assert 0 < float(loss(x, x + (y - x) * 0.5, w)) < float(loss(x, y, w))


@pytest.mark.parametrize("loss", IMAGE_LOSSES)
def test_gradients_are_finite_everywhere_even_on_flat_black_pictures(loss):
    for target in (pictures()[1], torch.zeros(2, 3, 32, 32)):
        x = torch.zeros(2, 3, 32, 32, requires_grad=True)
        loss(x, target, torch.ones(2, 1, 32, 32)).backward()
        assert bool(x.grad.isfinite().all())


def test_codes_without_spread_have_finite_gradients():
    a = torch.zeros(4, 2, 3, 3, requires_grad=True)
    moment_matching([a, torch.ones(4, 2, 3, 3)]).backward()
    assert bool(a.grad.isfinite().all())


def test_the_image_loss_is_the_weighted_sum_of_the_parts_that_are_on():
    x, y, w = pictures()
    config = LossConfig(l1=2.0, mse=0.0, dssim=0.5, gradient=0.0)
    assert float(image_loss(x, y, w, config)) == pytest.approx(
        float(2 * l1_loss(x, y, w) + 0.5 * dssim_loss(x, y, w)), rel=1e-6
    )
    assert float(image_loss(x, y, w, LossConfig(l1=0, mse=0, dssim=0, gradient=0))) == 0


def test_negative_weights_are_refused():
    with pytest.raises(ValueError, match="dssim"):
        LossConfig(dssim=-1)


@pytest.fixture(scope="module")
def perceptual():
    return PerceptualLoss()


def test_the_perceptual_loss_is_zero_for_equal_pictures_and_grows_with_blur(perceptual):
    x, _, w = pictures(size=64)
    sharp = (x + torch.randn(x.shape, generator=torch.Generator().manual_seed(1)) * 0.1).clamp(0, 1)
    blurred = [torch.nn.functional.avg_pool2d(sharp, k, 1, k // 2) for k in (3, 7)]
    assert perceptual.weights == "packaged"
    assert float(perceptual(sharp, sharp, w)) == pytest.approx(0, abs=1e-6)
    assert 0 < float(perceptual(blurred[0], sharp, w)) < float(perceptual(blurred[1], sharp, w))


def test_the_perceptual_loss_reaches_the_picture_and_not_its_network(perceptual):
    x, y, w = pictures(size=64)
    x.requires_grad_()
    perceptual(x, y, w).backward()
    assert float(x.grad.abs().sum()) > 0
    assert all(p.grad is None for p in perceptual.parameters())


def test_the_critics_hinge_loss_of_known_scores():
    """Real 0.5 costs 0.5, drawn -2 costs nothing, drawn 1 costs 2."""
    assert float(critic_loss(torch.tensor([0.5, 3.0]), torch.tensor([-2.0, 1.0]))) == pytest.approx(0.25 + 1.0)


def test_a_critic_judges_patches_and_learns_to_tell_noise_from_flat():
    torch.manual_seed(0)
    critic = PatchCritic(8)
    assert critic(torch.rand(2, 3, 64, 64)).shape == (2, 1, 16, 16)
    optimizer = torch.optim.Adam(critic.parameters(), 1e-2)
    for _ in range(20):
        loss = critic_loss(critic(torch.rand(8, 3, 16, 16)), critic(torch.full((8, 3, 16, 16), 0.5)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.5
