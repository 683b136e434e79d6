import math
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from drawn_people import drawn_faceset
from training import equal, read_log, stop_after, weights

from fslab.consent import Consent
from fslab.dataset import DataConfig
from fslab.errors import ConsentError, FaceSetError, RunError
from fslab.faceset import FaceSet
from fslab.losses import LossConfig
from fslab.model import ModelConfig
from fslab.run import Run, load_tensors
from fslab.schedule import TrainConfig
from fslab.train import Trainer, TrainHooks, train

MODEL = ModelConfig(size=32, width=8, latent_channels=16, blocks=1)
CONFIG = TrainConfig(steps=6, batch=4, device="cpu")


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    folder = tmp_path_factory.mktemp("people")
    return [drawn_faceset(folder / name, name) for name in ("ada", "dan")]


def make_trainer(people, folder, **changes):
    return Trainer(people, folder, MODEL, replace(CONFIG, **changes), torch.device("cpu"))


# Learning


def test_training_learns_to_draw_both_people(people, tmp_path):
    """Sixty steps halve the loss of the first ten, and each decoder draws its own person's skin."""
    config = replace(CONFIG, steps=60, batch=8, lr=3e-3, measure_every=1e-9)
    run = train(people, tmp_path / "run", MODEL, config)
    scores = [row["held_out"] for row in read_log(run.folder) if "held_out" in row]
    for name in ("ada", "dan"):
        assert scores[-1][name]["l1"] < 0.6 * scores[0][name]["l1"]
    trainer_input = torch.from_numpy(people[0].crops(32)).permute(0, 3, 1, 2).float() / 255
    drawn = {n: run.model(trainer_input, n)[0][:, :, 10:20, 10:22].mean() for n in run.identities}
    assert drawn["ada"] > drawn["dan"] + 0.1


def test_a_finished_run_holds_all_that_a_swap_needs(people, tmp_path):
    run = train(people, tmp_path / "run", MODEL, CONFIG)
    assert run.finished
    assert run.step == 6
    loaded = Run.load(run.folder)
    assert loaded.identities == ["ada", "dan"]
    assert loaded.coverage == 0.58
    assert loaded.finished
    assert loaded.facesets["ada"]["faces"] == 40
    assert loaded.facesets["ada"]["sources"] == {"ada.mp4": "0" * 64}
    assert loaded.consents["dan"].person == "dan"
    for faceset in people:
        assert loaded.embeddings[faceset.identity] == pytest.approx(faceset.embedding(), abs=1e-4)
    assert (run.folder / "previews").is_dir()


def test_the_log_tells_steps_losses_rates_and_held_out_scores(people, tmp_path):
    run = train(people, tmp_path / "run", MODEL, CONFIG)
    rows = read_log(run.folder)
    losses, scores = [r for r in rows if "loss" in r], [r for r in rows if "held_out" in r]
    assert losses[-1]["step"] == scores[-1]["step"] == 6
    assert set(losses[-1]["loss"]) == set(scores[-1]["held_out"]) == {"ada", "dan"}
    assert losses[-1]["lr"] > 0
    assert losses[-1]["faces_per_second"] > 0
    assert 0 <= scores[-1]["held_out"]["ada"]["ssim"] <= 1


def test_hooks_are_called_with_where_training_is(people, tmp_path):
    steps, previews = [], []
    hooks = TrainHooks(on_step=steps.append, on_preview=lambda run, path: previews.append((run.step, path)))
    run = train(people, tmp_path / "run", MODEL, replace(CONFIG, preview_every=1e-9), hooks)
    assert steps[-1].step == 6
    assert steps[-1].progress == 1
    assert steps[-1].budget_seconds == pytest.approx(steps[-1].seconds)
    assert math.isfinite(steps[-1].loss)
    assert [step for step, _ in previews] == [1, 2, 3, 4, 5, 6]
    assert previews[-1][1] == run.folder / "previews" / "0000006.jpg"


def test_a_time_budget_ends_training_in_time(people, tmp_path):
    run = train(people, tmp_path / "run", MODEL, replace(CONFIG, steps=None, budget="1s"))
    assert run.finished
    assert run.seconds >= 1
    assert run.step > 1


def test_three_people_share_one_encoder(people, tmp_path):
    eve = drawn_faceset(tmp_path / "eve", "eve")
    run = train([*people, eve], tmp_path / "run", MODEL, CONFIG)
    assert Run.load(run.folder).identities == ["ada", "dan", "eve"]


def test_the_learning_rate_follows_the_schedule(people, tmp_path):
    trainer = Trainer(people, tmp_path / "run", MODEL, replace(CONFIG, lr=1e-3, warmup=0.5), torch.device("cpu"))
    trainer.step(0.25)
    assert trainer.optimizers["optimizer"].param_groups[0]["lr"] == pytest.approx(0.5e-3)


def test_a_pretrained_backbone_learns_slowly_or_not_at_all(people, tmp_path):
    model = replace(MODEL, size=64, encoder="timm:mobilenetv2_100")

    def moved(share, name):
        config = replace(CONFIG, encoder_lr=share, steps=2, batch=2)
        trainer = Trainer(people, tmp_path / name, model, config, torch.device("cpu"))
        before = trainer.model.encoder.net.conv_stem.weight.detach().clone()
        code = trainer.model.encoder.code.weight.detach().clone()
        trainer.step(0.5)
        assert trainer.run.encoder_weights == "packaged"
        assert not torch.equal(code, trainer.model.encoder.code.weight)
        return (before - trainer.model.encoder.net.conv_stem.weight).abs().max().item()

    assert moved(0.0, "frozen") == 0
    assert 0 < moved(0.1, "slow") < moved(1.0, "fast")


def test_a_backbone_keeps_its_origin_when_training_goes_on(people, tmp_path, monkeypatch):
    model = replace(MODEL, size=64, encoder="timm:mobilenetv2_100")
    train(people, tmp_path / "run", model, replace(CONFIG, steps=2, batch=2), TrainHooks(should_stop=stop_after(1)))
    monkeypatch.setattr("fslab.encoders.load_pretrained", lambda *_: pytest.fail("asked for the weights again"))
    run = train(people, tmp_path / "run", model, replace(CONFIG, steps=2, batch=2))
    assert run.encoder_weights == "packaged"


def test_features_and_critics_join_in_where_they_are_switched_on(people, tmp_path):
    losses = LossConfig(perceptual=0.5, adversarial=0.05, adversarial_from=0.5)
    trainer = make_trainer(people, tmp_path / "run", losses=losses)
    critics = [p.detach().clone() for p in trainer.networks["critics"].parameters()]
    trainer.step(0.4)
    assert all(torch.equal(a, b) for a, b in zip(critics, trainer.networks["critics"].parameters()))
    trainer.step(0.6)
    assert not any(torch.equal(a, b) for a, b in zip(critics, trainer.networks["critics"].parameters()))
    assert trainer.recovery.bad.tolist() == [0, 0]
    assert not make_trainer(people, tmp_path / "plain").objective.perceptual


# Stopping and going on


def test_a_stopped_run_goes_on_bit_for_bit_as_if_it_had_not_stopped(people, tmp_path):
    model = replace(MODEL, dropout=0.2)
    config = replace(CONFIG, steps=7, losses=LossConfig(adversarial=0.01, adversarial_from=0.2, r1_every=2))
    whole = train(people, tmp_path / "whole", model, config)
    hooks = TrainHooks(should_stop=stop_after(3))
    stopped = train(people, tmp_path / "parts", model, config, hooks)
    assert not stopped.finished
    assert stopped.step == 3
    torch.rand(7)  # randomness elsewhere changes nothing
    run = train(people, tmp_path / "parts", model, config)
    assert run.finished
    assert equal(weights(whole.folder), weights(run.folder))
    assert equal(weights(whole.folder, "state.safetensors"), weights(run.folder, "state.safetensors"))


def test_training_leaves_the_callers_randomness_alone(people, tmp_path):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    train(people, tmp_path / "run", MODEL, replace(CONFIG, steps=1))
    assert torch.equal(torch.rand(1), expected)


def test_the_log_goes_on_without_gaps_or_repeats(people, tmp_path):
    train(people, tmp_path / "run", MODEL, CONFIG, TrainHooks(should_stop=stop_after(2)))
    with open(tmp_path / "run" / "log.jsonl", "a") as file:
        file.write('{"step":5,"seconds":1}\n{"step":6,"sec')  # rows after the checkpoint, as a crash leaves them
    train(people, tmp_path / "run", MODEL, CONFIG)
    steps = [row["step"] for row in read_log(tmp_path / "run")]
    assert steps == sorted(steps)
    assert steps[-1] == 6
    assert 5 not in steps


def test_a_finished_run_stays_as_it_is_until_it_gets_a_larger_budget(people, tmp_path):
    first = weights(train(people, tmp_path / "run", MODEL, CONFIG).folder)
    again = train(people, tmp_path / "run", MODEL, CONFIG)
    assert again.finished
    assert equal(first, weights(again.folder))
    longer = train(people, tmp_path / "run", MODEL, replace(CONFIG, steps=8))
    assert longer.step == 8
    assert not equal(first, weights(longer.folder))


def test_the_order_of_people_does_not_matter_when_training_goes_on(people, tmp_path):
    train(people, tmp_path / "run", MODEL, CONFIG, TrainHooks(should_stop=stop_after(1)))
    assert train(people[::-1], tmp_path / "run", MODEL, CONFIG).identities == ["ada", "dan"]


KILLED = """
import sys
from pathlib import Path
from fslab.faceset import FaceSet
from fslab.model import ModelConfig
from fslab.schedule import TrainConfig
from fslab.train import TrainHooks, train
folder, run_dir = Path(sys.argv[1]), Path(sys.argv[2])
people = [FaceSet.load(folder / name) for name in ("ada", "dan")]
model = ModelConfig(size=32, width=8, latent_channels=16)
hooks = TrainHooks(on_step=lambda s: print("step", s.step, flush=True))
train(people, run_dir, model, TrainConfig(budget="60s", batch=4, device="cpu", save_every=0.05), hooks)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_training_after_the_step_and_everything_is_saved(people, tmp_path, number):
    hooks = TrainHooks(on_preview=lambda *_: signal.raise_signal(number))
    run = train(people, tmp_path / "run", MODEL, replace(CONFIG, preview_every=1e-9), hooks)
    assert not run.finished
    assert run.step == Run.load(run.folder).step == 1
    assert load_tensors(run.folder / "state.safetensors")[1]["step"] == "1"


def test_a_second_interrupt_does_not_wait(people, tmp_path):
    def interrupt_twice(*_):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    config = replace(CONFIG, preview_every=1e-9)
    with pytest.raises(KeyboardInterrupt):
        train(people, tmp_path / "run", MODEL, config, TrainHooks(on_preview=interrupt_twice))
    assert Run.load(tmp_path / "run").step == 1


def test_a_killed_training_leaves_a_checkpoint_that_loads_and_goes_on(people, tmp_path):
    command = [sys.executable, "-c", KILLED, str(people[0].folder.parent), str(tmp_path / "run")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1], env=environment
    )
    assert process.stdout.readline().startswith("step")
    time.sleep(0.35)  # it saves all the time, so the kill falls into a save as often as not
    process.kill()
    process.communicate()
    Run.load(tmp_path / "run")
    trained = int(load_tensors(tmp_path / "run" / "state.safetensors")[1]["step"])
    config = replace(CONFIG, steps=trained + 2)
    run = train(people, tmp_path / "run", ModelConfig(size=32, width=8, latent_channels=16), config)
    assert run.step == trained + 2


def test_signals_are_left_alone_afterwards_and_in_other_threads(people, tmp_path):
    before = signal.getsignal(signal.SIGINT)
    train(people, tmp_path / "a", MODEL, replace(CONFIG, steps=1))
    assert signal.getsignal(signal.SIGINT) is before
    done = []
    thread = threading.Thread(
        target=lambda: done.append(train(people, tmp_path / "b", MODEL, replace(CONFIG, steps=1)))
    )
    thread.start()
    thread.join()
    assert done[0].finished


def test_a_failing_hook_loses_nothing_that_was_learnt(people, tmp_path):
    def fail(run, path):
        raise OSError("no space for a picture")

    with pytest.raises(OSError, match="picture"):
        train(people, tmp_path / "run", MODEL, replace(CONFIG, preview_every=1e-9), TrainHooks(on_preview=fail))
    assert int(load_tensors(tmp_path / "run" / "state.safetensors")[1]["step"]) == 1
    assert train(people, tmp_path / "run", MODEL, CONFIG).finished


# Refusals


def test_nobody_is_trained_without_consent(people, tmp_path):
    closed = Consent("ada", "drawn", "2020-01-01", expires="2020-02-01", synthetic=True)
    with pytest.raises(ConsentError, match="ada"):
        train([replace(people[0], consent=closed), people[1]], tmp_path / "run", MODEL, CONFIG)
    assert not (tmp_path / "run").exists()


def test_face_sets_that_do_not_fit_together_are_refused(people, tmp_path):
    with pytest.raises(FaceSetError, match="two or more people"):
        train(people[:1], tmp_path / "run", MODEL, CONFIG)
    with pytest.raises(FaceSetError, match="two or more people"):
        train([people[0], people[0]], tmp_path / "run", MODEL, CONFIG)
    with pytest.raises(FaceSetError, match="coverage"):
        train([people[0], replace(people[1], coverage=0.6)], tmp_path / "run", MODEL, CONFIG)
    assert not (tmp_path / "run").exists()


def test_a_folder_with_something_else_in_it_is_left_alone(people, tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "a.txt").write_text("dear")
    with pytest.raises(RunError, match="something else"):
        train(people, tmp_path / "letters", MODEL, CONFIG)
    with pytest.raises(RunError, match="something else"):
        train(people, tmp_path / "letters" / "a.txt", MODEL, CONFIG)
    assert (tmp_path / "letters" / "a.txt").read_text() == "dear"


def test_an_empty_folder_may_become_a_run(people, tmp_path):
    (tmp_path / "run").mkdir()
    assert train(people, tmp_path / "run", MODEL, replace(CONFIG, steps=1)).finished


def test_a_run_of_others_or_of_another_shape_is_refused_with_the_difference(people, tmp_path):
    train(people, tmp_path / "run", MODEL, replace(CONFIG, steps=1))
    before = weights(tmp_path / "run", "state.safetensors")
    eve = drawn_faceset(tmp_path / "eve", "eve")
    with pytest.raises(RunError, match="ada and dan"):
        train([people[0], eve], tmp_path / "run", MODEL, CONFIG)
    with pytest.raises(RunError, match=r"width 8.*width 16"):
        train(people, tmp_path / "run", replace(MODEL, width=16), CONFIG)
    with pytest.raises(RunError, match=r"coverage 0\.58.*coverage 0\.7"):
        train([replace(p, coverage=0.7) for p in people], tmp_path / "run", MODEL, CONFIG)
    assert equal(before, weights(tmp_path / "run", "state.safetensors"))


def test_a_run_whose_checkpoints_cannot_be_read_is_never_started_afresh(people, tmp_path):
    run = train(people, tmp_path / "run", MODEL, CONFIG)
    for name in ("state.safetensors", "state.prev.safetensors"):
        (run.folder / name).write_bytes(b"rubbish")
    model = (run.folder / "model.safetensors").read_bytes()
    with pytest.raises(RunError, match="damaged"):
        train(people, tmp_path / "run", MODEL, replace(CONFIG, steps=9))
    assert (run.folder / "model.safetensors").read_bytes() == model
    assert (run.folder / "state.safetensors").read_bytes() == b"rubbish"


def test_a_damaged_newest_checkpoint_costs_only_the_steps_since_the_one_before(people, tmp_path):
    train(people, tmp_path / "run", MODEL, CONFIG, TrainHooks(should_stop=stop_after(2)))
    train(people, tmp_path / "run", MODEL, CONFIG, TrainHooks(should_stop=stop_after(2)))
    (tmp_path / "run" / "state.safetensors").write_bytes(b"rubbish")
    seen = []
    run = train(people, tmp_path / "run", MODEL, CONFIG, TrainHooks(on_step=seen.append))
    whole = train(people, tmp_path / "whole", MODEL, CONFIG)
    assert equal(weights(run.folder), weights(whole.folder))


def test_a_face_set_with_too_few_faces_is_refused_before_anything_is_made(people, tmp_path):
    few = drawn_faceset(tmp_path / "dan", "dan", n=5)
    with pytest.raises(FaceSetError, match="usable faces"):
        train([people[0], few], tmp_path / "run", MODEL, CONFIG)
    assert not (tmp_path / "run").exists()


def test_the_data_settings_reach_the_data(people, tmp_path):
    trainer = make_trainer(people, tmp_path / "run", data=DataConfig(held_out=0.25))
    assert len(trainer.held_out[0].input) == 10
    assert FaceSet.load(people[0].folder).identity == "ada"
