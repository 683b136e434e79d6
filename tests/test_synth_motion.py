"""What heads do: within limits, the same at every rate, with the rhythms of people."""

from dataclasses import replace

import numpy as np
import pytest

from fslab.synth.assets import UNITS
from fslab.synth.motion import MotionRange, draw_attributes, draw_track
from fslab.synth.rhythms import blinks, drift, eased, looks, speech
from fslab.synth.scene import Attributes

TIMES = np.arange(0, 60, 0.01)


def values(track, name):
    return np.array([a.expression.get(name, 0.0) for a in track])


def poses(track):
    return np.array([(a.yaw, a.pitch, a.roll, *a.gaze) for a in track])


@pytest.fixture(scope="module")
def minute():
    return draw_track(1, 6000, 100)


# ---- rhythms


def test_eased_rests_at_its_knots_and_is_half_way_between():
    knots, heights = np.array([0.0, 1.0, 3.0]), np.array([0.0, 2.0, -2.0])
    np.testing.assert_allclose(eased(np.array([0, 0.5, 1, 2, 3, 9.0]), knots, heights), [0, 1, 2, 0, -2, -2])
    slope = np.diff(eased(np.array([1.0, 1.0001]), knots, heights)) / 1e-4
    assert abs(slope[0]) < 1e-3


def test_drift_has_mean_0_deviation_1_and_no_jumps():
    noise = drift(np.random.default_rng(0), np.arange(0, 4000, 0.05), 1.0)
    assert abs(noise.mean()) < 0.05
    assert abs(noise.std() - 1) < 0.03
    assert np.abs(np.diff(noise)).max() < 0.25
    spectrum = np.abs(np.fft.rfft(noise)) ** 2
    above = np.fft.rfftfreq(len(noise), 0.05) > 1.5  # Hz
    assert spectrum[above].sum() < 1e-3 * spectrum.sum()


def test_blinks_shut_fully_for_a_frame_and_last_150_to_250_ms():
    closed = blinks(np.random.default_rng(3), TIMES, 17)
    edges = np.flatnonzero(np.diff((closed > 0).astype(int)))
    lengths = (edges[1::2] - edges[::2][: len(edges[1::2])]) * 0.01
    assert 8 <= len(lengths) <= 30
    assert lengths.min() >= 0.14
    assert lengths.max() <= 0.26
    for start, end in zip(edges[::2], edges[1::2]):
        assert (closed[start : end + 1] == 1).sum() >= 4  # 40 ms: every blink shows at 25 frames a second
    assert not blinks(np.random.default_rng(3), TIMES, 0).any()


def test_people_speak_3_to_5_syllables_a_second_and_pause():
    jaw = speech(np.random.default_rng(2), TIMES, 0.7)[:, 0]
    peaks = (jaw[1:-1] > jaw[:-2]) & (jaw[1:-1] >= jaw[2:]) & (jaw[1:-1] > 0.1)
    quiet = (jaw == 0).mean()
    assert 2.5 < peaks.sum() / (60 * (1 - quiet)) < 6  # vowels; an opening before a vowel may count too
    assert 0.15 < quiet < 0.6
    assert not speech(np.random.default_rng(2), TIMES, 0.0).any()


def test_lips_round_before_their_vowel_and_close_for_m_b_and_p():
    mouth = speech(np.random.default_rng(5), TIMES, 1.0)
    pressed = mouth[:, 3] > 0.69
    assert pressed.any()
    assert mouth[pressed, 0].max() < 0.05
    change = np.abs(np.diff(mouth[:, :2], axis=0)).max(0)
    assert change[1] < change[0]  # rounding glides, the jaw moves fast


def test_eyes_rest_jump_and_mostly_look_at_the_camera():
    gaze = looks(np.random.default_rng(1), TIMES)
    speed = np.linalg.norm(np.diff(gaze, axis=0), axis=1) / 0.01
    assert (speed < 1e-9).mean() > 0.8
    assert speed.max() > 100
    assert (np.linalg.norm(gaze, axis=1) < 3).mean() > 0.6


# ---- tracks


def test_a_longer_track_begins_like_a_shorter_one_and_every_rate_shows_the_same_motion():
    for seed in range(4):
        track = draw_track(seed, 200, 50)
        assert draw_track(seed, 1, 50) == track[:1]
        assert draw_track(seed, 90, 50) == track[:90]
        assert draw_track(seed, 100, 25) == track[::2]
    assert draw_track(0, 20, 25) != draw_track(1, 20, 25)


def test_tracks_use_known_units_and_move_smoothly(minute):
    used = {name for a in minute for name in a.expression}
    assert used <= set(UNITS)
    assert len(used) >= 15
    head = poses(minute)[:, :3]
    assert np.abs(np.diff(head, axis=0)).max() < 1.5  # degrees in 10 ms
    assert np.abs(np.diff(head, 2, axis=0)).max() < 0.1
    jaw = values(minute, "jawOpen")
    assert np.abs(np.diff(jaw)).max() < 0.15
    assert jaw.max() > 0.25
    assert jaw.min() == 0


def test_a_track_is_alive(minute):
    assert poses(minute)[:, 0].std() > 8
    assert poses(minute)[:, 1].std() > 3
    assert 8 <= (np.diff((values(minute, "eyeBlinkLeft") == 1).astype(int)) == 1).sum() <= 30
    for name in ("mouthSmileLeft", "mouthPucker", "browInnerUp", "mouthPressLeft"):
        assert np.ptp(values(minute, name)) > 0.15, name
    assert np.ptp([a.light.azimuth for a in minute]) > 5
    assert np.ptp([a.camera.shift[0] for a in minute]) > 0.02


def test_the_eyes_turn_back_what_the_head_turns(minute):
    pose = poses(minute)
    inside = np.abs(pose[:, 0]) < 12
    assert np.corrcoef(pose[inside, 0], pose[inside, 3])[0, 1] < -0.5
    assert (np.abs(pose[inside, 0] + pose[inside, 3]) < 3).mean() > 0.5  # the gaze stays on the camera


def test_nothing_leaves_its_limits():
    limits = MotionRange(
        yaw=(0, 30), pitch=(-5, 2), roll=(1, 1), mouth=0.3, smile=0.2, brows=0.1, gaze=(6, 2), talking=1, sway=0.01
    )
    everything = [a for seed in range(25) for a in draw_track(seed, 250, 25, limits)]
    everything += [draw_attributes(seed, limits) for seed in range(400)]
    pose = poses(everything)
    assert pose[:, 0].min() >= 0
    assert pose[:, 0].max() <= 30
    assert pose[:, 1].min() >= -5
    assert pose[:, 1].max() <= 2
    assert (pose[:, 2] == 1).all()
    assert np.abs(pose[:, 3]).max() <= 6
    assert np.abs(pose[:, 4]).max() <= 2
    assert values(everything, "jawOpen").max() <= 0.3
    assert values(everything, "mouthSmileLeft").max() <= 0.2
    assert max(values(everything, n).max() for n in UNITS if n.startswith("brow")) <= 0.1
    assert max(abs(v) for a in everything for v in a.camera.shift) <= 0.01
    assert pose[:, 0].max() > 25  # and they are made use of


def test_who_never_opens_the_mouth_keeps_the_lips_together():
    shut = MotionRange(mouth=0.0)
    everything = draw_track(2, 1500, 25, shut) + [draw_attributes(seed, shut) for seed in range(200)]
    parting = ("jawOpen", "mouthFunnel", "mouthUpperUpLeft", "mouthLowerDownLeft", "mouthShrugUpper", "mouthRollLower")
    assert all(values(everything, name).max() == 0 for name in parting)
    assert values(everything, "mouthSmileLeft").max() > 0.3


def test_who_is_still_stays_still():
    limits = MotionRange(
        (0, 0), (0, 0), (0, 0), 0, 0, 0, (0, 0), talking=0, blinks=0, light_spread=0, light_wander=0, sway=0
    )
    track = draw_track(5, 50, 25, limits)
    rest = Attributes(background=track[0].background)
    assert all(replace(a, light=rest.light) == rest for a in track)
    assert len({a.light for a in track}) == 1


# ---- stills


def test_stills_fill_their_range_and_are_independent():
    stills = [draw_attributes(seed) for seed in range(600)]
    pose = poses(stills)
    assert np.abs(np.quantile(pose[:, 0], [0.25, 0.5, 0.75]) - [-17.5, 0, 17.5]).max() < 4
    assert abs(np.corrcoef(pose[:-1, 0], pose[1:, 0])[0, 1]) < 0.12
    assert 5 <= (values(stills, "eyeBlinkLeft") == 1).sum() <= 45
    assert values(stills, "jawOpen").max() > 0.5
    assert (values(stills, "jawOpen") == 0).mean() > 0.2
    sides = np.sign([a.light.azimuth for a in stills])
    assert 0.4 < (sides > 0).mean() < 0.6
    assert draw_attributes(7) == draw_attributes(7)


# ---- refusals


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"yaw": (-80, 0)}, "yaw"), ({"pitch": (5, -5)}, "pitch"), ({"mouth": 1.2}, "mouth"),
        ({"gaze": (50, 0)}, "gaze"), ({"blinks": -1}, "blinks"), ({"talking": float("nan")}, "talking"),
        ({"sway": 3}, "sway"), ({"light_wander": 90}, "light_wander"),
    ],
)  # fmt: skip
def test_impossible_ranges_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        MotionRange(**wrong)


def test_a_track_needs_frames_and_a_rate():
    with pytest.raises(ValueError, match="frames"):
        draw_track(0, 0, 25)
    with pytest.raises(ValueError, match="rate"):
        draw_track(0, 5, 0)
