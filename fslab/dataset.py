"""Face set to batches: every crop stays on the device as uint8 and is varied in batched tensor operations.

Input and target of a step are the same face. Both get the same flip, affine change and change of light, which a swap
has to follow; the input alone is bent by a smooth random warp and tinted, which a swap has to undo.
"""

from dataclasses import dataclass
from typing import Annotated

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from typing_extensions import Doc

from fslab.errors import FaceSetError
from fslab.faceset import FaceRecord, FaceSet
from fslab.mesh import EYES, MOUTH, OUTLINE

MIN_FACES = 8  # fewer cannot be split into training and held-out faces


@dataclass(frozen=True)
class DataConfig:
    """How faces are varied in training, which are held out, and which pixels count."""

    rotation: Annotated[float, Doc("largest turn, degrees")] = 3.0
    scale: Annotated[float, Doc("largest change of scale, share of the face's size")] = 0.04
    shift: Annotated[float, Doc("largest shift, share of the crop's side")] = 0.015
    warp: Annotated[float, Doc("standard deviation of the input's random warp, share of the crop's side")] = 0.018
    flip: Annotated[float, Doc("share of the faces that are mirrored, 0 to 1; doubles the poses seen")] = 0.4
    light: Annotated[float, Doc("largest change of light, evenly and from side to side, 0 to 1")] = 0.25
    colour: Annotated[float, Doc("largest change of the input's contrast, brightness and tint alone, 0 to 1")] = 0.02
    margin: Annotated[
        float, Doc("stored crops are this much finer than the network's, so that turning keeps detail")
    ] = 1.6
    held_out: Annotated[float, Doc("share of the footage, at its end, that is never trained on")] = 0.1
    gap: Annotated[float, Doc("faces this close in time to the held-out ones are left out, seconds")] = 0.4
    background: Annotated[float, Doc("weight of pixels outside the face")] = 0.05
    eyes: Annotated[float, Doc("weight of the eyes, the rest of the face is 1")] = 3.0
    mouth: Annotated[float, Doc("weight of the mouth, the rest of the face is 1")] = 2.0

    def __post_init__(self):
        for name in ("rotation", "scale", "shift", "warp", "light", "colour", "gap", "background"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be >= 0, got {getattr(self, name)}")
        if not (0 <= self.flip <= 1 and max(self.scale, self.light, self.colour) < 1 and 1 <= self.margin <= 4):
            raise ValueError("flip must lie in [0, 1], scale, light and colour below 1, margin in [1, 4]")
        if not 0 < self.held_out <= 0.5:
            raise ValueError(f"held_out must lie in (0, 0.5], got {self.held_out}")
        if min(self.eyes, self.mouth) < 1:
            raise ValueError(f"eyes and mouth must be >= 1, got {self.eyes} and {self.mouth}")


@dataclass(frozen=True)
class Batch:
    """Faces of one person: ``input`` and ``target`` (B, 3, S, S), ``mask`` and pixel ``weight`` (B, 1, S, S)."""

    input: torch.Tensor
    target: torch.Tensor
    mask: torch.Tensor
    weight: torch.Tensor


def split_by_time(times: np.ndarray, held_out: float, gap: float) -> tuple[np.ndarray, np.ndarray]:
    """Split faces into training and held-out ones: the end of the footage is held out, with a gap before it.

    Neighbouring frames are near-copies, so a random split would test on what was trained on.

    Args:
        times: ``(N,)`` seconds, rising.
        held_out: share of the faces to hold out.
        gap: seconds between the last training face and the first held-out one; shortened where it would take more
            than a quarter of the faces.

    Returns:
        Indices of the training and of the held-out faces.
    """
    n_held = max(1, round(len(times) * held_out))
    first = len(times) - n_held
    before = np.searchsorted(times, times[first] - gap, side="right")
    last = max(min(int(before), first), first - len(times) // 4, 1)
    return np.arange(last), np.arange(first, len(times))


def _fill(polygons: list[np.ndarray], size: int) -> np.ndarray:
    """Return ``(size, size)`` uint8 with the polygons (crop pixels) filled with 255."""
    image = np.zeros((size, size), np.uint8)
    for polygon in polygons:
        cv2.fillPoly(image, [np.round(polygon * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
    return image


def _grow(image: np.ndarray, share: float) -> np.ndarray:
    """Widen a filled shape by ``share`` of the picture's side and soften its edge by as much."""
    radius = max(1, round(share * len(image)))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    return cv2.GaussianBlur(cv2.dilate(image, kernel), (0, 0), radius / 2)


def face_planes(mesh: np.ndarray, size: int, config: DataConfig) -> np.ndarray:
    """Draw a face's mask and pixel weights from its mesh.

    Args:
        mesh: ``(468, 2)`` crop pixels.
        size: side of the crop, pixels.
        config: the weights.

    Returns:
        ``(2, size, size)`` uint8: the filled outline (255 inside), and the weights with 255 = the largest weight.
    """
    mask = _fill([mesh[list(OUTLINE)]], size)
    weight = config.background + (1 - config.background) * _grow(mask, 0.03).astype(np.float32) / 255
    eyes = _grow(_fill([mesh[list(e)] for e in EYES], size), 0.02).astype(np.float32) / 255
    mouth = _grow(_fill([mesh[list(MOUTH)]], size), 0.02).astype(np.float32) / 255
    weight = np.maximum(weight, np.maximum(eyes * config.eyes, mouth * config.mouth))
    return np.stack([mask, np.round(weight * 255 / max_weight(config)).astype(np.uint8)])


def max_weight(config: DataConfig) -> float:
    """Return the largest weight a pixel can have."""
    return max(1.0, config.background, config.eyes, config.mouth)


class FaceDataset:
    """One person's faces on a device, and batches of them."""

    def __init__(
        self,
        crops: np.ndarray,
        meshes: np.ndarray,
        times: np.ndarray,
        size: int,
        config: DataConfig | None = None,
        device: str | torch.device = "cpu",
    ):
        """Put a face set on ``device``.

        Args:
            crops: ``(N, S0, S0, 3)`` uint8 RGB; ``S0`` need not be ``size``.
            meshes: ``(N, 468, 2)`` mesh points, crop pixels.
            times: ``(N,)`` seconds, rising.
            size: side of the network's pictures, pixels.
            config: see `DataConfig`.
            device: where the faces are kept and the batches are made.

        Raises:
            ValueError: if the arrays do not fit or hold fewer than 8 faces.
        """
        config = config or DataConfig()
        if len(crops) < MIN_FACES or not len(crops) == len(meshes) == len(times):
            raise ValueError(f"{MIN_FACES} faces or more wanted, got {len(crops)} crops, {len(meshes)} meshes")
        if crops.ndim != 4 or crops.shape[1] != crops.shape[2] or crops.dtype != np.uint8:
            raise ValueError(f"crops must be (N, S, S, 3) uint8, got {crops.shape} {crops.dtype}")
        self.size, self.config, self.device = size, config, torch.device(device)
        planes = np.stack([face_planes(m, crops.shape[1], config) for m in meshes])  # (N, 2, S0, S0)
        stack = np.concatenate([crops.transpose(0, 3, 1, 2), planes], axis=1)  # (N, 5, S0, S0)
        train, held = split_by_time(np.asarray(times), config.held_out, config.gap)
        self._faces = torch.from_numpy(stack[train]).to(self.device)
        self._held = torch.from_numpy(stack[held]).to(self.device)

    @classmethod
    def from_faceset(
        cls, faceset: FaceSet, size: int, config: DataConfig | None = None, device: str | torch.device = "cpu"
    ) -> "FaceDataset":
        """Read the kept faces of a face set.

        Raises:
            FaceSetError: if it has fewer than 8 kept faces, or a crop is missing or damaged.
        """
        config, kept = config or DataConfig(), faceset.kept
        if len(kept) < MIN_FACES:
            raise FaceSetError(
                f"{MIN_FACES} usable faces or more in '{faceset.folder}'", str(len(kept)), "extract from longer footage"
            )
        stored = min(faceset.size, round(size * config.margin))
        return cls(faceset.crops(stored), faceset.crop_meshes(stored), _running_times(faceset), size, config, device)

    def __len__(self) -> int:
        return len(self._faces)

    def batch(self, n: int, generator: torch.Generator, warp_strength: float = 1.0) -> Batch:
        """Draw ``n`` faces and vary them.

        Args:
            n: faces, drawn with replacement.
            generator: source of all randomness; on the dataset's device.
            warp_strength: 0 to 1, scales the input's warp.
        """
        config, size = self.config, self.size
        index = torch.randint(len(self._faces), (n,), generator=generator, device=self.device)
        faces = self._faces[index].float() / 255  # (n, 5, S0, S0)
        grid = _affine_grid(n, size, config, generator, self.device)  # (n, S, S, 2)
        bent = grid + _warp_field(n, size, config.warp * warp_strength, generator, self.device)
        target = F.grid_sample(faces, grid, padding_mode="border", align_corners=False)  # (n, 5, S, S)
        bent = F.grid_sample(faces[:, :3], bent, padding_mode="border", align_corners=False)  # (n, 3, S, S)
        light = _light_field(n, size, config.light, generator)  # (n, 3, S, S)
        target[:, :3] = (target[:, :3] * light).clamp(0, 1)
        return self._to_batch(_jitter((bent * light).clamp(0, 1), config.colour, generator), target)

    def held_out(self, limit: int | None = None) -> Batch:
        """Return the held-out faces, unvaried; at most ``limit`` of them, evenly spread."""
        n = len(self._held)
        count = min(n, limit or n)
        index = torch.linspace(0, n - 1, count, device=self.device).round().long()
        faces = self._held[index].float() / 255  # (count, 5, S0, S0)
        faces = F.interpolate(faces, size=(self.size, self.size), mode="bilinear", antialias=True)
        return self._to_batch(faces[:, :3].clone(), faces)

    def _to_batch(self, bent: torch.Tensor, planes: torch.Tensor) -> Batch:
        """Split ``(B, 5, S, S)`` planes into target, mask and weight."""
        weight = planes[:, 4:5] * max_weight(self.config)
        return Batch(bent, planes[:, :3], planes[:, 3:4], weight)


def held_out_records(faceset: FaceSet, config: DataConfig) -> list[FaceRecord]:
    """Return the records of the faces that training with ``config`` holds out."""
    kept = faceset.kept
    return [kept[i] for i in split_by_time(_running_times(faceset), config.held_out, config.gap)[1]]


def _running_times(faceset: FaceSet) -> np.ndarray:
    """Return the kept faces' times on one rising axis: a source starts an hour after the one before it ends."""
    times, offset, last = [], 0.0, None
    for record in faceset.kept:
        if last is not None and record.source != last:
            offset = times[-1] + 3600.0
        last = record.source
        times.append(max(offset + record.time, times[-1] if times else 0.0))
    return np.asarray(times)


def _uniform(shape: tuple[int, ...], low: float, high: float, generator: torch.Generator) -> torch.Tensor:
    """Return uniform numbers in [low, high) on the generator's device."""
    return torch.rand(shape, generator=generator, device=generator.device) * (high - low) + low


def _affine_grid(n: int, size: int, config: DataConfig, generator: torch.Generator, device: torch.device):
    """Return a random flip, turn, scale and shift a face as sampling positions ``(n, size, size, 2)`` in [-1, 1]."""
    angle = _uniform((n,), -config.rotation, config.rotation, generator) * (torch.pi / 180)
    scale = 1 + _uniform((n,), -config.scale, config.scale, generator)
    shift = _uniform((n, 2), -2 * config.shift, 2 * config.shift, generator)
    mirror = 1 - 2 * (_uniform((n,), 0, 1, generator) < config.flip).float()
    cos, sin = scale * torch.cos(angle), scale * torch.sin(angle)
    rows = [torch.stack([cos * mirror, -sin, shift[:, 0]], 1), torch.stack([sin * mirror, cos, shift[:, 1]], 1)]
    return F.affine_grid(torch.stack(rows, 1).to(device), [n, 3, size, size], align_corners=False)


def _warp_field(n: int, size: int, sigma: float, generator: torch.Generator, device: torch.device) -> torch.Tensor:
    """Return smooth random displacements ``(n, size, size, 2)`` in grid units.

    Gaussian noise on a coarse and a finer lattice, enlarged with cubic interpolation (after the 5 x 5 lattice warp of
    the first open face swappers). The noise is drawn even where ``sigma`` is 0, so that the strength of the warp does
    not change which faces and turns come next.

    Args:
        n: faces.
        size: side, pixels.
        sigma: standard deviation, share of the side; 1 share is 2 grid units.
        generator: source of the noise.
        device: where the field is wanted.
    """
    field = torch.zeros(n, 2, size, size, device=device)
    for lattice, share in ((5, 0.8), (9, 0.4)):
        noise = torch.randn((n, 2, lattice, lattice), generator=generator, device=device)
        if sigma:
            # Cubic interpolation is linear and separable: two products with its matrix are faster than enlarging.
            eye = torch.eye(lattice, device=device)[None]  # (1, lattice, lattice)
            basis = F.interpolate(eye[:, :, :, None], (size, 1), mode="bicubic", align_corners=True)[0, :, :, 0]
            field += basis.T @ noise @ basis * (share * 2 * sigma)  # (n, 2, S, S)
    return field.permute(0, 2, 3, 1)


def _light_field(n: int, size: int, amount: float, generator: torch.Generator) -> torch.Tensor:
    """Return a random gain a pixel, ``(n, 3, size, size)``: level, slope across and down, and a third as much tint."""
    level = _uniform((n, 3, 1, 1), -amount / 3, amount / 3, generator) + _uniform(
        (n, 1, 1, 1), -amount, amount, generator
    )
    slope = _uniform((n, 2, 1, 1), -amount, amount, generator)
    ramp = torch.linspace(-1, 1, size, device=generator.device)
    across, down = slope[:, :1] * ramp.view(1, 1, 1, size), slope[:, 1:] * ramp.view(1, 1, size, 1)
    return torch.exp(level + across + down)


def _jitter(images: torch.Tensor, amount: float, generator: torch.Generator) -> torch.Tensor:
    """Change contrast about the mean, brightness and tint by up to ``amount``; stays in [0, 1]."""
    n = len(images)
    contrast = 1 + _uniform((n, 1, 1, 1), -amount, amount, generator)
    offset = _uniform((n, 1, 1, 1), -amount, amount, generator) * 0.5
    tint = 1 + _uniform((n, 3, 1, 1), -amount, amount, generator)
    mean = images.mean(dim=(2, 3), keepdim=True)
    return (((images - mean) * contrast + mean) * tint + offset).clamp(0, 1)
