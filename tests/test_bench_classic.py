"""The classic recipe: its published size, its learning, its clock, its checkpoints."""

import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from drawn_people import drawn_faceset

from fslab.bench import classic
from fslab.bench.classic import ClassicAutoencoder, ClassicConfig, ClassicTrainer
from fslab.errors import RunError
from fslab.swap import AlignedFace, Swapper


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    folder = tmp_path_factory.mktemp("people")
    return [drawn_faceset(folder / name, name) for name in ("ada", "dan")]


@pytest.fixture(scope="module")
def network():
    return ClassicAutoencoder(["ada", "dan"]).eval()


NARROW = ClassicConfig(width=8, batch=2, device="cpu")  # the same network, fit for a test


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_the_network_has_the_published_number_of_parameters(network):
    assert count(network.encoder) == 69_662_976
    assert [count(d) for d in network.decoders] == [6_199_747, 6_199_747]
    assert count(network) == 82_062_470


def test_every_stage_has_its_published_shape(network):
    shapes, x = [], torch.zeros(1, 3, 64, 64)
    with torch.inference_mode():
        for layer in (*network.encoder, *network.decoders[0]):
            x = layer(x)
            shapes.append(tuple(x.shape[1:]))
    assert shapes[:4] == [(128, 32, 32), (256, 16, 16), (512, 8, 8), (1024, 4, 4)]
    assert shapes[5:9] == [(1024,), (16384,), (1024, 4, 4), (512, 8, 8)]
    assert shapes[9:13] == [(256, 16, 16), (128, 32, 32), (64, 64, 64), (3, 64, 64)]
    assert 0 <= float(x.min()) <= float(x.max()) <= 1


def test_the_decoders_differ_and_the_mask_is_one_everywhere(network):
    x = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        (ada, mask), (dan, _) = network(x, "ada"), network(x, "dan")
    assert not torch.allclose(ada, dan)
    assert mask.shape == (1, 1, 64, 64)
    assert bool((mask == 1).all())


def test_the_loss_falls_and_the_run_swaps(people, tmp_path):
    trainer = ClassicTrainer(people, tmp_path, NARROW)
    losses = []
    for _ in range(6):
        trainer.generator.manual_seed(0)  # the same batch, so that only the learning makes a difference
        losses.append(trainer.step())
    assert losses == sorted(losses, reverse=True)
    square = np.array([[8, 8], [56, 8], [56, 56], [8, 56.0]])
    face = AlignedFace(np.eye(2, 3), np.zeros((64, 64, 3), np.uint8), square, square)
    (drawn,) = Swapper(trainer.run, "dan").convert([face])
    assert drawn.crop.shape == (64, 64, 3)
    assert drawn.mask.max() > 0.9


def test_a_training_is_the_same_for_the_same_seed(people, tmp_path):
    losses = [
        [ClassicTrainer(people, tmp_path, replace(NARROW, seed=seed)).step() for _ in range(2)] for seed in (0, 0, 1)
    ]
    assert losses[0] == losses[1] != losses[2]


def test_snapshots_come_at_their_moments_and_the_clock_stands_still_meanwhile(people, tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(classic.time, "perf_counter", lambda: now[0])
    trainer = ClassicTrainer(people, tmp_path, NARROW)

    def step():
        now[0] += 3.0
        trainer.run.step += 1
        return 0.0

    trainer.step = step
    seen = []
    for run in trainer.snapshots((5, 10, 20, 40)):
        seen.append((run.step, run.seconds, run.finished))
        now[0] += 1000.0  # converting and looking
    assert seen == [(2, 6.0, False), (4, 12.0, False), (7, 21.0, False), (14, 42.0, True)]
    assert not (tmp_path / "state.safetensors").exists()


def test_a_step_that_passes_several_moments_gives_one_snapshot(people, tmp_path):
    trainer = ClassicTrainer(people, tmp_path, NARROW)
    assert len(list(trainer.snapshots((1e-9, 2e-9, 3e-9)))) == 1


def test_a_stopped_training_goes_on_from_its_checkpoint(people, tmp_path):
    first = ClassicTrainer(people, tmp_path, NARROW)
    next(first.snapshots((0.1, 60)))
    first.save()
    second = ClassicTrainer(people, tmp_path, NARROW)
    assert (second.run.step, second.run.seconds) == (first.run.step, first.run.seconds)
    assert torch.equal(*(n.model.encoder[5].weight for n in (second, first)))
    assert second.step() == first.step()  # its batches go on where they were
    assert list(second.snapshots((0.01, 0.02))) == []  # moments that lie behind


def test_a_signal_ends_the_training_with_a_checkpoint(people, tmp_path):
    trainer = ClassicTrainer(people, tmp_path, NARROW)
    plain = trainer.step

    def step():
        signal.raise_signal(signal.SIGTERM)
        return plain()

    trainer.step = step
    with pytest.raises(KeyboardInterrupt):
        next(trainer.snapshots((60.0,)))
    assert ClassicTrainer(people, tmp_path, NARROW).run.step == 1


def test_checkpoints_are_written_on_the_way(people, tmp_path):
    trainer = ClassicTrainer(people, tmp_path, replace(NARROW, save_every=0.05))
    list(trainer.snapshots((0.3,)))
    assert 0 < ClassicTrainer(people, tmp_path, NARROW).run.seconds <= trainer.run.seconds


def test_a_checkpoint_of_something_else_is_refused(people, tmp_path):
    (tmp_path / "state.safetensors").write_bytes(b"not a checkpoint")
    with pytest.raises(RunError, match="damaged"):
        ClassicTrainer(people, tmp_path, NARROW)


def test_impossible_settings_are_refused():
    for wrong in ({"batch": 0}, {"width": 7}, {"lr": 0.0}):
        with pytest.raises(ValueError, match="batch"):
            ClassicConfig(**wrong)
