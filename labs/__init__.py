"""What the labs share: comparing a learner's function with fslab's, showing pictures, the packaged people's faces."""

from fslab.labs.check import check
from fslab.labs.kit import FAST, WORK, budget, faces_of, packaged_run, read_clip, show, show_swap, source_of

__all__ = ["FAST", "WORK", "budget", "check", "faces_of", "packaged_run", "read_clip", "show", "show_swap", "source_of"]
