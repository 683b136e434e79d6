"""A talking head as a clip: frames, a voice, exact labels and a consent record beside each other."""

import hashlib
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from typing_extensions import Doc

from fslab.consent import Consent
from fslab.media import VideoOptions, write_video
from fslab.media.movie import checked_suffix
from fslab.storage import prepare_output, write_json
from fslab.synth.degrade import Degradation
from fslab.synth.identity import Identity, check_seed, draw_identity
from fslab.synth.motion import draw_track
from fslab.synth.occluders import Occluder
from fslab.synth.ranges import RangeName, motion_range
from fslab.synth.render import Quality
from fslab.synth.scene import Attributes
from fslab.synth.takes import Take, check_choices, check_size, load_frames, load_labels, render_take
from fslab.synth.voice import RATE, mouth_openings, speak

SCHEMA = 1
CONSENT_DATE = "2026-11-22"
NEARLY_LOSSLESS = VideoOptions(crf=10, preset="medium")
NOTE = "Rendered from CC0 assets; stands for nobody, so nobody's rights are touched."
TAGS = {"comment": "a synthetic person, rendered by fslab; nobody real"}

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class ClipConfig:
    """What a clip shows and how it is rendered."""

    person: Annotated[int, Doc("seed of the person; 0 to 199, or 1000 to 2999")]
    seconds: Annotated[float, Doc("length of the clip, seconds")] = 8.0
    size: Annotated[int, Doc("side of the square frames, pixels; even, 64 or more")] = 256
    fps: Annotated[int, Doc("frames a second")] = 25
    quality: Annotated[Quality, Doc("bulk takes a second a frame at 256 pixels, high ten and is cleaner")] = "bulk"
    motion_seed: Annotated[int, Doc("what the person does; the same seed moves everyone alike")] = 0
    motion: Annotated[RangeName, Doc("what the person never does, or everything: full")] = "full"
    occluder: Annotated[Occluder, Doc("what is in front of the face")] = "none"
    degrade: Annotated[Degradation, Doc("what the camera does to the frames")] = "none"

    def __post_init__(self):
        check_seed(self.person)
        check_size(self.size)
        check_choices(self.occluder, self.degrade)
        motion_range(self.motion)
        if not 0 < self.seconds < float("inf") or not 1 <= self.fps <= 120 or self.motion_seed < 0:
            raise ValueError(
                f"seconds must be above 0 and finite, fps 1 to 120, motion_seed 0 or more; "
                f"got {self.seconds:g}, {self.fps}, {self.motion_seed}"
            )

    @property
    def n_frames(self) -> int:
        """How many frames it has; at least one."""
        return max(round(self.seconds * self.fps), 1)

    def take(self) -> Take:
        """Return what is rendered."""
        track = draw_track(self.motion_seed, self.n_frames, self.fps, motion_range(self.motion))
        return Take(
            self.person, tuple(track), self.size, occluder=self.occluder, degrade=self.degrade,
            seed=self.motion_seed, quality=self.quality,
        )  # fmt: skip


def person_name(seed: int) -> str:
    """Return what a synthetic person is called where a name is needed."""
    return f"person{seed}"


def synthetic_consent(seed: int) -> Consent:
    """Return the consent record of a synthetic person: nobody real, so nobody had to be asked."""
    return Consent(person_name(seed), "fslab: a rendered person, nobody real", CONSENT_DATE, synthetic=True, note=NOTE)


def murmur(identity: Identity, track: Sequence[Attributes], fps: int, seed: int) -> np.ndarray:
    """Return the voice of a person for a track, ``(n, 1)`` int16; see `fslab.synth.voice.speak`."""
    own = np.random.default_rng([identity.seed, 0x5EC]).uniform(0.88, 1.12)
    return speak(*mouth_openings(track), fps, seed, own * {"female": 200.0, "male": 118.0}[identity.sex])


def content_hash(frames: Iterable[np.ndarray]) -> str:
    """Return the SHA-256 over raw frames, ``(H, W, 3)`` uint8 one after another; 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for frame in frames:
        digest.update(np.ascontiguousarray(frame).tobytes())
    return digest.hexdigest()


def write_clip(path: Path, frames: Iterable[np.ndarray], fps: int, sound: np.ndarray) -> None:
    """Write frames ``(H, W, 3)`` uint8 and a voice as a nearly lossless video, whole or not at all."""
    write_video(path, frames, fps, (sound, RATE), NEARLY_LOSSLESS, TAGS)


@dataclass(frozen=True)
class ClipFiles:
    """A clip and what lies beside it, named after it."""

    video: Path

    @property
    def labels(self) -> Path:
        """The exact labels, `fslab.labels.ClipLabels`."""
        return self.video.with_suffix(".labels.npz")

    @property
    def about(self) -> Path:
        """Identity, configuration, content hash and the attributes of every frame, camera and light among them."""
        return self.video.with_suffix(".json")

    @property
    def consent(self) -> Path:
        """The consent record."""
        return self.video.with_suffix(".consent.json")

    @property
    def work(self) -> Path:
        """The folder of frames while the clip is unfinished."""
        return self.video.with_name(f"{self.video.name}.part")

    def all(self) -> tuple[Path, ...]:
        """Return the four files, the video last: it stands only when the others do."""
        return (self.labels, self.about, self.consent, self.video)


def render_clip(
    config: ClipConfig, out: Path, overwrite: bool = False, on_progress: OnProgress | None = None
) -> ClipFiles:
    """Render a talking head; the same call goes on where an interrupted one stopped.

    Args:
        config: see `ClipConfig`.
        out: the video to make, ending in .mp4 or .mov; labels, description and consent go beside it.
        overwrite: replace what stands there.
        on_progress: called with (frames done, frames).

    Raises:
        MediaError: for another ending.
        OutputError: if something stands there, or nothing can be written.
    """
    files = ClipFiles(checked_suffix(Path(out)))
    identity = draw_identity(config.person)
    goes_on = files.work.is_dir()  # stopped before the video stood: what lies beside it may be of this very render
    for path in files.all():
        prepare_output(path, overwrite or (goes_on and path != files.video))
    take = config.take()
    done = iter(range(1, config.n_frames + 1))
    render_take(take, files.work, lambda: on_progress and on_progress(next(done), config.n_frames))
    load_labels(files.work, take).save(files.labels)
    about = {
        "schema": SCHEMA, "name": person_name(config.person), "config": asdict(config), "frames": config.n_frames,
        "hash": content_hash(load_frames(files.work, take)), "identity": identity.to_dict(),
        "attributes": [attributes.to_dict() for attributes in take.track],
    }  # fmt: skip
    write_json(files.about, about)
    synthetic_consent(config.person).save(files.consent, overwrite=True)
    sound = murmur(identity, take.track, config.fps, config.motion_seed)
    write_clip(files.video, load_frames(files.work, take), config.fps, sound)
    shutil.rmtree(files.work, ignore_errors=True)  # the clip stands; what may be left of the frames does no harm
    return files
