"""What a CNN is made of, in plain loops: convolution, ReLU, pooling, a fully connected layer, what a unit can see.

For lessons and as their answer key; the networks use torch, which computes the same (`tests/test_basics.py`).
Formulas after Dumoulin & Visin (2016), "A guide to convolution arithmetic for deep learning", arXiv:1603.07285.
"""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import nn

KERNELS: dict[str, list[list[float]]] = {
    "identity": [[0, 0, 0], [0, 1, 0], [0, 0, 0]],
    "blur": [[1 / 9] * 3] * 3,
    "edges across": [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]],
    "edges down": [[-1, -2, -1], [0, 0, 0], [1, 2, 1]],
    "outline": [[0, -1, 0], [-1, 4, -1], [0, -1, 0]],
    "sharpen": [[0, -1, 0], [-1, 5, -1], [0, -1, 0]],
}


def output_size(size: int, kernel: int, stride: int = 1, padding: int = 0) -> int:
    """Return the side of what a convolution or pooling makes: ``floor((size + 2 padding - kernel) / stride) + 1``.

    Raises:
        ValueError: if the kernel does not fit, or stride or padding make no sense.
    """
    if kernel < 1 or stride < 1 or padding < 0 or size + 2 * padding < kernel:
        raise ValueError(f"a kernel of {kernel} does not fit into {size} with padding {padding} and stride {stride}")
    return (size + 2 * padding - kernel) // stride + 1


def convolve(image: np.ndarray, kernel: np.ndarray, stride: int = 1, padding: int = 0) -> np.ndarray:
    """Slide a kernel over an image: ``out[i, j] = sum_uv kernel[u, v] * image[i s + u - p, j s + v - p]``.

    Deep learning's convolution, which mathematics calls cross-correlation: the kernel is not turned over.

    Args:
        image: ``(H, W)``.
        kernel: ``(K, K)``.
        stride: step between two places, pixels.
        padding: rows and columns of zeros added on every side.

    Returns:
        ``(H', W')`` float64, see `output_size`.
    """
    image, kernel = np.pad(np.asarray(image, np.float64), padding), np.asarray(kernel, np.float64)
    side = len(kernel)
    height, width = (output_size(n, side, stride) for n in image.shape)
    out = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            patch = image[i * stride : i * stride + side, j * stride : j * stride + side]
            out[i, j] = (kernel * patch).sum()
    return out


def relu(x: np.ndarray) -> np.ndarray:
    """Return ``max(0, x)``: Nair & Hinton (2010), "Rectified linear units improve restricted Boltzmann machines"."""
    return np.maximum(x, 0)


def pool(image: np.ndarray, side: int, how: str = "max") -> np.ndarray:
    """Return the largest or the mean value of each block of ``side`` x ``side`` pixels; what is left over is dropped.

    Args:
        image: ``(H, W)``.
        side: of the blocks, which is the stride too.
        how: "max" or "average".
    """
    if how not in ("max", "average"):
        raise ValueError(f"how must be max or average, got {how!r}")
    height, width = (n // side for n in np.shape(image))
    blocks = np.asarray(image)[: height * side, : width * side].reshape(height, side, width, side)
    return blocks.max(axis=(1, 3)) if how == "max" else blocks.mean(axis=(1, 3))


def fully_connected(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Return ``W x + b``: every output sees every input; ``(n,), (m, n), (m,) -> (m,)``."""
    return np.asarray(weight) @ np.ravel(x) + np.asarray(bias)


def count_conv_parameters(channels_in: int, channels_out: int, kernel: int, bias: bool = True) -> int:
    """Return ``out * (in * K^2 + 1)``: how many numbers a convolution learns, whatever the size of the picture."""
    return channels_out * (channels_in * kernel**2 + int(bias))


def receptive_field(layers: Sequence[tuple[int, int]]) -> int:
    """Return how many pixels across a unit sees after layers of (kernel, stride).

    ``r = 1 + sum_l (k_l - 1) * prod_{i < l} s_i``: Araujo, Norris & Sim (2019), "Computing receptive fields of
    convolutional neural networks", Distill, eq. 2.
    """
    field, jump = 1, 1
    for kernel, stride in layers:
        field += (kernel - 1) * jump
        jump *= stride
    return field


@torch.inference_mode()
def feature_maps(net: nn.Module, x: torch.Tensor, kinds: tuple[type, ...] = (nn.Conv2d,)) -> dict[str, torch.Tensor]:
    """Return what each layer of some kinds makes of pictures, in the order in which they work.

    Args:
        net: any network.
        x: what it takes.
        kinds: classes of the layers to listen to.

    Returns:
        The layer's name -> its output, ``(B, C, h, w)``.
    """
    found: dict[str, torch.Tensor] = {}
    hooks = [
        module.register_forward_hook(lambda _m, _i, out, name=name: found.__setitem__(name, out.clone()))
        for name, module in net.named_modules()
        if isinstance(module, kinds)
    ]
    try:
        net(x)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def maps_to_pictures(maps: torch.Tensor, count: int, side: int = 96) -> list[np.ndarray]:
    """Return the ``count`` liveliest channels of ``(C, h, w)`` as grey pictures ``(side, side)`` uint8.

    Each is stretched to the full range, so that only its pattern shows, not how strong it is.
    """
    order = maps.flatten(1).std(dim=1).argsort(descending=True)[:count]
    pictures = []
    for channel in maps[order].cpu().numpy():
        low, high = channel.min(), channel.max()
        grey = np.round((channel - low) / max(high - low, 1e-6) * 255).astype(np.uint8)
        pictures.append(cv2.resize(grey, (side, side), interpolation=cv2.INTER_NEAREST))
    return pictures
