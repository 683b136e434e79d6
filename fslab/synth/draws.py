"""How the traits of synthetic people are drawn: shape, skin, colours."""

from collections.abc import Mapping
from functools import cache

import numpy as np

from fslab.synth.assets import load_assets

SEXES, AGES, GROUPS = ("female", "male"), ("young", "middleage", "old"), ("african", "asian", "caucasian")
STRATA = tuple((sex, age, group) for sex in SEXES for age in AGES for group in GROUPS)
SKINS = (
    "middleage_african_female_1", "middleage_african_male_1", "middleage_asian_female_2", "middleage_asian_male_2",
    "middleage_caucasian_female_1", "middleage_caucasian_male_1", "old_african_female_1", "old_african_male_1",
    "old_asian_female_2", "old_asian_male_2", "old_caucasian_female_1", "old_caucasian_male_1",
    "young_african_female_1", "young_african_male_1", "young_asian_female_3", "young_asian_male_3",
    "young_caucasian_female_1", "young_caucasian_female_2", "young_caucasian_male_1", "young_caucasian_male_2",
)  # fmt: skip
AGE_RANGES = {"young": (0.0, 0.25), "middleage": (0.35, 0.62), "old": (0.72, 0.95)}  # 0: 25 years, 1: 90 years
TONE_RANGES = {"african": (-0.2, 0.8), "asian": (-0.5, 0.1), "caucasian": (-0.35, 0.06)}  # log of the brightness
# Spread and limit of a local target's weight by part of the head; nose weights over 0.5 tear the nostrils.
LOCAL = {
    "head": (0.4, 0.9), "forehead": (0.5, 1.0), "eyebrows": (0.35, 0.7), "eyes": (0.4, 0.7), "cheek": (0.6, 1.0),
    "nose": (0.4, 0.5), "mouth": (0.5, 0.9), "chin": (0.5, 1.0), "ears": (0.4, 0.8), "neck": (0.3, 0.6),
}  # fmt: skip
OPPOSITES = {
    "decr": "incr", "in": "out", "down": "up", "backward": "forward", "concave": "convex", "compress": "uncompress",
}  # fmt: skip
HEAD_SHAPES = (
    "head-oval", "head-round", "head-rectangular", "head-square", "head-triangular", "head-invertedtriangular",
    "head-diamond",
)  # fmt: skip
LEFT_OUT = ("head-age", "head-trans", "head-angle", "jaw-drop", "eye-push", "eye-trans", "ear-shape", "measure-")

HAIR = {
    "female": ("Braid01", "bob02", "long01", "ponytail01", "short03"),
    "male": ("short01", "short02", "short03", "short04", ""),
}
AFRO = {"african": 0.3, "asian": 0.0, "caucasian": 0.03}  # how often
DARK, BROWN, LIGHT, RED = (0.012, 0.010, 0.009), (0.05, 0.027, 0.015), (0.30, 0.19, 0.09), (0.18, 0.055, 0.02)
GREY, WHITE = (0.28, 0.27, 0.26), (0.62, 0.60, 0.57)  # linear RGB of a lit strand


@cache
def local_pairs() -> tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...]:
    """Return the features that identities vary: folder, the targets of a negative weight, those of a positive one.

    Left and right targets of one feature go together.
    """
    names = [name for name in load_assets().targets if name.split("/")[0] in LOCAL]
    found: dict[tuple[str, str], tuple[list[str], list[str]]] = {}
    for name in names:
        folder, feature = name.split("/")
        feature = feature[2:] if feature[:2] in ("l-", "r-") else feature
        stem, _, end = feature.rpartition("-")
        if any(part in feature for part in LEFT_OUT) or end not in {*OPPOSITES, *OPPOSITES.values()}:
            continue
        positive = end in OPPOSITES.values()
        low = end if not positive else next(k for k, v in OPPOSITES.items() if v == end)
        found.setdefault((folder, f"{stem}-{low}"), ([], []))[positive].append(name)
    return tuple((folder, tuple(low), tuple(high)) for (folder, _), (low, high) in sorted(found.items()))


def stratum(seed: int, turn: int = 0) -> tuple[str, str, str]:
    """Return the (sex, age, group) of a seed: each of the 18 once in every 18 seeds in a row from a multiple of 18.

    ``turn`` counts how often the seed has moved on to another combination because nobody new was found in its own.
    """
    block, place = divmod(seed, len(STRATA))
    return STRATA[np.random.default_rng([block, 18]).permutation(len(STRATA))[(place + turn) % len(STRATA)]]


def draw_local(rng: np.random.Generator) -> dict[str, float]:
    """Return weights of local targets: two thirds of the features, normal weights, within each part's limit."""
    weights = {}
    for folder, low, high in local_pairs():
        spread, limit = LOCAL[folder]
        active, weight = rng.random() < 0.67, float(np.clip(rng.normal(0, spread), -limit, limit))
        if active:
            weights.update(dict.fromkeys(high if weight > 0 else low, round(abs(weight), 3)))
    weights[f"head/{HEAD_SHAPES[rng.integers(len(HEAD_SHAPES))]}"] = round(float(rng.uniform(0, 0.6)), 3)
    return weights


def draw_rest(rng: np.random.Generator) -> dict[str, float]:
    """Return the expression that a face falls into at rest: without it the base mesh stares."""
    limits = {
        "browInnerUp": (0.1, 0.8), "eyeBlink": (0.02, 0.16), "eyeSquint": (0.0, 0.5), "mouthSmile": (0.0, 0.2),
        "mouthPress": (0.0, 0.2),
    }  # fmt: skip
    weights = {}
    for unit, (low, high) in limits.items():
        sides = ("Left", "Right") if f"units/{unit}Left" in load_assets().targets else ("",)
        weights.update(
            dict.fromkeys([f"units/{unit}{side}" for side in sides], round(float(rng.uniform(low, high)), 3))
        )
    return weights


def draw_macro(rng: np.random.Generator, sex: str, age: str, group: str) -> tuple[dict[str, float], dict[str, float]]:
    """Return the weights of the macro targets, and the share of each group in them."""
    other = GROUPS[(GROUPS.index(group) + rng.integers(1, 3)) % 3]
    main = rng.uniform(0.65, 1.2)
    shares = {group: main, other: 1 - main}
    years, female = (
        rng.uniform(*AGE_RANGES[age]),
        rng.uniform(0.88, 1.12) if sex == "female" else rng.uniform(-0.12, 0.12),
    )
    fat = float(np.clip(rng.normal(0, 0.6), -1, 1))
    builds = {"averageweight": 1 - abs(fat), "maxweight" if fat > 0 else "minweight": abs(fat)}
    macro = {}
    for s, sex_share in (("female", female), ("male", 1 - female)):
        for a, age_share in (("young", 1 - years), ("old", years)):
            for g, share in shares.items():
                macro[f"macrodetails/{g}-{s}-{a}"] = share * sex_share * age_share
            for build, share in builds.items():
                macro[f"macrodetails/universal-{s}-{a}-averagemuscle-{build}"] = share * sex_share * age_share
    return {name: round(float(weight), 4) for name, weight in macro.items()}, shares


def draw_skin(rng: np.random.Generator, sex: str, age: str, group: str, shares: Mapping[str, float]) -> dict:
    """Return ``skin`` and ``tone``: the skins of the shape's groups mixed, with some of a neighbouring age."""
    near = AGES[int(np.clip(AGES.index(age) + rng.choice([-1, 1]), 0, 2))]
    age_share = rng.uniform(0, 0.5)
    skin: dict[str, float] = {}
    for g, group_share in shares.items():
        group_share = float(np.clip(group_share, 0, 1))
        for a, share in ((age, 1 - age_share), (near, age_share)):
            fitting = [name for name in SKINS if name.startswith(f"{a}_{g}_{sex}_")]
            mix = rng.dirichlet(0.5 * np.ones(len(fitting)))
            for name, part in zip(fitting, mix):
                skin[name] = skin.get(name, 0) + float(group_share * share * part)
    low, high = TONE_RANGES[group]
    brightness, warmth = rng.uniform(low, high), rng.normal(0, 0.08)
    gain = np.exp(brightness * np.array([0.8, 1.0, 1.15]) + warmth * np.array([1, 0, -1]))
    return {"skin": {k: round(v, 4) for k, v in skin.items()}, "tone": tuple(np.round(gain, 4).tolist())}


def draw_colours(rng: np.random.Generator, age: str, group: str) -> dict:
    """Return eye and hair colour, of those that occur in the group; old hair is grey."""
    light_eyes = ("blue", "bluegreen", "deepblue", "green", "grey", "ice", "lightblue", "brownlight", "brown")
    eyes = light_eyes[rng.integers(9)] if group == "caucasian" else ("brown", "brown", "brownlight")[rng.integers(3)]
    a, b = rng.random(2)
    colour = np.array(DARK) + (np.array(BROWN) - DARK) * a * (1 if group == "caucasian" else 0.5)
    if group == "caucasian" and b < 0.55:
        colour = colour + (np.array(LIGHT if b < 0.42 else RED) - colour) * rng.uniform(0.3, 1)
    grey = {"young": 0.0, "middleage": rng.uniform(0, 0.5) ** 2, "old": rng.uniform(0.4, 1)}[age]
    silver = np.array(GREY) + (np.array(WHITE) - GREY) * rng.random()
    colour = colour + (silver - colour) * grey
    return {"eyes": eyes, "hair_colour": tuple(np.round(colour, 4).tolist())}


def draw_face_colours(rng: np.random.Generator, sex: str) -> dict:
    """Return the colour of the lips, and a beard for two men in five."""
    strong = sex == "female" and rng.random() < 0.5
    red = np.array([0.95, rng.uniform(0.35, 0.8), rng.uniform(0.4, 0.85)]) * rng.uniform(0.7, 1)
    has_beard = rng.random() < (0.45 if sex == "male" else 0)
    return {
        "lip_colour": tuple(np.round(red, 4).tolist()),
        "lip_strength": round(float(rng.uniform(0.6, 1.0) if strong else rng.uniform(0, 0.4)), 3),
        "beard": round(float(rng.uniform(0.25, 0.9)) if has_beard else 0.0, 3),
    }
