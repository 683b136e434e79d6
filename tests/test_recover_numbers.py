"""Numbers that go wrong: steps without finite gradients, drawings of NaN, what is gone back to and what is given up."""

from dataclasses import replace

import pytest
import torch
from drawn_people import drawn_faceset
from test_pretrain import TINY, drawn_crowd
from test_pretrain import config as pretrain_config
from training import equal, read_log, weights

from fslab.errors import RunError
from fslab.losses import LossConfig, mask_loss
from fslab.model import ModelConfig
from fslab.optimise import BAD_STEPS
from fslab.pretrain import Pretrainer
from fslab.run import Run
from fslab.schedule import TrainConfig
from fslab.train import Trainer

MODEL = ModelConfig(size=32, width=8, latent_channels=16, blocks=1)
CONFIG = TrainConfig(steps=6, batch=4, device="cpu", precision="fp32")
CRITIC = LossConfig(adversarial=0.01, adversarial_from=0.0, r1_every=2)


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    folder = tmp_path_factory.mktemp("people")
    return [drawn_faceset(folder / name, name) for name in ("ada", "dan")]


def make(people, folder, **changes):
    torch.manual_seed(0)
    return Trainer(people, folder, MODEL, replace(CONFIG, **changes), torch.device("cpu"))


def poison(trainer, steps):
    """Make the gradients of the next ``steps`` steps not finite."""
    left = [steps]

    def hook(gradient):
        left[0] -= 1
        return gradient * float("nan") if left[0] >= 0 else gradient

    next(trainer.model.decoders[0].parameters()).register_hook(hook)


def test_a_step_without_finite_gradients_changes_nothing_and_is_counted(people, tmp_path):
    trainer = make(people, tmp_path / "run")
    trainer.step(0.5)
    before = [p.detach().clone() for p in trainer.model.parameters()]
    poison(trainer, 1)
    trainer.step(0.5)
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.model.parameters()))
    assert trainer.recovery.bad.tolist() == [1, 1]
    trainer.step(0.5)
    assert trainer.recovery.bad.tolist() == [0, 1]
    assert not torch.equal(before[0], next(trainer.model.parameters()))
    assert all(bool(p.isfinite().all()) for p in trainer.model.parameters())


def test_several_such_steps_go_back_to_the_checkpoint_with_half_the_rate_and_say_so(people, tmp_path):
    trainer = make(people, tmp_path / "run", steps=40)
    saved = weights(tmp_path / "run", "state.safetensors")
    poison(trainer, BAD_STEPS)
    for _ in range(BAD_STEPS):
        trainer.step(0.5)
        trainer.run.step += 1
    trainer._log(0.5)
    assert trainer.recovery.rate == 0.5
    assert all(torch.equal(saved[f"model/{k}"], v) for k, v in trainer.model.state_dict().items())
    rows = read_log(tmp_path / "run")
    assert "back to the weights of step 0" in rows[-1]["event"]
    assert rows[-2]["bad_steps"] == BAD_STEPS
    assert rows[-2]["loss"]["ada"] is not None
    trainer.step(0.5)
    assert trainer.recovery.bad.tolist() == [0, BAD_STEPS]


def test_training_that_never_recovers_ends_with_a_sentence_and_a_good_checkpoint(people, tmp_path):
    trainer = make(people, tmp_path / "run")
    poison(trainer, 10**6)
    with pytest.raises(RunError, match="lower --lr"):
        for _ in range(100):
            trainer.step(0.5)
            trainer._log(0.5)
    Run.load(tmp_path / "run")


def test_a_loss_a_thousand_times_too_high_is_survived(people, tmp_path):
    trainer = make(people, tmp_path / "run", steps=40)
    for _ in range(10):
        trainer.step(0.3)
    before = trainer.measure()["ada"]["l1"]
    trainer.objective.config = LossConfig(l1=1e3, dssim=1e3, gradient=1e3)
    trainer.step(0.3)
    trainer.objective.config = LossConfig()
    for _ in range(5):
        trainer.step(0.3)
    assert trainer.measure()["ada"]["l1"] < before * 1.5


def draw_nothing(trainer, calls):
    """Let the network draw NaN in its next ``calls`` passes."""
    left = [calls]

    def hook(module, inputs, output):
        left[0] -= 1
        return output * float("nan") if left[0] >= 0 else output

    return trainer.model.decoders[0].register_forward_hook(hook)


def test_a_mask_of_nan_is_a_loss_of_nan_and_no_crash():
    torch.manual_seed(0)
    mask, target = torch.rand(2, 1, 8, 8), torch.rand(2, 1, 8, 8).round()
    assert mask_loss(mask, target) == pytest.approx(torch.nn.functional.binary_cross_entropy(mask, target))
    assert mask_loss(target, target) == pytest.approx(0, abs=1e-5)
    assert mask_loss(1 - target, target) == pytest.approx(13.8, abs=0.1)
    assert mask_loss(mask * float("nan"), target).isnan()


@pytest.mark.parametrize("losses", [LossConfig(), CRITIC])
def test_a_network_that_draws_nan_once_costs_a_step(people, tmp_path, losses):
    trainer = make(people, tmp_path / "run", losses=losses)
    assert trainer.model.config.draw_mask
    trainer.step(0.5)
    state = [p.detach().clone() for network in trainer.networks.values() for p in network.parameters()]
    hook = draw_nothing(trainer, 1)
    trainer.step(0.5)
    after = [p for network in trainer.networks.values() for p in network.parameters()]
    n_averaged = len(trainer.averaged)
    moved = sum(not torch.equal(a, b) for a, b in zip(state, after))
    assert moved <= n_averaged  # the average goes on towards the weights, which stay
    assert all(torch.equal(a, b) for a, b in zip(state, trainer.model.parameters()))
    assert all(p.isfinite().all() for p in after)
    assert trainer.recovery.bad.tolist() == [1, 1]
    trainer.step(0.5)
    hook.remove()
    assert trainer.recovery.bad.tolist() == [0, 1]


def test_a_network_that_keeps_drawing_nan_goes_back_and_trains_on(people, tmp_path):
    trainer = make(people, tmp_path / "run")
    saved = [p.detach().clone() for p in trainer.model.parameters()]
    trainer.step(0.5)
    draw_nothing(trainer, BAD_STEPS)
    for _ in range(BAD_STEPS):
        trainer.step(0.5)
    trainer._log(0.5)
    assert trainer.recovery.rate == 0.5
    assert all(torch.equal(a, b) for a, b in zip(saved, trainer.model.parameters()))
    trainer.step(0.5)
    assert trainer.recovery.bad.tolist() == [0, BAD_STEPS]


def test_a_pretraining_skips_such_steps_and_goes_back_too(tmp_path, monkeypatch):
    trainer = Pretrainer(drawn_crowd(), tmp_path / "base", TINY, pretrain_config(steps=40))
    saved = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    left, real = [BAD_STEPS + 1], trainer.model.decoder.forward

    def forward(*args):
        left[0] -= 1
        return real(*args) * (float("nan") if 0 <= left[0] < BAD_STEPS else 1)

    monkeypatch.setattr(trainer.model.decoder, "forward", forward)
    trainer.step(0.5)
    moved = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    assert not equal(saved, moved)
    for _ in range(BAD_STEPS):
        trainer.step(0.5)
    assert equal(moved, trainer.model.state_dict())
    assert trainer.recovery.is_due()
    trainer.tell(trainer.recovery.go_back(trainer._load_state()[1]["step"]))
    assert equal(saved, trainer.model.state_dict())
    assert "half the rate" in read_log(tmp_path / "base")[-1]["event"]
    trainer.step(1.0)
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(trainer.config.lr * 0.5 * 0.02)
    trainer.save()
    assert Pretrainer(drawn_crowd(), tmp_path / "base", TINY, pretrain_config(steps=40)).recovery.rate == 0.5
