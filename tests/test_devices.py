import logging
from dataclasses import replace

import pytest
import torch
from drawn_people import drawn_faceset

from fslab.devices import (
    LONG,
    amp_type,
    check_device,
    choose_device,
    compile_or_not,
    half_precision,
    make_scaler,
    memory_format,
    pays_to_compile,
)
from fslab.errors import RunError
from fslab.losses import LossConfig
from fslab.model import ModelConfig, SwapAutoencoder
from fslab.run import load_tensors
from fslab.schedule import TrainConfig
from fslab.train import Trainer

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
MODEL = ModelConfig(size=32, width=8, latent_channels=16, blocks=1)
CONFIG = TrainConfig(steps=6, batch=4, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    folder = tmp_path_factory.mktemp("people")
    return [drawn_faceset(folder / name, name) for name in ("ada", "dan")]


def make(people, folder, **changes):
    torch.manual_seed(0)
    return Trainer(people, folder, MODEL, replace(CONFIG, **changes), CPU)


def steps(trainer, n=3):
    for _ in range(n):
        trainer.step(0.3)
        trainer.run.step += 1
    return [p.detach().clone() for p in trainer.model.parameters()]


def test_a_device_that_is_not_there_is_refused():
    assert choose_device("cpu") == CPU
    with pytest.raises(ValueError, match="device must be auto, cpu, cuda"):
        check_device("tpu")
    if not torch.cuda.is_available():
        with pytest.raises(RunError, match="none that torch can use"):
            choose_device("cuda")
        assert choose_device("auto").type in ("cpu", "mps")


def test_half_precision_is_taken_where_the_processor_has_it():
    able = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    fast = any(able.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16"))
    assert amp_type("auto", CPU) == (torch.bfloat16 if fast else None)
    assert amp_type("fp32", CPU) is None
    assert amp_type("bf16", CPU) is torch.bfloat16
    with pytest.raises(RunError, match="CUDA GPU for --precision fp16"):
        amp_type("fp16", CPU)


def test_the_context_computes_in_the_type_that_was_chosen():
    conv, x = torch.nn.Conv2d(3, 4, 3), torch.rand(1, 3, 8, 8)
    with half_precision(CPU, torch.bfloat16):
        assert conv(x).dtype is torch.bfloat16
    with half_precision(CPU, None):
        assert conv(x).dtype is torch.float32


# Layout


def test_pictures_lie_channels_last_on_cuda_alone():
    assert memory_format(CUDA) is torch.channels_last
    assert memory_format(CPU) is torch.contiguous_format


def test_channels_last_changes_the_layout_and_nothing_else(people, tmp_path, monkeypatch):
    """What CUDA does, on a CPU: the same weights, a checkpoint that either layout goes on from."""
    plain = make(people, tmp_path / "plain")
    monkeypatch.setattr("fslab.learner.memory_format", lambda _: torch.channels_last)
    last = make(people, tmp_path / "last")
    assert last.model.encoder.conv1.weight.stride()[1] == 1
    for a, b in zip(steps(plain), steps(last)):
        assert torch.allclose(a, b, atol=1e-4)
    last.save(last.run.folder)
    stored = load_tensors(last.run.folder / "state.safetensors")[0]
    assert torch.equal(stored["model/encoder.conv1.weight"], last.model.encoder.conv1.weight.contiguous())
    again = make(people, tmp_path / "last")
    for p, slots in again.optimizers["optimizer"].state.items():  # fused steps mix elements up where these differ
        assert slots["exp_avg"].stride() == p.stride()
    for a, b in zip(steps(last, 1), steps(again, 1)):
        assert torch.equal(a, b)
    monkeypatch.undo()
    moved = make(people, tmp_path / "last")
    assert moved.model.encoder.conv1.weight.is_contiguous()
    for a, b in zip(steps(again, 0), steps(moved, 1)):
        assert torch.allclose(a, b, atol=1e-4)


# Loss scaling


def test_losses_are_scaled_in_float16_alone():
    assert not make_scaler(CPU, None).is_enabled()
    assert not make_scaler(CPU, torch.bfloat16).is_enabled()
    assert make_scaler(CPU, torch.float16).is_enabled()


def test_scaling_the_loss_by_a_power_of_two_changes_nothing(people, tmp_path):
    plain, scaled = (make(people, tmp_path / n) for n in ("plain", "scaled"))
    scaled.scaler = make_scaler(CPU, torch.float16, 2.0**12)
    for a, b in zip(steps(plain), steps(scaled)):
        assert torch.allclose(a, b, atol=1e-6)
    assert scaled.recovery.bad.tolist() == [0, 0]
    scaled.save(scaled.run.folder)
    assert load_tensors(scaled.run.folder / "state.safetensors")[1]["scale"] == str(2.0**12)


def test_a_scale_that_is_too_high_is_halved_and_is_no_fault_of_the_numbers(people, tmp_path):
    trainer = make(people, tmp_path / "run", losses=LossConfig(l1=1e3))
    trainer.scaler = make_scaler(CPU, torch.float16, 2.0**127)
    before = [p.detach().clone() for p in trainer.model.parameters()]
    trainer.step(0.3)
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.model.parameters()))
    assert trainer.scaler.get_scale() == 2.0**126
    assert trainer.recovery.bad.tolist() == [0, 0]
    trainer.model.decoders[0].register_forward_hook(lambda *a: a[2] * float("nan"))
    trainer.step(0.3)
    assert trainer.recovery.bad.tolist() == [1, 1]  # this is
    trainer.scaler = make_scaler(CPU, torch.float16, 0.5)  # no scale helps
    trainer._log(0.3)
    assert trainer.recovery.rate == 0.5


# Compiling


def test_compiling_is_for_long_trainings_on_cuda_or_where_it_is_asked_for():
    assert pays_to_compile("auto", CUDA, LONG)
    assert not pays_to_compile("auto", CUDA, 600.0)
    assert not pays_to_compile("auto", CUDA, None)
    assert not pays_to_compile("auto", CPU, 1e6)
    assert pays_to_compile("on", CPU, 60.0)
    assert not pays_to_compile("off", CUDA, 1e6)


def test_a_compiled_function_gives_the_same_and_leaves_random_numbers_alone():
    model = SwapAutoencoder(MODEL, ["ada", "dan"])
    x = torch.rand(2, 3, 32, 32)
    state = torch.get_rng_state()
    compiled = compile_or_not(lambda x: model(x, "dan"), [x], backend="eager")
    assert torch.equal(torch.get_rng_state(), state)
    for a, b in zip(compiled(x), model(x, "dan")):
        assert torch.allclose(a, b, atol=1e-6)


def test_where_compiling_fails_training_goes_on_without_and_says_so(people, tmp_path, caplog, monkeypatch):
    def no_compiler(*_):
        raise OSError("no C++ compiler")

    monkeypatch.setattr("fslab.learner.compile_or_not", lambda f, x: compile_or_not(f, x, backend=no_compiler))
    with caplog.at_level(logging.WARNING):
        trainer = make(people, tmp_path / "run", compile="on")
    assert "torch.compile does not work here" in caplog.text
    assert trainer.draw == trainer._draw
    plain = make(people, tmp_path / "plain")
    for a, b in zip(steps(plain, 2), steps(trainer, 2)):
        assert torch.equal(a, b)


def test_a_compiled_training_takes_the_same_steps(people, tmp_path, monkeypatch):
    monkeypatch.setattr("fslab.learner.compile_or_not", lambda f, x: compile_or_not(f, x, backend="eager"))
    compiled = make(people, tmp_path / "run", compile="on", micro_batch=2)
    assert compiled.draw != compiled._draw
    assert compiled.run.seconds > 0  # the time it takes is part of the budget
    for a, b in zip(steps(make(people, tmp_path / "plain")), steps(compiled)):
        assert torch.allclose(a, b, atol=1e-4)


def test_a_device_that_is_not_there_is_never_replaced_silently():
    assert choose_device("cpu").type == "cpu"
    assert choose_device("auto").type in ("cpu", "cuda", "mps")
    with pytest.raises(ValueError, match="device"):
        choose_device("quantum")
    if not torch.cuda.is_available():
        with pytest.raises(RunError, match="--device cpu"):
            choose_device("cuda")
