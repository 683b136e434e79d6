"""The one place where a borrowed GPU may come in: work on a batch of crops, crops in and crops out.

On ZeroGPU a GPU is lent for the time of one call, to a forked process: arguments and results are pickled, so they are
arrays and settings, never networks or tensors on a GPU. Nothing here, and nothing that is imported, touches CUDA.
"""

from collections.abc import Callable
from typing import TypeVar

try:
    import spaces
except ImportError:  # on every machine but a Space
    spaces = None

Work = TypeVar("Work", bound=Callable)


def on_gpu(work: Work, duration: Callable[..., int]) -> Work:
    """Return ``work`` as it is to be called: on a Space's lent GPU where the package ``spaces`` is, else itself.

    To be called while the module of ``work`` is imported: ZeroGPU counts what borrows its GPU when the app starts.

    Args:
        work: takes a batch of crops and returns a batch of crops.
        duration: given the same arguments, how long it takes at most, seconds.
    """
    return spaces.GPU(duration=duration)(work) if spaces else work
