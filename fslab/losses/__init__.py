"""What training minimises: pixels, structure, edges, features, masks, and how alike the people's codes are.

`config` holds the weights, one a part, 0 switches it off; `pixels` compares pictures point by point, `features` through
networks that are trained already, `critic` through networks that learn beside the decoders; `codes` keeps identity out
of the encoder; `objective` adds up what is switched on.

Image losses take ``(B, C, S, S)`` in [0, 1] and a pixel weight ``(B, 1, S, S)`` >= 0, and return a weighted mean; with
every loss, lower is better.
"""

from fslab.losses.codes import binned_moment_matching, moment_matching, pose_bins
from fslab.losses.config import LossConfig
from fslab.losses.critic import Critics, PatchCritic, critic_loss, gradient_penalty
from fslab.losses.features import IdentityLoss, PerceptualLoss
from fslab.losses.objective import Objective
from fslab.losses.pixels import (
    dssim_loss,
    gradient_loss,
    image_loss,
    l1_loss,
    mask_loss,
    mse_loss,
    ssim_map,
    weighted_mean,
)

__all__ = [
    "Critics", "IdentityLoss", "LossConfig", "Objective", "PatchCritic", "PerceptualLoss", "binned_moment_matching",
    "critic_loss", "dssim_loss", "gradient_loss", "gradient_penalty", "image_loss", "l1_loss", "mask_loss",
    "moment_matching", "mse_loss", "pose_bins", "ssim_map", "weighted_mean",
]  # fmt: skip
