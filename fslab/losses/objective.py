"""The loss of a training step, and what it takes: feature networks, critics and the critics' optimiser."""

from collections.abc import Callable, Sequence

import torch
from torch import nn

from fslab.dataset import Batch
from fslab.losses.codes import binned_moment_matching, moment_matching, pose_bins
from fslab.losses.config import LossConfig
from fslab.losses.critic import Critics
from fslab.losses.features import IdentityLoss, PerceptualLoss
from fslab.losses.pixels import image_loss, mask_loss

CRITIC_OPTIMIZER = "critic_optimizer"


class Objective:
    """Owns what the losses that are switched on need, and adds them up.

    ``networks`` and ``optimizers`` are what learns beside the model, by the names they have in a checkpoint; both are
    empty where no critic is asked for.
    """

    def __init__(
        self,
        config: LossConfig,
        n_people: int,
        device: torch.device,
        lr: float,
        coverage: float = 1.0,
        draw_mask: bool = True,
    ):
        """Build what is needed, on ``device``.

        Args:
            config: the weights.
            n_people: people trained on.
            device: where batches come from.
            lr: the critics' learning rate.
            coverage: of the crops, see `fslab.geometry.crop_template`; only the identity loss needs it.
            draw_mask: whether the decoders' masks learn.
        """
        self.config, self.draw_mask = config, draw_mask
        self.perceptual = PerceptualLoss(config.perceptual_net).to(device) if config.perceptual else None
        self.identity = IdentityLoss(coverage).to(device) if config.identity else None
        self.networks: dict[str, nn.Module] = {}
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        if config.adversarial:
            critics = self.networks["critics"] = Critics(n_people).to(device)
            self.optimizers[CRITIC_OPTIMIZER] = torch.optim.AdamW(critics.parameters(), lr, (0.5, 0.99), fused=True)

    def person_loss(self, rgb: torch.Tensor, mask: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the loss of one person's drawn faces, all but the critic's part.

        Args:
            rgb: ``(B, 3, S, S)`` drawn.
            mask: ``(B, 1, S, S)`` drawn.
            batch: what was to be drawn.
        """
        config = self.config
        loss = image_loss(rgb, batch.target, batch.weight, config)
        if config.mask and self.draw_mask:
            loss = loss + config.mask * mask_loss(mask, batch.mask)
        if self.perceptual:
            loss = loss + config.perceptual * self.perceptual(rgb, batch.target, batch.weight)
        if self.identity:
            few = slice(min(config.identity_faces, len(mask)))  # a batch is drawn at random, so its first faces are too
            loss = loss + config.identity * self.identity(rgb[few], batch.target[few], batch.mask[few])
        return loss

    def match(self, codes: Sequence[torch.Tensor], batches: Sequence[Batch]) -> torch.Tensor:
        """Return how far the people's codes ``(B, C, h, w)`` are from alike, not yet weighted.

        Raises:
            ValueError: if it is asked for within bins of poses and the batches do not tell the poses.
        """
        width = self.config.match_bin
        if not width:
            return moment_matching(codes)
        yaws = [batch.yaw for batch in batches]
        if any(yaw is None for yaw in yaws):
            raise ValueError("match_bin needs batches that tell each face's yaw; set it to 0")
        return binned_moment_matching(codes, [pose_bins(yaw, width) for yaw in yaws])

    def adversarial(
        self,
        drawn: Sequence[torch.Tensor],
        batches: Sequence[Batch],
        progress: float,
        step: int,
        apply: Callable[[str, nn.Module], object],
    ) -> torch.Tensor:
        """Let the critics learn, and return the weighted loss of drawing worse than fools them; 0 before they join in.

        The slope penalty is taken every ``r1_every`` steps with as many times its weight ("lazy regularization":
        Karras et al. 2020, arXiv:1912.04958, section 3.1 and appendix B).

        Args:
            drawn: ``(B, 3, S, S)`` of each person.
            batches: each person's.
            progress: share of the training done, in [0, 1].
            step: steps done.
            apply: called with the name of an optimiser in ``optimizers`` and the network whose gradients are ready;
                it takes the step and clears the gradients.
        """
        config = self.config
        if not config.adversarial or progress < config.adversarial_from:
            return drawn[0].new_zeros(())
        critics = self.networks["critics"]
        reals, masks = [batch.target for batch in batches], [batch.mask for batch in batches]
        penalty = config.r1 * config.r1_every if step % config.r1_every == 0 else 0.0
        critics.own_loss(reals, drawn, masks, penalty).backward()
        apply(CRITIC_OPTIMIZER, critics)
        return config.adversarial * critics.verdict(drawn, masks)
