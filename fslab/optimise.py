"""Optimisers: who learns, how fast, by which rule; and how a step that went wrong is left out without waiting.

Rules: AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101), Adam (Kingma & Ba 2015, arXiv:1412.6980), SGD with Nesterov's
momentum (Sutskever et al. 2013), and Muon (Jordan 2024; scaled as in Liu et al. 2025, arXiv:2502.16982), which makes
the update of each convolution, seen as a matrix, orthogonal. Rates fall layer by layer towards the pictures in a
pretrained encoder (Clark et al. 2020, "ELECTRA", arXiv:2003.10555; Bao et al. 2021, "BEiT", arXiv:2106.08254).
"""

from collections.abc import Iterator
from typing import Protocol

import timm.optim
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

from fslab.encoders import backbone_stages
from fslab.errors import RunError
from fslab.model import SwapAutoencoder
from fslab.schedule import TrainConfig

BETAS = (0.9, 0.99)
MUON_MOMENTUM = 0.95
BAD_STEPS = 5  # so many steps without finite gradients in a row, and training goes back to its checkpoint
ROLLBACKS = 4  # so many returns to the checkpoint, and training gives up
OWN = ("hub", "packaged")  # weights that a backbone brings itself; its code layer is then new


class Rule(Protocol):
    """What a configuration says of its optimiser."""

    optimizer: str
    lr: float
    momentum: float


def build_optimizer(model: SwapAutoencoder, config: TrainConfig, encoder_weights: str) -> torch.optim.Optimizer:
    """Return the optimiser that ``config`` names, over everything that learns; what does not is frozen here.

    Weights decay apart from their gradients, with any rule but Adam, which has no decay here; biases and the weights of
    normalisations do not. Each group has a ``share``: its part of the learning rate.
    A pretrained encoder's stage that lies ``d`` stages before the code learns at ``encoder_lr * layer_decay ** d``.
    The groups of the decoders come first, then the encoder's stages from the code to the pictures, so that a checkpoint
    still fits where more of the encoder is frozen than before. A step marked by ``optimizer.found_inf`` (a tensor, 1.0)
    changes nothing, and no device is waited for.

    Args:
        model: the network; ``requires_grad`` of its encoder is set.
        config: see `TrainConfig`.
        encoder_weights: where the encoder's weights came from; "random" ones learn like all others.

    Raises:
        RunError: if the installed timm does not have the optimiser.
    """
    return make_optimizer(_group(model, config, encoder_weights), config)


def make_optimizer(groups: list[dict], config: Rule) -> torch.optim.Optimizer:
    """Return the optimiser that ``config`` names over parameter groups, each with its ``weight_decay``."""
    if config.optimizer == "muon":
        optimizer = _muon(groups, config, groups[0]["params"][0].device)
    elif config.optimizer == "sgd":
        optimizer = torch.optim.SGD(groups, config.lr, config.momentum, nesterov=config.momentum > 0, fused=True)
        optimizer.register_step_pre_hook(_Decay(optimizer))
        if config.momentum:  # or a first step that is left out would leave the fused kernel with memory as it was
            for p in _parameters(optimizer):
                optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)
    else:
        kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
        if config.optimizer == "adam":  # its decay would go through the gradient, and 0.01 there stops all learning
            groups = [group | {"weight_decay": 0.0} for group in groups]
        optimizer = kind(groups, config.lr, BETAS, fused=True)
    optimizer.register_state_dict_post_hook(_drop_flags)
    optimizer.register_load_state_dict_pre_hook(_check_state)
    optimizer.register_load_state_dict_post_hook(_lay_out)
    return optimizer


def step_if_finite(optimizer: torch.optim.Optimizer, network: nn.Module, clip: float) -> torch.Tensor:
    """Clip the gradients of a network to the norm ``clip`` and take the step if they are finite; clear them.

    Returns:
        1.0 if they were not finite and nothing was changed, else 0.0; no device is waited for.
    """
    is_bad = (~clip_grad_norm_(network.parameters(), clip).isfinite()).float()
    # The fused optimiser skips a step that is marked so; this is how torch's own GradScaler tells it.
    optimizer.found_inf, optimizer.grad_scale = is_bad, None
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return is_bad


class Recovery:
    """Counts the steps that were left out, and says when to go back to the checkpoint and train on more slowly.

    ``bad`` ``(2,)``: steps without finite gradients in a row, and in all; ``rate`` the factor on the learning rate.
    """

    def __init__(self, device: torch.device):
        self.bad, self.rate, self.rollbacks = torch.zeros(2, device=device), 1.0, 0

    def count(self, is_bad: torch.Tensor) -> None:
        """Count a step; ``is_bad`` as `step_if_finite` returns it."""
        self.bad = torch.stack([(self.bad[0] + 1) * is_bad, self.bad[1] + is_bad])

    def is_due(self) -> bool:
        """Say whether so many steps went wrong in a row that it is time to go back; waits for the device."""
        return float(self.bad[0]) >= BAD_STEPS

    def go_back(self, step: str) -> str:
        """Halve the rate and return the sentence for the log; the caller restores the checkpoint of ``step``.

        Raises:
            RunError: if that was done too often.
        """
        if self.rollbacks >= ROLLBACKS:
            raise RunError(
                "training with finite numbers", f"{ROLLBACKS} failures", "lower --lr; the checkpoint is whole"
            )
        self.rate, self.rollbacks = self.rate / 2, self.rollbacks + 1
        self.bad = self.bad * self.bad.new_tensor([0.0, 1.0])
        return f"not finite for {BAD_STEPS} steps or more: back to the weights of step {step}, half the rate"


def _group(model: SwapAutoencoder, config: TrainConfig, encoder_weights: str) -> list[dict]:
    """Return parameter groups with ``share`` and ``weight_decay``; freeze what does not learn."""
    shares, stages = {}, encoder_stages(model, encoder_weights)
    for depth, stage in enumerate(reversed(stages)):
        learns = config.encoder_lr > 0 and {"frozen": False, "last": depth == 0, "full": True}[config.encoder_train]
        for p in stage:
            p.requires_grad_(learns)
            shares[id(p)] = (depth + 1, config.encoder_lr * config.layer_decay**depth)
    groups: dict[tuple, dict] = {}
    for p in model.parameters():
        if p.requires_grad:
            place, share = shares.get(id(p), (0, 1.0))
            decay = config.weight_decay if p.ndim > 1 else 0.0
            group = groups.setdefault((place, p.ndim <= 1), {"params": [], "share": share, "weight_decay": decay})
            group["params"].append(p)
    return [groups[key] for key in sorted(groups)]


def encoder_stages(model: SwapAutoencoder, encoder_weights: str) -> list[list[nn.Parameter]]:
    """Return the parameters of a pretrained encoder, stage by stage from the pictures to the code; none if random.

    An encoder that is no timm backbone is one stage. The layer from a backbone to the code is pretrained only where the
    whole encoder is.
    """
    if encoder_weights == "random":
        return []
    encoder = model.encoder
    if not hasattr(encoder, "net"):
        return [list(encoder.parameters())]
    stages = backbone_stages(encoder.net)
    if encoder_weights not in OWN:
        stages[-1] += list(encoder.code.parameters())
    return stages


def _muon(groups: list[dict], config: Rule, device: torch.device) -> torch.optim.Optimizer:
    """Return timm's Muon, which trains what is no matrix, or no sensible one, with AdamW; steps can be left out."""
    if not hasattr(timm.optim, "Muon"):
        raise RunError("a timm with the optimiser Muon", f"timm {timm.__version__}", "pip install --upgrade timm")
    on_device = device.type != "cpu"  # its step counters, so that leaving a step out waits for no device
    optimizer = timm.optim.Muon(groups, config.lr, momentum=MUON_MOMENTUM, betas=BETAS, capturable=on_device)
    undo = _Undo()
    optimizer.register_step_pre_hook(undo.keep)
    optimizer.register_step_post_hook(undo.restore)
    return optimizer


class _Decay:
    """Decouples the weight decay of SGD: weights shrink by ``lr * weight_decay``, whatever their gradient's size.

    Loshchilov & Hutter (2019), arXiv:1711.05101, algorithm 1 (SGDW).
    """

    def __init__(self, optimizer: torch.optim.Optimizer):
        self.decays = [group["weight_decay"] for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            group["weight_decay"] = 0.0

    @torch.no_grad()
    def __call__(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        """Shrink the weights, unless the step is marked."""
        is_bad = getattr(optimizer, "found_inf", None)
        for group, decay in zip(optimizer.param_groups, self.decays):
            weights = [p for p in group["params"] if p.grad is not None]
            if decay and weights:
                factor = group["lr"] * decay
                torch._foreach_mul_(weights, 1 - factor if is_bad is None else 1 - factor * (1 - is_bad))


class _Undo:
    """Takes a step back that ``found_inf`` marks, for optimisers that do not know the mark themselves.

    Everything the step may change is copied before and chosen from after, on the device: the cost of a copy of the
    network and its state.
    """

    def __init__(self):
        self.kept: dict[int, torch.Tensor] = {}

    def keep(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        """Copy parameters and state."""
        self.kept = {id(t): t.detach().clone() for t in _tensors(optimizer)}

    @torch.no_grad()
    def restore(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        """Put the copies back where the step is marked; state that is new was zero before."""
        is_bad = getattr(optimizer, "found_inf", None)
        for t in _tensors(optimizer) if is_bad is not None else ():
            before = self.kept.get(id(t))
            t.copy_(torch.where(is_bad.to(t.device) > 0, torch.zeros_like(t) if before is None else before, t))
        self.kept = {}


def _parameters(optimizer: torch.optim.Optimizer) -> Iterator[nn.Parameter]:
    """Yield what an optimiser trains."""
    for group in optimizer.param_groups:
        yield from group["params"]


def _tensors(optimizer: torch.optim.Optimizer) -> Iterator[torch.Tensor]:
    """Yield what a step changes: parameters with a gradient, and the state."""
    yield from (p for p in _parameters(optimizer) if p.grad is not None)
    for slots in optimizer.state.values():
        yield from (v for v in slots.values() if isinstance(v, torch.Tensor))


def _drop_flags(_: torch.optim.Optimizer, state: dict) -> None:
    """Leave out what is no tensor (timm's note of who is a matrix, which it finds out again): checkpoints hold none."""
    for number, slots in state["state"].items():
        state["state"][number] = {k: v for k, v in slots.items() if isinstance(v, torch.Tensor)}


def _lay_out(optimizer: torch.optim.Optimizer) -> None:
    """Bring an optimiser's memory into the layout of its parameters, channels first or last: fused steps want that."""
    for p, slots in optimizer.state.items():
        for name, value in slots.items():
            if isinstance(value, torch.Tensor) and value.shape == p.shape and value.stride() != p.stride():
                slots[name] = torch.empty_like(p, dtype=value.dtype).copy_(value)


def _check_state(optimizer: torch.optim.Optimizer, state: dict) -> None:
    """Refuse a checkpoint of another rule or another grouping, which torch would take and mix up.

    Raises:
        ValueError: if a parameter's state has another shape, or slots that this optimiser does not use.
    """
    known = {
        torch.optim.SGD: {"momentum_buffer"}, torch.optim.Adam: {"step", "exp_avg", "exp_avg_sq"},
    }  # fmt: skip
    wanted = next((slots for kind, slots in known.items() if isinstance(optimizer, kind)), None)
    for number, p in enumerate(_parameters(optimizer)):
        for slot, value in state["state"].get(number, {}).items():
            if (value.ndim and value.shape != p.shape) or (wanted and slot not in wanted):
                found = f"{slot} of {tuple(value.shape)} for a parameter of {tuple(p.shape)}"
                raise ValueError(f"a state of {type(optimizer).__name__} wanted, got {found}")
