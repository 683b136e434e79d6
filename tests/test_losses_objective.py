"""The loss of a step: parts add up, each can be switched off, critics come late with an optimiser of their own."""

from dataclasses import dataclass, replace

import pytest
import torch
from test_losses import pictures

from fslab.dataset import Batch
from fslab.losses import LossConfig, Objective, image_loss, mask_loss, moment_matching

CPU = torch.device("cpu")
OFF = LossConfig(l1=0, dssim=0, gradient=0, mask=0, match=0)


@dataclass(frozen=True)
class TurnedBatch(Batch):
    """A batch that tells each face's yaw."""

    yaw: torch.Tensor | None = None


def batch(seed=0, n=2, size=32):
    x, y, w = pictures(seed, n, size)
    mask = torch.zeros(n, 1, size, size)
    mask[..., 6:-6, 6:-6] = 1
    return Batch(x, y, mask, w)


def make(config, **changes):
    torch.manual_seed(0)
    return Objective(config, 2, CPU, 1e-3, **changes)


def drawn(n=2):
    return [torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(i)).requires_grad_() for i in range(n)]


def person_loss(config, **changes):
    b = batch()
    return float(make(config, **changes).person_loss(b.input, torch.full_like(b.mask, 0.7), b))


def test_by_default_a_persons_loss_is_that_of_pixels_and_mask():
    b, config = batch(), LossConfig()
    expected = image_loss(b.input, b.target, b.weight, config) + 0.1 * mask_loss(torch.full_like(b.mask, 0.7), b.mask)
    assert person_loss(config) == pytest.approx(float(expected))
    assert person_loss(config, draw_mask=False) == pytest.approx(float(image_loss(b.input, b.target, b.weight, config)))


def test_with_everything_off_nothing_is_left():
    assert person_loss(OFF) == 0
    assert make(OFF).networks == make(OFF).optimizers == {}


@pytest.mark.parametrize("name", ["l1", "mse", "dssim", "gradient", "perceptual", "identity", "mask"])
def test_each_part_is_switched_on_by_its_weight_and_scales_with_it(name):
    one, three = (person_loss(replace(OFF, **{name: w})) for w in (1.0, 3.0))
    assert one > 0
    assert three == pytest.approx(3 * one, rel=1e-4)


def test_networks_are_built_only_where_they_are_needed():
    plain = make(LossConfig())
    assert plain.perceptual is None
    assert plain.identity is None
    critics = make(LossConfig(adversarial=0.1)).networks["critics"]
    assert len(critics) == 2


def test_identity_looks_at_as_many_faces_as_it_is_told():
    b, seen = batch(n=4), []
    objective = make(replace(OFF, identity=1.0, identity_faces=3))
    objective.identity = lambda x, y, mask: seen.append((x, y, mask)) or x.new_zeros(())
    objective.person_loss(b.input, b.mask, b)
    assert [len(t) for t in seen[0]] == [3, 3, 3]


# Codes


def codes(shift):
    g = torch.Generator().manual_seed(0)
    return [torch.randn(6, 4, 2, 2, generator=g), torch.randn(6, 4, 2, 2, generator=g) + shift]


def turned(yaw):
    return TurnedBatch(*(torch.zeros(6, c, 8, 8) for c in (3, 3, 1, 1)), torch.tensor(yaw))


def test_codes_are_matched_at_once_or_among_faces_turned_alike():
    z, ahead = codes(1.0), turned([0.0] * 6)
    assert torch.equal(make(LossConfig()).match(z, [ahead, ahead]), moment_matching(z))
    within = make(LossConfig(match_bin=20.0))
    assert float(within.match(z, [ahead, ahead])) > 0.1
    assert float(within.match(z, [ahead, turned([60.0] * 6)])) == 0


def test_matching_by_pose_without_poses_is_refused():
    with pytest.raises(ValueError, match="match_bin"):
        make(LossConfig(match_bin=20.0)).match(codes(1.0), [batch(), batch()])


# Critics


def steps(config, progress=1.0, count=1, first=0):
    """Let a new objective's critics learn; return it, the last verdict, and the largest change of their weights."""
    objective = make(config)
    before = [p.detach().clone() for p in objective.networks["critics"].parameters()] if objective.networks else []

    def apply(name, network):
        objective.optimizers[name].step()
        objective.optimizers[name].zero_grad()

    for step in range(first, first + count):
        verdict = objective.adversarial(drawn(), [batch(0), batch(1)], progress, step, apply)
    after = list(objective.networks["critics"].parameters()) if objective.networks else []
    return objective, verdict, max((float((a - b).abs().max()) for a, b in zip(before, after)), default=0.0)


def test_critics_join_in_late():
    config = LossConfig(adversarial=0.5, adversarial_from=0.6)
    _, verdict, moved = steps(config, progress=0.59)
    assert (float(verdict), moved) == (0, 0)
    _, verdict, moved = steps(config, progress=0.6)
    assert float(verdict.detach()) != 0
    assert moved > 0


def test_without_a_critic_there_is_no_verdict():
    assert float(steps(LossConfig())[1]) == 0


def test_the_verdict_reaches_what_was_drawn_inside_the_face_only():
    objective, faces, b = make(LossConfig(adversarial=0.5, adversarial_from=0)), drawn(), batch()
    objective.adversarial(faces, [b, b], 1.0, 0, lambda name, network: network.zero_grad()).backward()
    for face in faces:
        assert float((face.grad * b.mask).abs().sum()) > 0
        assert float((face.grad * (1 - b.mask)).abs().sum()) == 0
    assert all(p.grad is None for p in objective.networks["critics"].parameters())


def test_the_verdict_scales_with_its_weight():
    one, two = (float(steps(LossConfig(adversarial=w, adversarial_from=0))[1].detach()) for w in (1.0, 2.0))
    assert two == pytest.approx(2 * one, rel=1e-5)


def test_the_slope_penalty_is_taken_every_so_many_steps():
    def state(r1, first):
        config = LossConfig(adversarial=0.5, adversarial_from=0, r1=r1, r1_every=4)
        return list(steps(config, first=first)[0].networks["critics"].parameters())

    def equal(a, b):
        return all(torch.equal(x, y) for x, y in zip(a, b))

    assert equal(state(10.0, 3), state(0.0, 3))
    assert not equal(state(10.0, 4), state(0.0, 4))
