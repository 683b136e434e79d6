"""The swap autoencoder: one shared encoder, a decoder for each person."""

from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
from torch import nn
from typing_extensions import Doc

from fslab.decoders import Decoder, DecoderShape
from fslab.encoders import FakeappEncoder, SmallEncoder, TimmEncoder
from fslab.losses import LossConfig
from fslab.schedule import TrainConfig


@dataclass(frozen=True)
class ModelConfig:
    """The network's shape."""

    size: Annotated[int, Doc("side of the pictures, pixels")] = 128
    encoder: Annotated[str, Doc("small, fakeapp, or timm:NAME for a timm backbone")] = "small"
    pretrained: Annotated[bool, Doc("start a timm backbone from its pretrained weights")] = True
    width: Annotated[int, Doc("channels at the decoder's last step; they double towards the code")] = 64
    latent_channels: Annotated[int, Doc("channels of the code")] = 192
    decoder: Annotated[Literal["shuffle", "bilinear", "transpose"], Doc("how the decoder enlarges")] = "shuffle"
    blocks: Annotated[int, Doc("residual blocks of the decoder, before its first step")] = 2
    encoder_blocks: Annotated[int, Doc("residual blocks of the encoder `small`, before the code")] = 1
    patch: Annotated[int, Doc("side of the blocks of pixels that `small` reads and `shuffle` draws at once")] = 4
    draw_mask: Annotated[bool, Doc("let the decoder draw the face's mask too")] = True
    dropout: Annotated[float, Doc("share of the channels dropped after the decoder's first step, 0 to 1")] = 0.0
    value_range: Annotated[Literal["0..1", "-1..1"], Doc("range of the pixel values inside the network")] = "-1..1"

    def __post_init__(self):
        if self.patch < 2 or self.size < 32 or self.size % (4 * self.patch):
            raise ValueError(
                f"size must be a multiple of 4 times patch, 32 or larger, got {self.size} and patch {self.patch}"
            )
        if self.encoder not in ("small", "fakeapp") and not self.encoder.startswith("timm:"):
            raise ValueError(f"encoder must be small, fakeapp or timm:NAME, got {self.encoder!r}")
        if min(self.width, self.latent_channels) < 1 or min(self.blocks, self.encoder_blocks) < 0:
            raise ValueError("width and latent_channels must be >= 1, blocks and encoder_blocks >= 0")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {self.dropout}")


def build_encoder(config: ModelConfig) -> nn.Module:
    """Return the encoder that ``config`` names; it has a ``stride``.

    Raises:
        RunError: if it is a timm backbone that cannot be used, see `fslab.encoders.probe_encoder`.
    """
    if config.encoder == "small":
        return SmallEncoder(config.width, config.latent_channels, config.encoder_blocks, config.patch)
    if config.encoder == "fakeapp":
        return FakeappEncoder(config.latent_channels)
    name = config.encoder.removeprefix("timm:")
    return TimmEncoder(name, config.size, config.latent_channels, config.pretrained)


def encode(encoder: nn.Module, x: torch.Tensor, config: ModelConfig) -> torch.Tensor:
    """Encode pictures ``(B, 3, S, S)`` in [0, 1], brought to the range that the encoder works in."""
    centred = config.value_range == "-1..1" and not isinstance(encoder, TimmEncoder)
    return encoder(x * 2 - 1 if centred else x)  # (B, C, h, w)


def build_decoder(config: ModelConfig, stride: int) -> Decoder:
    """Return one person's decoder for an encoder's ``stride``."""
    shape = DecoderShape(
        stride, config.latent_channels, config.decoder, config.width, config.blocks, config.dropout, config.patch
    )
    return Decoder(shape)


def to_picture(planes: torch.Tensor, config: ModelConfig) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn a decoder's planes ``(B, 4, S, S)`` into a picture ``(B, 3, S, S)`` and a mask ``(B, 1, S, S)``."""
    planes = planes.float()
    rgb, mask = planes[:, :3], planes[:, 3:].sigmoid()  # (B, 3, S, S), (B, 1, S, S)
    rgb = (rgb.tanh() + 1) / 2 if config.value_range == "-1..1" else rgb.sigmoid()
    return rgb, mask if config.draw_mask else torch.ones_like(mask)


class SwapAutoencoder(nn.Module):
    """One shared encoder and a decoder for each identity.

    The encoder sees everybody and so learns what faces share: pose, expression, light. Each decoder only ever draws
    its own person. A swap encodes the target and decodes it as the source.
    """

    def __init__(self, config: ModelConfig, identities: list[str]):
        super().__init__()
        if len(set(identities)) != len(identities) or not identities:
            raise ValueError(f"identities must be distinct and at least one, got {identities}")
        self.config, self.identities = config, list(identities)
        self.encoder = build_encoder(config)
        self.decoders = nn.ModuleList(build_decoder(config, self.encoder.stride) for _ in identities)

    @property
    def encoder_weights(self) -> str:
        """Where the encoder's first weights came from: "hub", "packaged" or "random"."""
        return getattr(self.encoder, "weights", "random")

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Encode faces of anybody: ``(B, 3, S, S)`` in [0, 1] -> code ``(B, C, h, w)``."""
        if x.shape[1:] != (3, self.config.size, self.config.size):
            raise ValueError(f"pictures of (B, 3, {self.config.size}, {self.config.size}) wanted, got {tuple(x.shape)}")
        return encode(self.encoder, x, self.config)  # (B, C, h, w)

    def decode(self, z: torch.Tensor, identity: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw codes as ``identity``.

        Args:
            z: ``(B, C, h, w)`` from `encode`.
            identity: one of ``identities``.

        Returns:
            Picture ``(B, 3, S, S)`` and mask ``(B, 1, S, S)``, both in [0, 1]; the mask is 1 without a mask channel.
        """
        if identity not in self.identities:
            raise ValueError(f"identity must be one of {self.identities}, got {identity!r}")
        return to_picture(self.decoders[self.identities.index(identity)](z), self.config)

    def forward(self, x: torch.Tensor, identity: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Swap: encode ``(B, 3, S, S)`` and decode it as ``identity``; see `decode`."""
        return self.decode(self.encode(x), identity)


_CLASSIC_LOSS = LossConfig(l1=1.0, dssim=0.0, gradient=0.0)

# The base's encoder stays as it is: tuned on two people, it did worse on the benchmark's case where one of them never
# looks to the left, and no better where both show the same.
_FROM_BASE = TrainConfig(lr=1e-3, encoder_train="frozen", disguise=0.5)

# Each preset is named by what it needs: `tiny` a laptop and minutes, `small` a little longer, `full` a GPU and hours;
# `fakeapp` is the classic network for lessons. The first two start from a base that ships.
PRESETS: dict[str, tuple[ModelConfig, TrainConfig]] = {
    "tiny": (ModelConfig(), replace(_FROM_BASE, base="tiny")),
    "small": (ModelConfig(size=160, patch=5), replace(_FROM_BASE, base="small", budget="30m")),
    "full": (
        ModelConfig(size=256, width=96, latent_channels=256, encoder_blocks=2),
        TrainConfig(budget="8h", batch=16, lr=3e-4, ema=0.999, save_every=300.0),
    ),
    "fakeapp": (
        ModelConfig(
            size=256, encoder="fakeapp", width=64, latent_channels=64, decoder="transpose", blocks=0, value_range="0..1"
        ),
        TrainConfig(budget="8h", batch=16, lr=1e-4, save_every=300.0, losses=_CLASSIC_LOSS),
    ),
}
