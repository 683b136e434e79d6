"""What the benchmark renders: cases that each ask one thing of a swap, in three tiers of size."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from fslab.consent import Consent
from fslab.errors import MediaError
from fslab.labels import ClipLabels
from fslab.storage import read_json
from fslab.synth.motion import MotionRange
from fslab.synth.pair import PairConfig

FPS = 25
Range = Mapping[str, tuple[float, float]]

# What a source may lack: attributes that its footage never shows and the target's does.
NEVER_LEFT: Range = {"yaw": (-4.0, 38.0)}
NEVER_OPEN: Range = {"mouth": (0.0, 0.06)}


@dataclass(frozen=True)
class Case:
    """One pair of people and what is asked of a swap between them.

    ``text`` says it in words. ``source_range`` and ``target_range`` narrow what each clip shows: names of
    `fslab.synth.motion.MotionRange` to (low, high). ``occluder`` stands before the target's face; ``degrade`` names
    what spoils the footage; with ``stills`` both people are trained on independent pictures instead of a clip.
    """

    name: str
    text: str
    source_seed: int
    target_seed: int
    n_frames: int = 100
    source_range: Range = field(default_factory=dict)
    target_range: Range = field(default_factory=dict)
    occluder: Literal["none", "glasses", "hand"] = "none"
    degrade: str = "none"
    stills: bool = False

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
        return {k: v for k, v in asdict(self).items() if k != "cases"}


_MATCHED = Case("matched", "Both people show the same range of poses and expressions.", 12, 7)
_NEVER_LEFT = Case(
    "never-left", "The source never looks to the left; the target does.", 21, 34, source_range=NEVER_LEFT
)
_NEVER_OPEN = Case("never-open", "The source never opens the mouth; the target speaks.", 5, 48, source_range=NEVER_OPEN)
_LOOKALIKE = Case("look-alike", "Two people who look alike: what is left of the target is hard to see.", 3, 9)
_OTHER = Case("other-sex-age", "A woman and a much older man, or the other way round.", 17, 40)
_GLASSES = Case("glasses", "The target wears glasses, which the swap must leave on.", 26, 52, occluder="glasses")
_HAND = Case("hand", "A hand passes before the target's face.", 31, 60, occluder="hand")
_NOISE = Case("noise", "Noisy footage of both.", 44, 66, degrade="noise")
_BLUR = Case("blur", "Blurred footage of both.", 8, 71, degrade="blur")
_JPEG = Case("jpeg", "Footage of both with strong compression.", 14, 77, degrade="jpeg")
_LOW_LIGHT = Case("low-light", "Footage of both in low light.", 19, 83, degrade="low-light")
_STILLS = Case("stills", "Both trained on stills with independent poses instead of a clip.", 29, 90, stills=True)


def _short(case: Case, n_frames: int) -> Case:
    return Case(**{**{k: getattr(case, k) for k in case.__dataclass_fields__}, "n_frames": n_frames})


TIERS: dict[str, Tier] = {
    "ci": Tier("ci", 128, 64, "tiny", 12.0, 24, (_short(_MATCHED, 25), _short(_NEVER_LEFT, 25))),
    "lab": Tier(
        "lab", 192, 128, "small", 300.0, 75,
        (_MATCHED, _NEVER_LEFT, _OTHER, _GLASSES, _short(_LOW_LIGHT, 25), _STILLS),
    ),
    "full": Tier(
        "full", 320, 256, "full", 1200.0, 150,
        (
            _short(_MATCHED, 500), _NEVER_LEFT, _NEVER_OPEN, _LOOKALIKE, _OTHER, _GLASSES, _HAND,
            _short(_NOISE, 25), _BLUR, _JPEG, _short(_LOW_LIGHT, 500), _STILLS,
        ),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class PairFiles:
    """A rendered pair on disk. A is the target person, who keeps head and pose; B the source, who gives the face.

    ``hash`` is the content hash of its frames; ``a_train`` and ``b_train`` are clips or folders of pictures.
    """

    folder: Path
    hash: str
    a_train: Path
    b_train: Path
    target: Path
    truth: Path
    consents: tuple[Consent, Consent]

    @classmethod
    def load(cls, folder: Path) -> "PairFiles":
        """Find the files of a pair.

        Raises:
            MediaError: if the folder is no pair, or a file is missing.
            ConsentError: if a consent record is missing or malformed.
        """
        folder = Path(folder)
        what = f"a rendered pair in '{folder}'"
        head = read_json(folder / "pair.json", what, MediaError)
        paths = {}
        for name in ("a_train", "b_train", "target", "truth"):
            clip = folder / f"{name}.mp4"
            paths[name] = clip if clip.exists() or not (folder / name).is_dir() else folder / name
            for path in (paths[name], folder / f"{name}.labels.npz"):
                if not path.exists():
                    raise MediaError(
                        f"{what} with '{path.name}'", "no such file", "delete the folder to render it again"
                    )
        consents = tuple(Consent.load(folder / f"{who}.consent.json") for who in "ab")
        return cls(folder, str(head.get("hash", "")), **paths, consents=consents)

    def labels(self, name: str) -> ClipLabels:
        """Read the exact labels of "a_train", "b_train", "target" or "truth"."""
        return ClipLabels.load(self.folder / f"{name}.labels.npz")


def pair_config(case: Case, tier: Tier) -> PairConfig:
    """Return what is rendered for a case in a tier."""
    return PairConfig(
        source_seed=case.source_seed,
        target_seed=case.target_seed,
        size=tier.frame_size,
        fps=FPS,
        n_train=case.n_frames,
        n_target=tier.n_target,
        source_range=MotionRange(**case.source_range),
        target_range=MotionRange(**case.target_range),
        occluder=case.occluder,
        degrade=case.degrade,
        stills=case.stills,
    )
