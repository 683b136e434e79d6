"""``fslab bench losses``: what each part of the training loss is worth, in equal seconds, on one case."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from fslab.bench.trial import Watch
from fslab.bench.variants import Study, Variant, run_variants, write_variants_sheet
from fslab.dataset import DataConfig
from fslab.losses import LossConfig
from fslab.model import PRESETS

# Row -> what its loss has that the recipe's has not. Weights of what is added are those at which its pull on the pixels
# is about as strong as that of the absolute difference.
_BARE = {"l1": 0.0, "dssim": 0.0, "gradient": 0.0}
LOSSES: dict[str, dict[str, float]] = {
    "mse": {**_BARE, "mse": 1.0},
    "l1": {**_BARE, "l1": 1.0},
    "l1+dssim": {"gradient": 0.0},
    "default": {},
    "l1+gradient": {"dssim": 0.0},
    "multi-scale": {"dssim_scales": 3},
    "perceptual": {"perceptual": 0.03},
    "adversarial": {"adversarial": 0.02},
    "identity": {"identity": 0.02},
    "no-match": {"match": 0.0},
    "match-by-pose": {"match_bin": 20.0},
    "no-mask": {"mask": 0.0},
}
PLAIN = {"eyes": 1.0, "mouth": 1.0}  # every pixel of the face counts alike


def loss_variants(preset: str) -> list[Variant]:
    """Return the rows of the table: a preset's training with one thing of its loss changed in each.

    Without the loss of the mask, none is drawn: one that does not learn would spoil the swap.

    Args:
        preset: one of `fslab.model.PRESETS`.
    """
    model, train = PRESETS[preset]
    found = []
    for name, change in LOSSES.items():
        losses = replace(train.losses, **change)
        shape = replace(model, draw_mask=model.draw_mask and losses.mask > 0)
        found.append(Variant(name, shape, replace(train, losses=losses), _about(losses, train.losses)))
    even = replace(train.data, **PLAIN)
    found.append(Variant("no-eyes-mouth", model, replace(train, data=even), _about(even, train.data)))
    return found


def _about(now: LossConfig | DataConfig, usual: LossConfig | DataConfig) -> dict[str, str]:
    """Return what a row says of itself: the settings that are not the preset's, as options of `fslab train`."""
    before = asdict(usual)
    differs = [f"--{k.replace('_', '-')} {v:g}" for k, v in asdict(now).items() if v != before[k]]
    return {"changed": " ".join(differs) or "–"}


def run_losses(
    study: Study,
    out: Path,
    overwrite: bool = False,
    watch: Watch | None = None,
    variants: Sequence[Variant] | None = None,
) -> dict:
    """Train, convert and score each row, or go on where an earlier call stopped; then draw the sheet.

    Args:
        study: made by `fslab.bench.variants.find_study` for "losses".
        out: the folder for ``losses.json``, ``losses.md``, ``losses.jpg`` and the case.
        overwrite: do everything anew.
        watch: who is told.
        variants: the rows; those of `loss_variants` where left out.

    Returns:
        What ``losses.json`` holds, see `fslab.bench.variants.run_variants`.

    Raises:
        OutputError: if ``out`` holds something else or another study, or cannot be written.
        KeyboardInterrupt: when stopped; the same call goes on.
    """
    body = run_variants(study, variants or loss_variants(study.tier.preset), out, overwrite, watch)
    write_variants_sheet(study, out, body["rows"])
    return body
