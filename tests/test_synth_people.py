"""Synthetic people: assets, identities, heads and points."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from fslab.errors import FslabError
from fslab.synth import points as points_module
from fslab.synth.assets import DATA_FOLDER, UNITS, load_assets, load_texture
from fslab.synth.draws import AGES, GROUPS, SEXES, SKINS, local_pairs, stratum
from fslab.synth.eyelids import retreat
from fslab.synth.head import Head
from fslab.synth.identity import (
    BENCH_SEEDS,
    GALLERY_SEEDS,
    TRAIN_SEEDS,
    Identity,
    draw,
    draw_identity,
    gallery,
    similar_tone,
)  # fmt: skip
from fslab.synth.looks import dyed, mix_skins
from fslab.synth.points import ibug_indices, mesh_landmarks, mesh_points
from fslab.synth.scene import MATERIALS, PARTS, Attributes
from fslab.synth.shape import covered, n_folds, shape_of
from fslab.synth.studio import to_linear, to_srgb


@pytest.fixture(scope="module")
def head() -> Head:
    return Head(draw_identity(TRAIN_SEEDS[0]))


def skin_of(head: Head, **attributes) -> np.ndarray:
    return head.parts(Attributes(**attributes))[0].vertices


def test_a_target_of_weight_nothing_changes_nothing_and_of_weight_one_moves_by_its_offsets():
    assets = load_assets()
    name = "nose/nose-hump-incr"
    plain = shape_of({}, assets)
    np.testing.assert_array_equal(shape_of({name: 0.0}, assets), plain)
    moved = shape_of({name: 1.0}, assets) - plain
    target = assets.targets[name]
    np.testing.assert_allclose(moved[target.indices], target.offsets, atol=1e-12)
    assert np.count_nonzero(np.abs(moved).max(1)) <= len(target.indices)


def test_a_weight_of_one_in_a_packed_target_is_millimetres_as_in_its_source():
    jaw = load_assets().targets["units/jawOpen"].offsets
    np.testing.assert_allclose(np.abs(jaw).max(0), [0.036, 0.343, 0.304], atol=1e-3)  # dm, read from the source file


def test_proxies_hang_on_the_base_mesh_by_weights_that_sum_to_one():
    for proxy in load_assets().proxies.values():
        np.testing.assert_allclose(proxy.weights.sum(1), 1, atol=1e-3)


def test_opening_the_jaw_lowers_chin_and_lower_teeth_and_not_the_brow(head):
    chin = mesh_points()[0][152]
    shut, opened = skin_of(head), skin_of(head, expression={"jawOpen": 1.0})
    triangles = load_assets().triangles
    assert (opened - shut)[triangles[chin], 1].mean() < -0.15
    brow = mesh_points()[0][105]
    assert np.abs(opened - shut)[triangles[brow]].max() < 1e-6
    teeth = [head.parts(Attributes(expression=e))[6].vertices for e in ({}, {"jawOpen": 1.0})]
    assert (teeth[1] - teeth[0])[:, 1].min() < -0.15


@pytest.mark.parametrize("seed", TRAIN_SEEDS[:4])
def test_a_blink_hides_the_eyeball_and_an_open_eye_shows_it(seed):
    head = Head(draw_identity(seed))
    for blink, low, high in ((0.0, 0.05, 0.7), (1.0, 0.0, 0.005)):
        parts = head.parts(Attributes(expression={"eyeBlinkLeft": blink, "eyeBlinkRight": blink}))
        skin, eyes = parts[0], parts[1]
        front = eyes.vertices[eyes.vertices[:, 2] > np.median(eyes.vertices[:, 2])]
        near = np.abs(skin.vertices[skin.triangles] - [0, 0.55, 0]).max((1, 2)) < 0.8
        shown = 1 - covered(front, skin.vertices, skin.triangles[near]).mean()
        assert low <= shown <= high


def test_a_closing_lid_pushes_the_eyeball_back_and_an_open_one_leaves_it():
    assert retreat(0.0, 0.2).tolist() == [0, 0, 0]
    assert retreat(1.0, 0.2)[2] < 0


def test_yaw_turns_to_the_pictures_right_pitch_up_and_roll_clockwise(head):
    nose, brow = (int(load_assets().triangles[mesh_points()[0][i], 0]) for i in (4, 10))
    rest = skin_of(head)
    assert (skin_of(head, yaw=30) - rest)[nose, 0] > 0.3
    assert (skin_of(head, pitch=20) - rest)[nose, 1] > 0.2
    assert (skin_of(head, roll=20) - rest)[brow, 0] > 0.2


def test_the_torso_stays_when_the_head_turns(head):
    rest, turned = skin_of(head), skin_of(head, yaw=40)
    torso = rest[:, 1] < -1.9
    np.testing.assert_allclose(turned[torso], rest[torso], atol=1e-5)


def test_gaze_turns_the_eyeballs_to_the_pictures_right_and_up(head):
    rest, away = (head.parts(Attributes(gaze=g))[1].vertices for g in ((0, 0), (20, 10)))
    pupil = int(rest[:, 2].argmax())
    assert (away - rest)[pupil, 0] > 0.03
    assert (away - rest)[pupil, 1] > 0.015


def test_the_middle_between_the_eyes_lies_over_the_camera_s_aim(head):
    eyes = head.parts(Attributes())[1].vertices
    left, right = (eyes[sign * eyes[:, 0] > 0] for sign in (1, -1))
    assert abs((left.mean(0)[0] + right.mean(0)[0]) / 2) < 0.01
    assert abs(eyes[:, 1].mean() - 0.55) < 0.03


def test_parts_are_finite_named_and_keep_their_arrays_from_frame_to_frame(head):
    before = head.parts(Attributes())
    after = head.parts(Attributes(yaw=-50, pitch=30, roll=-30, gaze=(-20, -20), expression=dict.fromkeys(UNITS, 0.5)))
    assert before[0].name == "skin"
    for a, b in zip(before, after):
        assert a.name in PARTS
        assert a.material in MATERIALS
        assert np.isfinite(a.vertices).all()
        assert np.isfinite(b.vertices).all()
        assert a.texture is b.texture
        assert a.triangles is b.triangles
        assert a.uv is b.uv
        assert a.triangles.max() < len(a.vertices)
        assert a.uv_triangles.max() < len(a.uv)
    assert before[0].region.shape == (len(before[0].vertices),)
    assert before[0].region.min() == 0
    assert before[0].region.max() == 1


def test_every_unit_moves_something_and_only_the_52_are_known(head):
    rest = head.shaped({})
    for name in UNITS:
        assert np.abs(head.shaped({name: 1.0}) - rest).max() > 1e-3
    with pytest.raises(ValueError, match="eyebrowDance"):
        head.shaped({"eyebrowDance": 1.0})


def test_people_are_balanced_and_complete():
    combinations = {stratum(seed) for seed in range(18)}
    assert len(combinations) == len(SEXES) * len(AGES) * len(GROUPS) == 18
    people = [draw(seed, 0) for seed in range(18)]
    assert len({str(p.local) for p in people}) == 18
    assert all(abs(sum(p.skin.values()) - 1) < 0.05 for p in people)
    assert all(w <= 0.5 for p in people for name, w in p.local.items() if name.startswith("nose/"))
    assert len(local_pairs()) > 60


def test_noses_do_not_sink_into_cheeks():
    assets = load_assets()
    people = [draw(seed, 0) for seed in range(1000, 1012)]
    assert sum(n_folds(shape_of({**p.macro, **p.local}, assets), assets) > 0 for p in people) == 0


def test_the_lists_of_seeds_share_nobody():
    lists = [set(BENCH_SEEDS), set(GALLERY_SEEDS), set(TRAIN_SEEDS)]
    assert not lists[0] & lists[1]
    assert not lists[0] & lists[2]
    assert not lists[1] & lists[2]
    kept = {str(draw_identity(seed).local) for seed in (*BENCH_SEEDS, *GALLERY_SEEDS)[:40]}
    assert not kept & {str(draw_identity(seed).local) for seed in TRAIN_SEEDS[:40]}


def test_benchmark_people_are_a_distance_of_0_6_apart_and_the_gallery_has_200():
    seeds, embeddings = gallery()
    assert seeds.tolist() == [*BENCH_SEEDS, *GALLERY_SEEDS]
    assert embeddings.shape == (len(seeds), 128)
    assert len(seeds) >= 200
    bench = embeddings[: len(BENCH_SEEDS)]
    distances = np.linalg.norm(bench[:, None] - bench[None], axis=2)[np.triu_indices(len(bench), 1)]
    assert distances.min() >= 0.6


def test_an_identity_survives_saving_and_a_damaged_one_is_refused(tmp_path):
    identity = draw_identity(TRAIN_SEEDS[5])
    identity.save(tmp_path / "a.json")
    assert Identity.load(tmp_path / "a.json") == identity
    (tmp_path / "b.json").write_text('{"seed": 1}')
    with pytest.raises(FslabError, match="write it again"):
        Identity.load(tmp_path / "b.json")


@pytest.mark.parametrize("seed", [-1, 999, 3000])
def test_an_unknown_seed_is_refused_with_the_known_ones(seed):
    with pytest.raises(ValueError, match=f"1000 to 2999, got {seed}"):
        draw_identity(seed)


def test_similar_tones_are_those_of_like_skins():
    light, dark = (next(p for p in (draw(s, 0) for s in range(18)) if p.group == g) for g in ("caucasian", "african"))
    assert similar_tone(light, light)
    assert not similar_tone(light, dark)


def test_the_same_person_has_the_same_head_to_the_last_bit():
    identity = draw_identity(TRAIN_SEEDS[3])
    a, b = Head(identity), Head(Identity.from_dict(identity.to_dict()))
    attributes = Attributes(yaw=10, expression={"eyeBlinkLeft": 0.7, "jawOpen": 0.2})
    for x, y in zip(a.parts(attributes), b.parts(attributes)):
        np.testing.assert_array_equal(x.vertices, y.vertices)
        np.testing.assert_array_equal(x.texture, y.texture)


def test_points_lie_on_the_skin_mirror_each_other_and_turn_with_it(head):
    triangles, weights = mesh_points()
    assert triangles.shape == (468,)
    assert weights.shape == (468, 3)
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-5)
    assert weights.min() >= 0
    assert len(ibug_indices()) == 68 == len(set(ibug_indices()))
    points = mesh_landmarks(skin_of(head))
    assert points[33, 0] < 0 < points[263, 0]  # the picture's left eye, its right one
    assert points[152, 1] < points[13, 1] < points[4, 1] < points[10, 1]  # chin, lips, nose, forehead
    for left, right in ((33, 263), (61, 291), (234, 454)):
        assert abs(points[left, 0] + points[right, 0]) < 0.1
    opened = mesh_landmarks(skin_of(head, expression={"jawOpen": 1.0}))
    gap = np.linalg.norm(points[13] - points[14]), np.linalg.norm(opened[13] - opened[14])
    assert gap[1] > gap[0] + 0.1


def test_colours_survive_and_dyeing_gives_the_colour_asked_for():
    steps = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(to_srgb(to_linear(steps)), steps)
    grey = np.full((8, 8, 3), 90, np.uint8)
    dye = to_linear(dyed(grey, (0.2, 0.1, 0.05), 1.0, 0.5))
    np.testing.assert_allclose(dye[0, 0], [0.2, 0.1, 0.05], atol=0.005)
    name = "young_asian_male_3"
    np.testing.assert_allclose(mix_skins({name: 2.0}), to_linear(load_texture(f"skin/{name}")), atol=1e-5)


def test_the_packaged_data_are_small():
    assert sum(path.stat().st_size for path in DATA_FOLDER.rglob("*")) < 15e6


def test_missing_or_damaged_data_are_told_in_one_sentence(tmp_path):
    with pytest.raises(FslabError, match="install fslab again"):
        load_assets(tmp_path)
    with pytest.raises(FslabError, match=r"points\.npz"):
        points_module.mesh_points(tmp_path)
    shutil.copy(DATA_FOLDER / "geometry.npz", tmp_path)
    (tmp_path / "geometry.npz").write_bytes((tmp_path / "geometry.npz").read_bytes()[:5000])
    with pytest.raises(FslabError, match=r"geometry\.npz"):
        load_assets(tmp_path)
    (tmp_path / "skin").mkdir()
    (tmp_path / "skin/a.webp").write_bytes(b"no picture")
    for name in ("skin/a", "skin/b"):
        with pytest.raises(FslabError, match="packaged data"):
            load_texture(name, tmp_path)
    (tmp_path / "hair").mkdir()
    shutil.copy(DATA_FOLDER / "hair/short01.webp", tmp_path / "hair")
    with pytest.raises(FslabError, match=r"short01\.opacity\.webp"):
        load_texture("hair/short01", tmp_path)


def test_every_skin_is_packaged_and_drawn_from():
    assert sorted(SKINS) == list(SKINS) == sorted(path.stem for path in (DATA_FOLDER / "skin").glob("*.webp"))


def test_an_identity_with_unknown_pieces_is_refused():
    identity = draw_identity(TRAIN_SEEDS[0])
    with pytest.raises(ValueError, match="shape that is not packaged"):
        Head(replace(identity, local={"nose/nose-of-glass": 1.0}))
    with pytest.raises((ValueError, FslabError)):
        Head(replace(identity, hair="mohawk"))
