import pytest
import torch
from drawn_people import drawn_faceset

from fslab.dataset import Batch, DataConfig
from fslab.disguise import disguise
from fslab.model import ModelConfig, SwapAutoencoder
from fslab.train import TrainConfig, train

TINY = ModelConfig(size=32, width=8, latent_channels=16, blocks=1, pretrained=False)


def batches(n_people, n=4):
    generator = torch.Generator().manual_seed(0)
    pictures = [torch.rand((n, 3, 32, 32), generator=generator) for _ in range(n_people)]
    return [Batch(p, p.clone(), p[:, :1], p[:, :1]) for p in pictures]


@pytest.mark.parametrize("n_people", [2, 3])
def test_the_first_faces_are_drawn_as_somebody_else_and_their_targets_stay(n_people):
    model, given = SwapAutoencoder(TINY, ["ada", "dan", "eve"][:n_people]).eval(), batches(n_people)
    for turn in range(3):
        for i, (now, before) in enumerate(zip(disguise(model, given, 0.5, turn), given)):
            other = (i + 1 + turn % (n_people - 1)) % n_people
            assert other != i
            wanted, _ = model(before.input[:2], model.identities[other])
            assert torch.allclose(now.input[:2], wanted, atol=1e-6)
            assert torch.equal(now.input[2:], before.input[2:])
            assert torch.equal(now.target, before.target)
            assert not now.input.requires_grad


def test_nobody_is_disguised_alone_or_by_no_share():
    model, given = SwapAutoencoder(TINY, ["ada", "dan"]), batches(2)
    assert all(a is b for a, b in zip(disguise(model, given, 0.0, 0), given))
    alone = SwapAutoencoder(TINY, ["ada"])
    assert disguise(alone, given[:1], 0.5, 0)[0] is given[0]


def test_training_with_disguises_learns_and_is_repeatable(tmp_path):
    people = [drawn_faceset(tmp_path / name, name, size=48) for name in ("ada", "dan")]
    config = TrainConfig(
        steps=6, batch=4, device="cpu", precision="fp32", disguise=0.5, disguise_from=0.0, data=DataConfig(margin=1.0)
    )
    a, b = (train(people, tmp_path / name, TINY, config).model.state_dict() for name in ("a", "b"))
    assert all(torch.equal(a[k], b[k]) for k in a)
    plain = TrainConfig(steps=6, batch=4, device="cpu", precision="fp32", data=DataConfig(margin=1.0))
    c = train(people, tmp_path / "c", TINY, plain).model.state_dict()
    assert any(not torch.equal(a[k], c[k]) for k in a)
