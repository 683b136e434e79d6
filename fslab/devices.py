"""Which processor runs the networks, in which precision and layout, and what to do where its memory is too small."""

import logging
import re
from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

import torch
from torch.utils.checkpoint import checkpoint

from fslab.errors import RunError

Precision = Literal["auto", "fp32", "bf16", "fp16"]
Compile = Literal["auto", "on", "off"]
LONG = 1200.0  # seconds; compiling costs one or two minutes, which only a longer training earns back
T = TypeVar("T")
log = logging.getLogger(__name__)
_NO_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "ALLOC_FAILED")  # in torch's messages
_FAST_BF16 = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")  # what torch calls processors' half precision


def check_device(name: str) -> None:
    """Raise ValueError unless ``name`` is the name of a device."""
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name):
        raise ValueError(f"device must be auto, cpu, cuda, cuda:N or mps, got {name!r}")


def choose_device(name: str) -> torch.device:
    """Return the device that ``name`` asks for; "auto" takes a GPU where there is one.

    Raises:
        RunError: if the device is not there: a GPU that was asked for is never silently replaced.
        ValueError: if ``name`` is not a device.
    """
    check_device(name)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if _has_mps() else "cpu")
    device = torch.device(name)
    there = {"cpu": True, "cuda": torch.cuda.device_count() > (device.index or 0), "mps": _has_mps()}
    if not there[device.type]:
        raise RunError(f"the device '{name}'", "none that torch can use", "run `fslab doctor`, or use --device cpu")
    return device


def amp_type(precision: Precision, device: torch.device) -> torch.dtype | None:
    """Return the type that convolutions are computed in, None for full precision.

    "auto" takes bfloat16 where the processor multiplies in it (two to three times as fast), float16 on GPUs that have
    no bfloat16, and full precision everywhere else: emulated, half precision is slower.

    Raises:
        RunError: if fp16 is asked of a device other than a GPU.
    """
    if precision == "auto":
        return _fast_type(device)
    if precision == "fp16" and device.type != "cuda":
        raise RunError("a CUDA GPU for --precision fp16", f"'{device.type}'", "use --precision auto")
    return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def half_precision(device: torch.device, dtype: torch.dtype | None) -> torch.autocast:
    """Return a context in which convolutions are computed in ``dtype``; None, from `amp_type`, changes nothing."""
    return torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None)


def make_scaler(device: torch.device, dtype: torch.dtype | None, scale: float = 2.0**16) -> torch.amp.GradScaler:
    """Return what scales losses up so that gradients do not vanish in float16; for other types it does nothing.

    ``scale`` is where it begins; it halves with every step that overflows and doubles after 2000 that don't:
    Micikevicius et al. (2018), "Mixed precision training", arXiv:1710.03740, section 3.2.
    """
    return torch.amp.GradScaler(device.type, scale, enabled=dtype is torch.float16)


def memory_format(device: torch.device) -> torch.memory_format:
    """Return how pictures and filters lie in memory: channels last where convolutions are faster so, on CUDA."""
    return torch.channels_last if device.type == "cuda" else torch.contiguous_format


def pays_to_compile(choice: Compile, device: torch.device, seconds: float | None) -> bool:
    """Say whether to compile the network: "auto" does so on CUDA, for trainings longer than twenty minutes.

    Args:
        choice: "on" and "off" are obeyed.
        device: where it runs.
        seconds: the training's budget; None if it is counted in steps, which "auto" does not compile for.
    """
    return choice == "on" or (choice == "auto" and device.type == "cuda" and (seconds or 0.0) >= LONG)


def compile_or_not(
    function: Callable[..., T], example: Sequence[torch.Tensor], backend: str | Callable = "inductor"
) -> Callable[..., T]:
    """Return ``function`` compiled by torch, or as it is, with a warning, where that fails.

    Args:
        function: tensors to tensors.
        example: tensors to try it on, forwards and backwards; the gradients are the caller's to clear.
        backend: of `torch.compile`.
    """
    compiled = torch.compile(function, backend=backend)
    try:
        with torch.random.fork_rng(devices=[example[0].device] if example[0].is_cuda else []):
            outputs = [t.float().sum() for t in compiled(*example) if t.requires_grad]
            torch.stack(outputs).sum().backward()
    except (RuntimeError, ImportError, OSError, AttributeError, TypeError, ValueError) as reason:
        log.warning("torch.compile does not work here (%s); training goes on without it", _first_line(reason))
        return function
    return compiled


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error means that the device's memory is used up; the CPU's allocator has no class for that."""
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or (isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY))


def in_pieces(
    function: Callable[..., tuple[torch.Tensor, ...]], inputs: Sequence[torch.Tensor], size: int
) -> tuple[torch.Tensor, ...]:
    """Return ``function(*inputs)``, tensors with the batch first, computed for ``size`` of the batch at a time.

    What a piece needs for its gradient is not kept but computed again in the backward pass (Chen et al. 2016, "Training
    deep nets with sublinear memory cost", arXiv:1604.06174), so that one piece at a time is in memory. Losses then
    still see the whole batch: the gradient is that of the whole batch, with the same random numbers, up to rounding.
    The price is a second forward pass.

    Args:
        function: treats each member of the batch by itself.
        inputs: tensors with the batch first.
        size: members of the batch in a piece; the whole batch or more is computed at once.
    """
    n = len(inputs[0])
    if size >= n:
        return function(*inputs)
    pieces = [checkpoint(function, *(x[i : i + size] for x in inputs), use_reentrant=False) for i in range(0, n, size)]
    return tuple(torch.cat(parts) for parts in zip(*pieces))


class MicroBatch:
    """How many faces of each person are computed at once: half as many from where memory runs out.

    ``size`` is the number now.
    """

    def __init__(self, size: int, device: torch.device, on_halve: Callable[[str], object]):
        """Begin with ``size``; ``on_halve`` gets a sentence whenever it is halved, after the memory is free again."""
        self.size, self.device, self.on_halve = size, device, on_halve

    def fit(self, work: Callable[[int], T]) -> T:
        """Return ``work(size)``; where it runs out of memory, try again with half the size.

        Raises:
            RunError: if one face at a time is too much.
        """
        while True:
            try:
                return work(self.size)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                reason = _first_line(error)  # the error itself holds on to all that was computed
            if self.size == 1:
                fix = "take a smaller --preset, --size or --batch, or free the memory that other programs use"
                raise RunError(f"enough memory on '{self.device}' for one face at a time", reason, fix)
            self.size //= 2
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            self.on_halve(
                f"out of memory: {self.size} faces of each person at once from now on; "
                "the batch stays as it is, its gradient too, and a step takes about a third longer"
            )


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]


def _fast_type(device: torch.device) -> torch.dtype | None:
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device)[0] >= 8 else torch.float16
    if device.type == "cpu" and hasattr(torch.cpu, "get_capabilities"):
        able = torch.cpu.get_capabilities()
        return torch.bfloat16 if any(able.get(name, False) for name in _FAST_BF16) else None
    return None


def _has_mps() -> bool:
    return torch.backends.mps.is_available()
