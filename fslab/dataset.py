"""Face set to batches: every crop stays on the device as uint8 and is varied in batched tensor operations.

Input and target of a step are the same face. Both get the same flip, affine change and change of light, which a swap
has to follow; the input alone is bent by a smooth random warp and tinted, which a swap has to undo.
"""

from dataclasses import dataclass, replace
from typing import Annotated

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from typing_extensions import Doc

from fslab.augment import Poses, affine_grid, jitter, light_field, spoil, warp_field
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
    occlude: Annotated[float, Doc("share of the inputs with something in front of the face, 0 to 1")] = 0.0
    blur: Annotated[float, Doc("largest blur of half the inputs, share of the crop's side")] = 0.0
    noise: Annotated[float, Doc("largest grain of half the inputs, 0 to 1")] = 0.0
    jpeg: Annotated[float, Doc("largest compression of half the inputs; 1 is JPEG quality 50")] = 0.0
    margin: Annotated[
        float, Doc("stored crops are this much finer than the network's, so that turning keeps detail")
    ] = 1.6
    held_out: Annotated[float, Doc("share of the footage, at its end, that is never trained on")] = 0.1
    gap: Annotated[float, Doc("faces this close in time to the held-out ones are left out, seconds")] = 0.4
    background: Annotated[float, Doc("weight of pixels outside the face")] = 0.05
    eyes: Annotated[float, Doc("weight of the eyes, the rest of the face is 1")] = 3.0
    mouth: Annotated[float, Doc("weight of the mouth, the rest of the face is 1")] = 2.0

    def __post_init__(self):
        names = ("rotation", "scale", "shift", "warp", "light", "colour", "gap", "background", "blur", "noise", "jpeg")
        for name in names:
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be >= 0, got {getattr(self, name)}")
        if not (0 <= self.flip <= 1 and max(self.scale, self.light, self.colour) < 1 and 1 <= self.margin <= 4):
            raise ValueError("flip must lie in [0, 1], scale, light and colour below 1, margin in [1, 4]")
        if not (0 <= self.occlude <= 1 and max(self.blur, self.noise) <= 1):
            raise ValueError("occlude, blur and noise must lie in [0, 1]")
        if not 0 < self.held_out <= 0.5:
            raise ValueError(f"held_out must lie in (0, 0.5], got {self.held_out}")
        if min(self.eyes, self.mouth) < 1:
            raise ValueError(f"eyes and mouth must be >= 1, got {self.eyes} and {self.mouth}")


@dataclass(frozen=True)
class Batch:
    """Faces of one person: ``input`` and ``target`` (B, 3, S, S), ``mask`` and pixel ``weight`` (B, 1, S, S).

    ``yaw`` (B,) is how far each is turned to the picture's right, degrees, as it is shown: mirrored faces turn the
    other way; None where that is not known.
    """

    input: torch.Tensor
    target: torch.Tensor
    mask: torch.Tensor
    weight: torch.Tensor
    yaw: torch.Tensor | None = None


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
        self._faces, self._trained, self._yaw = torch.from_numpy(stack[train]).to(self.device), train, None
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
        dataset = cls(faceset.crops(stored), faceset.crop_meshes(stored), _running_times(faceset), size, config, device)
        yaw = np.array([record.pose[0] for record in kept], np.float32)[dataset._trained]
        dataset._yaw = torch.from_numpy(yaw).to(dataset.device)
        return dataset

    def __len__(self) -> int:
        return len(self._faces)

    def batch(self, n: int, generator: torch.Generator, warp_strength: float = 1.0) -> Batch:
        """Draw ``n`` faces and vary them.

        Args:
            n: faces, drawn with replacement.
            generator: source of all randomness; on the dataset's device.
            warp_strength: 0 to 1, scales the input's warp.
        """
        index = torch.randint(len(self._faces), (n,), generator=generator, device=self.device)
        faces = self._faces[index].float() / 255  # (n, 5, S0, S0)
        config = replace(self.config, warp=self.config.warp * warp_strength)
        bent, planes, turn = vary(faces[:, :3], faces, self.size, config, generator)
        batch = to_batch(bent, planes, self.config)
        return batch if self._yaw is None else replace(batch, yaw=self._yaw[index] * turn)

    def held_out(self, limit: int | None = None) -> Batch:
        """Return the held-out faces, unvaried; at most ``limit`` of them, evenly spread."""
        n = len(self._held)
        count = min(n, limit or n)
        index = torch.linspace(0, n - 1, count, device=self.device).round().long()
        faces = self._held[index].float() / 255  # (count, 5, S0, S0)
        faces = F.interpolate(faces, size=(self.size, self.size), mode="bilinear", antialias=True)
        return to_batch(faces[:, :3].clone(), faces, self.config)


def vary(
    inputs: torch.Tensor,
    targets: torch.Tensor,
    size: int,
    config: DataConfig,
    generator: torch.Generator,
    place: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Vary faces: both get the same flip, turn and light; the input alone is warped, tinted and spoiled.

    Args:
        inputs: ``(B, 3, S0, S0)`` in [0, 1].
        targets: ``(B, 5, S0, S0)``: picture, mask and weight.
        size: side of the results, pixels.
        config: how far.
        generator: source of all randomness; on the pictures' device.
        place: ``(B, 2, 3)``, where a point of an input lies in its target, both in [-1, 1] from edge to edge; the
            targets are moved so that they lie over their inputs. None where they do already.

    Returns:
        Inputs ``(B, 3, size, size)``, targets ``(B, 5, size, size)``, and ``(B,)`` -1 where mirrored, else 1.
    """
    n = len(inputs)
    poses = Poses(config.rotation, config.scale, config.shift, config.flip)
    grid = affine_grid(n, size, poses, generator)  # (B, S, S, 2)
    bent = grid + warp_field(n, size, config.warp, generator)
    over = grid if place is None else move(grid, place)
    target = F.grid_sample(targets, over, padding_mode="border", align_corners=False)  # (B, 5, S, S)
    bent = F.grid_sample(inputs, bent, padding_mode="border", align_corners=False)  # (B, 3, S, S)
    light = light_field(n, size, config.light, generator)  # (B, 3, S, S)
    target[:, :3] = (target[:, :3] * light).clamp(0, 1)
    bent = jitter((bent * light).clamp(0, 1), config.colour, generator)
    bent = spoil(bent, (config.occlude, config.blur, config.noise, config.jpeg), generator)
    return bent, target, (grid[:, size // 2, -1, 0] - grid[:, size // 2, 0, 0]).sign()


def move(grid: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """Apply affine maps ``(B, 2, 3)`` to the points of sampling grids ``(B, S, S, 2)``."""
    return torch.einsum("bhwj,bij->bhwi", grid, place[:, :, :2]) + place[:, None, None, :, 2]


def to_batch(bent: torch.Tensor, planes: torch.Tensor, config: DataConfig) -> Batch:
    """Make a batch of inputs ``(B, 3, S, S)`` and target planes ``(B, 5, S, S)``, as `FaceDataset` stores them."""
    return Batch(bent, planes[:, :3], planes[:, 3:4], planes[:, 4:5] * max_weight(config))


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
