"""Several processes that train one run together, each on its own processor, joined by Hugging Face Accelerate.

``accelerate launch --multi_gpu --num_processes 4 -m fslab train ...`` starts them, with ``--device cpu`` on a machine
without GPUs too (Accelerate's own ``--cpu`` starts one process). Each draws faces of its own; the gradients are
averaged, so that N processes with a batch of B take the steps of one with a batch of N * B (Goyal et al. 2017,
"Accurate, large minibatch SGD", arXiv:1706.02677, section 3). The first one is *main*: it alone writes, measures and
prints, and its clock is everybody's. The others need neither its disk nor its run folder, only the face sets.

What depends on the whole batch is told around: the codes that are matched, and the sums that weighted means are divided
by. Three things look at each process's own faces, and only their gradients are averaged: the normalisation inside the
critics' losses, the few faces that the identity loss looks at, and dropout.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
import torch.nn.functional as F

from fslab.dataset import Batch
from fslab.devices import choose_device
from fslab.errors import FslabError, RunError

T = TypeVar("T")


def n_processes() -> int:
    """Return how many processes a launcher started together; 1 without one."""
    return max(int(os.environ.get("WORLD_SIZE", "1")), 1)


def is_main_process() -> bool:
    """Say whether this process is the one that speaks: the first of several, or the only one."""
    return n_processes() == 1 or os.environ.get("RANK", "0") == "0"


@dataclass(frozen=True)
class Team:
    """The processes that train together, seen from one of them: number ``rank`` of ``size``, working on ``device``."""

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Say whether this is the process that writes, measures and tells the time."""
        return self.rank == 0

    def average_(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace tensors by their means over the processes, in place, in one message."""
        if self.size > 1 and tensors:
            from accelerate.utils import reduce

            mean = reduce(torch.cat([t.flatten() for t in tensors]), "mean")
            for t, values in zip(tensors, mean.split([t.numel() for t in tensors])):
                t.copy_(values.view(t.shape))

    def gather(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """Return everybody's tensor of this shape, in order of rank."""
        if self.size == 1:
            return [tensor]
        from accelerate.utils import gather

        return list(gather(tensor.detach().contiguous()[None]))

    def ask_main(self, question: Callable[[], bytes]) -> bytes:
        """Return what ``question`` returns in the main process, the only one that calls it.

        Raises:
            FslabError: in the main process, what the question raises; in the others a `RunError` that points to it.
        """
        if self.size == 1:
            return question()
        from accelerate.utils import broadcast

        answer, problem = b"", None
        if self.is_main:
            try:
                answer = question()
            except FslabError as error:
                problem = error
        length = broadcast(torch.tensor([-1 if problem else len(answer)], device=self.device)).item()
        if problem:
            raise problem
        if length < 0:
            raise RunError("the first process to start", "an error there", "see what it says")
        data = torch.frombuffer(bytearray(answer or bytes(length)), dtype=torch.uint8) if length else torch.empty(0)
        return bytes(broadcast(data.to(self.device)).cpu().numpy()) if length else b""

    def agree(self, values: Sequence[float], wish: bool) -> tuple[list[float], bool]:
        """Return the main process's values, and whether anybody has the wish; the device is waited for."""
        if self.size == 1:
            return list(values), wish
        from accelerate.utils import reduce

        mine = [*(v if self.is_main else 0.0 for v in values), float(wish)]
        *told, wishes = reduce(torch.tensor(mine, dtype=torch.float64, device=self.device), "sum").tolist()
        return told, wishes > 0


def join_team(device: str = "auto") -> Team:
    """Return the team that the launcher put this process in; alone, a team of one.

    Args:
        device: see `choose_device`; with several processes each takes a GPU of its own, or all the CPU.

    Raises:
        RunError: if the device is not there, cannot be shared out, or Accelerate is not installed.
    """
    if n_processes() == 1:
        return Team(choose_device(device))
    chosen, fix = choose_device(device), "use --device cuda, or --device cpu"
    if device.startswith("cuda:") or chosen.type == "mps":
        raise RunError("a device for each process", f"'{device}' for all {n_processes()}", fix)
    try:
        from accelerate import PartialState
    except ModuleNotFoundError as reason:
        raise RunError(
            "Hugging Face Accelerate, which joins processes", "none", "install it: pip install 'fslab[scale]'"
        ) from reason
    state = PartialState(cpu=chosen.type == "cpu")
    device = chosen if chosen.type == "cpu" else state.device  # which calls it cpu:0
    return Team(device, state.process_index, state.num_processes)


class Exchange:
    """What the processes tell each other in one training step; each thing once, however often the step is tried."""

    def __init__(self, team: Team, batches: Sequence[Batch]):
        """Tell the mean pixel weights of the batches, and how their faces are turned."""
        self.team, self.batches, self._told = team, list(batches), {}
        self.lacking = [torch.zeros_like(b.weight[:1]) for b in batches]  # (1, 1, S, S) of each person
        if team.size > 1:
            own = torch.stack([b.weight.mean(0) for b in batches])  # (people, 1, S, S)
            mean = own.clone()
            team.average_([mean])
            self.lacking = list(((mean - own) * len(batches[0].weight)).split(1))

    def once(self, name: str, tell: Callable[[], T]) -> T:
        """Return what ``tell`` returned when it was first called under this name in this step."""
        if name not in self._told:
            self._told[name] = tell()
        return self._told[name]

    def balance(self, rgb: torch.Tensor, person: int) -> tuple[torch.Tensor, Batch]:
        """Return pictures and batch of a person, such that the losses' weighted means divide by everybody's weights.

        A loss ``sum(w v) / sum(w)`` of each process, averaged, is not that of all faces: their weights differ. One
        black face more, drawn without an error and with the weight that this process lacks, evens the sums: every sum
        of weights is then the processes' mean, wherever the loss cuts or shrinks the weights, and no error is added.

        Args:
            rgb: ``(B, 3, S, S)`` drawn.
            person: number.
        """
        batch = self.batches[person]
        if self.team.size == 1:
            return rgb, batch
        weight = torch.cat([batch.weight, self.lacking[person]])
        return F.pad(rgb, (0,) * 7 + (1,)), replace(batch, target=F.pad(batch.target, (0,) * 7 + (1,)), weight=weight)

    def everybody(self, codes: Sequence[torch.Tensor]) -> tuple[list[torch.Tensor], list[Batch]]:
        """Return the people's codes ``(N * B, C, h, w)`` of all processes, and their batches' poses.

        A gradient flows to this process's own only.
        """
        team, codes, batches = self.team, list(codes), self.batches
        if team.size == 1:
            return codes, batches
        told = self.once("codes", lambda: team.gather(torch.stack([z.detach() for z in codes])))
        everyone = [
            torch.cat([z if rank == team.rank else told[rank][i] for rank in range(team.size)])
            for i, z in enumerate(codes)
        ]
        if getattr(batches[0], "yaw", None) is not None:
            yaws = self.once("yaw", lambda: team.gather(torch.stack([b.yaw for b in batches])))
            batches = [replace(b, yaw=torch.cat([y[i] for y in yaws])) for i, b in enumerate(batches)]
        return everyone, batches
