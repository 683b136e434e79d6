"""Patch critics: hinge loss, bounded slopes, the R1 penalty, learning."""

import pytest
import torch
from torch import nn

from fslab.losses import Critics, PatchCritic, critic_loss, gradient_penalty
from fslab.losses.critic import GAIN

EVERYWHERE = torch.ones(4, 1, 16, 16)


@pytest.fixture
def critic():
    torch.manual_seed(0)
    return PatchCritic(8)


def matrices(critic):
    """Return each layer's weights as the matrix that spectral normalisation is about."""
    return [layer.weight.flatten(1) for layer in critic.layers]


def test_the_critics_hinge_loss_of_known_scores():
    """Real 0.5 costs 0.5, drawn -2 costs nothing, drawn 1 costs 2."""
    assert float(critic_loss(torch.tensor([0.5, 3.0]), torch.tensor([-2.0, 1.0]))) == pytest.approx(0.25 + 1.0)
    assert float(critic_loss(torch.zeros(3), torch.zeros(3))) == 2
    real, weight = torch.tensor([0.5, -1.0]).view(1, 1, 1, 2), torch.tensor([3.0, 1.0]).view(1, 1, 1, 2)
    assert float(critic_loss(real, torch.full_like(real, -9), weight)) == pytest.approx((3 * 0.5 + 1 * 2) / 4)


def test_only_the_face_is_judged(critic):
    """Outside the mask nothing is seen, and patches centred there do not count."""
    critics, mask = Critics(1), torch.zeros(1, 1, 32, 32)
    mask[..., 8:24, 8:24] = 1
    settle(critics[0])
    real, drawn = torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32)
    spoilt = torch.where(mask > 0, drawn, 1 - drawn)
    losses = [float(critics.own_loss([real], [picture], [mask]).detach()) for picture in (drawn, spoilt)]
    verdicts = [float(critics.verdict([picture], [mask]).detach()) for picture in (drawn, spoilt)]
    assert losses[0] == losses[1]
    assert verdicts[0] == verdicts[1]
    scores = critics[0](drawn * mask).detach()
    assert verdicts[0] == pytest.approx(-float(scores[..., 2:6, 2:6].mean()), rel=1e-5)


def test_a_critic_judges_patches_and_learns_to_tell_noise_from_flat(critic):
    assert critic(torch.rand(2, 3, 64, 64)).shape == (2, 1, 16, 16)
    optimizer = torch.optim.Adam(critic.parameters(), 1e-2)
    for _ in range(60):
        loss = critic_loss(critic(torch.rand(8, 3, 16, 16)), critic(torch.full((8, 3, 16, 16), 0.5)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.5


def test_a_patch_is_as_wide_as_it_says(critic):
    x = torch.rand(1, 3, 64, 64, requires_grad=True)
    critic.eval()(x)[0, 0, 8, 8].backward()
    rows = x.grad.abs().sum(dim=(0, 1, 3)).nonzero()
    assert int(rows.max() - rows.min()) + 1 == 26


def settle(critic, passes=30):
    for _ in range(passes):  # each pass refines the estimate of the largest singular value
        critic(torch.rand(1, 3, 16, 16))
    return critic.eval()


def test_no_layer_stretches_more_than_once_however_large_its_weights(critic):
    x = torch.rand(2, 3, 32, 32)
    before = settle(critic)(x)
    largest = [torch.linalg.svdvals(m.detach())[0].item() for m in matrices(critic)]
    assert largest == pytest.approx([1.0] * 4, abs=0.02)
    with torch.no_grad():
        for layer in critic.layers:
            layer.parametrizations.weight.original.mul_(100)
    assert torch.allclose(settle(critic.train())(x), before, atol=1e-3)


def test_scores_never_change_faster_than_the_bound(critic):
    """Each input pixel lies in ceil(k / s)^2 windows, so a layer stretches by ceil(k / s) at most: 2, 2, 3, 3; the
    range 0..1 becomes -1..1, another 2, and each hidden layer has its gain."""
    with torch.no_grad():
        for layer in critic.layers:
            layer.parametrizations.weight.original.mul_(50)
    settle(critic)
    g = torch.Generator().manual_seed(0)
    x = torch.rand(16, 3, 32, 32, generator=g)
    y = x + torch.randn(x.shape, generator=g) * torch.logspace(-3, 0, 16).view(-1, 1, 1, 1)
    ratio = (critic(x) - critic(y)).flatten(1).norm(dim=1) / (x - y).flatten(1).norm(dim=1)
    assert 0 < float(ratio.detach().max()) <= 2 * 2 * 2 * 3 * 3 * GAIN**3


class LinearCritic(nn.Module):
    """Scores ``w . x + b``: its slope is w everywhere."""

    def __init__(self, w):
        super().__init__()
        self.w = nn.Parameter(w)

    def forward(self, x):
        return (x * self.w).sum(dim=(1, 2, 3)) + 7


def test_r1_of_a_linear_critic_is_half_its_squared_weights_and_its_gradient_is_the_weights():
    w = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(0))
    critic = LinearCritic(w.clone())
    penalty = gradient_penalty(critic, torch.rand(5, 3, 8, 8))
    assert float(penalty) == pytest.approx(float(w.square().sum()) / 2, rel=1e-5)
    penalty.backward()
    assert torch.allclose(critic.w.grad, w, atol=1e-5)


def test_r1_of_a_quadratic_critic_is_half_the_mean_square_of_the_pictures():
    """The slope of |x|^2 / 2 is x."""
    x = torch.rand(4, 3, 8, 8)
    penalty = gradient_penalty(lambda pictures: pictures.square().sum(dim=(1, 2, 3)) / 2, x)
    assert float(penalty) == pytest.approx(float(x.square().sum(dim=(1, 2, 3)).mean()) / 2, rel=1e-5)
    assert not x.requires_grad


def test_r1_does_not_depend_on_the_size_of_the_picture(critic):
    settle(critic)
    flat = [float(gradient_penalty(critic, torch.full((1, 3, s, s), 0.3))) for s in (64, 128)]
    assert flat[1] == pytest.approx(flat[0], rel=0.25)  # but for the edges
    assert flat[0] > 0


def test_the_penalty_flattens_a_critic():
    def slope(weight):
        torch.manual_seed(0)
        critics = Critics(1)
        optimizer = torch.optim.Adam(critics.parameters(), 1e-2)
        for _ in range(30):
            optimizer.zero_grad()
            critics.own_loss(
                [torch.rand(4, 3, 16, 16)], [torch.full((4, 3, 16, 16), 0.5)], [EVERYWHERE], weight
            ).backward()
            optimizer.step()
        return float(gradient_penalty(critics[0], torch.rand(4, 3, 16, 16)))

    assert slope(100.0) < 0.3 * slope(0.0)


def test_critics_and_drawers_learn_apart(critic):
    critics, real, masks = Critics(2), [torch.rand(2, 3, 16, 16)] * 2, [EVERYWHERE[:2]] * 2
    drawn = [torch.rand(2, 3, 16, 16, requires_grad=True) for _ in range(2)]
    critics.own_loss(real, drawn, masks, penalty=1.0).backward()
    assert all(d.grad is None for d in drawn)
    assert all(p.grad is not None for p in critics.parameters())
    critics.zero_grad()
    verdict = critics.verdict(drawn, masks)
    verdict.backward()
    assert all(float(d.grad.abs().sum()) > 0 for d in drawn)
    assert all(p.grad is None and p.requires_grad for p in critics.parameters())
    assert float(verdict.detach()) == pytest.approx(-sum(float(c(d).mean()) for c, d in zip(critics, drawn)), abs=0.2)


def test_a_critic_read_back_judges_and_learns_on_bit_for_bit():
    """The estimates of the singular vectors are part of its state."""

    def learn(critics, optimizer):
        optimizer.zero_grad()
        critics.own_loss([real], [drawn], [EVERYWHERE[:2]], 1.0).backward()
        optimizer.step()

    torch.manual_seed(0)
    real, drawn = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16)
    first, second = Critics(1), Critics(1)
    learn(first, torch.optim.SGD(first.parameters(), 0.1))
    second.load_state_dict(first.state_dict())
    assert any("_u" in name for name in first.state_dict())
    for critics in (first, second):
        learn(critics, torch.optim.SGD(critics.parameters(), 0.1))
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values()))
