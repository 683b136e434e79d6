"""A 3 x 3 kernel to type into, and what it makes of a picture."""

import cv2
import ipywidgets as W
import numpy as np

from fslab.basics import KERNELS, relu
from fslab.media import encode_image

CELL = W.Layout(width="72px")


def apply_kernel(grey: np.ndarray, kernel: np.ndarray, rectify: bool) -> np.ndarray:
    """Return a grey picture ``(H, W)`` uint8 through a kernel, clipped to uint8, after ReLU if asked for.

    A kernel whose weights sum to about 0 answers with both signs: without ReLU, grey 128 stands for 0 then.
    """
    found = cv2.filter2D(grey.astype(np.float32), cv2.CV_32F, kernel.astype(np.float32), borderType=cv2.BORDER_CONSTANT)
    if rectify:
        found = relu(found)
    elif abs(kernel.sum()) < 0.5:
        found = found / 2 + 128
    return np.clip(np.round(found), 0, 255).astype(np.uint8)


def kernel_editor(image: np.ndarray, name: str = "edges across") -> W.Widget:
    """Return a box with the nine weights of a kernel, kernels to choose from, ReLU, and the picture they make.

    Args:
        image: ``(H, W, 3)`` uint8 RGB.
        name: one of `fslab.basics.KERNELS` to begin with.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    cells = [W.FloatText(layout=CELL, step=0.5) for _ in range(9)]
    choice = W.Dropdown(options=list(KERNELS), value=name, description="kernel")
    rectify = W.Checkbox(value=False, description="ReLU", indent=False)
    before, after = (W.Image(format="png", width=256) for _ in range(2))
    before.value = encode_image(np.repeat(grey[:, :, None], 3, 2), ".png")

    def draw(_=None):
        kernel = np.array([cell.value for cell in cells]).reshape(3, 3)
        made = apply_kernel(grey, kernel, rectify.value)
        after.value = encode_image(np.repeat(made[:, :, None], 3, 2), ".png")

    def fill(_=None):
        for cell, value in zip(cells, np.ravel(KERNELS[choice.value]), strict=True):
            cell.value = round(float(value), 3)
        draw()

    fill()
    choice.observe(fill, "value")
    for control in (*cells, rectify):
        control.observe(draw, "value")
    grid = W.GridBox(cells, layout=W.Layout(grid_template_columns="repeat(3, 80px)"))
    box = W.HBox([W.VBox([choice, grid, rectify]), before, after])
    box.add_class("fslab-kernels")
    return box
