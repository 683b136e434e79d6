"""Layer by layer through a network: what each makes of a picture."""

import ipywidgets as W
import torch
from torch import nn

from fslab.basics import feature_maps, maps_to_pictures
from fslab.media import encode_image
from fslab.viz import image_grid

COLUMNS, COUNT = 8, 16  # of the channels shown


def layer_sheet(maps: torch.Tensor, count: int = COUNT) -> bytes:
    """Return a PNG of the liveliest channels of one layer, ``(C, h, w)``."""
    pictures = [p[:, :, None].repeat(3, 2) for p in maps_to_pictures(maps, count)]
    return encode_image(image_grid([pictures[i : i + COLUMNS] for i in range(0, len(pictures), COLUMNS)]), ".png")


def feature_explorer(net: nn.Module, x: torch.Tensor, kinds: tuple[type, ...] = (nn.Conv2d,)) -> W.Widget:
    """Return a slider over a network's layers and the maps of the one chosen.

    Args:
        net: any network.
        x: one picture, ``(1, 3, S, S)``.
        kinds: classes of layers to show.
    """
    found = feature_maps(net, x, kinds)
    names = list(found)
    at = W.SelectionSlider(options=names, value=names[0], description="layer", continuous_update=False)
    at.layout = W.Layout(width="480px")
    said, sheet = W.HTML(), W.Image(format="png")

    def draw(_=None):
        maps = found[at.value][0]
        channels, height, width = maps.shape
        sheet.value = layer_sheet(maps)
        said.value = f"{channels} channels of {height} x {width}; the liveliest {min(channels, COUNT)}"

    draw()
    at.observe(draw, "value")
    box = W.VBox([at, said, sheet])
    box.add_class("fslab-features")
    return box
