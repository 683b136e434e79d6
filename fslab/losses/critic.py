"""A critic of each person's patches, which learns to tell drawn from real beside the decoders that learn to fool it."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from fslab.losses.pixels import weighted_mean

SLOPE = 0.2  # of the leaky units below 0
GAIN = 2.0  # of each hidden layer: one that stretches nothing more than once shrinks most of what it is given


class PatchCritic(nn.Module):
    """Judges small patches of a picture: high for photographs, low for drawn ones.

    Isola et al. (2017), "Image-to-image translation with conditional adversarial networks", CVPR, section 3.2.2; each
    layer's weights, as a matrix, are divided by their largest singular value, so that scores cannot grow steep: Miyato
    et al. (2018), "Spectral normalization for generative adversarial networks", arXiv:1802.05957, eq. 8. Without a
    fixed gain in between, scores stay so near 0 that a short training ends before the critic can tell anything. A patch
    is 26 pixels wide. The estimates of the singular vectors are buffers and so go into checkpoints.
    """

    def __init__(self, width: int = 32):
        super().__init__()
        self.layers = nn.ModuleList(
            [
                spectral_norm(nn.Conv2d(3, width, 4, 2, 1)),
                spectral_norm(nn.Conv2d(width, 2 * width, 4, 2, 1)),
                spectral_norm(nn.Conv2d(2 * width, 4 * width, 3, 1, 1)),
                spectral_norm(nn.Conv2d(4 * width, 1, 3, 1, 1)),
            ]
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Judge ``(B, 3, S, S)`` in [0, 1]: ``(B, 1, S/4, S/4)``, unbounded."""
        x = x * 2 - 1
        for layer in self.layers[:-1]:  # (B, width, S/2, S/2), (B, 2 * width, S/4, S/4), (B, 4 * width, S/4, S/4)
            x = F.leaky_relu(layer(x), SLOPE) * GAIN
        return self.layers[-1](x)  # (B, 1, S/4, S/4)


def critic_loss(real: torch.Tensor, drawn: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
    """Return the critic's hinge loss on its scores, ``mean max(0, 1 - real) + mean max(0, 1 + drawn)``, >= 0.

    Lim & Ye (2017), "Geometric GAN", arXiv:1705.02894; Miyato et al. (2018), eq. 16, negated. 2 is what a critic gets
    that scores everything 0.

    Args:
        real: scores of any shape; with a weight ``(B, 1, h, w)``.
        drawn: the same shape.
        weight: ``(B, 1, h, w)`` >= 0, how much each patch counts; alike where left out.
    """
    weight = torch.ones_like(real) if weight is None else weight
    return (weight * (F.relu(1 - real) + F.relu(1 + drawn))).sum() / weight.sum().clamp_min(1e-8)


def gradient_penalty(critic: nn.Module, real: torch.Tensor) -> torch.Tensor:
    """Return the R1 penalty: half the squared slope of the critic's score at real pictures, >= 0.

    Mescheder et al. (2018), "Which training methods for GANs do actually converge?", arXiv:1801.04406, eq. 9 with
    gamma = 1. The score of a picture is the sum over its patches, and the penalty is divided by their number, so that
    it does not depend on the picture's size.

    Args:
        critic: pictures to scores ``(B, ...)``.
        real: ``(B, 3, S, S)``.
    """
    real = real.detach().requires_grad_()
    scores = critic(real)
    (slope,) = torch.autograd.grad(scores.sum(), real, create_graph=True)  # (B, 3, S, S)
    return slope.square().sum() / (2 * scores.numel())


class Critics(nn.ModuleList):
    """One critic a person."""

    def __init__(self, n_people: int):
        super().__init__(PatchCritic() for _ in range(n_people))

    def own_loss(
        self,
        reals: Sequence[torch.Tensor],
        drawn: Sequence[torch.Tensor],
        masks: Sequence[torch.Tensor],
        penalty: float = 0.0,
    ) -> torch.Tensor:
        """Return what the critics minimise, summed over the people; no gradient reaches what drew the pictures.

        Args:
            reals: ``(B, 3, S, S)`` of each person.
            drawn: the same shapes.
            masks: ``(B, 1, S, S)`` of each person: the pictures show, and the patches count, only where it is 1.
            penalty: weight of `gradient_penalty`; 0 leaves it out.
        """
        total = reals[0].new_zeros(())
        for critic, real, fake, mask in zip(self, reals, drawn, masks, strict=True):
            # In one batch: the singular vectors move on with every pass.
            scores = critic(torch.cat([real * mask, fake.detach() * mask]))  # (2B, 1, S/4, S/4)
            total = total + critic_loss(*scores.chunk(2), _patches(mask, scores))
            if penalty:
                total = total + penalty * gradient_penalty(critic, real * mask)
        return total

    def verdict(self, drawn: Sequence[torch.Tensor], masks: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the negated mean score of drawn pictures, summed over the people; its gradient is the pictures' only.

        Miyato et al. (2018), eq. 17.
        """
        self.requires_grad_(False)
        total = drawn[0].new_zeros(())
        for critic, fake, mask in zip(self, drawn, masks, strict=True):
            scores = critic(fake * mask)  # (B, 1, S/4, S/4)
            total = total - weighted_mean(scores, _patches(mask, scores))
        self.requires_grad_(True)
        return total


def _patches(mask: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """Return how much each patch counts, ``(B, 1, S/4, S/4)``: the share of face at its centre."""
    return F.adaptive_avg_pool2d(mask, scores.shape[-2:])
