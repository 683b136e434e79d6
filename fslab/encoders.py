"""Shared encoders: a face of any person to a code of pose, expression and light."""

import logging
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.error import HTTPError
from urllib.request import Request, build_opener

import timm
import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.constants import ENDPOINT
from safetensors.torch import load_file
from torch import nn

from fslab.decoders import ResBlock
from fslab.errors import RunError
from fslab.weights import weights_path

FIX = "choose another, such as --encoder timm:mobilenetv2_100"
CALIBRATION_PICTURES = 16
HUB_SECONDS = 5.0  # how long the hub may take to answer
MIN_SIDE = 4  # a code with fewer than 4 x 4 places no longer says where things are
log = logging.getLogger(__name__)


class SmallEncoder(nn.Module):
    """Two strided convolutions behind a space-to-depth step, and residual blocks: cheap on a CPU.

    The space-to-depth step turns ``patch`` x ``patch`` pixels into channels, which costs nothing and spares the
    convolutions at full and half size. The stride is four times ``patch``.
    """

    def __init__(self, width: int, latent_channels: int, blocks: int = 0, patch: int = 4):
        super().__init__()
        self.stride = 4 * patch
        self.unshuffle = nn.PixelUnshuffle(patch)
        self.conv1 = nn.Conv2d(3 * patch**2, 2 * width, 5, stride=2, padding=2)
        self.conv2 = nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1)
        self.blocks = nn.Sequential(*(ResBlock(4 * width) for _ in range(blocks)))
        self.act = nn.LeakyReLU(0.1)
        self.code = nn.Conv2d(4 * width, latent_channels, 1)
        for conv in (self.conv1, self.conv2):  # torch's default starts so small that learning sets in late
            nn.init.kaiming_normal_(conv.weight, a=0.1)
            nn.init.zeros_(conv.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Encode ``(B, 3, S, S)`` as ``(B, latent, S/stride, S/stride)``."""
        x = self.unshuffle(x)  # (B, 3 * patch^2, S/patch, S/patch)
        x = self.act(self.conv1(x))  # (B, 2 * width, S/(2 patch), S/(2 patch))
        x = self.act(self.conv2(x))  # (B, 4 * width, S/stride, S/stride)
        return self.code(self.blocks(x))  # (B, latent, S/stride, S/stride)


class FakeappEncoder(nn.Module):
    """The classic CNN: three 3 x 3 convolutions with ReLU and 2 x 2 max-pooling, then a 1 x 1 bottleneck."""

    stride = 8

    def __init__(self, latent_channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, padding=1)
        self.conv2 = nn.Conv2d(64, 128, 3, padding=1)
        self.conv3 = nn.Conv2d(128, 256, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.act = nn.ReLU()
        self.code = nn.Conv2d(256, latent_channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Encode ``(B, 3, S, S)`` as ``(B, latent, S/8, S/8)``."""
        x = self.pool(self.act(self.conv1(x)))  # (B, 64, S/2, S/2)
        x = self.pool(self.act(self.conv2(x)))  # (B, 128, S/4, S/4)
        x = self.pool(self.act(self.conv3(x)))  # (B, 256, S/8, S/8)
        return self.code(x)  # (B, latent, S/8, S/8)


@dataclass(frozen=True)
class EncoderProbe:
    """What a timm backbone gives at a picture size: feature ``index``, its ``channels`` and ``stride``, its input."""

    name: str
    index: int
    channels: int
    stride: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def _features(name: str, size: int) -> tuple[nn.Module, Sequence[torch.Tensor]]:
    """Build a timm backbone with random weights and run it on zeros."""
    try:
        net = timm.create_model(name, pretrained=False, features_only=True).eval()
    except (RuntimeError, AttributeError, ValueError, AssertionError, TypeError) as reason:
        raise RunError("a timm backbone that gives feature maps", f"'{name}'", FIX) from reason
    try:
        with torch.inference_mode():
            return net, net(torch.zeros(1, 3, size, size))
    except (RuntimeError, AssertionError, ValueError, IndexError, TypeError) as reason:
        raise RunError(
            f"a timm backbone that takes {size} x {size} pictures", f"'{name}', made for one size", FIX
        ) from reason


def probe_encoder(name: str, size: int) -> EncoderProbe:
    """Find out whether a timm backbone can be the encoder for pictures of ``size``, by running it.

    The feature map taken is the one with stride 8 or 16 that is the smallest with 4 x 4 places or more.

    Args:
        name: a timm model name.
        size: side of the pictures, pixels.

    Raises:
        RunError: if timm does not know it, it cannot take this size, or its maps are not (B, C, H, W).
    """
    net, maps = _features(name, size)
    channels = net.feature_info.channels()
    for found, c in zip(maps, channels):
        if found.ndim != 4 or found.shape[1] != c or found.shape[2] != found.shape[3]:
            what = f"'{name}' with maps of shape {tuple(found.shape)}, not (B, {c}, H, H)"
            raise RunError("a timm backbone with channels before height and width", what, FIX)
    fits = [
        (i, size // m.shape[2])
        for i, m in enumerate(maps)
        if m.shape[2] >= MIN_SIDE and size % m.shape[2] == 0 and size // m.shape[2] in (8, 16)
    ]
    if not fits:
        sides = ", ".join(str(m.shape[2]) for m in maps)
        raise RunError(
            f"a timm backbone with a map of stride 8 or 16 at {size} px",
            f"'{name}' with sides {sides}",
            "change --size",
        )
    index, stride = fits[-1]
    settings = net.default_cfg if hasattr(net, "default_cfg") else timm.get_pretrained_cfg(name).to_dict()
    return EncoderProbe(name, index, channels[index], stride, tuple(settings["mean"]), tuple(settings["std"]))


class TimmEncoder(nn.Module):
    """One feature map of a timm backbone, normalised inside, and a 1 x 1 convolution to the code.

    Batch normalisation always uses its stored statistics: small batches of two people would spoil them. Those of a
    backbone with random weights are measured once, see `calibrate`. ``weights`` says where the backbone's weights came
    from: "hub", "packaged" or "random".
    """

    def __init__(self, name: str, size: int, latent_channels: int, pretrained: bool):
        super().__init__()
        probe = probe_encoder(name, size)
        self.stride = probe.stride
        self.net = timm.create_model(name, pretrained=False, features_only=True, out_indices=(probe.index,))
        self.weights = load_pretrained(self.net, name, (probe.index,)) if pretrained else "random"
        drop_unused(self.net)
        if self.weights == "random":
            calibrate(self.net, size)
        self.code = nn.Conv2d(probe.channels, latent_channels, 1)
        self.register_buffer("mean", torch.tensor(probe.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(probe.std).view(1, 3, 1, 1))

    def train(self, mode: bool = True) -> "TimmEncoder":
        """Switch to training, except the backbone's batch normalisation."""
        super().train(mode)
        for module in self.net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Encode ``(B, 3, S, S)`` in [0, 1] as ``(B, latent, S/stride, S/stride)``."""
        x = self.net((x - self.mean) / self.std)[0]  # (B, C, S/stride, S/stride)
        return self.code(x)  # (B, latent, S/stride, S/stride)


def drop_unused(net: nn.Module) -> None:
    """Take the blocks away that lie behind the last map; timm's networks of blocks would run them for nothing.

    Args:
        net: made with ``features_only=True`` and its ``out_indices``; changed in place.
    """
    last = net.feature_info.module_name()[-1].split(".")
    if last[0] == "blocks" and len(last) > 1 and isinstance(getattr(net, "blocks", None), nn.Sequential):
        del net.blocks[int(last[1]) + 1 :]


@torch.no_grad()
def calibrate(net: nn.Module, size: int) -> None:
    """Measure the statistics of a random backbone's batch normalisation on random pictures, once and for all.

    Without this its stored statistics (mean 0, variance 1) normalise nothing, and what comes out is 1e-5 or 1e13 times
    what went in, depending on the design. The idea is that of Mishkin & Matas (2016), "All you need is a good init",
    arXiv:1511.06422.

    Args:
        net: made with ``features_only=True``; changed in place and left in evaluation mode.
        size: side of the pictures, pixels.
    """
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [m.momentum for m in norms]
    for m in norms:
        m.momentum = 1.0  # what the next batch has replaces what is stored
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(CALIBRATION_PICTURES, 3, 6, 6, generator=generator)
    fine = torch.randn(CALIBRATION_PICTURES, 3, size, size, generator=generator)
    net.train()(nn.functional.interpolate(coarse, (size, size), mode="bicubic") + 0.1 * fine)
    net.eval()
    for m, momentum in zip(norms, momenta):
        m.momentum = momentum


def backbone_stages(net: nn.Module) -> list[list[nn.Parameter]]:
    """Return the parameters of a timm feature network by stage, from the pictures to the last map it gives.

    A stage ends with a module that timm lists as giving a map; timm's own layer groups do not know feature networks.
    Every parameter is in exactly one stage; stages without any are left out.

    Args:
        net: made with ``features_only=True``.
    """
    ends = [info["module"].replace(".", "_") for info in net.feature_info.info]
    names = [name.replace(".", "_") for name, _ in net.named_modules()]
    last = [max((i for i, n in enumerate(names) if n == e or n.startswith(f"{e}_")), default=-1) for e in ends]
    last = [i for i in last if i >= 0]  # those behind the map that is used are cut off
    stages: list[list[nn.Parameter]] = [[] for _ in range(len(last) + 1)]
    for i, module in enumerate(net.modules()):
        stages[bisect_left(last, i)] += module.parameters(recurse=False)
    return [stage for stage in stages if stage]


def load_pretrained(net: nn.Module, name: str, indices: tuple[int, ...]) -> str:
    """Give a timm feature network its pretrained weights: those that ship with fslab, else the hub's.

    Args:
        net: made with ``features_only=True``; changed in place.
        name: its timm name.
        indices: the feature maps it gives.

    Returns:
        "packaged", "hub", or "random" where neither could be had (a warning says so).
    """
    packaged = weights_path(f"{name}.safetensors")
    if packaged.exists():
        wanted = net.state_dict()
        found = {k: v.to(wanted[k].dtype) for k, v in load_file(packaged).items() if k in wanted}
        missing = [k for k in wanted if k not in found and not k.endswith("num_batches_tracked")]
        if not missing:
            net.load_state_dict(found, strict=False)
            return "packaged"
        log.warning("'%s' does not fit timm's '%s' (no '%s')", packaged.name, name, missing[0])
    warning = "no pretrained weights for '%s' (%s): the encoder starts from random ones"
    if not _hub_answers() and not _is_cached(name):
        log.warning(warning, name, "the hub does not answer")
        return "random"
    try:
        hub = timm.create_model(name, pretrained=True, features_only=True, out_indices=indices)
    except (OSError, RuntimeError, ValueError) as reason:
        log.warning(warning, name, reason)
        return "random"
    net.load_state_dict(hub.state_dict())
    return "hub"


def _hub_answers() -> bool:
    """Say whether the hub can be reached; its own client would try for a minute."""
    try:
        with build_opener().open(Request(ENDPOINT, method="HEAD"), timeout=HUB_SECONDS):  # with the proxies of now
            return True
    except HTTPError:  # an answer too
        return True
    except (OSError, ValueError):
        return False


def _is_cached(name: str) -> bool:
    """Say whether a backbone's weights were downloaded before."""
    repo = timm.get_pretrained_cfg(name).hf_hub_id
    files = ("model.safetensors", "pytorch_model.bin")
    return bool(repo) and any(isinstance(try_to_load_from_cache(repo, file), str) for file in files)
