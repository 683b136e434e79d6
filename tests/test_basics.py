"""The loops that lessons are made of compute what torch computes."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fslab.basics import (
    KERNELS,
    convolve,
    count_conv_parameters,
    feature_maps,
    fully_connected,
    maps_to_pictures,
    output_size,
    pool,
    receptive_field,
    relu,
)

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("side", "stride", "padding"), [(3, 1, 0), (3, 1, 1), (3, 2, 1), (5, 3, 2), (1, 1, 0)])
def test_convolution_is_torchs(side, stride, padding):
    image, kernel = RNG.normal(size=(17, 14)), RNG.normal(size=(side, side))
    wanted = F.conv2d(torch.tensor(image)[None, None], torch.tensor(kernel)[None, None], None, stride, padding)
    found = convolve(image, kernel, stride, padding)
    np.testing.assert_allclose(found, wanted[0, 0].numpy(), atol=1e-12)
    assert found.shape == tuple(output_size(n, side, stride, padding) for n in image.shape)


def test_a_kernel_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="does not fit"):
        output_size(4, 5)


@pytest.mark.parametrize(("how", "torchs"), [("max", F.max_pool2d), ("average", F.avg_pool2d)])
def test_pooling_is_torchs(how, torchs):
    image = RNG.normal(size=(9, 12))
    np.testing.assert_allclose(pool(image, 2, how), torchs(torch.tensor(image)[None, None], 2)[0, 0].numpy())
    with pytest.raises(ValueError, match="max or average"):
        pool(image, 2, "median")


def test_relu_and_a_fully_connected_layer_are_torchs():
    layer, x = nn.Linear(6, 4).double(), torch.tensor(RNG.normal(size=(2, 3)))
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    wanted = F.relu(layer(x.flatten())).detach().numpy()
    np.testing.assert_allclose(relu(fully_connected(x.numpy(), weight, bias)), wanted, atol=1e-12)


@pytest.mark.parametrize(
    ("inputs", "outputs", "side", "bias"), [(3, 64, 3, True), (64, 128, 3, False), (256, 64, 1, True)]
)
def test_parameters_are_counted_as_torch_counts_them(inputs, outputs, side, bias):
    layer = nn.Conv2d(inputs, outputs, side, bias=bias)
    assert count_conv_parameters(inputs, outputs, side, bias) == sum(p.numel() for p in layer.parameters())


def test_the_receptive_field_is_what_gradients_reach():
    layers = [(3, 1), (2, 2), (3, 1), (2, 2), (3, 1)]
    net = nn.Sequential(*(nn.Conv2d(1, 1, k, s) for k, s in layers))
    for conv in net:
        nn.init.ones_(conv.weight)
    x = torch.zeros(1, 1, 64, 64, requires_grad=True)
    out = net(x)
    out[0, 0, out.shape[2] // 2, out.shape[3] // 2].backward()
    assert receptive_field(layers) == int((x.grad[0, 0].abs().sum(dim=1) > 0).sum())


def test_feature_maps_are_listened_to_and_let_go():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 8, 3))
    x = torch.rand(1, 3, 12, 12)
    found = feature_maps(net, x)
    assert list(found) == ["0", "2"]
    assert torch.equal(found["0"], net[0](x))
    assert not any(module._forward_hooks for module in net)
    pictures = maps_to_pictures(found["2"][0], 5, 32)
    assert len(pictures) == 5
    assert all(p.shape == (32, 32) and p.dtype == np.uint8 and p.max() == 255 for p in pictures)


def test_kernels_that_keep_the_brightness_sum_to_one_and_edges_to_nothing():
    sums = {name: float(np.sum(k)) for name, k in KERNELS.items()}
    assert sums == pytest.approx(
        {"identity": 1, "blur": 1, "edges across": 0, "edges down": 0, "outline": 0, "sharpen": 1}
    )
