from dataclasses import replace

import numpy as np
import pytest
import torch
from drawn_people import drawn_faces, drawn_faceset, drawn_mesh

from fslab.augment import warp_field
from fslab.dataset import DataConfig, FaceDataset, _running_times, face_planes, max_weight, split_by_time
from fslab.errors import FaceSetError
from fslab.faceset import FaceSet

STILL = DataConfig(rotation=0, scale=0, shift=0, warp=0, flip=0, light=0, colour=0, margin=1)


def dataset(config=None, n=40, size=64, name="ada"):
    return FaceDataset(*drawn_faces(name, n), size, config or DataConfig())


def same(a, b):
    """Equal up to the rounding of sampling positions."""
    return torch.allclose(a, b, rtol=0, atol=2e-3)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_without_variation_a_batch_is_the_stored_crops_themselves():
    crops, meshes, times = drawn_faces("ada")
    batch = FaceDataset(crops, meshes, times, 64, STILL).batch(5, generator())
    stored = torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255
    assert same(batch.input, batch.target)
    for face in batch.target:
        assert min(float((face - s).abs().max()) for s in stored) < 2e-3


def test_a_turn_of_the_grid_turns_the_picture_by_that_angle():
    """One bright dot on the right moves to where a rotation about the centre takes it, and keeps its distance."""
    crops = np.zeros((8, 65, 65, 3), np.uint8)
    crops[:, 31:34, 51:54] = 255  # dot at (52, 32): 20 px right of the centre (32, 32)
    meshes = np.stack([drawn_mesh(65)] * 8)
    data = FaceDataset(crops, meshes, np.arange(8), 65, replace(STILL, rotation=10.0))
    angles = []
    for face in data.batch(64, generator()).target:
        weight = face[0] / face[0].sum()
        x = float((weight.sum(0) * torch.arange(65)).sum()) - 32
        y = float((weight.sum(1) * torch.arange(65)).sum()) - 32
        assert np.hypot(x, y) == pytest.approx(20, abs=0.3)
        angles.append(np.degrees(np.arctan2(y, x)))
    assert max(np.abs(angles)) < 10.2
    assert np.std(angles) == pytest.approx(20 / np.sqrt(12), rel=0.25)


def test_the_mask_is_the_filled_outline_and_weights_are_as_set():
    config, mesh = DataConfig(background=0.2, eyes=4.0, mouth=2.0), drawn_mesh(64)
    mask, weight = face_planes(mesh, 64, config)
    weight = weight / 255 * max_weight(config)
    inside = (mask == 255).mean()
    assert inside == pytest.approx(np.pi * 20 * 26 / 64**2, rel=0.02)
    assert weight[2, 2] == pytest.approx(0.2, abs=0.02)
    assert weight[27, 24] == pytest.approx(4.0, abs=0.02)  # left eye
    assert weight[45, 32] == pytest.approx(2.0, abs=0.05)  # mouth
    assert weight[36, 20] == pytest.approx(1.0, abs=0.02)  # cheek


def test_input_and_target_share_flip_and_affine_and_only_the_input_is_warped_and_tinted():
    moved = dataset(DataConfig(warp=0, colour=0)).batch(8, generator())
    assert same(moved.input, moved.target)
    warped = dataset(DataConfig(warp=0.03, colour=0)).batch(8, generator())
    assert torch.equal(warped.target, moved.target)  # the same faces, turns and flips
    assert float((warped.input - warped.target).abs().mean()) > 0.005
    tinted = dataset(DataConfig(warp=0, colour=0.1)).batch(8, generator())
    assert torch.equal(tinted.target, moved.target)
    assert float((tinted.input - tinted.target).abs().mean()) > 0.005


def test_the_strength_of_the_warp_changes_nothing_but_the_warp():
    data = dataset(DataConfig(colour=0))
    full, none = data.batch(8, generator(), 1.0), data.batch(8, generator(), 0.0)
    assert torch.equal(full.target, none.target)
    assert same(none.input, none.target)


def test_the_warp_has_the_asked_strength_and_is_smooth():
    field = warp_field(256, 64, DataConfig().warp, generator())
    assert float(field.std()) / 2 == pytest.approx(DataConfig().warp, rel=0.35)  # 2 grid units = the whole side
    steps = (field[:, :, 1:] - field[:, :, :-1]).abs().max() / 2 * 64
    assert float(steps) < 1.0  # neighbours never swap places


def test_a_change_of_light_is_the_same_for_input_and_target_and_leaves_the_mask_alone():
    plain, lit = (dataset(replace(STILL, light=amount)).batch(16, generator()) for amount in (0, 0.3))
    assert same(lit.input, lit.target)
    assert torch.equal(plain.mask, lit.mask)
    assert torch.equal(plain.weight, lit.weight)
    gain = lit.target[:, :, :4, :4].mean(dim=(1, 2, 3)) / plain.target[:, :, :4, :4].mean(dim=(1, 2, 3))
    assert float(gain.min()) < 0.9 < 1.1 < float(gain.max())
    assert np.log(float(gain.max())) < 0.3 * (1 + 1 / 3 + 1 + 1) + 1e-3  # level, tint, two slopes
    corner = lit.target[:, :, -4:, -4:].mean(dim=(1, 2, 3)) / plain.target[:, :, -4:, -4:].mean(dim=(1, 2, 3))
    assert float((corner / gain).log().abs().max()) > 0.1  # it changes from side to side


def test_a_flip_mirrors_picture_and_mask_together():
    crops, meshes, times = drawn_faces("ada")
    crops[:, :, :20] = 0  # a dark left edge marks the side
    batch = FaceDataset(crops, meshes, times, 64, replace(STILL, flip=1.0)).batch(4, generator())
    assert float(batch.target[..., -10:].mean()) < 0.01 < float(batch.target[..., :10].mean())


def test_batches_keep_range_shape_and_type():
    batch = dataset(size=48).batch(6, generator())
    for tensor, channels in ((batch.input, 3), (batch.target, 3), (batch.mask, 1), (batch.weight, 1)):
        assert tensor.shape == (6, channels, 48, 48)
        assert tensor.dtype == torch.float32
        assert bool(tensor.isfinite().all())
    assert 0 <= float(batch.input.min()) <= float(batch.input.max()) <= 1
    assert float(batch.weight.max()) <= max_weight(DataConfig()) + 1e-5


def test_the_same_seed_gives_the_same_batches():
    data = dataset()
    a, b = data.batch(4, generator(3)), data.batch(4, generator(3))
    assert torch.equal(a.input, b.input)
    assert torch.equal(a.weight, b.weight)
    assert not torch.equal(a.input, data.batch(4, generator(4)).input)


def test_held_out_faces_are_the_end_of_the_footage_after_a_gap():
    train, held = split_by_time(np.arange(100) / 25, 0.1, 0.4)
    assert list(held) == list(range(90, 100))
    assert train[-1] == 80  # 0.4 s are ten frames at 25 a second: 3.2 s, 3.6 s
    assert list(train) == list(range(81))


def test_the_gap_never_takes_more_than_a_quarter_of_the_faces():
    train, held = split_by_time(np.zeros(40), 0.1, 0.4)  # forty photographs without a time
    assert len(train) == 26
    assert len(held) == 4


def test_held_out_faces_are_never_drawn_for_training():
    crops, meshes, times = drawn_faces("ada", 40)
    crops[36:] = 255  # only the held-out ones are white
    data = FaceDataset(crops, meshes, times, 64, STILL)
    assert float(data.held_out().target.min()) == 1
    assert float(data.batch(200, generator()).target.mean(dim=(1, 2, 3)).max()) < 0.9


def test_held_out_faces_are_not_varied_and_can_be_limited():
    data = dataset(n=80)
    held = data.held_out(3)
    assert held.input.shape == (3, 3, 64, 64)
    assert torch.equal(held.input, held.target)
    assert torch.equal(held.input, data.held_out(3).input)


def test_sources_that_start_at_zero_again_keep_their_order(tmp_path):
    faceset = drawn_faceset(tmp_path / "ada", "ada", n=12)
    records = [replace(r, source="b.mp4", time=r.time - 6 / 25) if i >= 6 else r for i, r in enumerate(faceset.records)]
    times = _running_times(replace(faceset, records=tuple(records)))
    assert (np.diff(times) >= 0).all()
    assert times[6] - times[5] > 1000


def test_a_face_set_is_read_at_the_resolution_that_training_needs(tmp_path):
    faceset = drawn_faceset(tmp_path / "ada", "ada", n=16, size=96)
    data = FaceDataset.from_faceset(FaceSet.load(faceset.folder), 48, DataConfig())
    assert data._faces.shape[1:] == (5, 77, 77)  # 1.6 x 48
    assert data.held_out().target.shape[-1] == 48
    assert FaceDataset.from_faceset(faceset, 96, DataConfig())._faces.shape[-1] == 96  # never enlarged


def test_too_few_faces_are_refused(tmp_path):
    with pytest.raises(ValueError, match="8 faces or more"):
        dataset(n=7)
    with pytest.raises(FaceSetError, match="usable faces or more"):
        FaceDataset.from_faceset(drawn_faceset(tmp_path / "ada", "ada", n=5), 64)


@pytest.mark.parametrize(
    "change",
    [{"flip": 1.5}, {"held_out": 0}, {"warp": -1}, {"eyes": 0.5}, {"margin": 0.5}, {"scale": 1.0}, {"light": 1.0}],
)
def test_impossible_settings_are_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        replace(DataConfig(), **change)


def test_a_batch_tells_how_faces_are_turned_and_mirrors_turn_the_other_way(tmp_path):
    faceset = drawn_faceset(tmp_path / "ada", "ada", size=64)
    turned = [replace(r, pose=(10.0 + i, 0.0, 0.0)) for i, r in enumerate(faceset.records)]
    faceset = replace(faceset, records=tuple(turned))
    for flip, sign in ((0.0, 1), (1.0, -1)):
        data = FaceDataset.from_faceset(faceset, 32, DataConfig(flip=flip, margin=1.0))
        yaw = data.batch(64, generator()).yaw
        assert (yaw.sign() == sign).all()
        assert yaw.abs().min() >= 10
        assert yaw.abs().max() < 10 + len(data)  # held-out faces are not among them
    assert FaceDataset(*drawn_faces("ada"), 32).batch(2, generator()).yaw is None
