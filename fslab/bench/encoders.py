"""``fslab bench encoders``: which encoder to take, in equal seconds, on one case: the classic CNN, ours, timm's."""

import logging
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from fslab.bench.trial import Watch
from fslab.bench.variants import Study, Variant, run_variants, write_variants_sheet
from fslab.encoders import TimmEncoder
from fslab.errors import RunError
from fslab.model import PRESETS

OWN = {"classic": "fakeapp", "small": "small"}  # row -> the name of its encoder in `ModelConfig`

# Small and varied: residual, depthwise, inverted, ghost, re-parameterised and hybrid designs that give a map of stride
# 8 or 16 at 64, 96 and 128 px and need no size of their own.
BACKBONES = (
    "mobilenetv2_100", "resnet18", "convnext_atto", "efficientnet_b0", "mobilenetv4_conv_small", "fastvit_t8",
    "regnety_002", "ghostnet_100", "edgenext_xx_small", "hgnetv2_b0",
)  # fmt: skip
ENCODERS = (*OWN, *BACKBONES)
LEARNS = {"full": "all", "last": "last stage", "frozen": "nothing"}  # of a pretrained backbone


def run_encoders(
    study: Study, out: Path, overwrite: bool = False, watch: Watch | None = None, encoders: Sequence[str] = ()
) -> dict:
    """Train, convert and score a network with each encoder, or go on where an earlier call stopped.

    Everything but the encoder is that of the tier's preset.

    Args:
        study: made by `fslab.bench.variants.find_study` for "encoders".
        out: the folder for ``encoders.json``, ``encoders.md``, ``encoders.jpg`` and the case.
        overwrite: do everything anew.
        watch: who is told.
        encoders: "classic", "small" or names of timm's, with or without ``timm:``; `ENCODERS` where left out.

    Returns:
        What ``encoders.json`` holds, see `fslab.bench.variants.run_variants`.

    Raises:
        OutputError: if ``out`` holds something else or another study, or cannot be written.
        KeyboardInterrupt: when stopped; the same call goes on.
    """
    variants = encoder_variants(study, encoders or ENCODERS)
    body = run_variants(study, variants, out, overwrite, watch)
    write_variants_sheet(study, out, body["rows"])
    return body


def encoder_variants(study: Study, encoders: Sequence[str]) -> list[Variant]:
    """Return the rows of the table: a backbone whose pretrained weights are here has four, all others one.

    Pretrained, all of it learning, its last stage only, or nothing; and from random weights. Each row says which
    weights it had, so that nobody takes an untrained backbone's row for what pretraining is worth.
    """
    rows = []
    for asked in dict.fromkeys(name.removeprefix("timm:") for name in encoders):
        if asked in OWN:
            rows.append(_variant(study, asked, OWN[asked], "random"))
            continue
        weights = find_weights(asked, study.tier.model_size)
        if weights != "random":
            rows += [_variant(study, f"{asked}-{how}", f"timm:{asked}", weights, how) for how in LEARNS]
        rows.append(_variant(study, f"{asked}-random", f"timm:{asked}", "random"))
    return rows


def find_weights(name: str, size: int) -> str:
    """Return where a backbone's pretrained weights can be had: "packaged", "hub", or "random" for nowhere.

    A name that timm does not know, or a backbone that cannot be used, has none; training with it will say why.
    """
    with _silent("fslab.encoders"):
        try:
            return TimmEncoder(name, size, 1, pretrained=True).weights
        except RunError:
            return "random"


def _variant(study: Study, name: str, encoder: str, weights: str, how: str = "full") -> Variant:
    """Return a row: the preset's network with another encoder."""
    model, train = PRESETS[study.tier.preset]
    about = {"weights": weights, "learns": LEARNS[how]}
    model = replace(model, encoder=encoder, pretrained=weights != "random")
    return Variant(name, model, replace(train, encoder_train=how, base="none"), about)


@contextmanager
def _silent(name: str):
    """Let a logger say nothing: that weights are missing is what the table says."""
    logger = logging.getLogger(name)
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before
