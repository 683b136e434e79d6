"""A voice without words for a talking head: it sounds while the mouth is open and rests when the mouth rests.

Source and filter, Fant (1960), "Acoustic theory of speech production": a pulse train with the slope of a glottis goes
through the resonances of a tube, whose first rises as the jaw opens and whose second falls as the lips round.
"""

from collections.abc import Sequence

import numpy as np

from fslab.synth.scene import Attributes

RATE = 16000  # samples a second
_TAG = 0x701CE
_WINDOW = 512  # samples; every half window the tube may change
_PEAK = 0.16  # of full scale: quiet
_REST = 0.05  # openings below this are a mouth at rest
_BANDS = (90.0, 110.0, 170.0, 250.0)  # widths of the four resonances, Hz


def mouth_openings(track: Sequence[Attributes]) -> tuple[np.ndarray, np.ndarray]:
    """Return how open and how round the mouth is in every frame, each ``(N,)`` in [0, 1]."""
    units = [a.expression for a in track]
    shut = np.array([e.get("mouthClose", 0.0) for e in units])
    opened = np.array([e.get("jawOpen", 0.0) for e in units]) - shut
    round_ = np.array([max(e.get("mouthPucker", 0.0), e.get("mouthFunnel", 0.0)) for e in units])
    return np.clip(opened, 0, 1), np.clip(round_, 0, 1)


def speak(opened: np.ndarray, rounded: np.ndarray, fps: float, seed: int, pitch: float = 120.0) -> np.ndarray:
    """Return a murmur that follows a mouth.

    Args:
        opened: ``(N,)`` opening of the mouth in each frame, 0 shut to 1 wide.
        rounded: ``(N,)`` rounding of the lips, 0 to 1.
        fps: frames a second.
        seed: of melody and breath.
        pitch: mean fundamental, Hz; about 120 for a man, 200 for a woman.

    Returns:
        ``(n, 1)`` int16 mono samples, `RATE` a second, as long as the frames; silent where the mouth rests.
    """
    opened, rounded = np.asarray(opened, float), np.asarray(rounded, float)
    if opened.ndim != 1 or opened.shape != rounded.shape or not len(opened):
        raise ValueError(f"opened and rounded must be (N,) and alike, got {opened.shape} and {rounded.shape}")
    rng = np.random.default_rng([seed, _TAG])
    n = round(len(opened) / fps * RATE)
    times = (np.arange(n) + 0.5) / RATE * fps - 0.5  # in frames; a frame's values hold at its middle
    frames = np.arange(len(opened))
    opening, rounding = np.interp(times, frames, opened), np.interp(times, frames, rounded)
    melody = pitch * 2 ** ((_wander(rng, n, 0.45) * 2.2 + _wander(rng, n, 0.03) * 0.25 + 3 * (opening - 0.2)) / 12)
    source = _pulses(melody) + 0.03 * rng.standard_normal(n)
    sound = _resonate(source, opening, rounding, pitch) * _loudness(opening)
    loudest = np.abs(sound).max()
    return np.rint(sound * (32767 * _PEAK / loudest if loudest > 0 else 0))[:, None].astype(np.int16)


def _wander(rng: np.random.Generator, n: int, seconds: float) -> np.ndarray:
    """Return a smooth random curve, ``(n,)`` of about unit size, that changes in so many seconds."""
    knots = rng.standard_normal(int(n / RATE / seconds) + 3)
    place = np.arange(n) / (seconds * RATE)
    i, t = place.astype(int), place % 1
    t = t * t * (3 - 2 * t)
    return knots[i] * (1 - t) + knots[i + 1] * t


def _pulses(melody: np.ndarray) -> np.ndarray:
    """Return the flow of a glottis, differentiated as lips radiate it: Rosenberg (1971), JASA 49(2), pulse B."""
    phase = np.cumsum(melody) / RATE % 1
    opening, closing = 0.4, 0.16  # shares of a period
    t, s = phase / opening, (phase - opening) / closing
    flow = np.where(t < 1, t * t * (3 - 2 * t), np.where(s < 1, 1 - s * s, 0.0))
    return np.diff(flow, prepend=flow[:1]) * RATE / np.maximum(melody, 1) / 6


def _resonate(source: np.ndarray, opening: np.ndarray, rounding: np.ndarray, pitch: float) -> np.ndarray:
    """Filter a source through a tube that changes, window by window (overlapping Hann windows, which sum to 1)."""
    hop = _WINDOW // 2
    count = len(source) // hop + 2
    padded = np.zeros((count + 1) * hop)
    padded[hop : hop + len(source)] = source
    starts = np.arange(count) * hop
    window = np.hanning(_WINDOW + 1)[:-1]
    blocks = np.stack([padded[s : s + _WINDOW] for s in starts]) * window
    middles = np.clip(starts, 0, len(source) - 1)
    spectra = np.fft.rfft(blocks, 2 * _WINDOW) * _tube(opening[middles], rounding[middles], pitch)
    filtered = np.fft.irfft(spectra, 2 * _WINDOW)
    sound = np.zeros((count + 4) * hop)
    for start, block in zip(starts, filtered):
        sound[start : start + 2 * _WINDOW] += block
    return sound[hop : hop + len(source)]


def _tube(opening: np.ndarray, rounding: np.ndarray, pitch: float) -> np.ndarray:
    """Return the response of the vocal tract for B windows, ``(B, _WINDOW + 1)`` complex: four resonances in a row."""
    size = 1 + 0.16 * np.clip((pitch - 120) / 80, -0.5, 1.2)  # a higher voice comes from a shorter tube
    o, r = np.clip(opening / 0.5, 0, 1), rounding
    formants = np.stack([300 + 450 * o, (1550 - 250 * o) * (1 - 0.4 * r), 2500 - 250 * r, np.full_like(o, 3500.0)], 1)
    hertz = np.fft.rfftfreq(2 * _WINDOW, 1 / RATE)
    s = 2j * np.pi * hertz
    response = np.tile((1 + (hertz / 2000) ** 2) ** 0.75 + 0j, (len(o), 1))  # for the resonances above the fourth
    for formant, band in zip((formants * size).T, _BANDS):
        pole = -np.pi * band + 2j * np.pi * formant[:, None]
        response *= np.abs(pole) ** 2 / ((s - pole) * (s - pole.conj()))
    return response


def _loudness(opening: np.ndarray) -> np.ndarray:
    """Return the gain of each sample: nothing at rest, then rising; smoothed over 12 ms, so that nothing clicks."""
    gain = np.clip((opening - _REST) / 0.15, 0, 1) ** 0.7
    width = int(0.012 * RATE)
    return np.convolve(gain, np.hanning(width + 2)[1:-1] / np.hanning(width + 2).sum(), mode="same")
