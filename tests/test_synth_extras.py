"""What stands between a rendered face and the camera: a voice, glasses, a hand, and what a camera does to frames."""

import numpy as np
import pytest

from fslab.synth.degrade import DEGRADATIONS, degrade
from fslab.synth.hand import hand_parts
from fslab.synth.head import Head
from fslab.synth.identity import draw_identity
from fslab.synth.occluders import OCCLUDERS, Worn, glasses, skin_colour
from fslab.synth.scene import Attributes, rotation
from fslab.synth.solids import round_cones, surface, tube
from fslab.synth.studio import to_linear
from fslab.synth.voice import RATE, mouth_openings, speak


@pytest.fixture(scope="module")
def heads():
    return [Head(draw_identity(seed)) for seed in (1000, 1001, 1007)]


def volume(vertices, triangles):
    a, b, c = vertices[triangles].astype(float).transpose(1, 0, 2)
    return (np.cross(a, b) * c).sum() / 6


def edge_uses(triangles):
    edges = np.sort(np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]), axis=1)
    return np.unique(edges, axis=0, return_counts=True)[1]


# Degradations


def picture(size=96):
    y, x = np.mgrid[:size, :size] / size
    return np.clip(np.stack([255 * x, 255 * y, 128 + 0 * x], -1), 0, 255).astype(np.uint8)


def test_noise_grows_with_the_light_as_its_formula_says():
    for level in (60, 128, 200):
        flat = np.full((128, 128, 3), level, np.uint8)
        noisy = to_linear(degrade(flat, "noise", 1, 0))
        light = float(to_linear(np.uint8(level)))
        assert noisy.std() == pytest.approx(np.sqrt(0.002 * light + 1e-5), rel=0.06)
        assert noisy.mean() == pytest.approx(light, rel=0.02)


def test_low_light_is_darker_and_noisier():
    frame = picture()
    dark, noisy = degrade(frame, "low-light", 0, 0), degrade(frame, "noise", 0, 0)
    assert to_linear(dark).mean() == pytest.approx(0.35 * to_linear(frame).mean(), rel=0.05)
    relative = [np.diff(to_linear(f), axis=1).std() / to_linear(f).mean() for f in (dark, noisy)]
    assert relative[0] > 2 * relative[1]


def test_blur_keeps_the_light_and_takes_the_detail():
    frame = np.zeros((96, 96, 3), np.uint8)
    frame[40:56, 40:56] = 200
    blurred = degrade(frame, "blur", 3, 4)
    assert to_linear(blurred).sum() == pytest.approx(to_linear(frame).sum(), rel=0.01)
    assert np.abs(np.diff(blurred.astype(int), axis=1)).max() < 0.8 * 200


def test_jpeg_changes_little_on_average_but_something():
    frame = np.random.default_rng(0).integers(60, 190, (96, 96, 3), dtype=np.uint8)
    error = np.abs(degrade(frame, "jpeg", 0, 0).astype(int) - frame)
    assert 5 < error.mean() < 60


def test_where_two_frames_agree_their_degraded_versions_agree():
    one = picture()
    other = one.copy()
    other[40:56, 40:56] = 10  # a face that was swapped
    for kind in DEGRADATIONS:
        a, b = degrade(one, kind, 5, 9), degrade(other, kind, 5, 9)
        assert (a[:24] == b[:24]).all(), kind
        assert (a[-24:] == b[-24:]).all(), kind
        assert (a != b).any()


def test_degradation_is_the_same_for_the_same_seed_and_frame_only():
    frame = picture()
    for kind in ("noise", "low-light"):
        first = degrade(frame, kind, 5, 9)
        assert (first == degrade(frame, kind, 5, 9)).all()
        assert (first != degrade(frame, kind, 5, 10)).any()
        assert (first != degrade(frame, kind, 6, 9)).any()
    assert (degrade(frame, "none", 0, 0) == frame).all()
    with pytest.raises(ValueError, match="kind must be one of none, noise"):
        degrade(frame, "fog", 0, 0)


# Voice


def test_a_voice_sounds_while_the_mouth_is_open_and_rests_when_it_rests():
    opened = np.zeros(100)
    opened[20:60] = 0.4
    sound = speak(opened, np.zeros(100), 25, seed=1)
    assert sound.shape == (4 * RATE, 1)
    assert sound.dtype == np.int16
    assert np.abs(sound[: int(0.7 * RATE)]).max() == 0
    assert np.abs(sound[int(2.5 * RATE) :]).max() == 0
    assert 3000 < np.abs(sound).max() < 7000  # quiet, and never at the limit


def test_a_voice_has_the_pitch_it_was_given():
    for pitch in (110, 200):
        sound = speak(np.full(100, 0.2), np.zeros(100), 25, seed=3, pitch=pitch)[:, 0].astype(float)
        found = []
        for start in range(0, len(sound) - 2048, 2048):
            block = sound[start : start + 2048] * np.hanning(2048)
            echo = np.fft.irfft(np.abs(np.fft.rfft(block, 4096)) ** 2)
            lags = np.arange(RATE // 300, RATE // 70)
            found.append(RATE / lags[np.argmax(echo[lags])])
        assert np.median(found) == pytest.approx(pitch, rel=0.2)


def spectrum(opening, rounding):
    sound = speak(np.full(50, opening), np.full(50, rounding), 25, seed=0)[:, 0]
    power = np.abs(np.fft.rfft(sound)) ** 2
    return np.fft.rfftfreq(len(sound), 1 / RATE), power / power.sum()


def test_an_open_mouth_sounds_brighter_and_round_lips_take_the_second_resonance_down():
    hertz, wide = spectrum(0.5, 0)
    assert (hertz * wide).sum() > 1.3 * (hertz * spectrum(0.15, 0)[1]).sum()
    spread, rounded = spectrum(0.3, 0)[1], spectrum(0.3, 1)[1]
    above, below = (hertz > 1250) & (hertz < 1700), (hertz > 700) & (hertz < 1000)
    assert spread[above].sum() > 2 * rounded[above].sum()
    assert spread[below].sum() < rounded[below].sum()


def test_a_voice_is_the_same_for_the_same_seed_and_refuses_what_is_no_mouth():
    opened = np.abs(np.sin(np.arange(30)))
    assert (speak(opened, opened, 25, 4) == speak(opened, opened, 25, 4)).all()
    assert (speak(opened, opened, 25, 4) != speak(opened, opened, 25, 5)).any()
    assert np.abs(speak(np.zeros(10), np.zeros(10), 25, 0)).max() == 0
    with pytest.raises(ValueError, match="opened and rounded"):
        speak(opened, opened[:3], 25, 0)


def test_mouth_openings_are_read_from_the_expression():
    track = [Attributes(expression={"jawOpen": 0.5, "mouthClose": 0.2, "mouthPucker": 0.4}), Attributes()]
    opened, rounded = mouth_openings(track)
    assert opened == pytest.approx([0.3, 0])
    assert rounded == pytest.approx([0.4, 0])


# Solids


def test_a_tube_and_a_ring_hold_what_their_formulas_say_and_face_outwards():
    angle = np.arange(64) * 2 * np.pi / 64
    ring = np.stack([np.cos(angle), np.sin(angle), 0 * angle], 1)
    vertices, triangles = tube(ring, np.full(64, 0.1), 32, closed=True)
    assert volume(vertices, triangles) == pytest.approx(2 * np.pi**2 * 0.1**2, rel=0.02)
    assert (edge_uses(triangles) == 2).all()
    rod = np.stack([0 * angle, 0 * angle, angle], 1)
    vertices, triangles = tube(rod, np.full(64, 0.1), 32)
    assert volume(vertices, triangles) == pytest.approx(np.pi * 0.1**2 * angle[-1], rel=0.02)
    assert (edge_uses(triangles) == 2).all()


def test_a_capsule_is_closed_and_holds_what_its_formula_says():
    bones = np.array([[0, 0, 0, 0, 0, 1, 0.2, 0.2]])
    vertices, triangles = surface(bones, 0.05, 0.03)
    assert volume(vertices, triangles) == pytest.approx(np.pi * 0.2**2 * (1 + 4 / 3 * 0.2), rel=0.03)
    assert (edge_uses(triangles) == 2).all()
    assert np.abs(round_cones(bones, vertices.astype(float), 0.05)).max() < 0.01


# Glasses and hand


def test_glasses_clear_the_eyes_and_the_skin_of_every_head_they_are_made_for(heads):
    rests = [head.parts(Attributes()) for head in heads]
    frame, lens = glasses(rests, seed=1)
    assert (frame.material, lens.material) == ("plastic", "glass")
    for parts in rests:
        eyes = next(p for p in parts if p.name == "eyes").vertices
        for side in (-1, 1):
            ball, disc = eyes[side * eyes[:, 0] > 0], lens.vertices[side * lens.vertices[:, 0] > 0]
            assert disc[:, 0].min() < ball[:, 0].mean() < disc[:, 0].max()
            assert disc[:, 1].min() < ball[:, 1].mean() < disc[:, 1].max()
            assert disc[:, 2].min() > ball[:, 2].max()


def test_glasses_fit_every_head_and_no_two_seeds_give_the_same(heads):
    for seed, head in enumerate(heads):
        frame, _ = glasses([head.parts(Attributes())], seed)
        width = np.ptp(frame.vertices[:, 0])
        assert 1.1 < width < 1.9  # decimetres
        assert np.isfinite(frame.vertices).all()
    shapes = [glasses([heads[0].parts(Attributes())], seed)[0].vertices for seed in (1, 2)]
    assert not np.allclose(*shapes)


def test_what_is_worn_turns_with_the_head_as_one_piece(heads):
    worn = Worn("glasses", heads[:1], 10, seed=0)
    rest, posed = Attributes(), Attributes(yaw=25, pitch=-10, roll=5, expression={"jawOpen": 0.6})
    a, b = worn.parts(0, rest)[0].vertices, worn.parts(3, posed)[0].vertices
    turn = rotation(posed.yaw, posed.pitch, posed.roll)
    assert np.abs((b - b.mean(0)) - (a - a.mean(0)) @ turn.T).max() < 1e-4
    assert worn.parts(0, rest)[0].texture is worn.parts(3, posed)[0].texture  # the renderer keeps it


def test_a_hand_comes_stays_before_the_mouth_and_goes(heads):
    worn = Worn("hand", heads[:1], 100, seed=2)
    track = [worn.parts(i, Attributes()) for i in range(100)]
    tops = np.array([max(p.vertices[:, 1].max() for p in parts) for parts in track])
    below = np.tan(np.radians(Attributes().camera.fov / 2)) * (Attributes().camera.distance - 2)
    assert (tops[[0, 5, 94, 99]] < -below).all()  # out of the picture
    assert (tops[25:75] > -0.3).all()
    assert np.abs(np.diff(tops)).max() < 0.5
    skin = next(p for p in heads[0].parts(Attributes()) if p.name == "skin").vertices
    mouth = next(p for p in heads[0].parts(Attributes()) if p.name == "mouth").vertices.mean(0)
    hand = track[50][0].vertices
    assert hand[:, 2].min() > skin[np.abs(skin[:, 0]) < 0.3][:, 2].max() - 0.25  # before the face, not in it
    assert np.abs(hand[:, :2] - mouth[:2]).sum(axis=1).min() < 0.1
    assert not np.allclose(track[45][0].vertices, track[55][0].vertices)


def test_a_left_hand_is_the_mirror_image_of_a_right_one_and_faces_outwards_too():
    right, left = hand_parts((200, 150, 120))[0], hand_parts((200, 150, 120), left=True)[0]
    assert np.allclose(left.vertices * [-1, 1, 1], right.vertices)
    assert volume(left.vertices, left.triangles) == pytest.approx(volume(right.vertices, right.triangles))
    assert volume(right.vertices, right.triangles) > 0.3  # cubic decimetres


def test_a_hand_has_the_colour_of_the_face_behind_it(heads):
    colours = [np.array(skin_colour(head.parts(Attributes()))) for head in heads]
    for head, colour in zip(heads, colours):
        hand = Worn("hand", [head], 10, 0).parts(5, Attributes())[0]
        assert np.abs(np.median(hand.texture.reshape(-1, 3), axis=0) - colour).max() < 20
    assert (colours[0] > colours[0][2] - 1).all()  # skin: red at least as much as blue


def test_nothing_worn_is_no_part_and_an_unknown_thing_is_refused(heads):
    assert Worn("none", heads[:1], 10, 0).parts(3, Attributes()) == []
    assert OCCLUDERS == ("none", "glasses", "hand")
    with pytest.raises(ValueError, match="kind must be one of none, glasses, hand"):
        Worn("mask", heads[:1], 10, 0)
