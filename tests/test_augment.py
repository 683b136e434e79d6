import cv2
import numpy as np
import pytest
import torch

from fslab.augment import add_noise, blur, compress, light_field, occlude, spoil, warp_field


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(n=4, size=64, seed=1):
    rng = np.random.default_rng(seed)
    smooth = [cv2.GaussianBlur(rng.random((size, size, 3), np.float32), (0, 0), 3) for _ in range(n)]
    return torch.from_numpy(np.stack(smooth)).permute(0, 3, 1, 2).contiguous()


def test_blur_is_opencvs_gaussian_and_each_picture_has_its_own():
    images, sigma = pictures(3), torch.tensor([0.0, 1.5, 3.0])
    out = blur(images, sigma)
    assert torch.allclose(out[0], images[0], atol=1e-6)
    for i in (1, 2):
        wanted = cv2.GaussianBlur(
            images[i].permute(1, 2, 0).numpy(), (19, 19), float(sigma[i]), borderType=cv2.BORDER_REPLICATE
        )
        assert np.abs(out[i].permute(1, 2, 0).numpy() - wanted).max() < 2e-3


def test_compression_at_the_table_of_quality_50_is_close_to_opencvs_jpeg_of_grey_pictures():
    grain = cv2.GaussianBlur(np.random.default_rng(0).random((64, 64), np.float32), (0, 0), 1)
    grey = torch.from_numpy((grain * 255).clip(0, 255).round() / 255).float()[None, None]
    ok, data = cv2.imencode(".jpg", (grey[0, 0] * 255).byte().numpy(), [cv2.IMWRITE_JPEG_QUALITY, 50])
    assert ok
    theirs = torch.from_numpy(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE).astype(np.float32) / 255)
    ours = compress(grey, torch.ones(1))[0, 0]
    assert (ours - theirs).abs().mean() < 0.2 * (grey[0, 0] - theirs).abs().mean()
    assert (ours - theirs).abs().mean() < 2 / 255  # both round, to whole levels and in whole numbers
    assert torch.allclose(compress(grey, torch.zeros(1)), grey, atol=1e-4)


def test_noise_has_the_deviation_that_was_asked_for_and_stays_in_range():
    images = torch.full((2, 3, 128, 128), 0.5)
    out = add_noise(images, torch.tensor([0.05, 0.0]), generator())
    assert out[0].std() == pytest.approx(0.05, rel=0.05)
    assert (out[1] == 0.5).all()
    assert add_noise(images * 2, torch.tensor([0.5, 0.5]), generator()).min() >= 0


def test_an_occluder_covers_a_part_with_one_colour_and_leaves_the_rest():
    images = torch.full((32, 3, 64, 64), 0.5)
    changed = (occlude(images, generator()) - images).abs().amax(1) > 0.02  # (32, 64, 64)
    share = changed.float().mean((1, 2))
    assert 0 < share.mean() < 0.6
    assert share.max() < 0.95


def test_spoiling_by_nothing_is_the_identity_and_by_all_changes_about_what_was_asked():
    images = pictures(64)
    assert torch.equal(spoil(images, (0, 0, 0, 0), generator()), images)
    out = spoil(images, (0.25, 0, 0, 0), generator())
    changed = ((out - images).abs().amax((1, 2, 3)) > 0.02).float().mean()
    assert 0.1 < changed < 0.4
    assert torch.equal(
        spoil(images, (0.2, 0.02, 0.1, 1), generator(3)), spoil(images, (0.2, 0.02, 0.1, 1), generator(3))
    )
    out = spoil(images, (0.2, 0.02, 0.1, 1), generator())
    assert out.min() >= 0
    assert out.max() <= 1
    assert not torch.equal(out, images)


def test_the_light_is_smooth_and_warps_have_the_size_that_was_asked_for():
    light = light_field(64, 32, 0.3, generator())
    assert light.shape == (64, 3, 32, 32)
    assert (light[..., 1:] - light[..., :-1]).abs().max() < 0.05
    assert warp_field(512, 32, 0.02, generator()).std() == pytest.approx(0.03, rel=0.15)
    assert (warp_field(2, 32, 0.0, generator()) == 0).all()
