"""Matching of the people's codes, over all poses at once and among faces turned alike."""

import pytest
import torch

from fslab.losses import binned_moment_matching, moment_matching, pose_bins


def test_moment_matching_of_known_codes_is_the_squared_gap_in_units_of_the_common_variance():
    """Codes +-1 about 0 and about 2: means differ by 2, spreads by 0, common variance 2 (up to n / (n - 1))."""
    a = torch.tensor([-1.0, 1.0] * 500).view(1000, 1, 1, 1)
    assert float(moment_matching([a, a + 2])) == pytest.approx(4 / 2, rel=1e-2)
    # About 0 both, spreads 1 and 3: the common variance is (1 + 9) / 2.
    assert float(moment_matching([a, a * 3])) == pytest.approx(4 / 5, rel=1e-2)


def test_moment_matching_ignores_the_codes_scale_and_the_order_of_people():
    g = torch.Generator().manual_seed(0)
    a, b, c = (torch.randn(16, 8, 3, 3, generator=g) * s + s for s in (1.0, 2.0, 0.5))
    one = float(moment_matching([a, b, c]))
    assert one > 0
    assert float(moment_matching([c * 10, a * 10, b * 10])) == pytest.approx(one, rel=1e-3)
    assert float(moment_matching([a])) == 0
    assert float(moment_matching([a, a.clone()])) == pytest.approx(0, abs=1e-6)


def test_training_on_moment_matching_alone_brings_two_code_clouds_together():
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(32, 4, 2, 2, generator=g), torch.randn(32, 4, 2, 2, generator=g) * 2 + 3
    shift, scale = torch.zeros(1, 4, 2, 2, requires_grad=True), torch.ones(1, 4, 1, 1, requires_grad=True)
    optimizer = torch.optim.Adam([shift, scale], 0.1)
    before = float(moment_matching([a, b]))
    for _ in range(200):
        optimizer.zero_grad()
        moment_matching([a, b * scale + shift]).backward()
        optimizer.step()
    assert moment_matching([a, b * scale + shift]).item() < 0.05 * before


def test_codes_without_spread_have_finite_gradients():
    a = torch.zeros(4, 2, 3, 3, requires_grad=True)
    moment_matching([a, torch.ones(4, 2, 3, 3)]).backward()
    assert bool(a.grad.isfinite().all())


# Within bins of poses


def test_bins_are_centred_on_the_frontal_face_and_mirror_each_other():
    yaw = torch.tensor([-31.0, -14.0, 0.0, 14.0, 31.0, 16.0])
    assert pose_bins(yaw, 30.0).tolist() == [-1, 0, 0, 0, 1, 1]
    assert pose_bins(-yaw, 30.0).tolist() == [1, 0, 0, 0, -1, -1]


def turned(n, yaws, shift, seed):
    """Return codes of ``n`` faces at each yaw, which say the yaw in channel 0 and the person in channel 1; bins."""
    g = torch.Generator().manual_seed(seed)
    bins = torch.tensor(yaws).repeat_interleave(n)
    codes = torch.randn(len(bins), 2, 1, 1, generator=g)
    codes[:, 0, 0, 0] += 5.0 * bins
    codes[:, 1] += shift
    return codes, bins


def test_people_who_turn_differently_are_alike_within_bins_and_not_over_all():
    """A looks left and ahead, B ahead and right: their codes of one pose are alike, their means are not."""
    (a, left), (b, right) = turned(200, [-1, 0], 0.0, 0), turned(200, [0, 1], 0.0, 1)
    assert float(moment_matching([a, b])) > 0.5
    assert abs(float(binned_moment_matching([a, b], [left, right]))) < 0.02


def test_a_known_gap_within_bins_is_found_in_units_of_the_common_variance():
    """Channel 1 differs by 3: 9 over its common variance 1 + 1.5^2, averaged with channel 0's 0."""
    (a, bins), (b, same) = turned(500, [0, 0], 0.0, 0), turned(500, [0, 0], 3.0, 1)
    assert float(binned_moment_matching([a, b], [bins, same])) == pytest.approx(9 / (1 + 1.5**2) / 2, rel=0.05)


def test_few_faces_that_only_scatter_cost_nothing_on_average():
    """Of two faces each, means differ by chance; what chance does is taken off, and left in by the plain matching."""
    g = torch.Generator().manual_seed(0)
    bins, fair, plain = torch.zeros(2, dtype=torch.long), [], []
    for _ in range(300):
        codes = [torch.randn(2, 4, 6, 6, generator=g) for _ in range(2)]
        fair.append(float(binned_moment_matching(codes, [bins, bins])))
        plain.append(float(moment_matching(codes)))
    assert abs(sum(fair) / 300) < 0.05
    assert sum(plain) / 300 > 0.8


def test_bins_count_by_their_faces_and_the_order_of_people_does_not():
    (a, ab), (b, bb) = turned(6, [0, 1], 0.0, 0), turned(6, [0, 1], 1.0, 1)
    whole = float(binned_moment_matching([a, b], [ab, bb]))
    assert float(binned_moment_matching([b, a], [bb, ab])) == pytest.approx(whole, rel=1e-5)
    # With four of A's turned faces gone, bin 0 counts 6 and bin 1 counts 2.
    few, fb = torch.cat([a[:6], a[6:8]]), ab[:8]
    spread = [few, b]
    parts = [binned_gap(few[fb == k], b[bb == k], spread) for k in (0, 1)]
    expected = (6 * parts[0] + 2 * parts[1]) / 8
    assert float(binned_moment_matching([few, b], [fb, bb])) == pytest.approx(expected, rel=1e-4)


def binned_gap(a, b, everything):
    """Return the gap of one bin, written out anew."""
    spread = torch.cat(everything).var(dim=(0, 2, 3))
    means = (a.mean(0) - b.mean(0)) ** 2 - a.var(0) / len(a) - b.var(0) / len(b)
    stds = (a.std(dim=(0, 2, 3)) - b.std(dim=(0, 2, 3))) ** 2
    return float(((means[:, 0, 0] + stds) / spread).mean())


def test_where_no_bin_is_shared_nothing_is_asked_and_gradients_still_flow():
    a = torch.randn(4, 2, 3, 3, requires_grad=True)
    left, right = torch.tensor([0, 0, 1, 1]), torch.tensor([1, 2, 2, 2])  # one face of the second in bin 1
    loss = binned_moment_matching([a, torch.randn(4, 2, 3, 3)], [left, right])
    assert float(loss) == 0
    assert float(binned_moment_matching([a], [left])) == 0
    shared = binned_moment_matching([a, torch.ones(4, 2, 3, 3)], [left, left])
    shared.backward()
    assert bool(a.grad.isfinite().all())
    assert float(a.grad.abs().sum()) > 0


def test_training_on_it_keeps_the_pose_and_loses_the_person():
    (a, ab), (b, bb) = turned(64, [-1, 0], 0.0, 0), turned(64, [0, 1], 3.0, 1)
    shift = torch.zeros(1, 2, 1, 1, requires_grad=True)
    optimizer = torch.optim.Adam([shift], 0.1)
    for _ in range(150):
        optimizer.zero_grad()
        binned_moment_matching([a, b + shift], [ab, bb]).backward()
        optimizer.step()
    assert shift[0, 1, 0, 0].item() == pytest.approx(-3, abs=0.5)
    assert abs(shift[0, 0, 0, 0].item()) < 0.8  # the yaw is worth 5 a bin


def test_bins_that_are_not_one_a_face_are_refused():
    a = torch.randn(4, 2, 1, 1)
    with pytest.raises(ValueError, match="one bin a face"):
        binned_moment_matching([a, a], [torch.zeros(4), torch.zeros(3)])
