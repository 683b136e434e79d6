"""Nothing is lost: kills, damaged files, numbers that go wrong, memory that runs out."""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from drawn_people import drawn_faceset
from test_pretrain import TINY, drawn_crowd
from test_pretrain import config as pretrain_config
from training import equal, read_log, stop_after, weights

from fslab.devices import MicroBatch, in_pieces, is_out_of_memory
from fslab.errors import RunError
from fslab.faceset import FaceSet
from fslab.losses import LossConfig
from fslab.model import ModelConfig
from fslab.pretrain import Pretrainer
from fslab.run import Run, load_tensors, save_state, save_tensors
from fslab.schedule import TrainConfig
from fslab.train import Trainer, TrainHooks, train

CPU, STATE = torch.device("cpu"), "state.safetensors"
MODEL = ModelConfig(size=32, width=8, latent_channels=16, blocks=1)
CONFIG = TrainConfig(steps=6, batch=4, device="cpu", precision="fp32")
CRITIC = LossConfig(adversarial=0.01, adversarial_from=0.2, r1_every=2)


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    folder = tmp_path_factory.mktemp("people")
    return [drawn_faceset(folder / name, name) for name in ("ada", "dan")]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A base as small as the network, after two steps."""
    folder = tmp_path_factory.mktemp("base")
    shape = replace(MODEL, draw_mask=True)
    trainer = Pretrainer(drawn_crowd(), folder / "base", shape, pretrain_config(coverage=0.58))
    trainer.step(0.5)
    trainer.measure()
    return str(folder / "base" / "base.safetensors")


def make(people, folder, **changes):
    torch.manual_seed(0)
    return Trainer(people, folder, MODEL, replace(CONFIG, **changes), CPU)


# Kills


KILLED = """
import sys
from pathlib import Path
from fslab.faceset import FaceSet
from fslab.model import ModelConfig
from fslab.schedule import TrainConfig
from fslab.train import TrainHooks, train
people = [FaceSet.load(Path(sys.argv[1]) / name) for name in ("ada", "dan")]
config = TrainConfig(steps=int(sys.argv[3]), batch=4, device="cpu", precision="fp32", save_every=0.02)
hooks = TrainHooks(on_step=lambda s: print("step", s.step, flush=True))
train(people, Path(sys.argv[2]), ModelConfig(size=32, width=8, latent_channels=16, blocks=1), config, hooks)
"""


@pytest.fixture
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_one_thread")
def test_a_training_killed_amid_its_saves_ends_with_the_weights_of_one_that_was_not(people, tmp_path):
    command = [sys.executable, "-c", KILLED, str(people[0].folder.parent), str(tmp_path / "run"), "100000"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1], env=environment
    )
    assert process.stdout.readline().startswith("step")
    done, until = 0, time.monotonic() + 120
    while done == 0 and time.monotonic() < until:  # it saves most of the time, and is read amid that: always whole
        done = int(load_tensors(tmp_path / "run" / "state.safetensors")[1]["step"])
    process.kill()
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    Run.load(tmp_path / "run", newest=True)
    done = int(load_tensors(tmp_path / "run" / "state.safetensors")[1]["step"])  # the name is always there
    assert done > 0
    config = replace(CONFIG, steps=100000, save_every=0.02)  # the same rates as before the kill
    people = [FaceSet.load(p.folder) for p in people]  # as the other process did: on disk, meshes are rounded
    run = train(people, tmp_path / "run", MODEL, config, TrainHooks(should_stop=stop_after(3)))
    assert not list(run.folder.glob(".*"))
    assert run.step == done + 3
    whole = train(people, tmp_path / "whole", MODEL, config, TrainHooks(should_stop=stop_after(done + 3)))
    assert equal(weights(run.folder, STATE), weights(whole.folder, STATE))
    rows = read_log(run.folder)
    assert [r["step"] for r in rows] == sorted(r["step"] for r in rows)


@pytest.mark.parametrize("call", ["link", "replace"])
def test_a_kill_between_any_two_renames_leaves_a_whole_newest_and_a_whole_state_before(tmp_path, monkeypatch, call):
    """The process dies at each call that touches names, one after the other."""
    real, dead = getattr(os, call), []

    class Killed(BaseException):
        pass

    for death in range(3):
        folder = tmp_path / str(death)
        folder.mkdir()
        for step in (1, 2):
            save_state(folder, {"x": torch.full((3,), float(step))}, {"step": step})
        calls = iter(range(10))

        def die(*names, calls=calls, death=death):
            if next(calls) == death:
                monkeypatch.setattr("pathlib.Path.unlink", lambda *_, **__: None)  # the dead tidy nothing up
                dead.append(death)
                raise Killed
            real(*names)

        with monkeypatch.context() as patch:
            patch.setattr(os, call, die)
            with contextlib.suppress(Killed):
                save_state(folder, {"x": torch.full((3,), 3.0)}, {"step": 3})
        monkeypatch.undo()
        newest = int(load_tensors(folder / "state.safetensors")[1]["step"])
        before = int(load_tensors(folder / "state.prev.safetensors")[1]["step"])
        assert (newest, before) in [(2, 1), (3, 1), (3, 2)]
    assert dead == ([0, 1] if call == "replace" else [0])


def test_disks_without_second_names_for_files_keep_the_state_before_too(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    for step in (1, 2):
        save_state(tmp_path, {"x": torch.full((3,), float(step))}, {"step": step})
    assert load_tensors(tmp_path / "state.prev.safetensors")[1]["step"] == "1"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["state.prev.safetensors", "state.safetensors"]


# Stopping and going on


@pytest.mark.parametrize(
    "changes",
    [
        {"losses": CRITIC},
        {"optimizer": "adam"},
        {"optimizer": "sgd", "lr": 0.1},
        {"optimizer": "muon"},
        {"base": "tiny"},
        {"disguise": 0.5, "disguise_from": 0.0},
        {"micro_batch": 1},
        {"precision": "bf16"},
    ],
    ids=lambda c: next(iter(c.values())) if isinstance(next(iter(c.values())), str) else next(iter(c)),
)
def test_stopping_and_going_on_changes_nothing_bit_for_bit(people, tmp_path, base, changes):
    config = replace(CONFIG, **changes)
    config = replace(config, base=base) if config.base != "none" else config
    whole = train(people, tmp_path / "whole", MODEL, config)
    assert train(people, tmp_path / "parts", MODEL, config, TrainHooks(should_stop=stop_after(3))).step == 3
    torch.rand(5)
    parts = train(people, tmp_path / "parts", MODEL, config)
    assert parts.finished
    assert equal(weights(whole.folder, STATE), weights(parts.folder, STATE))
    assert parts.encoder_weights == ("base" if config.base != "none" else "random")


# Damage


def test_a_single_flipped_bit_is_noticed(tmp_path):
    path = tmp_path / "t.safetensors"
    save_tensors(path, {"x": torch.ones(1000)}, {"step": "1"})
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    with pytest.raises(RunError, match="damaged"):
        load_tensors(path)


def test_files_of_others_without_a_digest_are_read(tmp_path):
    from safetensors.torch import save_file

    save_file({"x": torch.ones(3)}, tmp_path / "t.safetensors", {"by": "another"})
    assert load_tensors(tmp_path / "t.safetensors")[1] == {"by": "another"}


def test_a_damaged_newest_checkpoint_is_told_in_the_log(people, tmp_path, caplog):
    train(people, tmp_path / "run", MODEL, CONFIG, TrainHooks(should_stop=stop_after(2)))
    train(people, tmp_path / "run", MODEL, CONFIG, TrainHooks(should_stop=stop_after(2)))
    (tmp_path / "run" / "state.safetensors").write_bytes(b"rubbish")
    with caplog.at_level(logging.WARNING):
        run = train(people, tmp_path / "run", MODEL, CONFIG)
    assert "step 2" in caplog.text
    events = [row for row in read_log(run.folder) if "event" in row]
    assert [e["step"] for e in events] == [2]
    assert "damaged: going on from the one before it" in events[0]["event"]
    assert load_tensors(run.folder / "state.prev.safetensors")  # the damaged one was never kept
    assert equal(weights(run.folder, STATE), weights(train(people, tmp_path / "whole", MODEL, CONFIG).folder, STATE))


@pytest.mark.parametrize("name", ["state", "config"])
def test_nothing_starts_afresh_over_a_run_that_cannot_be_read(people, tmp_path, name):
    run = train(people, tmp_path / "run", MODEL, CONFIG)
    bad = ["config.json"] if name == "config" else ["state.safetensors", "state.prev.safetensors"]
    for file in bad:
        (run.folder / file).write_bytes(b"rubbish")
    before = {p.name: p.read_bytes() for p in run.folder.glob("*.*")}
    with pytest.raises(RunError, match=r"restore it|make it again"):
        train(people, tmp_path / "run", MODEL, replace(CONFIG, steps=9))
    assert {p.name: p.read_bytes() for p in run.folder.glob("*.*")} == before
    (run.folder / bad[0]).unlink()
    if name == "config":  # and not over what is left of it either
        with pytest.raises(RunError, match="something else"):
            train(people, tmp_path / "run", MODEL, replace(CONFIG, steps=9))


@pytest.mark.parametrize("name", ["model.safetensors", "best.safetensors"])
def test_weights_that_are_damaged_are_made_again_from_the_state_and_not_from_nothing(people, tmp_path, caplog, name):
    run = train(people, tmp_path / "run", MODEL, CONFIG, TrainHooks(should_stop=stop_after(4)))
    (run.folder / name).write_bytes(b"rubbish")
    with caplog.at_level(logging.WARNING):
        loaded = Run.load(run.folder)
    assert ("damaged" in caplog.text) == (name == "best.safetensors")  # else the best are read, which are whole
    assert all(torch.isfinite(p).all() for p in loaded.model.parameters())
    again = train(people, tmp_path / "run", MODEL, CONFIG)
    assert equal(weights(again.folder, STATE), weights(train(people, tmp_path / "whole", MODEL, CONFIG).folder, STATE))
    assert load_tensors(again.folder / name)


# Memory that runs out


def run_out(*_):
    """Ask for more memory than there are addresses: the allocator's own error."""
    torch.empty(2**56, dtype=torch.uint8)


def test_the_allocators_own_error_is_known():
    with pytest.raises(RuntimeError) as info:
        run_out()
    assert is_out_of_memory(info.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    assert is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 3.0 GB)"))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("out of memory"))


def test_sizes_halve_until_they_fit_and_other_errors_are_not_touched():
    said = []
    micro = MicroBatch(12, CPU, said.append)
    assert micro.fit(lambda size: size if size <= 3 else run_out()) == 3
    assert micro.fit(lambda size: size) == 3
    assert len(said) == 2
    assert "3 faces of each person at once" in said[1]
    with pytest.raises(RunError, match=r"one face at a time.*allocate.*smaller --preset"):
        micro.fit(run_out)
    with pytest.raises(RuntimeError, match="inconsistent"):
        MicroBatch(4, CPU, said.append).fit(lambda _: torch.ones(2) @ torch.ones(3))


@pytest.mark.parametrize(("n", "size"), [(7, 3), (8, 1), (4, 4), (4, 9)])
def test_pieces_give_the_values_and_slopes_of_the_whole_with_the_same_random_numbers(n, size):
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Dropout2d(0.5))
    x = torch.rand(n, 3, 8, 8)

    def slope(size):
        torch.manual_seed(1)
        net.zero_grad()
        out, _ = in_pieces(lambda a, b: (net(a) * b, b), (x, torch.ones(n, 1, 1, 1)), size)
        kept = out.detach().clone()
        out.var().backward()  # depends on the whole batch
        return kept, net[0].weight.grad.clone()

    first, again = slope(size), slope(size)
    assert torch.equal(first[1], again[1])
    dropped = (first[0].abs().sum(dim=(2, 3)) == 0).float()
    assert 0 < dropped.mean() < 1
    if size >= n:
        assert torch.equal(slope(n)[1], first[1])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("losses", [LossConfig(), replace(CRITIC, adversarial_from=0.0, match_bin=20.0)])
def test_a_split_batch_has_the_gradient_of_the_whole(people, tmp_path, losses, precision):
    """Losses, matching of codes and critic alike: SGD shows the gradient itself."""
    changes = {"optimizer": "sgd", "lr": 0.1, "losses": losses, "batch": 6, "precision": precision}
    whole, split = (make(people, tmp_path / str(m), **changes, micro_batch=m) for m in (0, 4))
    for trainer in (whole, split):
        before = [p.detach().clone() for p in trainer.model.parameters()]
        trainer.step(0.5)
        trainer.moved = [p.detach() - b for p, b in zip(trainer.model.parameters(), before)]
    largest = max(m.abs().max() for m in whole.moved)
    for a, b in zip(whole.moved, split.moved):
        assert torch.allclose(a, b, atol=float(largest) * (1e-5 if precision == "fp32" else 2e-2))
    assert torch.allclose(whole.sums, split.sums, rtol=1e-5 if precision == "fp32" else 1e-2)
    for a, b in zip(*(t.networks.get("critics", torch.nn.Identity()).parameters() for t in (whole, split))):
        assert torch.allclose(a, b, atol=1e-6 if precision == "fp32" else 1e-3)


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_running_out_of_memory_costs_no_step_and_the_critic_steps_once(people, tmp_path, caplog, where):
    losses = replace(CRITIC, adversarial_from=0.0)
    changes = {"losses": losses, "optimizer": "sgd", "lr": 0.1}
    trainer, calm = (make(people, tmp_path / n, **changes, micro_batch=m) for n, m in (("a", 0), ("b", 2)))
    before = [p.detach().clone() for p in calm.model.parameters()]
    limit = 2 * len(people)  # faces in one pass

    if where == "forward":
        trainer.model.encoder.register_forward_pre_hook(lambda _, args: run_out() if len(args[0]) > limit else None)
    else:
        trainer.model.encoder.register_full_backward_hook(
            lambda _, into, out: run_out() if len(out[0]) > limit else None
        )
    with caplog.at_level(logging.WARNING):
        for t in (trainer, calm):
            t.step(0.5)
            t.run.step += 1
    assert "2 faces of each person at once" in caplog.text
    assert [r["event"][:13] for r in read_log(tmp_path / "a")] == ["out of memory"]
    critics = trainer.optimizers["critic_optimizer"].state.values()
    assert {float(slots["step"]) for slots in critics} == {1.0}
    moved = max(float((a - b).abs().max()) for a, b in zip(before, calm.model.parameters()))
    for a, b in zip(trainer.model.parameters(), calm.model.parameters()):
        assert torch.allclose(a, b, atol=0.05 * moved)  # the critics' spectral norms were estimated once more
    trainer.save(trainer.run.folder)
    assert make(people, tmp_path / "a", **changes).micro.size == 2  # known the next time


def test_too_little_memory_for_one_face_ends_training_with_a_sentence_and_everything_saved(people, tmp_path):
    trainer = make(people, tmp_path / "run")
    trainer.step(0.5)
    trainer.model.encoder.register_forward_pre_hook(run_out)
    with pytest.raises(RunError, match=r"enough memory on 'cpu' for one face at a time.*--batch"):
        trainer.step(0.5)
    assert Run.load(tmp_path / "run").step == 0


def test_pretraining_halves_too(tmp_path):
    trainer = Pretrainer(drawn_crowd(), tmp_path / "base", TINY, pretrain_config(batch=6))
    trainer.model.encoder.register_forward_pre_hook(lambda _, args: run_out() if len(args[0]) > 3 else None)
    assert trainer.step(0.5).isfinite()
    assert trainer.micro.size == 3
