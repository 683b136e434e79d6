"""The search over settings: what it varies and calls better, one study for several processes, what a stop leaves."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from drawn_people import drawn_faceset

import fslab.schedule
from fslab import study
from fslab.cli import main
from fslab.consent import Consent
from fslab.errors import ConsentError, OutputError, RunError
from fslab.media import read_image
from fslab.model import ModelConfig
from fslab.run import Run
from fslab.schedule import TrainConfig
from fslab.search import DIALS, TuneConfig, describe_row, flatten, held_out_score
from fslab.swap import Swapper
from fslab.tune import TuneHooks, search_settings

MODEL = ModelConfig(size=32, width=8, latent_channels=8)
CONFIG = TrainConfig(steps=3, batch=4, device="cpu")
SMALL = ["--size", "32", "--width", "8", "--latent-channels", "8", "--batch", "4", "--device", "cpu"]
SMALL += ["--base", "none"]
SEARCH = ["--search", "lr,weight_decay"]


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    folder = tmp_path_factory.mktemp("people")
    return [drawn_faceset(folder / name, name, n=24, size=48) for name in ("ada", "dan")]


def trials_of(file):
    """Return (state, run folder) of the trials in a database, read past Optuna."""
    if not file.exists():
        return []
    query = "select state, value_json from trials left join trial_user_attributes using (trial_id) where key = 'run'"
    with sqlite3.connect(f"file:{file}?mode=ro", uri=True) as db:
        try:
            return [(state, Path(json.loads(run))) for state, run in db.execute(query + " order by number")]
        except sqlite3.OperationalError:  # no tables yet
            return []


def load(file):
    return optuna.load_study(study_name=study.NAME, storage=f"sqlite:///{file}")


# A search


@pytest.fixture(scope="module")
def searched(people, tmp_path_factory):
    """A search of three trials, its folder, and what its hooks were told."""
    folder, told = tmp_path_factory.mktemp("search") / "out", []
    hooks = TuneHooks(lambda *now: told.append(now), told.append)
    config = TuneConfig(trials=3, search="lr,weight_decay,blocks")
    return search_settings(people, folder, (MODEL, CONFIG), config, hooks), folder, told


def test_the_first_trial_is_where_the_search_starts(searched):
    result, _, _ = searched
    assert result.rows[0]["settings"] == {"lr": CONFIG.lr, "weight_decay": CONFIG.weight_decay, "blocks": MODEL.blocks}
    assert result.start_value == result.rows[0]["value"]
    assert result.finished
    assert [r["number"] for r in result.rows] == [0, 1, 2]
    assert len({r["settings"]["lr"] for r in result.rows}) == 3


def test_the_best_run_is_kept_whole_and_swaps_and_the_others_are_gone(searched):
    result, folder, _ = searched
    assert result.best["value"] == max(r["value"] for r in result.rows)
    assert [p.name for p in (folder / "trials").iterdir()] == [f"{result.best['number']:04d}"]
    run = Run.load(result.run_dir)
    assert run.finished
    assert run.step == 3
    found = flatten(run.model_config, run.train_config)
    assert {n: found[n] for n in result.best["settings"]} == result.best["settings"]
    assert run.model_config == result.configs[0]
    assert replace(run.train_config, measure_every=1.0) == replace(result.configs[1], measure_every=1.0)
    rows = [json.loads(line) for line in (result.run_dir / "log.jsonl").read_text().splitlines()]
    assert result.best["value"] in [held_out_score(row) for row in rows]
    Swapper(run, "dan")


def test_hooks_hear_of_every_trial(searched):
    result, _, told = searched
    assert [row for row in told if isinstance(row, dict)] == result.rows
    assert all(0 <= done <= total == 3 for done, total, _ in (t for t in told if isinstance(t, tuple)))
    assert "trial 0" in describe_row(result.rows[0])


def test_asking_for_no_more_changes_nothing_and_asking_for_more_goes_on(searched, people, tmp_path):
    result, folder, _ = searched
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    config = TuneConfig(trials=3, search="lr,weight_decay,blocks")
    again = search_settings(people, copy, (MODEL, CONFIG), config)
    assert again.rows == result.rows
    more = search_settings(people[::-1], copy, (MODEL, CONFIG), replace(config, trials=4))
    assert more.rows[:3] == result.rows
    assert len(more.rows) == 4


# Interruptions


def test_an_interrupted_search_goes_on_as_if_nothing_had_been(searched, people, tmp_path, monkeypatch):
    monkeypatch.setattr(fslab.schedule, "LOG_EVERY", 1e-6)  # else no word is heard of so short a trial
    result, _, _ = searched
    config = TuneConfig(trials=3, search="lr,weight_decay,blocks")

    def interrupt(done, total, note):
        if "trial 1: 33%" in note:
            os.kill(os.getpid(), signal.SIGINT)

    before = search_settings(people, tmp_path / "out", (MODEL, CONFIG), config, TuneHooks(interrupt))
    assert not before.finished
    assert [r["state"] for r in before.rows] == ["done", "broken off"]
    assert (tmp_path / "out" / "trials" / "0001" / "state.safetensors").exists()
    after = search_settings(people, tmp_path / "out", (MODEL, CONFIG), config)
    assert after.finished
    done = [r for r in after.rows if r["state"] == "done"]
    assert [r["settings"] for r in done] == [r["settings"] for r in result.rows]
    values, wanted = ([r["value"] for r in rows] for rows in (done, result.rows))
    assert values[::2] == wanted[::2]
    assert values[1] >= wanted[1]  # being stopped, it was measured once more
    assert len(list((tmp_path / "out" / "trials").iterdir())) == 1


def test_a_trial_that_another_process_took_over_is_not_counted(people, tmp_path, monkeypatch):
    monkeypatch.setattr(fslab.schedule, "LOG_EVERY", 1e-6)
    taken = []

    def take(done, total, note):
        if not taken and note.startswith("trial 0"):
            other = load(tmp_path / "out" / "study.db")
            taken.append(other.tell(0, state=optuna.trial.TrialState.FAIL))

    config = TuneConfig(trials=1, search="lr")
    result = search_settings(people, tmp_path / "out", (MODEL, CONFIG), config, TuneHooks(take))
    assert taken
    assert [r["state"] for r in result.rows] == ["broken off", "done"]
    assert result.finished


def test_settings_that_lose_all_numbers_are_given_up_with_the_reason(people, tmp_path, monkeypatch):
    monkeypatch.setattr(fslab.schedule, "LOG_EVERY", 1e-6)
    monkeypatch.setitem(DIALS, "lr", replace(DIALS["lr"], high=1e38))
    configs = (replace(MODEL, draw_mask=False), replace(CONFIG, lr=1e37, steps=100))
    result = search_settings(people, tmp_path / "out", configs, TuneConfig(trials=1, search="lr"))
    assert [r["state"] for r in result.rows] == ["given up"]
    assert "finite" in result.rows[0]["reason"]
    assert result.best is None
    assert not list((tmp_path / "out" / "trials").iterdir())


# Several processes


BEATING = "from fslab import study; study.HEARTBEAT = 1; from fslab.__main__ import main; raise SystemExit(main())"


def kill_in_a_trial(child, file, killed):
    """Kill a process in the middle of a trial, after it has finished one and once another process is at work too."""
    while child.poll() is None:
        trials = trials_of(file)
        own = {state: run for state, run in trials if run.parents[1].name == "child"}
        head = own.get("RUNNING", file) / "config.json"
        if "COMPLETE" in own and any(run.parents[1].name == "here" for _, run in trials) and head.exists():
            with suppress(OSError):  # it has just been finished and removed
                if json.loads(head.read_text())["step"] > 0:
                    child.kill()
                    killed.append(head.parent)
        time.sleep(0.02)


def test_two_processes_share_a_study_and_what_one_dies_over_the_other_trains_on(people, tmp_path, monkeypatch, capsys):
    file, killed = tmp_path / "shared.db", []
    args = [*(str(p.folder) for p in people), "--study", str(file), "--trials", "5", "--steps", "50"]
    args = ["tune", *args, "--save-every", "0.05", *SMALL, *SEARCH, "--out"]
    output = tmp_path / "child.txt"
    with open(output, "w") as sink:
        command = [sys.executable, "-c", BEATING, *args, str(tmp_path / "child")]
        child = subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT)
    while not trials_of(file):
        assert child.poll() is None, output.read_text()
        time.sleep(0.05)
    killer = threading.Thread(target=kill_in_a_trial, args=(child, file, killed))
    killer.start()
    monkeypatch.setattr(study, "HEARTBEAT", 1)
    monkeypatch.setattr(study, "GRACE", 5)
    try:
        assert main([*args, str(tmp_path / "here")]) == 0
    finally:
        child.kill()
        killer.join()
    assert killed, output.read_text()
    trials = load(file).trials
    done = [t for t in trials if t.state.name == "COMPLETE"]
    (dead,) = [t for t in trials if t.state.name == "FAIL"]
    assert len(done) == 5
    assert len(trials) == 6
    assert {Path(t.user_attrs["run"]).parents[1].name for t in done} == {"here", "child"}
    assert len({t.params["lr"] for t in done}) == 5
    (again,) = [t for t in done if t.user_attrs.get("deaths") == 1]
    assert again.params == dead.params
    assert again.user_attrs["steps"] == 50
    assert Path(dead.user_attrs["run"]) == killed[0]
    assert not killed[0].exists()  # moved, checkpoint and all
    best = max(done, key=lambda t: t.value)
    assert Run.load(Path(best.user_attrs["run"])).step > 0
    found = json.loads((tmp_path / "here" / "tune.json").read_text())
    assert found["best"]["number"] == best.number
    assert found["finished"]
    assert (found["run"] is None) == (Path(best.user_attrs["run"]).parents[1].name == "child")
    assert found["command"].startswith("fslab train ")
    assert found["command"] in capsys.readouterr().out


def test_a_trial_that_kills_its_process_again_and_again_is_left_alone():
    made = optuna.create_study()
    for _ in range(study.RETRIES + 2):
        trial = made.ask()
        trial.suggest_float("x", 0, 1)
        made.tell(trial, state=optuna.trial.TrialState.FAIL)
        study.after_death(made, made.trials[trial.number])
    values = [t.params["x"] for t in made.trials if "x" in t.params]
    assert values[: study.RETRIES + 1] == [values[0]] * (study.RETRIES + 1)
    assert values[study.RETRIES + 1] != values[0]


# Refusals


def complaint(capsys, *args):
    try:
        code = main([str(a) for a in args])
    except SystemExit as stop:  # the parser's own refusal
        code = stop.code
    err = capsys.readouterr().err
    assert code == 2, err
    assert "Traceback" not in err
    return " ".join(err.split())


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--trials", "0"], "trials must be >= 1, got 0"),
        (["--search", "lr,colour_of_hair"], "got 'colour_of_hair'"),
        (["--search", ""], "got ''"),
        (["--search", "lr", "--lr", "0.5"], "lr must start within 5e-05 to 0.01, got 0.5"),
        (["--budget", "soon"], "duration"),
        (["--study", "nosuchdb://here/study"], "no such database"),
        (["--study", "{}/missing/study.db"], "make its folder first"),
        (["--device", "cuda:9"], "fslab doctor"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(capsys, people, tmp_path, args, words):
    args = [a.format(tmp_path) for a in args]
    folders = [p.folder for p in people]
    assert words in complaint(capsys, "tune", *folders, "--out", tmp_path / "out", *SMALL, *SEARCH, *args)


def refuse(people, folder, match, configs=(MODEL, CONFIG), error=RunError, **changes):
    config = TuneConfig(**{"trials": 4, "search": "lr,weight_decay,blocks"} | changes)
    with pytest.raises(error, match=match):
        search_settings(people, folder, configs, config)


def test_a_study_of_something_else_is_refused(searched, people, tmp_path):
    folder = searched[1]
    before = (folder / "study.db").read_bytes()
    eve = drawn_faceset(tmp_path / "eve", "eve", n=24, size=48)
    other = drawn_faceset(tmp_path / "dan", "dan", n=25, size=48)
    refuse([people[0], eve], folder, "a study of ada and eve .*, found one of ada and dan")
    refuse([people[0], other], folder, "found one of other faces of ada and dan")
    refuse(people, folder, "searches lr, blocks, found one that searches lr, weight_decay, blocks", search="lr,blocks")
    refuse(people, folder, "with steps 4, found one with steps 3", (MODEL, replace(CONFIG, steps=4)))
    refuse(people, folder, "with width 16, found one with width 8", (replace(MODEL, width=16), CONFIG))
    assert (folder / "study.db").read_bytes() == before


def test_a_damaged_database_is_refused_and_left_alone(people, tmp_path):
    (tmp_path / "study.db").write_bytes(b"this is no database, " * 100)
    refuse(people, tmp_path / "out", "damaged", study=str(tmp_path / "study.db"))
    assert (tmp_path / "study.db").read_bytes() == b"this is no database, " * 100


def test_a_locked_database_is_refused(searched, people, tmp_path, monkeypatch):
    monkeypatch.setattr(study, "LOCK_WAIT", 0.2)
    file = tmp_path / "study.db"
    file.write_bytes((searched[1] / "study.db").read_bytes())
    with sqlite3.connect(file, isolation_level=None) as db:
        db.execute("begin exclusive")
        refuse(people, tmp_path / "out", "keeps locked", study=f"sqlite:///{file}")
        db.execute("rollback")


def test_without_consent_nothing_is_made(people, tmp_path):
    late = Consent("eve", "drawn, nobody real", "2020-01-01", expires="2020-02-01", synthetic=True)
    eve = drawn_faceset(tmp_path / "eve", "eve", n=24, size=48, consent=late)
    refuse([people[0], eve], tmp_path / "out", "consent", error=ConsentError)
    assert not (tmp_path / "out").exists()


def test_a_folder_with_other_things_is_refused(people, tmp_path):
    (tmp_path / "photo.txt").write_text("mine")
    refuse(people, tmp_path, "other things", error=OutputError)
    assert [p.name for p in tmp_path.iterdir()] == ["photo.txt"]


def test_without_optuna_it_says_how_to_get_it(capsys, people, tmp_path, monkeypatch):
    for name in [n for n in sys.modules if n.split(".")[0] == "optuna" or n in ("fslab.tune", "fslab.study")]:
        monkeypatch.setitem(sys.modules, name, None if name == "optuna" else sys.modules[name])
    for name in ("fslab.tune", "fslab.study", "fslab.tune_report"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    line = complaint(capsys, "tune", *(p.folder for p in people), "--out", tmp_path / "out", "--trials", "1")
    assert "pip install 'fslab[tune]'" in line
    assert not (tmp_path / "out").exists()


# The report


def test_the_report_says_it_in_json_and_in_a_picture(searched, tmp_path):
    from fslab.tune_report import plot_search, write_tune_report

    result, _, _ = searched
    out = result.run_dir.parents[1]
    write_tune_report(result, out, "fslab train ...")
    found = json.loads((out / "tune.json").read_text())
    assert found["trials"] == result.rows
    assert found["run"] == f"trials/{result.best['number']:04d}"
    assert found["importance"] == {}
    assert read_image(out / "tune.png").shape == (546, 1300, 3)
    left, right = plot_search(replace(result, importance={"lr": 0.7, "blocks": 0.3})).axes
    assert [t.get_text() for t in right.get_yticklabels()] == ["blocks", "lr"]
    assert [bar.get_width() for bar in right.patches] == [0.3, 0.7]
    assert {t.get_text() for t in left.get_legend().get_texts()} == {"done", "best so far", "start"}
