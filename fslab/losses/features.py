"""Differences as networks see them that are trained already: texture and shape, and whose face it is."""

import timm
import torch
import torch.nn.functional as F
from torch import nn

from fslab.encoders import load_pretrained
from fslab.geometry import crop_template, invert
from fslab.losses.pixels import weighted_mean


class PerceptualLoss(nn.Module):
    """Difference of a pretrained network's features, at strides 2, 4 and 8 or the first three it has.

    Features are scaled to unit length over their channels at each place, as in Zhang et al. (2018), "The unreasonable
    effectiveness of deep features", CVPR, eq. 1, but without learned channel weights: this is not LPIPS.
    ``weights`` says where the network's weights came from, see `fslab.encoders.load_pretrained`.
    """

    def __init__(self, name: str = "mobilenetv2_100"):
        super().__init__()
        self.net = timm.create_model(name, pretrained=False, features_only=True, out_indices=(0, 1, 2))
        self.weights = load_pretrained(self.net, name, (0, 1, 2))
        settings = timm.get_pretrained_cfg(name)
        self.register_buffer("mean", torch.tensor(settings.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(settings.std).view(1, 3, 1, 1))
        self.eval().requires_grad_(False)

    def forward(self, x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Return the weighted mean squared distance of unit features, in [0, 4], summed over channels."""
        maps = self.net((torch.cat([x, y]) - self.mean) / self.std)  # 3 x (2B, C, S/2^i, S/2^i)
        total = x.new_zeros(())
        for features in maps:
            a, b = F.normalize(features, dim=1, eps=1e-6).chunk(2)
            resized = F.adaptive_avg_pool2d(weight, features.shape[-2:])  # (B, 1, S/2^i, S/2^i)
            total = total + weighted_mean((a - b).square().sum(dim=1, keepdim=True), resized)
        return total / len(maps)


class IdentityLoss(nn.Module):
    """Squared distance of two faces' identity embeddings, ``|e(x) - e(y)|^2``.

    The embedding is that of `fslab.embedder.DlibResNet`, whose squared distances are 0.04 to 0.2 between pictures of
    one person and 0.36 to 0.8 between people. Aligned crops go through one fixed similarity to the chip that it wants.
    The distance is that of Schroff et al. (2015), "FaceNet", arXiv:1503.03832, eq. 1; as a loss on drawn faces: Huang
    et al. (2017), "Beyond face rotation", arXiv:1704.04086, section 3.2.

    A swap judged by the network that it was trained against looks better than it is: judge it by another one.
    """

    def __init__(self, coverage: float):
        """Load the packaged weights, frozen.

        Args:
            coverage: of the crops, share of their side that the face template spans.
        """
        from fslab.embedder import DlibResNet  # with it come packages that training does without

        super().__init__()
        self.coverage, self.net = coverage, DlibResNet.load()

    def chips(self, x: torch.Tensor) -> torch.Tensor:
        """Cut the embedder's chips out of crops: ``(B, 3, S, S) -> (B, 3, 150, 150)``, differentiable."""
        from fslab.embedder import CHIP_SIZE, chip_matrix

        size = x.shape[-1]
        m = invert(chip_matrix(crop_template(size, self.coverage)))  # chip -> crop, pixels
        # In units of `grid_sample`, -1 and 1 at the outer edges of the first and the last pixel.
        scale, shift = m[:, :2] * CHIP_SIZE / size, m[:, :2].sum(axis=1) * (CHIP_SIZE - 1) / size
        shift = shift + (2 * m[:, 2] + 1) / size - 1
        theta = torch.tensor([[*scale[0], shift[0]], [*scale[1], shift[1]]], dtype=x.dtype, device=x.device)
        grid = F.affine_grid(theta.expand(len(x), 2, 3), [len(x), 3, CHIP_SIZE, CHIP_SIZE], align_corners=False)
        return F.grid_sample(x, grid, padding_mode="border", align_corners=False)  # (B, 3, 150, 150)

    def forward(self, x: torch.Tensor, y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the mean squared distance of the embeddings, >= 0; gradients flow to ``x`` only.

        Args:
            x: ``(B, 3, S, S)`` in [0, 1], drawn.
            y: the same shape, real.
            mask: ``(B, 1, S, S)``, 1 = face; elsewhere both show what ``y`` shows.
        """
        y = y.detach()
        with torch.no_grad():
            wanted = self.net(self.chips(y))  # (B, 128)
        found = self.net(self.chips(y + mask * (x - y)))  # (B, 128)
        return (found - wanted).square().sum(dim=1).mean()
