"""The weights of the parts of the training loss, and the few numbers that shape them."""

from dataclasses import dataclass, fields
from typing import Annotated

from typing_extensions import Doc


@dataclass(frozen=True)
class LossConfig:
    """Weights of the parts of the training loss; 0 switches a part off."""

    l1: Annotated[float, Doc("weight of the absolute difference of pixels")] = 1.0
    mse: Annotated[float, Doc("weight of the squared difference of pixels")] = 0.0
    dssim: Annotated[float, Doc("weight of the structural difference")] = 1.0
    dssim_scales: Annotated[int, Doc("sizes at which structure is compared, each half the one before; 1 = one")] = 1
    gradient: Annotated[float, Doc("weight of the difference of edges")] = 1.0
    perceptual: Annotated[float, Doc("weight of the difference of a pretrained network's features")] = 0.0
    perceptual_net: Annotated[str, Doc("timm name of that network")] = "mobilenetv2_100"
    identity: Annotated[float, Doc("weight of how unlike the person the drawn face looks to the identity network")] = (
        0.0
    )
    identity_faces: Annotated[int, Doc("faces of each person and step that this looks at; it is slow")] = 2
    adversarial: Annotated[float, Doc("weight of a patch critic's judgement; sharpens long trainings")] = 0.0
    adversarial_from: Annotated[float, Doc("share of the training after which the critic joins in")] = 0.75
    r1: Annotated[float, Doc("weight of the penalty on the critic's slope at real faces")] = 1.0
    r1_every: Annotated[int, Doc("steps between penalties, each of which counts for all of them")] = 16
    mask: Annotated[float, Doc("weight of the mask's cross-entropy")] = 0.1
    match: Annotated[float, Doc("weight of matching the moments of the people's codes; keeps identity out of them")] = (
        0.1
    )
    match_bin: Annotated[
        float, Doc("match codes among faces turned alike, in bins of this many degrees of yaw; 0 = all at once")
    ] = 0.0

    def __post_init__(self):
        for f in fields(self):
            if f.name != "perceptual_net" and getattr(self, f.name) < 0:
                raise ValueError(f"the loss weight {f.name} must be >= 0, got {getattr(self, f.name)}")
        for name in ("dssim_scales", "identity_faces", "r1_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
