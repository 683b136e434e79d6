"""Controls for the labs: a kernel editor, a feature-map explorer, a warp explorer, training watched and stopped.

Each returns an ipywidgets box that shows something at once and needs no click: a notebook run from top to bottom
without anybody there is whole. Whatever they compute, the package computes.
"""

from fslab.widgets.features import feature_explorer
from fslab.widgets.kernels import kernel_editor
from fslab.widgets.training import TrainingPanel
from fslab.widgets.warps import warp_explorer

__all__ = ["TrainingPanel", "feature_explorer", "kernel_editor", "warp_explorer"]
