import time

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from drawn_people import drawn_faceset

from fslab.dataset import DataConfig, FaceDataset
from fslab.geometry import crop_from_frame
from fslab.media import read_frames
from fslab.samples import sample_path
from fslab.watch import Watch, detail_drawn, identity_moved, motion_followed, swap_score, swapped_records

SIZE = 96
HALF = DataConfig(held_out=0.5)


# The formulas


def test_identity_is_0_untouched_and_1_as_the_sources_own_frames():
    mean = np.zeros(128)
    far, near = np.zeros((4, 128)), np.zeros((6, 128))
    far[:, 0], near[:, 1] = 0.7, 0.3
    assert identity_moved(far, far, near, mean) == 0
    assert identity_moved(far, near, near, mean) == pytest.approx(1)
    assert identity_moved(far, (far + near[:4]) * 0.5 / np.hypot(0.7, 0.3), near, mean) == pytest.approx(0.5)
    assert identity_moved(far, far * 2, near, mean) == pytest.approx(-1.75)
    assert identity_moved(near, far[:6], near, mean) is None, "people who are alike cannot be told apart"


def test_motion_is_followed_as_far_as_it_is_copied():
    target = np.random.default_rng(0).normal(0, (0.1, 0.1, 10, 5), (9, 4))
    assert motion_followed(target, target) == 1
    assert motion_followed(target + np.array([0.2, -0.1, 3, 0]), target) == pytest.approx(1), (
        "another face at rest is no motion"
    )
    assert motion_followed(target * 0.5, target) == pytest.approx(0.5)
    assert motion_followed(np.ones_like(target), target) == 0
    assert motion_followed(-target, target) == 0, "never below 0"


def test_motion_of_faces_that_cannot_be_read():
    target = np.random.default_rng(0).normal(0, (0.1, 0.1, 10, 5), (9, 4))
    none = np.full_like(target, np.nan)
    assert motion_followed(none, target) == 0
    assert motion_followed(target, none) is None
    assert motion_followed(target, np.where(np.arange(9)[:, None] < 3, target, np.nan)) is None
    assert motion_followed(target, target * 1e-3) is None, "footage that hardly moves"
    part = target.copy()
    part[:4] = np.nan
    assert 0 < motion_followed(part, target) < 1
    still = target * [1, 1, 0, 0]
    assert motion_followed(still * 0.5, still) == pytest.approx(0.5), "only what the footage shows counts"


def test_the_score_is_ruled_by_the_weakest_side():
    assert swap_score(1, 0.5, 1) == 1
    assert swap_score(0.9, 0.0, 1.0) == swap_score(0.9, -3, 1) == swap_score(0.9, 0.4, 0.0) == 0
    assert swap_score(0.8, 0.4, 0.8) == pytest.approx(0.8)
    assert swap_score(0.8, 0.9, 1.0) == swap_score(0.8, 0.5, 1.0), "more than the truth has is no better"
    assert swap_score(0.8, None, None) == pytest.approx(0.8)
    assert swap_score(0.8, 0.4, 0.8, 0.8) == pytest.approx(0.8) == swap_score(0.8, 0.4, 0.8, 0.8)
    assert swap_score(0.8, 0.4, 0.8, 0.3) < swap_score(0.8, 0.4, 0.8, 0.6), "soft swaps are worse"
    assert swap_score(0.8, 0.4, 0.8, 2.0) == swap_score(0.8, 0.4, 0.8, 1.0), "noise is no detail"
    assert swap_score(0.9, 0.3, 0.5) < swap_score(0.9, 0.3, 0.6) < swap_score(0.9, 0.4, 0.6)


# On faces


class Fake:
    """A "network" that knows the true faces and does to strangers what ``change(faces, name)`` says."""

    def __init__(self, watch, change):
        self.watch, self.change = watch, change

    def __call__(self, x, name):
        own = self.watch.held_out[self.watch.names.index(name)].input
        is_own = x.shape == own.shape and torch.equal(x, own)
        return (x if is_own else self.change(x, name)), x[:, :1]


@pytest.fixture(scope="module")
def scene(tmp_path_factory, consents):
    """The packaged target clip of ada and dan's footage, with the exact truth of ada as dan."""
    from fslab.extract import extract_faces

    folder = tmp_path_factory.mktemp("scene")
    clips = {"ada": "ada_target.mp4", "dan": "dan.mp4"}
    facesets = [extract_faces(sample_path(c), folder / n, consents[n]).faceset for n, c in clips.items()]
    data = [FaceDataset.from_faceset(f, SIZE, HALF) for f in facesets]
    watch = Watch(facesets, [d.held_out(16) for d in data], HALF)
    records, truth = {r.frame: r for r in watch.records["ada"]}, {}
    for frame in read_frames(sample_path("ada_as_dan_truth.mp4")):
        if frame.index in records:
            crop = crop_from_frame(frame, records[frame.index].matrix, facesets[0].size)
            truth[frame.index] = cv2.resize(crop, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    watch.truths["ada as dan"] = np.stack([truth[r.frame] for r in watch.records["ada"]])
    means = {n: d.held_out().target.mean(0, keepdim=True) for n, d in zip(watch.names, data)}
    return watch, means


def pair(scene, change):
    """Return what is measured of ada as dan."""
    return scene[0].measure(Fake(scene[0], change)).swaps["ada as dan"]


def as_truth(watch):
    def change(x, name):
        if f"ada as {name}" not in watch.truths:
            return x
        return torch.from_numpy(watch.truths[f"ada as {name}"]).permute(0, 3, 1, 2).float() / 255

    return change


def test_constructed_networks_rank_as_they_deserve(scene):
    """All redraw perfectly what they know: only the swap side can tell them apart."""
    watch, means = scene
    truth = as_truth(watch)
    good, half = pair(scene, truth), pair(scene, lambda x, name: 0.5 * truth(x, name) + 0.5 * x)
    leaking, constant = pair(scene, lambda x, _: x), pair(scene, lambda x, name: means[name].expand_as(x))
    assert good["score"] > half["score"] + 0.1 > constant["score"] + 0.2 > leaking["score"] + 0.2
    assert leaking["score"] == leaking["identity"] == 0
    assert (leaking["closure"], leaking["leak"], leaking["follows"]) == (0, 1, 1)
    assert (good["closure"], good["leak"]) == (pytest.approx(1, abs=0.03), pytest.approx(0, abs=0.03))
    assert half["leak"] == pytest.approx(0.5, abs=0.02)
    assert constant["follows"] < 0.3 < 0.6 < good["follows"]
    assert good["identity"] > half["identity"] > 0
    assert constant["identity"] > 0.3, "a picture of dan is much like dan: identity alone would let it pass"


def test_detail_is_a_share_of_the_persons_own():
    own = np.random.default_rng(0).integers(0, 255, (3, 32, 32, 3)).astype(np.uint8)
    all_of_it, half = np.ones((3, 32, 32), np.float32), np.zeros((2, 32, 32), np.float32)
    half[:, :16] = 1
    assert detail_drawn(own, all_of_it, own, all_of_it) == pytest.approx(1)
    assert detail_drawn(own[:2], half, own, all_of_it) == pytest.approx(1, rel=0.1), "a pixel, not a picture"
    soft = np.stack([cv2.GaussianBlur(p, (0, 0), 2) for p in own])
    assert detail_drawn(soft, all_of_it, own, all_of_it) < 0.1
    assert detail_drawn(np.zeros_like(own), all_of_it, own, all_of_it) == 0


def test_blur_and_noise_are_no_swap(scene):
    assert pair(scene, lambda x, _: F.avg_pool2d(x, 9, 1, 4))["score"] < 0.35, "the truth has three times that"
    assert pair(scene, lambda x, _: torch.full_like(x, 0.5))["score"] < 0.05


def test_a_row_holds_everything_and_a_measurement_repeats_itself_within_a_second(scene):
    watch, _ = scene
    fake = Fake(watch, lambda x, _: x)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, start = watch.measure(fake).to_row(), time.process_time()
    again = watch.measure(fake).to_row()
    assert time.process_time() - start < 2.0, "a second on a quiet core"
    assert first == again
    assert torch.equal(torch.rand(1), expected), "measuring leaves the training's randomness alone"
    assert set(first) == {"held_out", "swaps", "score"}
    assert set(first["held_out"]) == {"ada", "dan"}
    assert set(first["swaps"]) == {"ada as dan", "dan as ada"}
    assert first["held_out"]["ada"] == {"l1": 0.0, "ssim": pytest.approx(1)}
    assert "closure" not in first["swaps"]["dan as ada"]


def test_a_network_that_draws_no_numbers_scores_none(scene):
    watch, _ = scene
    measured = watch.measure(lambda x, _: (x * float("nan"), x[:, :1]))
    assert np.isnan(measured.score)


def test_half_of_the_swapped_faces_are_held_out(scene):
    watch, _ = scene
    times = [r.time for r in watch.records["ada"]]
    assert len(times) == 16
    assert times == sorted(set(times))
    assert times[7] < 0.5 * times[-1] < times[8] + 0.5


def test_few_faces_are_all_swapped(tmp_path):
    faceset = drawn_faceset(tmp_path / "ada", "ada", n=9)
    chosen = swapped_records(faceset, DataConfig(), 16)
    assert [r.frame for r in chosen] == list(range(9))
