"""Optimisers: the rules against torch and by hand, who learns how fast, steps left out, going on bit for bit."""

from dataclasses import replace

import pytest
import timm
import torch
from drawn_people import drawn_faceset

from fslab.encoders import backbone_stages
from fslab.errors import RunError
from fslab.model import ModelConfig, SwapAutoencoder
from fslab.optimise import build_optimizer, encoder_stages
from fslab.run import load_tensors, pack_state, unpack_state
from fslab.schedule import TrainConfig
from fslab.train import TrainHooks, train

KINDS = ("adamw", "adam", "sgd", "muon")
MODEL = ModelConfig(size=32, width=8, latent_channels=16)
PRETRAINED = ModelConfig(size=64, encoder="timm:mobilenetv2_100", width=8, latent_channels=16)
CONFIG = TrainConfig(steps=6, batch=2, device="cpu", lr=1e-2)


def make(kind, model=MODEL, weights="random", **changes):
    torch.manual_seed(0)
    network = SwapAutoencoder(model, ["ada", "dan"])
    return network, build_optimizer(network, replace(CONFIG, optimizer=kind, **changes), weights)


def step(network, optimizer, seed, spoil=1.0):
    """Take one step on random pictures as the trainer does; ``spoil`` times the gradient."""
    coarse = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    x = torch.nn.functional.interpolate(coarse, (network.config.size,) * 2, mode="bilinear")
    z = network.encode(x)
    loss = sum((network.decode(z, name)[0] - x).square().mean() for name in network.identities)
    (loss * spoil).backward()
    is_bad = torch.tensor(float(not torch.isfinite(torch.tensor(spoil))))
    optimizer.found_inf, optimizer.grad_scale = is_bad, None
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(loss.detach())


def snapshot(network, optimizer):
    return {k: v.clone() for k, v in pack_state({"model": network}, {"optimizer": optimizer}).items()}


def equal(a, b):
    return set(a) == set(b) and all(torch.equal(a[k], b[k]) for k in a)


def share_of(optimizer, p):
    return next((g["share"] for g in optimizer.param_groups if any(q is p for q in g["params"])), None)


# The rules


@pytest.mark.parametrize("kind", KINDS)
def test_every_rule_learns(kind):
    network, optimizer = make(kind, lr=3.0 if kind == "sgd" else 5e-3)
    losses = [step(network, optimizer, 0) for _ in range(30)]
    assert losses[-1] < 0.7 * losses[0]


def by_hand(kind, p, gradients, lr=1e-2, decay=0.1):
    """Return a parameter after steps with given gradients, by the rules as their papers write them."""
    p, m, v = p.clone(), torch.zeros_like(p), torch.zeros_like(p)
    for t, g in enumerate(gradients, 1):
        if kind != "adam":
            p = p * (1 - lr * decay)
        if kind == "sgd":
            m = 0.9 * m + g
            p = p - lr * (g + 0.9 * m)
        else:
            m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g * g
            p = p - lr * (m / (1 - 0.9**t)) / ((v / (1 - 0.99**t)).sqrt() + 1e-8)
    return p


@pytest.mark.parametrize("kind", ["adamw", "adam", "sgd"])
def test_the_rules_are_those_of_their_papers(kind):
    network, optimizer = make(kind, weight_decay=0.1)
    p = network.encoder.code.weight
    start, gradients = p.detach().clone(), [torch.randn_like(p) for _ in range(3)]
    for g in gradients:
        p.grad = g.clone()
        optimizer.step()
    assert torch.allclose(p, by_hand(kind, start, gradients), atol=1e-6, rtol=0)


def test_muon_moves_a_convolution_by_an_orthogonal_matrix_and_biases_by_adamw():
    network, optimizer = make("muon", weight_decay=0.0)
    conv = network.encoder.code
    before, bias = conv.weight.detach().clone(), conv.bias.detach().clone()
    conv.weight.grad, conv.bias.grad = torch.randn_like(before), torch.randn_like(bias)
    sign = conv.bias.grad.sign()
    optimizer.step()
    rows, columns = before.flatten(1).shape
    update = (conv.weight.detach() - before).flatten(1) / (1e-2 * 0.2 * max(rows, columns) ** 0.5)
    values = torch.linalg.svdvals(update)
    assert 0.6 < values.min() <= values.max() < 1.3  # Newton and Schulz, five times, in half precision
    assert torch.allclose(conv.bias.detach() - bias, -1e-2 * sign, atol=1e-5)


def test_biases_and_norms_do_not_decay():
    network, optimizer = make("adamw", PRETRAINED, "packaged")
    decays = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert {decays[id(p)] for p in network.parameters() if p.ndim > 1} == {CONFIG.weight_decay}
    assert {decays[id(p)] for p in network.parameters() if p.ndim <= 1} == {0.0}


def test_an_older_timm_is_told_of(monkeypatch):
    monkeypatch.delattr(timm.optim, "Muon")
    with pytest.raises(RunError, match=r"Muon.*upgrade timm"):
        make("muon")


@pytest.mark.parametrize("change", [{"momentum": 1.0}, {"layer_decay": 0.0}])
def test_impossible_settings_are_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        replace(CONFIG, **change)


# Who learns


def test_everything_learns_at_one_rate_where_nothing_is_pretrained():
    network, optimizer = make("adamw", replace(PRETRAINED, pretrained=False), encoder_train="frozen")
    assert {g["share"] for g in optimizer.param_groups} == {1.0}
    assert sum(len(g["params"]) for g in optimizer.param_groups) == len(list(network.parameters()))


def test_a_pretrained_encoder_learns_the_slower_the_further_from_the_code():
    network, optimizer = make("adamw", PRETRAINED, "packaged", encoder_lr=0.2, layer_decay=0.5)
    net = network.encoder.net
    assert share_of(optimizer, network.encoder.code.weight) == 1.0
    assert share_of(optimizer, next(network.decoders[0].parameters())) == 1.0
    stages = backbone_stages(net)
    assert len(stages) == 4
    assert [share_of(optimizer, stage[0]) for stage in stages] == [0.025, 0.05, 0.1, 0.2]
    assert share_of(optimizer, net.conv_stem.weight) == 0.025
    assert share_of(optimizer, net.blocks[-1][-1].conv_pwl.weight) == 0.2


@pytest.mark.parametrize(("how", "learning"), [("frozen", 0), ("last", 1), ("full", 4)])
def test_parts_of_a_pretrained_encoder_can_be_held_still(how, learning):
    network, optimizer = make("adamw", PRETRAINED, "packaged", encoder_train=how)
    stages = backbone_stages(network.encoder.net)
    assert [all(p.requires_grad for p in s) for s in stages] == [False] * (4 - learning) + [True] * learning
    before = {k: v.detach().clone() for k, v in network.encoder.net.named_parameters()}
    step(network, optimizer, 0)
    moved = {id(p) for k, p in network.encoder.net.named_parameters() if not torch.equal(p, before[k])}
    assert [any(id(p) in moved for p in s) for s in stages] == [False] * (4 - learning) + [True] * learning
    assert not any(p.grad is not None for s in stages[: 4 - learning] for p in s)


def test_no_gradient_flows_through_frozen_stages():
    network, _ = make("adamw", PRETRAINED, "packaged", encoder_train="last")
    seen = []
    network.encoder.net.blocks[0].register_forward_hook(lambda m, i, out: seen.append(out.requires_grad))
    network.encode(torch.rand(1, 3, 64, 64))
    assert seen == [False]


def test_a_rate_of_nought_freezes_the_encoder():
    network, optimizer = make("adamw", PRETRAINED, "packaged", encoder_lr=0.0)
    assert not any(p.requires_grad for p in network.encoder.net.parameters())
    assert network.encoder.code.weight.requires_grad
    assert {g["share"] for g in optimizer.param_groups} == {1.0}


def test_an_encoder_that_comes_whole_is_one_stage_with_its_code():
    network, optimizer = make("adamw", weights="tiny")
    assert encoder_stages(network, "tiny") == [list(network.encoder.parameters())]
    assert {share_of(optimizer, p) for p in network.encoder.parameters()} == {CONFIG.encoder_lr}
    backbone = SwapAutoencoder(PRETRAINED, ["ada"])
    assert any(p is backbone.encoder.code.weight for p in encoder_stages(backbone, "tiny")[-1])
    assert not any(p is backbone.encoder.code.weight for s in encoder_stages(backbone, "hub") for p in s)


# Steps that went wrong


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_that_is_marked_changes_nothing_and_the_next_one_does(kind):
    network, optimizer = make(kind)
    step(network, optimizer, 0)
    before = snapshot(network, optimizer)
    step(network, optimizer, 1, spoil=float("nan"))
    assert equal(before, snapshot(network, optimizer))
    step(network, optimizer, 2)
    after = snapshot(network, optimizer)
    assert not equal(before, after)
    assert all(bool(v.isfinite().all()) for v in after.values())


@pytest.mark.parametrize("kind", KINDS)
def test_a_first_step_that_is_marked_is_as_if_it_had_not_been(kind):
    spoilt, clean = make(kind), make(kind)
    step(*spoilt, 0, spoil=float("inf"))
    for seed in (1, 2):
        step(*spoilt, seed)
        step(*clean, seed)
    assert equal(snapshot(*spoilt), snapshot(*clean))


# Going on


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_goes_on_bit_for_bit(kind):
    whole, parts, other = make(kind), make(kind), make(kind)
    for seed in range(3):
        step(*whole, seed)
        step(*parts, seed)
    unpack_state(snapshot(*parts), {"model": other[0]}, {"optimizer": other[1]})
    for seed in (3, 4):
        step(*whole, seed)
        step(*other, seed)
    assert equal(snapshot(*whole), snapshot(*other))


@pytest.mark.parametrize("kind", ["sgd", "muon"])
def test_a_stopped_training_goes_on_bit_for_bit(kind, tmp_path):
    people = [drawn_faceset(tmp_path / name, name) for name in ("ada", "dan")]
    config, asked = replace(CONFIG, optimizer=kind), iter(range(1, 100))
    train(people, tmp_path / "whole", MODEL, config)
    train(people, tmp_path / "parts", MODEL, config, TrainHooks(should_stop=lambda: next(asked) >= 3))
    train(people, tmp_path / "parts", MODEL, config)
    states = [load_tensors(tmp_path / name / "state.safetensors")[0] for name in ("whole", "parts")]
    assert equal(*states)


def test_more_may_be_frozen_when_training_goes_on():
    full, last = make("adamw", PRETRAINED, "packaged"), make("adamw", PRETRAINED, "packaged", encoder_train="last")
    step(*full, 0)
    unpack_state(snapshot(*full), {"model": last[0]}, {"optimizer": last[1]})
    p = backbone_stages(full[0].encoder.net)[-1][0]
    q = backbone_stages(last[0].encoder.net)[-1][0]
    assert torch.equal(full[1].state[p]["exp_avg"], last[1].state[q]["exp_avg"])


@pytest.mark.parametrize(("then", "now"), [("adamw", "sgd"), ("sgd", "adamw"), ("muon", "adam")])
def test_a_checkpoint_of_another_rule_is_refused(then, now):
    old, new = make(then), make(now)
    step(*old, 0)
    with pytest.raises(RunError, match="other settings"):
        unpack_state(snapshot(*old), {"model": new[0]}, {"optimizer": new[1]})


def test_a_checkpoint_of_another_grouping_is_refused_and_not_mixed_up():
    network, optimizer = make("adamw")
    plain = torch.optim.AdamW(network.parameters(), 1e-3, fused=True)
    step(network, plain, 0)
    with pytest.raises(RunError, match="other settings"):
        unpack_state(snapshot(network, plain), {"model": network}, {"optimizer": optimizer})
