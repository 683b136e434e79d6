"""The random warp of training, with its sliders: input and target of the same faces."""

from dataclasses import replace

import ipywidgets as W
import torch

from fslab.dataset import DataConfig, FaceDataset
from fslab.media import encode_image
from fslab.viz import image_grid

DIALS = {"warp": (0.0, 0.06, 0.002), "rotation": (0.0, 30.0, 1.0), "scale": (0.0, 0.3, 0.01), "light": (0.0, 0.8, 0.05)}


def to_uint8(batch: torch.Tensor) -> list:
    """Return pictures ``(B, 3, S, S)`` in [0, 1] as arrays ``(S, S, 3)`` uint8."""
    return list((batch.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy())


def varied_sheet(dataset: FaceDataset, config: DataConfig, seed: int = 0, count: int = 6) -> bytes:
    """Return a PNG: inputs above, the targets they are to become below."""
    before, dataset.config = dataset.config, config
    try:
        batch = dataset.batch(count, torch.Generator().manual_seed(seed))
    finally:
        dataset.config = before
    rows = [to_uint8(batch.input), to_uint8(batch.target)]
    return encode_image(image_grid(rows, ["input", "target"], cell=128), ".png")


def warp_explorer(dataset: FaceDataset) -> W.Widget:
    """Return sliders for how faces are varied, and a batch varied so."""
    own = dataset.config
    dials = {
        name: W.FloatSlider(
            value=getattr(own, name), min=low, max=high, step=step, description=name, continuous_update=False,
            readout_format=".3f",
        )
        for name, (low, high, step) in DIALS.items()
    }  # fmt: skip
    seed, sheet = W.BoundedIntText(value=0, min=0, max=999, description="seed"), W.Image(format="png")

    def draw(_=None):
        changed = replace(own, **{name: dial.value for name, dial in dials.items()})
        sheet.value = varied_sheet(dataset, changed, seed.value)

    draw()
    for control in (*dials.values(), seed):
        control.observe(draw, "value")
    box = W.HBox([W.VBox([*dials.values(), seed]), sheet])
    box.add_class("fslab-warps")
    return box
