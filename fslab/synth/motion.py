"""What a head does over time: it looks round, talks, blinks and smiles; or, for stills, anything within its range.

Every signal is a function of seconds drawn from its own stream of random numbers, so that a track is the same at every
frame rate and a longer one begins like a shorter one.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from typing_extensions import Doc

from fslab.synth.rhythms import VOWELS, accents, blinks, drift, looks, speech
from fslab.synth.scene import MAX_GAZE, MAX_PITCH, MAX_ROLL, MAX_YAW, Attributes, Camera, Light

Interval = tuple[float, float]
STREAMS = (
    "yaw",
    "pitch",
    "roll",
    "speech",
    "smile",
    "skew",
    "gaze",
    "blink",
    "brow",
    "accent",
    "light",
    "sway",
    "base",
)
ROUNDEST = 0.7  # of mouthPucker and mouthFunnel; the lips fold over each other beyond
OPEN_ENOUGH = 0.25  # jawOpen from which the lips may take any shape; below they only do their share of it


@dataclass(frozen=True)
class MotionRange:
    """What a head may do; no track or still ever leaves these limits.

    Raises:
        ValueError: if a limit is beyond what a head can do, or an interval is the wrong way round.
    """

    yaw: Annotated[Interval, Doc("least and most turn to the picture's right, degrees")] = (-35.0, 35.0)
    pitch: Annotated[Interval, Doc("least and most look upwards, degrees")] = (-14.0, 14.0)
    roll: Annotated[Interval, Doc("least and most tilt clockwise, degrees")] = (-10.0, 10.0)
    mouth: Annotated[float, Doc("widest the jaw opens, in [0, 1]; 0 keeps the lips together")] = 0.6
    smile: Annotated[float, Doc("broadest smile, in [0, 1]")] = 0.5
    brows: Annotated[float, Doc("strongest movement of the eyebrows, in [0, 1]")] = 0.7
    gaze: Annotated[Interval, Doc("how far the eyes turn in the head, sideways and up or down, degrees")] = (18.0, 10.0)
    talking: Annotated[float, Doc("share of the time spent talking, in [0, 1]")] = 0.7
    blinks: Annotated[float, Doc("blinks a minute; 0 for none")] = 17.0
    light_spread: Annotated[float, Doc("how much the light differs between tracks or stills, in [0, 1]")] = 0.5
    light_wander: Annotated[float, Doc("how far the key light wanders within a track, degrees")] = 8.0
    sway: Annotated[float, Doc("how far the camera sways, decimetres")] = 0.06

    def __post_init__(self):
        for name, limit in (("yaw", MAX_YAW), ("pitch", MAX_PITCH), ("roll", MAX_ROLL)):
            low, high = getattr(self, name)
            if not -limit <= low <= high <= limit:
                raise ValueError(f"{name} must rise within {limit:g} degrees either way, got ({low:g}, {high:g})")
        for name in ("mouth", "smile", "brows", "talking", "light_spread"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name):g}")
        if not all(0 <= g <= MAX_GAZE for g in self.gaze):
            raise ValueError(f"gaze must be within 0 to {MAX_GAZE:g} degrees, got {self.gaze}")
        for name, most in (("blinks", 60), ("light_wander", 45), ("sway", 1)):
            if not 0 <= getattr(self, name) <= most:
                raise ValueError(f"{name} must be within 0 to {most}, got {getattr(self, name):g}")


def _stream(seed: int, name: str) -> np.random.Generator:
    """Return the random numbers of one signal, whatever the other signals draw."""
    return np.random.default_rng([seed, STREAMS.index(name)])


def _within(noise: np.ndarray, limits: Interval) -> np.ndarray:
    """Return noise of deviation 1 squeezed smoothly between two limits."""
    low, high = limits
    return np.clip((low + high) / 2 + (high - low) / 2 * np.tanh(0.6 * noise), low, high)


def _light(rng: np.random.Generator, spread: float) -> tuple[Light, tuple[float, float, float]]:
    """Draw a light and a backdrop."""
    side = rng.choice([-1.0, 1.0])
    draws = rng.uniform(-1, 1, 5) * spread
    light = Light(
        azimuth=side * (32 + 28 * draws[0]), elevation=28 + 22 * draws[1], strength=1 + 0.2 * draws[2],
        contrast=float(np.clip(0.62 + 0.25 * draws[3], 0, 1)), warmth=float(0.15 + 0.5 * draws[4]),
    )  # fmt: skip
    grey, tilt = rng.uniform(0.06, 0.3), rng.normal(0, 0.1, 3)
    return light, tuple(float(v) for v in np.clip(grey * np.exp(tilt), 0.02, 0.6))


def _eyes(seed: int, times: np.ndarray, pose: np.ndarray, limits: Interval) -> np.ndarray:
    """Return the gaze in the head ``(N, 2)``, degrees: eyes turn back what the head turns, up to their limits."""
    most = np.maximum(limits, 1e-6)
    wanted = (looks(_stream(seed, "gaze"), times) - pose) / most
    return np.array(limits) * wanted / (1 + np.abs(wanted) ** 6) ** (1 / 6)


def _mouth_units(mouth: np.ndarray, smile: np.ndarray, skew: np.ndarray, widest: float) -> dict[str, np.ndarray]:
    """Return the units of jaw and lips ``(N,)`` each; see `VOWELS` for the columns of ``mouth``."""
    jaw, rounding, spread, press, tuck, raised = mouth.T
    free = min(widest / OPEN_ENOUGH, 1.0)  # lips that may not part may not take the shapes that part them
    rounding = rounding * free * (1 - 0.7 * smile)
    units = {
        "jawOpen": widest * jaw * (1 - 0.25 * rounding), "mouthPucker": ROUNDEST * rounding * (1 - 0.6 * jaw),
        "mouthFunnel": ROUNDEST * rounding * jaw, "mouthRollLower": 0.4 * free * tuck,
        "mouthShrugUpper": 0.15 * free * tuck,
    }  # fmt: skip
    for side, sign in (("Left", 1), ("Right", -1)):
        own = np.clip(1 + 0.18 * sign * skew, 0.6, 1.4)
        units[f"mouthSmile{side}"] = smile * np.minimum(own, 1)
        units[f"mouthStretch{side}"] = 0.35 * free * spread * (1 - 0.7 * smile) * own
        units[f"mouthPress{side}"] = 0.6 * press * free
        units[f"mouthUpperUp{side}"] = 0.3 * free * raised * own
        units[f"mouthLowerDown{side}"] = 0.35 * free * raised * own
        units[f"cheekSquint{side}"] = 0.6 * smile**1.5
    return units


def _brow_units(brow: np.ndarray, accent: np.ndarray, skew: np.ndarray, most: float) -> dict[str, np.ndarray]:
    """Return the units of the eyebrows ``(N,)`` each, from their slow mood (> 0 up) and quick accents."""
    up, down = np.maximum(brow, 0) * 0.5, np.maximum(-brow - 0.4, 0) * 0.4 * (1 - accent)
    lift = np.clip(up + accent, 0, 1) * most
    units = {"browInnerUp": lift * 0.8}
    for side, sign in (("Left", 1), ("Right", -1)):
        units[f"browOuterUp{side}"] = lift * np.clip(0.7 + 0.3 * sign * skew, 0, 1)
        units[f"browDown{side}"] = np.clip(down, 0, 1) * most * 0.6
        units[f"eyeWide{side}"] = 0.3 * accent * most
        units[f"eyeSquint{side}"] = np.clip(down, 0, 1) * most * 0.4
    return units


def _expressions(units: dict[str, np.ndarray]) -> list[dict[str, float]]:
    """Return one mapping a frame, the units at rest left out."""
    names = list(units)
    table = np.round(np.clip(np.stack([units[name] for name in names], 1), 0, 1), 4)
    return [{name: float(v) for name, v in zip(names, row) if v > 0} for row in table]


def draw_track(seed: int, n: int, fps: float, limits: MotionRange | None = None) -> list[Attributes]:
    """Draw what a head does over ``n`` frames.

    Args:
        seed: of all of it; the same seed moves everybody alike.
        n: frames, 1 or more.
        fps: frames a second.
        limits: what the head may do; None for the defaults.

    Returns:
        The attributes of each frame. A longer track begins with the shorter ones, and every rate shows the same motion.

    Raises:
        ValueError: if ``n`` or ``fps`` is not positive.
    """
    if n < 1 or not fps > 0:
        raise ValueError(f"a track needs frames and a rate above 0, got {n} at {fps:g} a second")
    limits, times = limits or MotionRange(), np.arange(n) / fps

    def noise(name: str, period: float) -> np.ndarray:
        return drift(_stream(seed, name), times, period)

    def turning(name: str, period: float) -> np.ndarray:  # slow turns and a little life on top
        rng = _stream(seed, name)
        return 0.97 * drift(rng.spawn(1)[0], times, period) + 0.24 * drift(rng, times, 0.55)

    mouth = speech(_stream(seed, "speech"), times, limits.talking)
    smile = limits.smile / (1 + np.exp(1.2 - 1.8 * noise("smile", 1.6)))
    skew, brow = noise("skew", 2.5), noise("brow", 1.8)
    yaw, roll = _within(turning("yaw", 1.7), limits.yaw), _within(turning("roll", 2.0), limits.roll)
    pitch = _within(turning("pitch", 1.6) - 0.2 * mouth[:, 0], limits.pitch)
    eyes = _eyes(seed, times, np.stack([yaw, pitch], 1), limits.gaze)
    blink = blinks(_stream(seed, "blink"), times, limits.blinks)
    units = _mouth_units(mouth, smile, skew, limits.mouth)
    units |= _brow_units(brow, accents(_stream(seed, "accent"), times), skew, limits.brows)
    for name in ("eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight"):
        units[name] = units[name] * (1 - blink)
    units |= {"eyeBlinkLeft": blink, "eyeBlinkRight": blink}
    light, backdrop = _light(_stream(seed, "base"), limits.light_spread)
    wander = limits.light_wander * np.stack([drift(r, times, 3.0) for r in _stream(seed, "light").spawn(2)], 1)
    sway = limits.sway * np.tanh(np.stack([drift(r, times, 2.5) for r in _stream(seed, "sway").spawn(2)], 1))
    return [
        Attributes(
            float(yaw[i]), float(pitch[i]), float(roll[i]), (float(eyes[i, 0]), float(eyes[i, 1])), expression,
            Light(light.azimuth + float(wander[i, 0]), light.elevation + 0.4 * float(wander[i, 1]), light.strength,
                  light.contrast, light.warmth),
            Camera(shift=(float(sway[i, 0]), float(sway[i, 1]))), backdrop,
        )
        for i, expression in enumerate(_expressions(units))
    ]  # fmt: skip


def draw_attributes(seed: int, limits: MotionRange | None = None) -> Attributes:
    """Draw one still: pose, gaze, expression and light independent of every other still's.

    Poses fill their range evenly; one still in thirty has its eyes shut.

    Args:
        seed: of all of it.
        limits: what the head may do; None for the defaults.
    """
    limits, rng = limits or MotionRange(), _stream(seed, "base")
    light, backdrop = _light(rng, limits.light_spread)
    yaw, pitch, roll = (float(rng.uniform(*interval)) for interval in (limits.yaw, limits.pitch, limits.roll))
    at_camera = rng.random() < 0.6
    aim = np.array([-yaw, -pitch]) if at_camera else rng.uniform(-1, 1, 2) * limits.gaze
    gaze = np.clip(aim, -np.array(limits.gaze), limits.gaze)
    talks = rng.random() < limits.talking
    mouth = (VOWELS[rng.integers(len(VOWELS))] * rng.uniform(0.3, 1) if talks else np.zeros(6))[None]
    smile = np.array([limits.smile * rng.beta(0.5, 1)])
    skew, brow = rng.standard_normal((2, 1))
    accent = np.array([rng.random() if rng.random() < 0.25 else 0.0])
    blink = np.array([float(limits.blinks > 0 and rng.random() < 1 / 30)])
    units = _mouth_units(mouth, smile, skew, limits.mouth) | _brow_units(brow, accent, skew, limits.brows)
    units |= {"eyeBlinkLeft": blink, "eyeBlinkRight": blink}
    shift = limits.sway * rng.uniform(-1, 1, 2)
    return Attributes(
        yaw, pitch, roll, (float(gaze[0]), float(gaze[1])), _expressions(units)[0], light,
        Camera(shift=(float(shift[0]), float(shift[1]))), backdrop,
    )  # fmt: skip
