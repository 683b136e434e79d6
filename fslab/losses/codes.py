"""What the encoder must not know: the people's codes are drawn together, so that identity is left to the decoders."""

from collections.abc import Sequence
from itertools import combinations

import torch


def _common_variance(codes: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the variance of all codes together, ``(1, C, 1, 1)``; no gradient flows through it."""
    return torch.cat([c.detach() for c in codes]).var(dim=(0, 2, 3), keepdim=True).clamp_min(1e-6)


def _std(codes: torch.Tensor) -> torch.Tensor:
    """Return the standard deviation over faces and places, ``(1, C, 1, 1)``, with a finite slope at 0."""
    return (codes.var(dim=(0, 2, 3), keepdim=True) + 1e-6).sqrt()


def moment_matching(codes: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return how far the people's codes are from having the same mean and spread, >= 0; 0 for one person.

    For every two people: the mean over channels and places of ``(mean_a - mean_b)^2 + (std_a - std_b)^2``, in units of
    the codes' common variance so that shrinking the codes does not help. People seen with like poses, expressions and
    light must then have like codes, which leaves their identity to the decoders (after Deep CORAL: Sun & Saenko, 2016,
    arXiv:1607.01719, eq. 1, with the mean, and of the covariance its diagonal alone, as standard deviations).

    Args:
        codes: ``(B, C, h, w)`` of each person.
    """
    if len(codes) < 2:
        return codes[0].new_zeros(())
    spread = _common_variance(codes)  # (1, C, 1, 1)
    means = [c.mean(dim=0, keepdim=True) for c in codes]
    stds = [_std(c) for c in codes]
    total, pairs = codes[0].new_zeros(()), 0
    for i in range(len(codes)):
        for j in range(i):
            gap = (means[i] - means[j]).square() / spread + (stds[i] - stds[j]).square() / spread
            total, pairs = total + gap.mean(), pairs + 1
    return total / pairs


def pose_bins(yaw: torch.Tensor, width: float) -> torch.Tensor:
    """Return each face's bin, ``(B,)`` whole numbers, 0 = frontal: its ``yaw`` (degrees) in units of ``width``."""
    return (yaw / width).round().long()


def binned_moment_matching(codes: Sequence[torch.Tensor], bins: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return how far the codes of faces turned alike are from having the same mean and spread, about >= 0.

    `moment_matching` asks two people who turn differently for codes that forget how they turn. This one asks only
    within each bin of poses in which both have two faces or more of the batch; bins count by the smaller of the two
    numbers, and where there is no such bin the pair counts 0. So few faces scatter by themselves, which the squared
    distance of their means would pass off as a difference; it is taken off, ``|mean_a - mean_b|^2 - var_a / n_a -
    var_b / n_b``, which may fall below 0 (the unbiased MMD with a linear kernel: Gretton et al., 2012, "A kernel
    two-sample test", JMLR 13, eq. 3). Units as in `moment_matching`.

    Args:
        codes: ``(B, C, h, w)`` of each person.
        bins: ``(B,)`` whole numbers, each person's, see `pose_bins`.

    Raises:
        ValueError: if a person's bins are not one a face.
    """
    for c, b in zip(codes, bins, strict=True):
        if b.shape != c.shape[:1]:
            raise ValueError(f"one bin a face wanted, got {tuple(b.shape)} for codes {tuple(c.shape)}")
    spread, pairs = _common_variance(codes), list(combinations(range(len(codes)), 2))
    total = codes[0].new_zeros(())
    for i, j in pairs:
        total = total + _pair_gap((codes[i], codes[j]), (bins[i], bins[j]), spread)
    return total / max(len(pairs), 1)


def _pair_gap(
    codes: tuple[torch.Tensor, torch.Tensor], bins: tuple[torch.Tensor, torch.Tensor], spread: torch.Tensor
) -> torch.Tensor:
    """Return the mean gap of two people over the bins that they share."""
    total, count = codes[0].new_zeros(()), 0
    shared = set(bins[0].tolist()) & set(bins[1].tolist())
    for b in sorted(shared):
        a, c = (person[mine == b] for person, mine in zip(codes, bins))
        n = min(len(a), len(c))
        if n >= 2:
            noise = a.var(dim=0) / len(a) + c.var(dim=0) / len(c)  # (C, h, w)
            means = (a.mean(dim=0) - c.mean(dim=0)).square() - noise
            gap = (means[None] + (_std(a) - _std(c)).square()) / spread
            total, count = total + n * gap.mean(), count + n
    return total / max(count, 1)
