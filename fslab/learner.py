"""What a training step changes, and how: networks, averaged weights, losses, optimisers."""

import copy
import logging
from collections.abc import Sequence

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from fslab.dataset import Batch
from fslab.devices import (
    MicroBatch,
    amp_type,
    compile_or_not,
    half_precision,
    in_pieces,
    make_scaler,
    memory_format,
    pays_to_compile,
)
from fslab.distribute import Exchange, Team
from fslab.losses import Objective
from fslab.model import SwapAutoencoder
from fslab.optimise import Recovery, build_optimizer, step_if_finite
from fslab.schedule import TrainConfig, ema_decay, learning_rate, parse_duration

log = logging.getLogger(__name__)


class Learner:
    """The networks and all that learns beside them.

    ``networks`` and ``optimizers`` are what a checkpoint holds; ``ema`` are the averaged weights that swaps use.
    """

    def __init__(self, model: SwapAutoencoder, config: TrainConfig, coverage: float, encoder_weights: str, team: Team):
        """Begin with a model.

        Args:
            model: on the team's device.
            config: see `TrainConfig`.
            coverage: of the faces.
            encoder_weights: where the encoder's weights came from, see `build_optimizer`.
            team: the processes that train together.
        """
        device = team.device
        self.config, self.team, self.device, self.amp = config, team, device, amp_type(config.precision, device)
        self.model = model.to(memory_format=memory_format(device))
        self.ema = copy.deepcopy(self.model).eval().requires_grad_(False)
        n_people, draw_mask = len(model.identities), model.config.draw_mask
        self.objective = Objective(config.losses, n_people, device, config.lr, coverage, draw_mask)
        self.networks = {"model": self.model, "ema": self.ema, **self.objective.networks}
        optimizer = build_optimizer(self.model, config, encoder_weights)
        self.optimizers = {"optimizer": optimizer, **self.objective.optimizers}
        learning = [(a, p) for a, p in zip(self.ema.parameters(), self.model.parameters()) if p.requires_grad]
        self.averaged, self.raw = [a for a, _ in learning], [p.detach() for _, p in learning]
        self.recovery, self.scaler = Recovery(device), make_scaler(device, self.amp)
        self.micro = MicroBatch(config.micro_batch or config.batch, device, self.tell)
        self.draw = self._draw

    def tell(self, event: str) -> None:
        """Say what happened as a warning."""
        log.warning("%s", event)

    def compile_if_it_pays(self) -> None:
        """Compile the network for a training so long that this earns back the minutes it costs."""
        config, size = self.config, self.model.config.size
        if pays_to_compile(config.compile, self.device, None if config.steps else parse_duration(config.budget)):
            faces = torch.zeros(config.batch, 3, size, size, device=self.device)
            self.model.train()
            with half_precision(self.device, self.amp):
                self.draw = compile_or_not(self._draw, [faces] * len(self.model.identities))
            self.model.zero_grad(set_to_none=True)

    def learn(self, batches: Sequence[Batch], progress: float, step: int) -> torch.Tensor:
        """Take one optimiser step on a batch of each person; where memory runs out, computed in smaller pieces.

        Args:
            batches: in the order of the model's people.
            progress: share of the training done, in [0, 1].
            step: steps done.

        Returns:
            ``(people + 1,)``: each person's loss, and how far the codes are from alike.
        """
        config, exchange = self.config, Exchange(self.team, batches)
        self.model.train()
        total, parts = self.micro.fit(lambda size: self._backward(exchange, progress, step, size))
        rate = config.lr * self.recovery.rate * learning_rate(progress, config.warmup)
        is_bad = self._apply("optimizer", self.model, rate, self.scaler)
        if self.scaler.is_enabled():  # a scale that was too high is no fault of the numbers
            self.team.average_([total])
            is_bad = is_bad * ~total.isfinite()
        self.recovery.count(is_bad)
        torch._foreach_lerp_(self.averaged, self.raw, 1 - ema_decay(step, config.ema))
        return parts

    def _draw(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Encode and draw each person's faces ``(B, 3, S, S)``: everybody's codes, then pictures, then masks."""
        faces = torch.cat(inputs).contiguous(memory_format=memory_format(self.device))
        codes = self.model.encode(faces).split(len(inputs[0]))
        drawn = [self.model.decode(z, name) for z, name in zip(codes, self.model.identities)]
        return (*codes, *(rgb for rgb, _ in drawn), *(mask for _, mask in drawn))

    def _backward(self, exchange: Exchange, progress: float, step: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Leave the gradients of a batch, computed ``size`` faces of each person at a time; may be tried again.

        Returns:
            The loss, and what it is made of: each person's, and the matching.
        """
        for optimizer in self.optimizers.values():  # an earlier try may have left some, or the critics held still
            optimizer.zero_grad(set_to_none=True)
        for network in self.objective.networks.values():
            network.requires_grad_(True)
        objective, batches, n, losses = self.objective, exchange.batches, len(exchange.batches), []
        with half_precision(self.device, self.amp):
            drawn = in_pieces(self.draw, [b.input for b in batches], size)
        codes, pictures, masks = drawn[:n], drawn[n : 2 * n], drawn[2 * n :]
        for i, mask in enumerate(masks):
            rgb, batch = exchange.balance(pictures[i], i)
            if size < len(mask):  # memory is short: what one person's loss needs is not kept beside another's
                losses.append(checkpoint(objective.person_loss, rgb, mask, batch, use_reentrant=False))
            else:
                losses.append(objective.person_loss(rgb, mask, batch))
        match = objective.match(*exchange.everybody([z.float() for z in codes]))
        # A process has the slope at its own codes only, and the mean of those is the whole one divided by their number.
        total = torch.stack(losses).sum() + objective.config.match * self.team.size * match
        rate = self.config.lr * self.recovery.rate
        total = total + objective.adversarial(
            pictures, batches, progress, step,
            lambda *critics: exchange.once("critics", lambda: self._apply(*critics, rate)),
        )  # fmt: skip
        self.scaler.scale(total).backward()
        return total.detach(), torch.stack([*losses, match]).detach()

    def _apply(
        self, name: str, network: nn.Module, rate: float, scaler: torch.amp.GradScaler | None = None
    ) -> torch.Tensor:
        """Average the processes' gradients, clip them and step if they are finite; return 1.0 if they were not."""
        optimizer = self.optimizers[name]
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get("share", 1.0)
        self.team.average_([p.grad for p in network.parameters() if p.grad is not None])
        if scaler:
            scaler.unscale_(optimizer)
        is_bad = step_if_finite(optimizer, network, self.config.clip)
        if scaler and scaler.is_enabled():
            scaler.update()
        return is_bad
