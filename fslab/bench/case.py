"""What the benchmark renders: cases that each ask one thing of a swap, in three tiers of size."""

from dataclasses import dataclass, fields, replace

from fslab.model import PRESETS, ModelConfig
from fslab.schedule import TrainConfig
from fslab.synth.degrade import Degradation
from fslab.synth.occluders import Occluder
from fslab.synth.pair import PairConfig
from fslab.synth.ranges import RangeName

FPS = 25


@dataclass(frozen=True)
class Case:
    """One pair of people and what is asked of a swap between them.

    ``text`` says it in words. ``source_range`` and ``target_range`` name what the people show; ``occluder`` is in front
    of the target's face; ``degrade`` spoils all the footage; with ``stills`` both people are trained on independent
    pictures instead of a clip. ``seed`` of the motion, chosen so that short clips show what the case is about.
    """

    name: str
    text: str
    source_seed: int
    target_seed: int
    n_frames: int = 100
    source_range: RangeName = "full"
    target_range: RangeName = "full"
    occluder: Occluder = "none"
    degrade: Degradation = "none"
    stills: bool = False
    seed: int = 0

    def __post_init__(self):
        if not self.name.replace("-", "").isalnum():
            raise ValueError(f"a case's name must be letters, digits and dashes, got {self.name!r}")
        if self.n_frames < 8 or self.source_seed == self.target_seed:
            raise ValueError("a case needs two people and 8 frames or more of each")


@dataclass(frozen=True)
class Tier:
    """How large the cases are and how long they are trained.

    ``frame_size`` is the side of the frames, ``model_size`` that of the network's pictures, pixels; ``preset`` names
    the recipe (`fslab.model.PRESETS`); ``budget`` seconds of training for each network of each case; ``n_target``
    frames of the target clip; ``device`` as in `TrainConfig`.
    """

    name: str
    frame_size: int
    model_size: int
    preset: str
    budget: float
    n_target: int
    cases: tuple[Case, ...]
    device: str = "auto"

    def to_dict(self) -> dict:
        """Return the tier as JSON types, without its cases."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "cases"}


# Two people of one sex and of similar skin tone, but where a case is about the sex.
_MATCHED = Case("matched", "Both people show the same range of poses and expressions.", 11, 5)
_NEVER_LEFT = Case(
    "never-left", "The source never looks to the left; the target does.", 13, 7, source_range="never-left"
)
_NEVER_OPEN = Case(
    "never-open", "The source never opens the mouth; the target speaks.", 3, 6, source_range="mouth-shut"
)
_LOOK_ALIKE = Case("look-alike", "The two of all these people who look most alike.", 6, 1)
_OTHER = Case("other-sex-age", "A young woman's face on an old man.", 11, 13)
_GLASSES = Case("glasses", "The target wears glasses, which a swap must leave on.", 16, 4, occluder="glasses")
_HAND = Case("hand", "A hand passes in front of the target's face.", 7, 12, occluder="hand")
_NOISE = Case("noise", "Noisy footage of both.", 0, 12, degrade="noise")
_BLUR = Case("blur", "Blurred footage of both.", 16, 2, degrade="blur")
_JPEG = Case("jpeg", "Strongly compressed footage of both.", 0, 7, degrade="jpeg")
_LOW_LIGHT = Case("low-light", "Footage of both in low light.", 3, 13, degrade="low-light")
_STILLS = Case("stills", "Both trained on pictures with independent poses instead of a clip.", 16, 8, stills=True)


def _as(case: Case, seed: int, n_frames: int = 100) -> Case:
    return replace(case, seed=seed, n_frames=n_frames)


# Short clips show little of what people do: the seeds are those whose motion shows what the case is about.
TIERS: dict[str, Tier] = {
    "ci": Tier("ci", 128, 64, "tiny", 8.0, 10, (_as(_MATCHED, 80, 25), _as(_NEVER_LEFT, 32, 25))),
    "lab": Tier(
        "lab", 192, 128, "tiny", 60.0, 50,
        (
            _as(_MATCHED, 10), _as(_NEVER_LEFT, 61), _as(_OTHER, 45), _as(_GLASSES, 9), _as(_LOW_LIGHT, 107, 25),
            _as(_STILLS, 33),
        ),
    ),
    "full": Tier(
        "full", 320, 256, "full", 1200.0, 150,
        (
            _as(_MATCHED, 8, 500), _as(_NEVER_LEFT, 9), _as(_NEVER_OPEN, 2), _as(_LOOK_ALIKE, 7), _as(_OTHER, 21),
            _as(_GLASSES, 40), _as(_HAND, 0), _as(_NOISE, 56, 25), _as(_BLUR, 19), _as(_JPEG, 18),
            _as(_LOW_LIGHT, 26, 500), _as(_STILLS, 7),
        ),
    ),
}  # fmt: skip


def fit_to_tier(model: ModelConfig, train: TrainConfig, tier: Tier) -> tuple[ModelConfig, TrainConfig]:
    """Return configurations at a tier's size, for its seconds, on its device.

    A base is of one size: where the tier's is another than the network's, training starts from nothing.
    """
    base = train.base if model.size == tier.model_size else "none"
    budget = f"{tier.budget:g}s"
    return replace(model, size=tier.model_size), replace(train, budget=budget, device=tier.device, base=base)


def recipe(tier: Tier) -> tuple[ModelConfig, TrainConfig]:
    """Return the preset of a tier at its size, for its seconds, on its device.

    A base is of one size: where the tier's is another than the preset's, training starts from nothing, as `TrainConfig`
    does by default.
    """
    model, train = PRESETS[tier.preset]
    if model.size != tier.model_size and train.base != "none":
        train = TrainConfig()
    budget = f"{tier.budget:g}s"
    return replace(model, size=tier.model_size), replace(train, budget=budget, device=tier.device)


def pair_config(case: Case, tier: Tier) -> PairConfig:
    """Return what is rendered for a case in a tier."""
    names = ("source_seed", "target_seed", "source_range", "target_range", "occluder", "degrade", "stills", "seed")
    asked = {name: getattr(case, name) for name in names}
    return PairConfig(size=tier.frame_size, fps=FPS, n_train=case.n_frames, n_target=tier.n_target, **asked)
