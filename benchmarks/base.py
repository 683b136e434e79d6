"""What a base model knows of faces it never saw: people held out, and the two public-domain photographs.

    python -m benchmarks.base [BASE ...]

A base is a name that ships ("tiny", "small") or a file; several show whether a later one got better. Each photograph's
vector is fitted as a person's is at the start of a training; reconstruction is measured inside the face, PSNR and SSIM
at the base's size, and nothing is swapped.
"""

import sys

import matplotlib.cbook
import numpy as np
import skimage.data
import torch
from PIL import Image

from benchmarks.common import save
from fslab.base import Base, BaseModel, fit_vectors
from fslab.dataset import Batch, DataConfig, face_planes, to_batch, vary
from fslab.faces import find_faces
from fslab.geometry import align_matrix, crop_from_frame, transform_points
from fslab.losses import LossConfig, ssim_map, weighted_mean
from fslab.media import RgbFrame
from fslab.weights import weights_path

SEED = 0


def photographs() -> dict[str, np.ndarray]:
    """Return the two photographs, ``(H, W, 3)`` uint8."""
    hopper = matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)
    return {"astronaut": skimage.data.astronaut(), "grace_hopper": np.asarray(Image.open(hopper).convert("RGB"))}


def planes_of(photograph: np.ndarray, size: int, coverage: float, config: DataConfig) -> torch.Tensor:
    """Return the face of a photograph as the trainer stores it, ``(1, 5, size, size)`` in [0, 1]."""
    frame = RgbFrame(photograph)
    face = find_faces(frame)[0]
    matrix = align_matrix(face.landmarks, size, coverage)
    crop, mesh = crop_from_frame(frame, matrix, size), transform_points(face.mesh[:, :2], matrix)
    stack = np.concatenate([crop.transpose(2, 0, 1), face_planes(mesh, size, config)])
    return torch.from_numpy(stack)[None].float() / 255


def reconstruct(base: BaseModel, planes: torch.Tensor, config: DataConfig) -> dict[str, float]:
    """Fit a vector to one face and return how well it is redrawn: "psnr" dB and "ssim" inside the face."""
    size = base.config.size

    def batch(n: int, generator: torch.Generator) -> Batch:
        faces = planes.expand(n, -1, -1, -1)
        bent, target, _ = vary(faces[:, :3], faces, size, config, generator)
        return to_batch(bent, target, config)

    vectors = fit_vectors(base, [batch], LossConfig(), torch.Generator().manual_seed(SEED))
    own = to_batch(planes[:, :3], planes, config)
    with torch.inference_mode():
        rgb, _ = base.draw(base.encode(own.input), vectors)
    error = ((rgb - own.target).square() * own.mask).sum() / (3 * own.mask.sum())
    similar = weighted_mean(ssim_map(rgb, own.target), own.mask[:, :, 3:-3, 3:-3])
    return {"psnr": float(-10 * error.log10()), "ssim": float(similar)}


def main() -> None:
    config, results = DataConfig(), {}
    for name in sys.argv[1:] or ["tiny", "small"]:
        base, packaged = Base.load(name), weights_path(f"base_{name}.safetensors")
        size = base.model.config.size
        found = {
            who: reconstruct(base.model, planes_of(photograph, size, base.coverage, config), config)
            for who, photograph in photographs().items()
        }
        results[name if packaged.exists() else f"step {base.card['step']}"] = {
            "size": size, "parameters": sum(p.numel() for p in base.model.parameters()),
            "megabytes": packaged.stat().st_size / 1e6 if packaged.exists() else None,
            "people": base.card["people"], "pictures": base.card["pictures"], "steps": base.card["step"],
            "held_out": base.card["held_out"], "photographs": found,
        }  # fmt: skip
        print(name, results)
    save("base", {"bases": results})


if __name__ == "__main__":
    main()
