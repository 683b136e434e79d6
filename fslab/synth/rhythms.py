"""Rhythms of a living face as functions of seconds: drifting, talking, blinking, raising brows, looking about.

All are drawn event by event, so that a longer signal begins like a shorter one. The rates are those of people who talk:
3 to 5 syllables a second (Chandrasekaran et al. 2009), blinks of about 0.2 s (VanderWerf et al. 2003), eyes that rest
and jump. Times are ``(N,)`` seconds, rising from 0.
"""

import numpy as np


def drift(rng: np.random.Generator, times: np.ndarray, period: float) -> np.ndarray:
    """Return smooth noise ``(N,)`` at ``times``, seconds: mean 0, deviation 1, nothing much faster.

    A uniform cubic B-spline (de Boor 1978) with a normal knot every ``period`` seconds.
    """
    knots = rng.standard_normal(int(times[-1] / period) + 5)
    at = times / period
    k, f = at.astype(int), at % 1
    basis = ((1 - f) ** 3, 3 * f**3 - 6 * f**2 + 4, -3 * f**3 + 3 * f**2 + 3 * f + 1, f**3)
    return sum(knots[k + i] * b for i, b in enumerate(basis)) / 6 / 0.69  # its deviation, averaged over a period


def eased(times: np.ndarray, knots: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return ``values (K, ...)`` at ``times (N,)``, gliding from knot to knot and resting at each."""
    k = np.clip(np.searchsorted(knots, times, side="right") - 1, 0, len(knots) - 2)
    f = np.clip((times - knots[k]) / (knots[k + 1] - knots[k]), 0, 1)
    f = (f * f * (3 - 2 * f)).reshape(-1, *[1] * (values.ndim - 1))
    return values[k] + f * (values[k + 1] - values[k])


# jaw, round, spread, press, tuck (lower lip under the teeth), raise (upper lip)
VOWELS = np.array([[1.0, 0, 0.1, 0, 0, 0.25], [0.55, 0, 0.55, 0, 0, 0.3], [0.3, 0, 0.8, 0, 0, 0.2],
                   [0.65, 0.7, 0, 0, 0, 0.1], [0.3, 1.0, 0, 0, 0, 0], [0.4, 0.2, 0.1, 0, 0, 0.1]])  # fmt: skip
CONSONANTS = np.array([[0.0, 0, 0, 0.7, 0, 0], [0.1, 0, 0, 0, 0.8, 0.3], [0.15, 0, 0.2, 0, 0, 0.1]])
CONSONANT_SHARES = (0.25, 0.12, 0.63)


def speech(rng: np.random.Generator, times: np.ndarray, talking: float) -> np.ndarray:
    """Return the mouth's shape ``(N, 6)`` while a person talks and pauses, columns as in `VOWELS`.

    Jaw and closures move from sound to sound; rounding and spreading only from vowel to vowel, so that they begin
    before their syllable and fade after it, as lips do (coarticulation).
    """
    if talking == 0:
        return np.zeros((len(times), 6))
    now = float(rng.uniform(0, 0.8))
    fast, slow = [(0.0, np.zeros(6)), (now, np.zeros(6))], [(0.0, np.zeros(6)), (now, np.zeros(6))]
    while now <= times[-1]:
        count = int(rng.integers(4, 13))
        for i in range(count):
            length = rng.uniform(0.2, 0.33) * (1.5 if i == count - 1 else 1)
            stress = rng.uniform(0.8, 1.0) if rng.random() < 0.4 else rng.uniform(0.35, 0.7)
            vowel = VOWELS[rng.integers(len(VOWELS))] * stress
            fast.append((now + 0.25 * length, CONSONANTS[rng.choice(3, p=CONSONANT_SHARES)]))
            fast.append((now + 0.65 * length, vowel))
            slow.append((now + 0.65 * length, vowel))
            now += length
        for track in (fast, slow):
            track.append((now + 0.15, np.zeros(6)))
        pause = (1 - talking) / talking * count * 0.27 * rng.uniform(0.5, 1.5)
        now += 0.25 + pause
        for track in (fast, slow):
            track.append((now, np.zeros(6)))
    sharp, smooth = (eased(times, *map(np.array, zip(*track))) for track in (fast, slow))
    return np.concatenate([sharp[:, :1], smooth[:, 1:3], sharp[:, 3:]], 1)


def blinks(rng: np.random.Generator, times: np.ndarray, per_minute: float) -> np.ndarray:
    """Return how far the lids are closed ``(N,)``: quickly down, shut for a frame's time at 25 a second, slower up."""
    closed = np.zeros(len(times))
    if per_minute == 0:
        return closed
    mean = 60 / per_minute
    start = rng.uniform(0.2, 1) * mean
    while start <= times[-1]:
        down, shut, up = rng.uniform(0.05, 0.07), rng.uniform(0.045, 0.06), rng.uniform(0.07, 0.11)
        knots = start + np.cumsum([0, down, shut, up])
        closed = np.maximum(closed, eased(times, knots, np.array([0.0, 1.0, 1.0, 0.0])))
        start += max(mean * rng.lognormal(-0.18, 0.6), 0.5)
    return closed


def accents(rng: np.random.Generator, times: np.ndarray) -> np.ndarray:
    """Return raised eyebrows ``(N,)`` in [0, 1]: now and then, quickly up, slower down."""
    raised, start = np.zeros(len(times)), rng.uniform(0.5, 3)
    while start <= times[-1]:
        knots = start + np.cumsum([0, rng.uniform(0.12, 0.2), rng.uniform(0.1, 0.5), rng.uniform(0.25, 0.5)])
        high = rng.uniform(0.3, 1)
        raised = np.maximum(raised, eased(times, knots, np.array([0.0, high, high, 0.0])))
        start += rng.uniform(1.5, 5)
    return raised


def looks(rng: np.random.Generator, times: np.ndarray) -> np.ndarray:
    """Return where the eyes look ``(N, 2)``, degrees from the camera: they rest there mostly and jump in 50 ms."""
    knots, values, now, target = [0.0], [np.zeros(2)], 0.0, np.zeros(2)
    while now <= times[-1]:
        at_camera = rng.random() < 0.7
        rest = rng.uniform(0.5, 2.2) if at_camera else rng.uniform(0.25, 0.9)
        target = rng.normal(0, 0.8, 2) if at_camera else rng.normal(0, (10, 5))
        knots += [now + 0.05, now + 0.05 + rest]
        values += [target, target]
        now = knots[-1]
    return eased(times, np.array(knots), np.array(values))
