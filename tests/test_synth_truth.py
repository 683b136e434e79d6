"""The exact answer of a swap, and the table of people and points."""

import numpy as np
import pytest

from fslab.errors import FslabError
from fslab.synth import choose as choose_module
from fslab.synth.annotate import to_screen
from fslab.synth.assets import UNITS, load_assets
from fslab.synth.calibrate import cast, nearest_on, outside_triangles
from fslab.synth.choose import DISTANCE, choose, nearest
from fslab.synth.head import Head
from fslab.synth.identity import BENCH_SEEDS, GALLERY_SEEDS, TRAIN_SEEDS, draw_identity
from fslab.synth.points import mesh_points
from fslab.synth.region import baked, face_region
from fslab.synth.scene import Attributes, Camera
from fslab.synth.studio import to_linear
from fslab.synth.truth import FROM_SOURCE, matched_skin, swap_head

POSED = Attributes(
    yaw=25, pitch=-8, roll=6, gaze=(12, -6),
    expression={"jawOpen": 0.5, "mouthSmileLeft": 0.4, "eyeBlinkLeft": 0.6, "browInnerUp": 0.7, "cheekPuff": 0.5},
)  # fmt: skip


@pytest.fixture(scope="module")
def heads() -> tuple[Head, Head]:
    return Head(draw_identity(TRAIN_SEEDS[1])), Head(draw_identity(TRAIN_SEEDS[2]))


def test_swapping_a_person_with_themselves_gives_them_back(heads):
    head = heads[0]
    same = swap_head(head, head)
    for a, b in zip(same.parts(POSED), head.parts(POSED)):
        np.testing.assert_allclose(a.vertices, b.vertices, atol=2e-3)
        np.testing.assert_array_equal(a.texture, b.texture)


def test_outside_the_region_the_truth_is_the_target_to_the_last_bit(heads):
    source, target = heads
    truth = swap_head(source, target)
    ours, theirs = truth.parts(POSED), target.parts(POSED)
    outside = face_region()[: load_assets().n_skin] == 0
    assert outside.sum() > 1000
    np.testing.assert_array_equal(ours[0].vertices[outside], theirs[0].vertices[outside])
    untouched = baked(face_region(), 512) == 0
    np.testing.assert_array_equal(truth.texture[untouched], target.texture[untouched])
    clothes = [next(p for p in parts if p.name == "clothes") for parts in (ours, theirs)]
    np.testing.assert_array_equal(clothes[0].vertices, clothes[1].vertices)
    assert all(a.triangles is b.triangles for a, b in zip(ours[:1], theirs[:1]))


def test_hair_stays_where_the_target_has_it(heads):
    source, target = heads
    truth = swap_head(source, target)
    for ours, theirs in zip(truth.parts(Attributes()), target.parts(Attributes())):
        if ours.name == "hair":
            np.testing.assert_allclose(ours.vertices, theirs.vertices, atol=1e-5)


def test_inside_the_region_the_truth_is_the_source_moved_and_scaled_as_a_whole(heads):
    source, target = heads
    truth = swap_head(source, target)
    inner = np.flatnonzero(face_region()[: load_assets().n_skin] == 1)
    ours, theirs = source.vertices[inner], truth.vertices[inner]
    scale = np.sqrt(((theirs - theirs.mean(0)) ** 2).sum() / ((ours - ours.mean(0)) ** 2).sum())
    np.testing.assert_allclose(theirs - theirs.mean(0), scale * (ours - ours.mean(0)), atol=1e-9)
    for kind in FROM_SOURCE:
        taken, given = (next(layer for layer in head.layers if layer.kind == kind) for head in (truth, source))
        assert taken.texture is given.texture
        np.testing.assert_allclose(taken.offsets, given.offsets * scale, rtol=0.01, atol=1e-6)


def test_the_truths_eyelids_close_over_its_own_eyeballs(heads):
    truth = swap_head(*heads)
    shut = truth.shaped({"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0}) - truth.shaped({})
    assert np.abs(shut[:, 1]).max() > 0.05
    assert all(np.isfinite(truth.shaped({name: 1.0})).all() for name in UNITS[:12])


def test_skin_of_any_tone_meets_the_targets_without_a_seam():
    region = baked(face_region(), 512)
    rng = np.random.default_rng(0)
    grain = rng.integers(-6, 7, (512, 512, 1))
    source = np.clip(np.array([225, 185, 165]) + grain, 0, 255).astype(np.uint8)
    target = np.clip(np.array([90, 55, 40]) - grain, 0, 255).astype(np.uint8)
    mixed = matched_skin(source, target)
    border = (region > 0.05) & (region < 0.95)
    ratio = to_linear(mixed)[border].mean(0) / to_linear(target)[border].mean(0)
    np.testing.assert_allclose(ratio, 1, atol=0.1)
    inner = region == 1
    ratio = to_linear(mixed)[inner].mean(0) / to_linear(target)[inner].mean(0)
    np.testing.assert_allclose(ratio, 1, atol=0.1)


def test_the_region_is_one_on_the_face_and_nothing_on_ears_scalp_and_neck():
    region, assets = face_region(), load_assets()
    eyes = np.mean([assets.vertices[assets.helpers[f"helper-{side}-eye"]].mean(0) for side in "lr"], axis=0)
    x, y, _ = (assets.vertices - eyes)[: assets.n_skin].T
    skin = region[: assets.n_skin]
    assert skin[(y > 0.7) | (y < -1.3) | (np.abs(x) > 0.76)].max() == 0
    triangles, _ = mesh_points()
    for point in (33, 263, 133, 362, 61, 291, 4, 13, 14):  # corners of the eyes and the mouth, nose, lips
        assert skin[assets.triangles[triangles[point]]].min() > 0.9


def test_baking_weights_of_one_fills_the_skin_and_of_nothing_leaves_it_empty():
    n = len(load_assets().vertices)
    assert baked(np.zeros(n), 64).max() == 0
    full = baked(np.ones(n), 64)
    assert set(np.unique(full)) == {0.0, 1.0}
    assert 0.2 < full.mean() < 0.8


def test_whoever_comes_too_near_is_drawn_again():
    points = {0: np.array([0.0, 0]), 1: np.array([0.5, 0]), 2: np.array([2.0, 0])}
    drawn = []

    def describe(identity):
        drawn.append(identity.seed)
        return points[min(len(drawn) - 1, 2)]

    told = []
    table = choose(describe, BENCH_SEEDS[:2], lambda *x: told.append(x))
    assert drawn == [0, 1, 1]
    assert table.seeds.tolist() == [0, 1]
    assert table.attempts.tolist() == [0, 1]
    assert told[1] == (1, 1, 2.0)


def test_a_benchmark_person_who_cannot_be_told_apart_is_refused_and_a_gallery_one_is_not(monkeypatch):
    monkeypatch.setattr(choose_module, "BENCH_ATTEMPTS", 2)
    with pytest.raises(FslabError, match="seed 1"):
        choose(lambda identity: np.zeros(2), BENCH_SEEDS[:2], lambda *x: None)
    table = choose(lambda identity: np.zeros(2), [BENCH_SEEDS[0], GALLERY_SEEDS[0]], lambda *x: None)
    assert len(table.seeds) == 2


def test_the_nearest_of_none_is_infinitely_far():
    assert nearest(np.zeros(2), []) == np.inf
    assert nearest(np.zeros(2), [np.array([3.0, 4.0]), np.array([0.0, 1.0])]) == 1.0
    assert DISTANCE == 0.6


def test_points_are_cast_onto_the_nearest_triangle_that_faces_the_camera():
    vertices = np.array([[-1, -1, 0], [1, -1, 0], [0, 1, 0], [-1, -1, 1], [1, -1, 1], [0, 1, 1]], float)
    pixels = to_screen(vertices, Camera(), 64)
    assert pixels[0, 0] < pixels[1, 0]
    assert pixels[2, 1] < pixels[0, 1]
    triangles = np.array([[0, 1, 2], [3, 4, 5], [5, 4, 3]])
    hit, weights = cast(pixels[3:6, :2].mean(0)[None], pixels, triangles)
    assert hit.tolist() == [1]
    np.testing.assert_allclose(weights, 1 / 3, atol=1e-6)


def test_a_place_on_the_base_mesh_is_found_again():
    assets = load_assets()
    triangles = assets.triangles[outside_triangles(assets)]
    vertices = assets.vertices.astype(np.float64)
    middles = vertices[triangles[::500]].mean(1)
    hit, weights = nearest_on(middles, vertices, triangles)
    found = (vertices[triangles[hit]] * weights[..., None]).sum(1)
    np.testing.assert_allclose(found, middles, atol=1e-3)
