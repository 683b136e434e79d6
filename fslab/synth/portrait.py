"""One person on one sheet: a portrait, and how poses, expressions and lights look on it."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
from typing_extensions import Doc

from fslab.media import write_image
from fslab.storage import atomic_dir, prepare_folder, write_json
from fslab.synth.clip import OnProgress, person_name, synthetic_consent
from fslab.synth.identity import check_seed, draw_identity
from fslab.synth.render import Quality
from fslab.synth.scene import Attributes, Camera, Light
from fslab.synth.takes import Take, check_size, load_frames, render_take
from fslab.viz import SHEET, caption_strip, image_grid

CAMERA, CLOSE = Camera(fov=11.8, shift=(0.0, 0.2)), Camera(fov=10.0, shift=(0.0, 0.28))
_EDGE = 8  # pixels left of the large picture
SMILE = {"mouthSmileLeft": 0.45, "mouthSmileRight": 0.42}
HERO = Attributes(
    yaw=-9, pitch=1, roll=-2, gaze=(9, -1), expression=SMILE, light=Light(-38, 32, 1.0, 0.62, 0.2), camera=CAMERA
)
REST = Attributes(camera=CLOSE)
ROWS: dict[str, dict[str, Attributes]] = {
    "pose": {
        "turned left": replace(REST, yaw=-35, gaze=(10, 0)),
        "turned right": replace(REST, yaw=35, gaze=(-10, 0)),
        "looking up": replace(REST, pitch=14, yaw=8),
        "looking down": replace(REST, pitch=-14, roll=6, gaze=(0, -6)),
    },
    "expression": {
        "smile": replace(REST, expression={**SMILE, "jawOpen": 0.1, "mouthSmileLeft": 0.75, "mouthSmileRight": 0.75}),
        "surprise": replace(
            REST,
            expression={
                "browInnerUp": 0.8, "browOuterUpLeft": 0.6, "browOuterUpRight": 0.6, "eyeWideLeft": 0.6,
                "eyeWideRight": 0.6, "jawOpen": 0.35, "mouthFunnel": 0.25,
            },
        ),
        "thinking": replace(
            REST,
            roll=4,
            gaze=(12, 8),
            expression={"browDownLeft": 0.5, "browInnerUp": 0.2, "mouthPressLeft": 0.4, "mouthLeft": 0.35},
        ),
        "eyes shut": replace(REST, pitch=-4, expression={"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0, **SMILE}),
    },
    "light": {
        "soft": replace(REST, light=Light(-20, 30, 1.0, 0.3, 0.05)),
        "from the side": replace(REST, light=Light(62, 22, 1.0, 0.9, 0.2)),
        "evening": replace(REST, light=Light(-45, 8, 0.9, 0.75, 0.85), background=(0.10, 0.06, 0.05)),
        "cool and dim": replace(REST, light=Light(30, 50, 0.6, 0.5, -0.7), background=(0.05, 0.08, 0.14)),
    },
}  # fmt: skip


@dataclass(frozen=True)
class PortraitConfig:
    """Whose portrait sheet is made, and how fine."""

    seed: Annotated[int, Doc("the person; 0 to 199 or 1000 to 2999")]
    size: Annotated[int, Doc("side of the small pictures, pixels; the large one is three times as wide")] = 176
    quality: Annotated[Quality, Doc("high takes some minutes, bulk half a minute and is noisier")] = "high"

    def __post_init__(self):
        check_seed(self.seed)
        check_size(self.size)


def render_portrait(
    config: PortraitConfig, out: Path, overwrite: bool = False, on_progress: OnProgress | None = None
) -> Path:
    """Make a person's folder: ``portrait.png``, ``identity.json`` and the record ``consent.json``.

    Args:
        config: see `PortraitConfig`.
        out: the folder to make.
        overwrite: replace an earlier one there.
        on_progress: called with (pictures done, pictures).

    Returns:
        ``out``.

    Raises:
        OutputError: if something stands there, or nothing can be written.
    """
    out = prepare_folder(Path(out), overwrite, "identity.json")
    identity = draw_identity(config.seed)
    work = out.with_name(f"{out.name}.part")
    gap = max(4, config.size // 40)  # as between the pictures of the grid
    shots = tuple(shot for row in ROWS.values() for shot in row.values())
    hero = Take(config.seed, (HERO,), 2 * ((3 * config.size + 2 * gap) // 2), quality=config.quality, still=True)
    cells = Take(config.seed, shots, config.size, quality=config.quality, still=True)
    done = iter(range(1, len(shots) + 2))
    for name, take in (("hero", hero), ("cells", cells)):
        render_take(take, work / name, lambda: on_progress and on_progress(next(done), len(shots) + 1))
    with atomic_dir(out) as part:
        sheet = portrait_sheet(
            next(load_frames(work / "hero", hero)), list(load_frames(work / "cells", cells)), config.seed
        )
        write_image(part / "portrait.png", sheet)
        synthetic_consent(config.seed).save(part / "consent.json")
        write_json(part / "identity.json", identity.to_dict())
    shutil.rmtree(work, ignore_errors=True)
    return out


def portrait_sheet(hero: np.ndarray, cells: list[np.ndarray], seed: int) -> np.ndarray:
    """Return the sheet of a large picture and those of `ROWS`, ``(H, W, 3)`` uint8."""
    names = [name for row in ROWS.values() for name in row]
    pictures = iter([caption_strip(cell, name) for cell, name in zip(cells, names, strict=True)])
    rows = [[next(pictures) for _ in row] for row in ROWS.values()]
    grid = image_grid(rows, list(ROWS), foot=f"{person_name(seed)}: synthetic, nobody real; CC0")
    sheet = np.full((len(grid), hero.shape[1] + grid.shape[1] + _EDGE, 3), SHEET, np.uint8)
    top = max(4, len(cells[0]) // 40)  # where the grid's pictures begin
    sheet[top : top + len(hero), _EDGE : _EDGE + hero.shape[1]] = hero
    sheet[:, _EDGE + hero.shape[1] :] = grid
    return sheet
