"""The data doctor: what both people's footage shows, what one shows and the other never does, and what to film.

A swap draws the source doing what the target does. What the source was never seen doing has to be guessed, so every
face of the target is looked up among the faces of the source: its pose among near poses, its expression and light among
the same kind. Findings are sorted by the share of faces that they touch times how much it matters.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from fslab.coverage import ENOUGH, MIN_EYES, MIN_RANGE, Coverage, Profile, look_over, summarise
from fslab.embedder import SAME_PERSON
from fslab.faceset import FaceSet

NEAR = (10.0, 8.0)  # degrees of yaw and pitch within which one pose stands for another
FEW = 3  # so few faces of a kind are none
WORTH_SAYING = 0.02  # share of the target's faces
WORTH_FILMING = 0.03  # importance
MIRRORED = 0.4  # how much a pose matters that is there the other way round: training mirrors faces
CLIPPED = 0.25  # share of a face without any detail that makes it useless


@dataclass(frozen=True)
class Trait:
    """A kind of thing a face shows: an array of `Profile`, where its bins begin, and what each is called."""

    name: str
    title: str
    edges: tuple[float, ...]
    words: tuple[str, ...]
    weight: float

    def bins(self, profile: Profile) -> np.ndarray:
        """Return how many faces lie in each bin, ``(len(words),)``; unknown ones in none."""
        values = getattr(profile, self.name)
        return np.bincount(np.digitize(values[np.isfinite(values)], self.edges), minlength=len(self.words))


TRAITS = (
    Trait("mouth", "Mouth", (0.04, 0.12), ("with the mouth closed", "with the mouth ajar", "with the mouth open"), 0.8),
    Trait("smile", "Smile", (0.93, 1.08), ("with pursed lips", "with the lips at rest", "smiling"), 0.5),
    Trait("eyes", "Eyes", (0.68,), ("with the eyes shut", "with the eyes open"), 0.8),
    Trait("gaze", "Gaze", (-12, 12), ("glancing left", "looking where the head points", "glancing right"), 0.2),
    Trait("level", "Brightness", (-0.5, 0.5), ("in darker light", "in the usual light", "in brighter light"), 0.3),
    Trait("side", "Light", (-0.12, 0.12), ("lit from the left", "lit evenly", "lit from the right"), 0.4),
)


@dataclass(frozen=True)
class Finding:
    """Something to know before training.

    Attributes:
        importance: 0 to 1, the share of faces it touches times how much that matters.
        kind: "count", "pose", a `Trait`'s name, "size", "sharpness", "motion" or "drop".
        person: whose footage should change.
        text: sentences.
        film: what to film, such as "footage of ada looking left"; empty where filming is no cure.
        crops: files in the face set that it is about, where they should go.
    """

    importance: float
    kind: str
    person: str
    text: str
    film: str = ""
    crops: tuple[str, ...] = ()


@dataclass(frozen=True)
class Diagnosis:
    """What is known of everybody's face sets, and what to do, most important first."""

    cards: tuple[Coverage, ...]
    profiles: tuple[Profile, ...]
    findings: tuple[Finding, ...]

    def to_dict(self) -> dict:
        """Return the diagnosis as JSON types."""
        people = {
            card.identity: {
                "faces": card.n_faces, "kept": card.n_kept, "dropped": card.dropped, "poses": card.poses.tolist(),
                "eye_distance": round(card.eye_distance, 1),
                "sharpness": round(float(np.median(card.sharpness)), 1) if card.n_kept else None,
                "shows": {t.name: dict(zip(t.words, t.bins(profile).tolist(), strict=True)) for t in TRAITS},
            }
            for card, profile in zip(self.cards, self.profiles, strict=True)
        }  # fmt: skip
        findings = [
            {
                "importance": round(f.importance, 3), "kind": f.kind, "person": f.person, "text": f.text,
                "film": f.film, "crops": list(f.crops),
            }
            for f in self.findings
        ]  # fmt: skip
        return {"people": people, "findings": findings}


def examine(facesets: Sequence[FaceSet], pixels: bool = True) -> Diagnosis:
    """Look through face sets before they are trained on.

    Args:
        facesets: of two or more people; each may become target or source.
        pixels: also read light and gaze from the crops, about a second a person.
    """
    profiles = tuple(look_over(f, pixels) for f in facesets)
    findings = [finding for p in profiles for finding in _of_one(p)]
    for target, source in permutations(profiles, 2):
        if len(target) and len(source):
            findings += _poses(target, source) + _traits(target, source) + _sharpness(target, source)
    findings.sort(key=lambda f: -f.importance)
    cards = tuple(summarise(f.identity, f.records) for f in facesets)
    return Diagnosis(cards, profiles, tuple(findings))


def advise(facesets: Sequence[FaceSet]) -> list[str]:
    """Return what to film, most useful first, such as "footage of ada looking left"; reads no pixels."""
    found = examine(facesets, pixels=False).findings
    return list(dict.fromkeys(f.film for f in found if f.film and f.importance >= WORTH_FILMING))


def pose_words(yaw: float, pitch: float) -> str:
    """Return a pose in words, such as "far left and up"; left and right are the picture's."""
    side = "" if abs(yaw) < 10 else ("far " if abs(yaw) >= 30 else "") + ("left" if yaw < 0 else "right")
    height = "" if abs(pitch) < 8 else "up" if pitch > 0 else "down"
    return " and ".join(word for word in (side, height) if word) or "ahead"


def unseen_poses(target: Profile, source: Profile, mirrored: bool) -> np.ndarray:
    """Return which faces of the target have fewer than `FEW` faces of the source turned alike, ``(N,)`` bool.

    Args:
        target: who is looked up.
        source: among whose faces.
        mirrored: let the mirror images of the source count too.
    """
    yaw = np.concatenate([source.yaw, -source.yaw]) if mirrored else source.yaw
    pitch = np.concatenate([source.pitch, source.pitch]) if mirrored else source.pitch
    off = np.hypot((target.yaw[:, None] - yaw) / NEAR[0], (target.pitch[:, None] - pitch) / NEAR[1])
    return (off <= 1).sum(axis=1) < FEW


def _poses(target: Profile, source: Profile) -> list[Finding]:
    """Find where the target turns to and the source does not, in words and by the number of faces."""
    unseen, never = (unseen_poses(target, source, mirrored) for mirrored in (False, True))
    words, own = ([pose_words(*pose) for pose in zip(p.yaw, p.pitch)] for p in (target, source))
    found = []
    for word, n in Counter(w for w, is_unseen in zip(words, unseen) if is_unseen).items():
        n_never = sum(w == word and is_never for w, is_never in zip(words, never))
        importance = (n_never + MIRRORED * (n - n_never)) / len(target)
        if n / len(target) >= WORTH_SAYING:
            how = "seldom does" if own.count(word) >= FEW else "never does" if n_never > n / 2 else "only does mirrored"
            found.append(
                Finding(
                    importance, "pose", source.identity,
                    f"{target.identity} looks {word} in {n} of {len(target)} faces and {source.identity} {how}: there "
                    f"the swap has to guess. Film {source.identity} looking {word}.",
                    f"footage of {source.identity} looking {word}",
                )
            )  # fmt: skip
    return found


def _traits(target: Profile, source: Profile) -> list[Finding]:
    """Find what else the target shows and the source never does."""
    found = []
    for trait in TRAITS:
        theirs, own = trait.bins(target), trait.bins(source)
        if not theirs.sum() or not own.sum():
            continue
        for word, n, n_own in zip(trait.words, theirs, own, strict=True):
            share = n / theirs.sum()
            if share >= WORTH_SAYING and n >= FEW > n_own:
                never = "never" if n_own == 0 else "hardly ever"
                found.append(
                    Finding(
                        share * trait.weight, trait.name, source.identity,
                        f"{target.identity} is seen {word} in {share:.0%} of faces, {source.identity} {never}. Film "
                        f"{source.identity} {word}.",
                        f"footage of {source.identity} {word}",
                    )
                )  # fmt: skip
    return found


def _sharpness(target: Profile, source: Profile) -> list[Finding]:
    """Find whether the source is much softer than the target."""
    ratio = float(np.median(source.sharpness) / max(np.median(target.sharpness), 1e-6))
    if ratio >= 0.5:
        return []
    text = (
        f"{source.identity}'s faces are {1 / max(ratio, 0.01):.1f} times softer than {target.identity}'s: a swap to "
        f"{source.identity} will look soft beside the footage. Film {source.identity} in better focus, or closer."
    )
    return [Finding(0.3, "sharpness", source.identity, text, f"footage of {source.identity} in better focus")]


def _of_one(p: Profile) -> list[Finding]:
    """Find what one person's faces lack whoever the other is, and which of them should go."""
    who, found = p.identity, []
    if len(p) < ENOUGH:
        text = f"{len(p)} usable faces of {who}; {ENOUGH} or more give a better swap. Film more."
        found.append(Finding(1 - len(p) / ENOUGH, "count", who, text, f"footage of {who}"))
    if not len(p):
        return found
    eyes = float(np.median(p.eye_distance))
    if eyes < MIN_EYES:
        text = f"{who}'s faces are small (eye distance {eyes:.0f} px): the swap will be soft. Film closer."
        found.append(Finding(0.8 * (1 - eyes / MIN_EYES), "size", who, text, f"footage of {who} from closer by"))
    mouth = p.mouth[np.isfinite(p.mouth)]
    if len(mouth) and np.percentile(mouth, 95) - np.percentile(mouth, 5) < MIN_RANGE:
        text = f"{who}'s mouth hardly moves: film some talking."
        found.append(Finding(0.4, "motion", who, text, f"footage of {who} talking"))
    for is_bad, why in (
        (p.strange > SAME_PERSON, "look like somebody else"),
        (p.clipped > CLIPPED, "are so dark or so bright that nothing is left to see"),
    ):
        crops = tuple(crop for crop, bad in zip(p.crops, is_bad) if bad)
        if crops:
            names = ", ".join(crops[:3]) + (" and others" if len(crops) > 3 else "")
            text = f'{len(crops)} faces of {who} {why} ({names}). Look at them, and drop them: "keep" in faces.jsonl.'
            found.append(Finding(min(0.3 + len(crops) / len(p), 1.0), "drop", who, text, crops=crops))
    return found
