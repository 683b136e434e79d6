"""A ready benchmark case: footage of two people to train on, a target clip, and the exact truth of its swap.

A is the target person, who keeps head, hair, pose and light; B is the source, who gives the face. The folder::

    pair.json                           what it is, and the content hash of its frames
    a_train.mp4, b_train.mp4            footage to train on, with a voice; folders of PNG where stills were asked for
    target.mp4, truth.mp4               A speaking, and the same frames with B's face in A's head
    <each>.labels.npz                   exact labels of each frame (`fslab.labels.ClipLabels`)
    a.consent.json, b.consent.json      consent records, synthetic
"""

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from typing_extensions import Doc

from fslab.consent import Consent
from fslab.errors import MediaError
from fslab.labels import ClipLabels
from fslab.media import write_image
from fslab.storage import atomic_dir, prepare_folder, read_json, write_json
from fslab.synth.clip import OnProgress, content_hash, murmur, person_name, synthetic_consent, write_clip
from fslab.synth.degrade import Degradation
from fslab.synth.identity import check_seed, draw_identity
from fslab.synth.motion import MotionRange, draw_attributes, draw_track
from fslab.synth.occluders import Occluder
from fslab.synth.ranges import RangeName, motion_range
from fslab.synth.render import Quality
from fslab.synth.scene import Attributes
from fslab.synth.takes import Take, check_choices, check_size, load_frames, load_labels, render_take

SCHEMA = 1
PARTS = ("a_train", "b_train", "target", "truth")
Track = tuple[Attributes, ...]
_PAUSE = 2.0  # seconds


@dataclass(frozen=True)
class PairConfig:
    """Who is swapped with whom, what each shows, and how it is rendered."""

    source_seed: Annotated[int, Doc("seed of the person who gives the face")]
    target_seed: Annotated[int, Doc("seed of the person who gets it and keeps head, pose and light")]
    size: Annotated[int, Doc("side of the square frames, pixels; even, 64 or more")] = 256
    fps: Annotated[int, Doc("frames a second")] = 25
    n_train: Annotated[int, Doc("frames of each person to train on")] = 200
    n_target: Annotated[int, Doc("frames of the target clip and of its truth")] = 75
    source_range: Annotated[RangeName, Doc("what the source's footage shows: everything, or all but something")] = (
        "full"
    )
    target_range: Annotated[RangeName, Doc("what the target's clip shows; its training footage shows as much")] = "full"
    occluder: Annotated[Occluder, Doc("what is in front of the target's face; glasses stay on in training")] = "none"
    degrade: Annotated[Degradation, Doc("what the camera does to all the footage")] = "none"
    stills: Annotated[bool, Doc("train on pictures with independent poses instead of clips")] = False
    seed: Annotated[int, Doc("of everybody's motion, and of noise")] = 0
    quality: Annotated[Quality, Doc("bulk takes a second a frame at 256 pixels, high ten and is cleaner")] = "bulk"

    def __post_init__(self):
        check_seed(self.source_seed), check_seed(self.target_seed)
        check_size(self.size)
        check_choices(self.occluder, self.degrade)
        motion_range(self.source_range), motion_range(self.target_range)
        if self.source_seed == self.target_seed:
            raise ValueError(f"source and target must be two people, got seed {self.source_seed} twice")
        if min(self.n_train, self.n_target) < 1 or not 1 <= self.fps <= 120 or self.seed < 0:
            raise ValueError(
                f"n_train and n_target must be 1 or more, fps 1 to 120, seed 0 or more; "
                f"got {self.n_train}, {self.n_target}, {self.fps} and {self.seed}"
            )

    @property
    def n_frames(self) -> int:
        """How many frames are rendered in all."""
        return 2 * (self.n_train + self.n_target)

    def takes(self) -> dict[str, Take]:
        """Return what is rendered, by the names of `PARTS`."""
        source, target = self.source_seed, self.target_seed
        seeds = [int(s) for s in np.random.default_rng([self.seed, source, target]).integers(2**31, size=4)]
        motion, a_track = self._target_tracks(seeds[0], seeds[1])
        camera = {"size": self.size, "degrade": self.degrade, "quality": self.quality}
        worn = {"occluder": self.occluder, "fits": source}
        glasses = worn if self.occluder == "glasses" else {}  # worn all day; a hand only passes
        return {
            "a_train": Take(target, a_track, seed=seeds[1], still=self.stills, **glasses, **camera),
            "b_train": Take(source, self._source_track(seeds[2]), seed=seeds[2], still=self.stills, **camera),
            "target": Take(target, motion, seed=seeds[0], **worn, **camera),
            "truth": Take(target, motion, seed=seeds[0], face=source, clean=True, **worn, **camera),
        }

    def _target_tracks(self, seed: int, still_seed: int) -> tuple[Track, Track]:
        """Return A's target clip and training footage: one take in one light, parted by a pause nobody filmed."""
        ranges, pause = motion_range(self.target_range), round(_PAUSE * self.fps)
        track = tuple(draw_track(seed, self.n_target + pause + self.n_train, self.fps, ranges))
        train = _stills(still_seed, self.n_train, ranges) if self.stills else track[self.n_target + pause :]
        return track[: self.n_target], train

    def _source_track(self, seed: int) -> Track:
        """Return B's training footage."""
        ranges = motion_range(self.source_range)
        if self.stills:
            return _stills(seed, self.n_train, ranges)
        return tuple(draw_track(seed, self.n_train, self.fps, ranges))


def _stills(seed: int, n: int, ranges: MotionRange) -> Track:
    """Return attributes of n pictures that have nothing to do with each other."""
    return tuple(draw_attributes(int(s), ranges) for s in np.random.default_rng(seed).integers(2**31, size=n))


@dataclass(frozen=True)
class Pair:
    """A rendered pair on disk.

    ``hash`` is the SHA-256 over the raw frames of `PARTS` in their order; ``a_train`` and ``b_train`` are clips, or
    folders of pictures; ``consents`` are those of A and B.
    """

    folder: Path
    config: PairConfig
    hash: str
    a_train: Path
    b_train: Path
    target: Path
    truth: Path
    consents: tuple[Consent, Consent]

    def labels(self, name: str) -> ClipLabels:
        """Read the exact labels of one of `PARTS`."""
        return ClipLabels.load(self.folder / f"{name}.labels.npz")

    @classmethod
    def load(cls, folder: Path) -> "Pair":
        """Read a pair's folder.

        Raises:
            MediaError: if it is none, a file of it is missing, or its description was changed.
            ConsentError: if a consent record is missing or malformed.
        """
        folder = Path(folder)
        what = f"a pair (made by `fslab synth pair`) at '{folder}'"
        head = read_json(folder / "pair.json", what, MediaError)
        if not isinstance(head, dict) or head.get("schema") != SCHEMA:
            raise MediaError(what, "something else or another version", "render it again")
        try:
            config = PairConfig(**head["config"])
            whole = head["config_hash"] == config_hash(config) and len(head["hash"]) == 64
        except (KeyError, TypeError, ValueError) as reason:
            raise MediaError(what, f"a damaged one ({reason})", "render it again") from reason
        if not whole:
            raise MediaError(what, "one whose description was changed", "render it again")
        paths = {name: _footage(folder, name, config.stills and name.endswith("_train")) for name in PARTS}
        for path in (*paths.values(), *(folder / f"{name}.labels.npz" for name in PARTS)):
            if not path.exists():
                raise MediaError(what, f"one without '{path.name}'", "render it again")
        consents = tuple(Consent.load(folder / f"{who}.consent.json") for who in "ab")
        return cls(folder, config, head["hash"], **paths, consents=consents)


def _footage(folder: Path, name: str, stills: bool) -> Path:
    return folder / name if stills else folder / f"{name}.mp4"


def config_hash(config: PairConfig) -> str:
    """Return the SHA-256 of a configuration."""
    return hashlib.sha256(json.dumps(asdict(config), sort_keys=True).encode()).hexdigest()


def render_pair(config: PairConfig, out: Path, overwrite: bool = False, on_progress: OnProgress | None = None) -> Pair:
    """Render a pair; the same call goes on where an interrupted one stopped.

    Args:
        config: see `PairConfig`.
        out: the folder to make.
        overwrite: replace an earlier pair there.
        on_progress: called with (frames done, frames).

    Raises:
        OutputError: if something stands there, or nothing can be written.
    """
    out = prepare_folder(Path(out), overwrite, "pair.json")
    work = out.with_name(f"{out.name}.part")
    done = iter(range(1, config.n_frames + 1))
    takes = config.takes()
    for name, take in takes.items():
        render_take(take, work / name, lambda: on_progress and on_progress(next(done), config.n_frames))
    with atomic_dir(out) as part:
        for name, take in takes.items():
            _write_part(part, name, take, work / name, config)
        for who, seed in (("a", config.target_seed), ("b", config.source_seed)):
            synthetic_consent(seed).save(part / f"{who}.consent.json")
        write_json(part / "pair.json", _head(config, takes, work))
    shutil.rmtree(work, ignore_errors=True)  # the pair stands; what may be left of the frames does no harm
    return Pair.load(out)


def _write_part(folder: Path, name: str, take: Take, work: Path, config: PairConfig) -> None:
    """Write one clip, or one folder of pictures, with its labels."""
    load_labels(work, take).save(folder / f"{name}.labels.npz")
    if take.still:
        (folder / name).mkdir()
        for i, frame in enumerate(load_frames(work, take)):
            write_image(folder / name / f"{i:06d}.png", frame)
        return
    sound = murmur(draw_identity(take.head), take.track, config.fps, take.seed)
    write_clip(folder / f"{name}.mp4", load_frames(work, take), config.fps, sound)


def _head(config: PairConfig, takes: dict[str, Take], work: Path) -> dict:
    """Return ``pair.json`` as a dict."""

    def frames() -> Iterator[np.ndarray]:
        for name, take in takes.items():
            yield from load_frames(work / name, take)

    return {
        "schema": SCHEMA,
        "source": person_name(config.source_seed),
        "target": person_name(config.target_seed),
        "config": asdict(config),
        "config_hash": config_hash(config),
        "frames": {name: len(take.track) for name, take in takes.items()},
        "motion_seeds": {name: take.seed for name, take in takes.items()},
        "identities": {
            who: draw_identity(s).to_dict() for who, s in (("a", config.target_seed), ("b", config.source_seed))
        },
        "hash": content_hash(frames()),
    }
