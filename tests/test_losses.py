"""Losses of pixels, and the weights of all losses."""

from dataclasses import fields
from functools import partial

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from fslab.losses import (
    LossConfig,
    dssim_loss,
    gradient_loss,
    image_loss,
    l1_loss,
    mask_loss,
    mse_loss,
    ssim_map,
    weighted_mean,
)

TWO_SCALES = partial(dssim_loss, scales=2)
IMAGE_LOSSES = (l1_loss, mse_loss, dssim_loss, TWO_SCALES, gradient_loss)


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
    for loss in (l1_loss, mse_loss, dssim_loss, gradient_loss):
        assert float(loss(x, y, w)) == pytest.approx(float(loss(x, spoilt, w)), rel=1e-5)


@pytest.mark.parametrize("window", [7, 11])
def test_ssim_is_that_of_scikit_image(window):
    x, y, _ = pictures(size=40)
    ours = ssim_map(x, y, window)[0].numpy()
    reference = (p[0].permute(1, 2, 0).numpy() for p in (x, y))
    _, full = structural_similarity(*reference, win_size=window, channel_axis=2, data_range=1.0, full=True)
    edge = window // 2
    assert np.abs(ours - full.transpose(2, 0, 1)[:, edge:-edge, edge:-edge]).max() < 1e-4


def halved(x):
    """Return pictures at half the size by averaging, with NumPy."""
    n, c, height, width = x.shape
    return x.reshape(n, c, height // 2, 2, width // 2, 2).mean(axis=(3, 5))


def test_structure_at_several_scales_is_scikit_images_at_each_averaged():
    x, y, w = pictures(n=1, size=64)
    a, b, expected = x.numpy().mean(axis=1, keepdims=True), y.numpy().mean(axis=1, keepdims=True), []
    for _ in range(3):
        _, full = structural_similarity(a[0, 0], b[0, 0], win_size=7, data_range=1.0, full=True)
        expected.append((1 - full[3:-3, 3:-3].mean()) / 2)
        a, b = halved(a), halved(b)
        assert float(dssim_loss(x, y, w, scales=len(expected))) == pytest.approx(np.mean(expected), abs=1e-4)


def test_one_scale_is_structure_as_it_is_and_coarse_scales_see_shading():
    x, y, w = pictures(size=64)
    assert torch.equal(dssim_loss(x, y, w, scales=1), dssim_loss(x, y, w))
    assert LossConfig().dssim_scales == 1
    ramp = torch.linspace(0.4, 0.6, 64).expand(1, 3, 64, 64)
    one, many = (float(dssim_loss(ramp, ramp.flip(3), torch.ones(1, 1, 64, 64), scales=n)) for n in (1, 4))
    assert many > 1.5 * one


def test_more_scales_than_a_picture_holds_are_refused():
    x, y, w = pictures(size=32)
    dssim_loss(x, y, w, scales=3)
    with pytest.raises(ValueError, match="4 scales of a picture of 32 pixels"):
        dssim_loss(x, y, w, scales=4)


def test_cross_entropy_of_masks_is_torchs_and_survives_certainty():
    mask, target = torch.tensor([0.9, 0.2]).view(1, 1, 1, 2), torch.tensor([1.0, 0.0]).view(1, 1, 1, 2)
    assert float(mask_loss(mask, target)) == pytest.approx(-(np.log(0.9) + np.log(0.8)) / 2, rel=1e-5)
    assert torch.isfinite(mask_loss(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)))


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


def test_the_image_loss_is_the_weighted_sum_of_the_parts_that_are_on():
    x, y, w = pictures()
    config = LossConfig(l1=2.0, mse=0.0, dssim=0.5, gradient=0.0)
    assert float(image_loss(x, y, w, config)) == pytest.approx(
        float(2 * l1_loss(x, y, w) + 0.5 * dssim_loss(x, y, w)), rel=1e-6
    )
    assert float(image_loss(x, y, w, LossConfig(l1=0, mse=0, dssim=0, gradient=0))) == 0


def test_the_number_of_scales_reaches_the_image_loss():
    x, y, w = pictures(size=64)
    config = LossConfig(l1=0, gradient=0, dssim=2, dssim_scales=3)
    assert float(image_loss(x, y, w, config)) == pytest.approx(2 * float(dssim_loss(x, y, w, scales=3)))


@pytest.mark.parametrize("name", [f.name for f in fields(LossConfig) if f.name != "perceptual_net"])
def test_negative_weights_are_refused(name):
    with pytest.raises(ValueError, match=name):
        LossConfig(**{name: -1})


@pytest.mark.parametrize("name", ["dssim_scales", "identity_faces", "r1_every"])
def test_counts_below_one_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be >= 1"):
        LossConfig(**{name: 0})
