"""Who a synthetic person is: shape, skin, eyes, brows, hair and clothes, drawn from a seed.

Sex, age and group are balanced: every 18 seeds in a row hold each of the 2 x 3 x 3 combinations once, in
a shuffled order. Within them shape and skin vary and mix, so that no two people share either.
"""

import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np

from fslab.errors import FslabError
from fslab.storage import read_json, write_json
from fslab.synth.assets import DATA_FOLDER, load_assets, load_texture
from fslab.synth.draws import (
    AFRO,
    HAIR,
    draw_colours,
    draw_face_colours,
    draw_local,
    draw_macro,
    draw_rest,
    draw_skin,
    stratum,
)  # fmt: skip
from fslab.synth.shape import without_folds

BENCH_SEEDS = range(0, 18)  # benchmark cases, all 0.6 apart; nobody trains a base model on them
GALLERY_SEEDS = range(18, 200)  # only looked up, to make recognising one of the others harder
TRAIN_SEEDS = range(1000, 3000)  # for training

SIMILAR_TONE = 0.4  # difference of two people's `tone` up to which they are shown together
PATIENCE = 25  # draws after which a seed takes up another combination of sex, age and group
FACE_PATCH = slice(210, 310), slice(400, 470)  # rows and columns of a skin's texture: cheeks, nose and forehead


@dataclass(frozen=True)
class Identity:
    """One person, complete: the same identity gives the same head.

    Attributes:
        seed: what it was drawn from.
        sex, age, group: the combination it belongs to; ``macro`` and ``skin`` say how much of each it really is.
        macro: weight by target name; sex, age, group and weight of the body.
        local: weight by target name; the features of the face.
        skin: share by texture name, summing to 1.
        tone: gain of linear red, green, blue on the mixed skin.
        freckles: how freckled, in [0, 1].
        lip_colour: gain of linear red, green, blue on the lips; ``lip_strength`` in [0, 1] how much of it.
        beard: how much of the skin a beard covers, in [0, 1].
        eyes, brows, lashes, hair, clothes: names of the packaged parts; no hair: "".
        hair_colour, clothes_colour: linear RGB.
    """

    seed: int
    sex: str
    age: str
    group: str
    macro: Mapping[str, float]
    local: Mapping[str, float]
    skin: Mapping[str, float]
    tone: tuple[float, float, float]
    freckles: float
    lip_colour: tuple[float, float, float]
    lip_strength: float
    beard: float
    eyes: str
    brows: str
    lashes: str
    hair: str
    hair_colour: tuple[float, float, float]
    clothes: str
    clothes_colour: tuple[float, float, float]

    def to_dict(self) -> dict:
        """Return the identity as JSON types."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_dict(cls, data: Mapping) -> "Identity":
        """Build an identity from `to_dict`; raises TypeError or KeyError if it is not one."""
        triples = {name: tuple(data[name]) for name in ("tone", "lip_colour", "hair_colour", "clothes_colour")}
        return cls(**{**data, **triples})

    def save(self, path: Path) -> None:
        """Write the identity as JSON."""
        write_json(Path(path), self.to_dict())

    @classmethod
    def load(cls, path: Path) -> "Identity":
        """Read an identity.

        Raises:
            FslabError: if the file is missing or holds something else.
        """
        data = read_json(path, "a synthetic person's identity", FslabError)
        try:
            return cls.from_dict(data)
        except (TypeError, KeyError) as reason:
            raise FslabError(
                f"a synthetic person's identity in '{path}'", f"something else ({reason})", "write it again"
            ) from reason


def draw(seed: int, attempt: int) -> Identity:
    """Return the identity of a seed and the number of the attempt, without asking whether it was accepted."""
    sex, age, group = stratum(seed, attempt // PATIENCE)
    rng = np.random.default_rng([seed, attempt, 7])
    macro, shares = draw_macro(rng, sex, age, group)
    skin = draw_skin(rng, sex, age, group, shares)
    colours = draw_colours(rng, age, group)
    colours |= draw_face_colours(rng, sex)
    assets = load_assets()
    local = without_folds(macro, draw_local(rng) | draw_rest(rng))
    clothes = [name for name in assets.names("clothes") if name.startswith(f"{sex}_")]
    saturation, cloth = rng.uniform(0.1, 0.8), rng.random(3)
    cloth = (cloth * saturation + 1 - saturation) * rng.uniform(0.05, 0.5)
    return Identity(
        seed=seed, sex=sex, age=age, group=group, macro=macro, local=local, **skin, **colours,
        freckles=round(float(rng.beta(1, 3)), 3), brows=rng.choice(assets.names("brows")).item(),
        lashes=rng.choice(assets.names("lashes")).item() if sex == "female" else "Eyelashes01",
        hair="afro01" if rng.random() < AFRO[group] else rng.choice(HAIR[sex]).item(),
        clothes=rng.choice(clothes).item(),
        clothes_colour=tuple(np.round(cloth, 4).tolist()),
    )  # fmt: skip


@cache
def _table(folder: Path = DATA_FOLDER) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read ``people.npz``: seeds, the accepted attempt of each, and their embeddings."""
    path = folder / "people.npz"
    try:
        with np.load(path, allow_pickle=False) as data:
            return data["seeds"], data["attempts"], data["embeddings"].astype(np.float32)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as reason:
        raise FslabError(
            "the packaged table of people 'people.npz'", f"none that can be read ({reason})", "install fslab again"
        ) from reason


def check_seed(seed: int) -> None:
    """Raise ValueError unless a seed is somebody's."""
    ranges = (BENCH_SEEDS, GALLERY_SEEDS, TRAIN_SEEDS)
    if not any(seed in seeds for seeds in ranges):
        known = ", ".join(f"{seeds.start} to {seeds.stop - 1}" for seeds in ranges)
        raise ValueError(f"a person's seed must be one of {known}, got {seed}")


def draw_identity(seed: int) -> Identity:
    """Return the person of a seed.

    Args:
        seed: one of `BENCH_SEEDS` or `GALLERY_SEEDS`, who are all far apart (see `gallery`), or of `TRAIN_SEEDS`.

    Raises:
        ValueError: for any other seed.
        FslabError: if packaged data are missing.
    """
    check_seed(seed)
    if seed in TRAIN_SEEDS:
        return draw(seed, 0)
    seeds, attempts, _ = _table()
    return draw(seed, int(attempts[np.flatnonzero(seeds == seed)[0]]))


def gallery() -> tuple[np.ndarray, np.ndarray]:
    """Return the seeds ``(N,)`` and dlib embeddings ``(N, 128)`` float32 of all people of the two short lists."""
    seeds, _, embeddings = _table()
    return seeds, embeddings


@cache
def _brightness(skin: str) -> float:
    return float(np.log(np.mean((load_texture(f"skin/{skin}")[FACE_PATCH] / 255.0) ** 2.2)))


def tone(identity: Identity) -> float:
    """Return how light a person's skin is: the log of its mean linear brightness, from about -3.5 to -0.3."""
    total = sum(identity.skin.values())
    return sum(_brightness(name) * w for name, w in identity.skin.items()) / total + float(np.log(identity.tone).mean())


def similar_tone(a: Identity, b: Identity) -> bool:
    """Tell whether two people's skins are alike enough for a swap between them to be shown to the public."""
    return abs(tone(a) - tone(b)) <= SIMILAR_TONE
