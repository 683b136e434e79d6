import copy
import json
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from fslab.consent import Consent
from fslab.errors import OutputError, RunError
from fslab.model import ModelConfig, SwapAutoencoder
from fslab.run import (
    Run,
    append_log,
    is_run,
    load_state,
    load_tensors,
    pack_state,
    save_state,
    save_tensors,
    trim_log,
    unpack_state,
)
from fslab.schedule import TrainConfig

CONFIG = ModelConfig(size=32, width=4, latent_channels=8)


def make_run(folder, seed=0):
    torch.manual_seed(seed)
    names = ["ada", "dan"]
    return Run(
        folder=folder,
        model=SwapAutoencoder(CONFIG, names).eval(),
        model_config=CONFIG,
        train_config=TrainConfig(budget="90s", batch=3),
        identities=names,
        coverage=0.58,
        embeddings={n: np.linspace(-1, i, 128).astype(np.float32) for i, n in enumerate(names)},
        consents={n: Consent(n, "drawn", "2026-01-01", synthetic=True) for n in names},
        facesets={n: {"faces": 40, "sources": {f"{n}.mp4": "0" * 64}, "sha256": "1" * 64} for n in names},
        step=7,
        seconds=1.5,
    )


@pytest.fixture
def saved(tmp_path):
    run = make_run(tmp_path / "run")
    run.folder.mkdir()
    run.save()
    return run


def damage(path, share=0.6):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def test_a_saved_run_loads_with_everything_it_had(saved):
    run = Run.load(saved.folder)
    x = torch.rand(1, 3, 32, 32)
    assert torch.equal(run.model(x, "dan")[0], saved.model(x, "dan")[0])
    assert not run.model.training
    assert not any(p.requires_grad for p in run.model.parameters())
    for name in ("model_config", "train_config", "identities", "coverage", "consents", "facesets", "step", "seconds"):
        assert getattr(run, name) == getattr(saved, name)
    assert not run.finished
    for name in run.identities:
        assert run.embeddings[name] == pytest.approx(saved.embeddings[name], abs=1e-4)


def test_a_folder_is_a_run_if_it_has_a_config(saved, tmp_path):
    assert is_run(saved.folder)
    assert not is_run(tmp_path)
    assert not is_run(tmp_path / "nothing")


def test_tensors_and_texts_come_back_as_written(tmp_path):
    tensors = {"a": torch.randn(3, 4), "b": torch.arange(5, dtype=torch.uint8), "c": torch.tensor(2.0)}
    save_tensors(tmp_path / "t.safetensors", tensors, {"step": "12"})
    found, metadata = load_tensors(tmp_path / "t.safetensors")
    assert metadata == {"step": "12"}
    assert set(found) == set(tensors)
    assert all(torch.equal(found[k], tensors[k]) for k in tensors)


def test_the_state_before_is_kept(tmp_path):
    for step in (1, 2, 3):
        save_state(tmp_path, {"x": torch.full((2,), float(step))}, {"step": step})
    assert load_state(tmp_path)[1]["step"] == "3"
    assert float(load_tensors(tmp_path / "state.prev.safetensors")[0]["x"][0]) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["state.prev.safetensors", "state.safetensors"]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.6, 0.999])
def test_a_damaged_state_gives_way_to_the_one_before_and_says_so(tmp_path, caplog, share):
    for step in (1, 2):
        save_state(tmp_path, {"x": torch.zeros(1000)}, {"step": step})
    damage(tmp_path / "state.safetensors", share)
    with caplog.at_level(logging.WARNING):
        assert load_state(tmp_path)[1]["step"] == "1"
    assert "step 1" in caplog.text
    assert "damaged" in caplog.text


def test_a_state_lost_between_two_renames_gives_way_to_the_one_before(tmp_path):
    for step in (1, 2):
        save_state(tmp_path, {"x": torch.zeros(4)}, {"step": step})
    (tmp_path / "state.safetensors").unlink()
    assert load_state(tmp_path)[1]["step"] == "1"


def test_where_both_states_are_damaged_nothing_is_guessed(tmp_path):
    for step in (1, 2):
        save_state(tmp_path, {"x": torch.zeros(1000)}, {"step": step})
    for name in ("state.safetensors", "state.prev.safetensors"):
        damage(tmp_path / name)
    with pytest.raises(RunError, match="damaged"):
        load_state(tmp_path)


def test_weights_that_are_not_finite_are_never_written_over_good_ones(tmp_path):
    path = tmp_path / "t.safetensors"
    save_tensors(path, {"x": torch.ones(3)}, {})
    with pytest.raises(RunError, match="not finite"):
        save_tensors(path, {"x": torch.tensor([1.0, float("nan"), 2.0])}, {})
    assert float(load_tensors(path)[0]["x"].sum()) == 3


def test_a_write_that_fails_leaves_the_old_file_and_no_rubbish(tmp_path, monkeypatch):
    path = tmp_path / "t.safetensors"
    save_tensors(path, {"x": torch.ones(3)}, {})

    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(OutputError, match="disk is full"):
        save_tensors(path, {"x": torch.zeros(3)}, {}, "t.prev.safetensors")
    monkeypatch.undo()
    assert float(load_tensors(path)[0]["x"].sum()) == 3
    assert [p.name for p in tmp_path.iterdir()] == ["t.safetensors"]


def test_a_disk_that_reads_back_other_bytes_is_noticed(tmp_path, monkeypatch):
    path = tmp_path / "t.safetensors"
    save_tensors(path, {"x": torch.ones(3)}, {})
    monkeypatch.setattr("pathlib.Path.read_bytes", lambda self: b"other")
    with pytest.raises(RunError, match="read back"):
        save_tensors(path, {"x": torch.zeros(3)}, {})
    monkeypatch.undo()
    assert float(load_tensors(path)[0]["x"].sum()) == 3


def make_parts(width=4, seed=0):
    torch.manual_seed(seed)
    model, ema = (SwapAutoencoder(replace(CONFIG, width=width), ["ada"]) for _ in range(2))
    return {"model": model, "ema": ema}, {"optimizer": torch.optim.AdamW(model.parameters(), fused=True)}


def test_networks_and_optimisers_come_back_from_their_tensors():
    networks, optimizers = make_parts()
    networks["model"](torch.rand(1, 3, 32, 32), "ada")[0].sum().backward()
    optimizers["optimizer"].step()
    tensors = pack_state(networks, optimizers)
    others = make_parts(seed=1)
    unpack_state(tensors, *others)
    again = pack_state(*others)
    assert set(again) == set(tensors)
    assert all(torch.equal(again[k], tensors[k]) for k in tensors)


def test_a_network_that_is_new_since_the_checkpoint_stays_as_it_is():
    networks, optimizers = make_parts()
    tensors = pack_state(networks, optimizers)
    networks["critics"] = torch.nn.Linear(2, 2)
    before = networks["critics"].weight.clone()
    unpack_state(tensors, networks, optimizers)
    assert torch.equal(before, networks["critics"].weight)


def test_tensors_of_another_network_are_refused():
    with pytest.raises(RunError, match="other settings"):
        unpack_state(pack_state(*make_parts(width=4)), *make_parts(width=8))


def test_a_damaged_model_is_replaced_by_the_averaged_weights_of_the_state(saved, caplog):
    model = copy.deepcopy(saved.model)
    save_state(saved.folder, pack_state({"model": model, "ema": saved.model}, {}), {})
    damage(saved.folder / "model.safetensors")
    with caplog.at_level(logging.WARNING):
        run = Run.load(saved.folder)
    x = torch.rand(1, 3, 32, 32)
    assert torch.equal(run.model(x, "ada")[0], saved.model(x, "ada")[0])
    assert "training state" in caplog.text


def test_folders_that_are_no_runs_are_refused_in_one_line(saved, tmp_path):
    with pytest.raises(RunError, match="run folder"):
        Run.load(tmp_path / "missing")
    with pytest.raises(RunError, match="run folder"):
        Run.load(tmp_path)
    (saved.folder / "model.safetensors").unlink()
    with pytest.raises(RunError, match=r"model\.safetensors") as error:
        Run.load(saved.folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda head: [], "not a run's"),
        (lambda head: {}, "not a run's"),
        (lambda head: head | {"schema": 99}, "version 99"),
        (lambda head: {k: v for k, v in head.items() if k != "coverage"}, "damaged config.json"),
        (lambda head: head | {"model": head["model"] | {"size": -3}}, "damaged config.json"),
        (lambda head: head | {"model": head["model"] | {"colour": 1}}, "damaged config.json"),
        (lambda head: head | {"train": None}, "damaged config.json"),
        (lambda head: head | {"consents": {"ada": {"person": "ada"}}}, "damaged config.json"),
        (lambda head: head | {"model": head["model"] | {"width": 8}}, "do not fit"),
    ],
)
def test_a_damaged_config_is_refused_in_one_line(saved, change, message):
    path = saved.folder / "config.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(RunError, match=message) as error:
        Run.load(saved.folder)
    assert "\n" not in str(error.value)


def test_log_rows_are_json_even_where_numbers_are_not(tmp_path):
    append_log(tmp_path, {"step": 1, "loss": {"ada": float("nan"), "dan": 0.5}})
    append_log(tmp_path, {"step": 2, "loss": {"ada": float("inf")}})
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert rows == [{"step": 1, "loss": {"ada": None, "dan": 0.5}}, {"step": 2, "loss": {"ada": None}}]


def test_a_trimmed_log_ends_at_the_checkpoint_and_loses_half_rows(tmp_path):
    trim_log(tmp_path, 5)  # nothing there, nothing to do
    for step in (1, 5, 9):
        append_log(tmp_path, {"step": step})
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write('{"step": 1')
    trim_log(tmp_path, 5)
    assert (tmp_path / "log.jsonl").read_text() == '{"step":1}\n{"step":5}\n'


# The best weights


def brighter(run, by=0.1):
    """Change the weights in memory, as training does."""
    for p in run.model.parameters():
        p.data += by


def same(a, b):
    x = torch.rand(1, 3, 32, 32)
    return torch.equal(a.model(x, "ada")[0], b.model(x, "ada")[0])


def test_a_run_loads_the_weights_that_measured_best_and_the_newest_on_request(saved):
    assert saved.keep_if_best(0.5)
    best = copy.deepcopy(saved)
    brighter(saved)
    saved.step, saved.seconds = 9, 2.5
    assert not saved.keep_if_best(0.4)
    saved.save()
    loaded, newest = Run.load(saved.folder), Run.load(saved.folder, newest=True)
    assert same(loaded, best)
    assert same(newest, saved)
    assert (loaded.step, loaded.seconds, loaded.best.score) == (7, 1.5, 0.5)
    assert (newest.step, newest.seconds, newest.best) == (9, 2.5, loaded.best)
    assert json.loads((saved.folder / "config.json").read_text())["best"] == {"step": 7, "seconds": 1.5, "score": 0.5}


def test_as_good_is_good_enough_for_newer_weights_and_nan_never_is(saved):
    assert saved.keep_if_best(0.5)
    saved.step = 8
    assert saved.keep_if_best(0.4998), "less than a thousandth apart"
    assert saved.keep_if_best(0.6)
    assert not saved.keep_if_best(float("nan"))
    assert not saved.keep_if_best(0.598)
    assert saved.best.score == 0.6


@pytest.mark.parametrize("share", [None, 0.0, 0.01, 0.6, 0.999])
def test_damaged_or_missing_best_weights_give_way_to_the_newest_with_a_warning(saved, caplog, share):
    saved.keep_if_best(0.5)
    brighter(saved)
    saved.step = 9
    saved.save()
    path = saved.folder / "best.safetensors"
    path.unlink() if share is None else damage(path, share)
    with caplog.at_level(logging.WARNING):
        loaded = Run.load(saved.folder)
    assert same(loaded, saved)
    assert loaded.step == 9
    assert "best.safetensors" in caplog.text


def test_an_old_run_without_best_weights_loads_in_silence(saved, caplog):
    head = json.loads((saved.folder / "config.json").read_text())
    del head["best"]
    (saved.folder / "config.json").write_text(json.dumps(head))
    with caplog.at_level(logging.WARNING):
        assert Run.load(saved.folder).best is None
    assert not caplog.text


def test_best_weights_outlive_a_damaged_newest_file(saved):
    saved.keep_if_best(0.5)
    (saved.folder / "model.safetensors").write_bytes(b"rubbish")
    assert same(Run.load(saved.folder), saved)
