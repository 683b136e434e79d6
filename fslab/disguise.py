"""Faces disguised as another person of the training, for the network to undo: fake in, real out.

The two reconstruction losses never show a decoder the code of anybody else, which is what a swap will hand it. So some
of ada's faces are drawn as dan first, by the network as it is, and ada's decoder has to draw the real ada from that:
the very path of a swap, with a real photograph as its answer. Swappers without a pair to learn from are trained on the
same reversal (Ye et al. 2025, "DreamID", arXiv:2504.14509); it is back-translation (Sennrich et al. 2016,
arXiv:1511.06709) for pictures.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch

from fslab.dataset import Batch
from fslab.model import SwapAutoencoder


@torch.no_grad()
def disguise(model: SwapAutoencoder, batches: Sequence[Batch], share: float, turn: int) -> list[Batch]:
    """Replace the inputs of some faces by the same faces drawn as somebody else.

    Args:
        model: the network that draws them; the averaged one.
        batches: of each of the model's people, in their order.
        share: of each batch's faces, the first ones, in [0, 1]: batches are drawn at random.
        turn: who is drawn as whom moves on by one with each turn, where there are more than two people.

    Returns:
        The batches, their targets as they were.
    """
    n, n_people = round(share * len(batches[0].input)), len(batches)
    if not n or n_people < 2:
        return list(batches)
    codes = model.encode(torch.cat([b.input[:n] for b in batches])).split(n)
    found = []
    for i, (batch, z) in enumerate(zip(batches, codes)):
        other = (i + 1 + turn % (n_people - 1)) % n_people
        fake, _ = model.decode(z, model.identities[other])
        found.append(replace(batch, input=torch.cat([fake.to(batch.input.dtype), batch.input[n:]])))
    return found
