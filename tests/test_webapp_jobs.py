"""The line of jobs, with the real command line in it: extract, train, stop, go on, and everything that can die."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import psutil
import pytest

from fslab.errors import FslabError
from fslab.run import Run, is_run
from fslab.samples import sample_path
from fslab.webapp.folders import forget, new_visitor, sweep
from fslab.webapp.jobs import JobBook
from fslab.webapp.records import JOB, STATUS, Record, Status
from fslab.webapp.settings import AppSettings

PATIENCE = 90.0  # seconds; a busy machine needs longer than an idle one, and none waits without end
CONSENT = str(sample_path("consents/ada.json"))


@pytest.fixture
def settings(tmp_path):
    return AppSettings(home=tmp_path, min_free_mb=0, max_jobs_queued=2, max_jobs_visitor=2)


@pytest.fixture
def visitor(settings, facesets):
    """Somebody whose two people are extracted."""
    who = new_visitor(settings)
    for name, faceset in facesets.items():
        shutil.copytree(faceset.folder, who.people / name)
    return who


@pytest.fixture
def books():
    """Open job books on demand, and close them."""
    opened = []

    def make(settings):
        opened.append(JobBook(settings))
        return opened[-1]

    yield make
    for book in opened:
        for record in book._records.values():  # no test is worth waiting for a training to be saved
            for process in [psutil.Process(record.pid)] if record.pid and psutil.pid_exists(record.pid) else ():
                process.kill()
        book.close()


def train_argv(who, **more):
    flags = [word for name, value in more.items() for word in (f"--{name}", str(value))]
    return ["train", who.people / "ada", who.people / "dan", "--out", who.runs / "run", "--budget", "1h", *flags]


def until(condition, what):
    deadline = time.monotonic() + PATIENCE
    while not (result := condition()):
        assert time.monotonic() < deadline, f"waited {PATIENCE} s for {what}"
        time.sleep(0.02)
    return result


def trained(who, n=1):
    """Say whether training has taken steps, by its own log."""
    path = who.runs / "run" / "log.jsonl"
    return path.exists() and path.read_text().count('"loss"') >= n


def test_extract_train_stop_and_go_on(books, settings, visitor, short_clips):
    book = books(settings)
    clip = shutil.copy(short_clips["ada"], visitor.uploads / "clip.mp4")
    argv = ["extract", clip, visitor.people / "again", "--identity", "ada", "--consent", CONSENT]
    extract = book.submit(visitor, "extract", "ada", argv)
    train = book.submit(visitor, "train", "ada and dan", train_argv(visitor))
    assert (train.state, train.position) == ("queued", 1)
    stages = set()
    until(lambda: stages.add((s := book.state(visitor, extract.id)).stage) or s.ended, "the extraction")
    done = book.state(visitor, extract.id)
    assert (done.state, done.error, "extract ada" in stages) == ("done", None, True)
    assert done.done == done.total > 0
    assert (visitor.people / "again" / "faceset.json").exists()

    until(lambda: trained(visitor, 2), "training steps")
    assert book.latest(visitor).id == train.id
    assert book.state(visitor, train.id).message.startswith("step ")
    stopped = book.stop(visitor, train.id)
    assert stopped.state == "stopped"
    until(lambda: book.state(visitor, train.id).stage != "saving", "the run to be saved")
    first = Run.load(visitor.runs / "run", newest=True)
    assert first.step > 0
    assert not first.finished

    book.resume(visitor, train.id)
    until(lambda: book.state(visitor, train.id).message.startswith("step "), "more training steps")
    assert book.pause(visitor, train.id).state == "paused"
    until(lambda: book.state(visitor, train.id).stage != "saving", "the run to be saved")
    assert Run.load(visitor.runs / "run", newest=True).step > first.step
    assert "going on with the run" in (train.folder / "log.txt").read_text()


SERVER = """
    import sys, time
    from pathlib import Path
    from fslab.webapp.folders import Visitor
    from fslab.webapp.jobs import JobBook
    from fslab.webapp.settings import AppSettings
    home, name = Path(sys.argv[1]), sys.argv[2]
    book = JobBook(AppSettings(home=home, min_free_mb=0))
    job = book.submit(Visitor(name, home / "visitors" / name), "train", "t", sys.argv[3:])
    print(job.id, flush=True)
    time.sleep(600)
"""


def test_a_server_that_dies_and_a_worker_that_dies(books, settings, visitor):
    argv = [sys.executable, "-c", textwrap.dedent(SERVER), settings.home, visitor.name, *train_argv(visitor)]
    server = subprocess.Popen([str(word) for word in argv], stdout=subprocess.PIPE, text=True)
    job_id = server.stdout.readline().strip()
    until(lambda: trained(visitor), "training steps")
    with pytest.raises(FslabError, match="one app for a folder"):
        JobBook(settings)
    server.kill()
    server.wait()

    book = books(settings)  # the worker outlived its server: it is followed on
    assert book.state(visitor, job_id).state == "running"
    worker = psutil.Process(Record.load(visitor.jobs / job_id).pid)
    worker.kill()
    lost = until(lambda: (s := book.state(visitor, job_id)).ended and s, "the loss to be seen")
    assert lost.state == "lost"
    assert "ended without a word" in lost.message
    assert is_run(visitor.runs / "run")
    book.close()

    record = Record.load(visitor.jobs / job_id)  # and one whose worker died while there was no server
    record.state, record.pid, record.born = "running", worker.pid, 1.0
    record.save()
    book = books(settings)
    assert book.state(visitor, job_id).state == "lost"
    assert book.resume(visitor, job_id).state in ("queued", "running")
    until(lambda: book.state(visitor, job_id).state == "running", "the job to run again")
    book.drop(visitor)
    assert book.latest(visitor) is None


def test_two_visitors_a_full_line_and_a_job_that_fails(books, settings, visitor):
    other, third = new_visitor(settings), new_visitor(settings)
    book = books(settings)
    (visitor.uploads / "page.mp4").write_text("<html>")
    argv = ["extract", visitor.uploads / "page.mp4", visitor.people / "x", "--identity", "ada", "--consent", CONSENT]
    failing = book.submit(visitor, "extract", "one", argv)
    until(lambda: book.state(visitor, failing.id).state == "running", "the first to start")
    theirs = [argv[0], other.uploads / "none.mp4", other.people / "x", *argv[3:]]
    waiting = book.submit(other, "extract", "two", theirs)
    assert waiting.position == 1
    assert book.submit(visitor, "extract", "three", argv).position == 2
    with pytest.raises(FslabError, match="jobs in line"):
        book.submit(third, "extract", "four", [argv[0], third.uploads / "n.mp4", third.people / "x", *argv[3:]])

    for method in (book.state, book.stop, book.pause, book.resume):
        for job_id in (failing.id, "", "../" + failing.id, None, f"../../{visitor.name}/jobs/{failing.id}"):
            with pytest.raises(FslabError, match="a job of yours"):
                method(other, job_id)
    assert book.latest(other).id == waiting.id
    assert book.latest(third) is None
    assert book.stop(other, waiting.id).state == "stopped"  # before its turn came
    assert book.resume(other, waiting.id).position == 2  # behind those who stayed
    assert book.stop(other, waiting.id).position == 0

    failed = until(lambda: (s := book.state(visitor, failing.id)).ended and s, "the failure")
    assert failed.state == "failed"
    assert "text" in failed.error[1]
    assert str(settings.home) not in f"{failed.message} {failed.error}"
    assert "page.mp4" in failed.message
    forget(settings, visitor.name, book)  # with one more still in line or at work
    assert not visitor.root.exists()
    assert book.latest(visitor) is None
    assert sweep(settings) == 0


def test_a_job_stays_in_its_visitors_folder(books, settings, visitor):
    other, book = new_visitor(settings), books(settings)
    good = ["evaluate", visitor.results / "a.mp4", "--target", visitor.uploads / "b.mp4"]
    for path in (
        "/etc/passwd",
        other.uploads / "b.mp4",
        "../../../../x.mp4",
        f"{visitor.root}/../{other.name}/x",
        "\0",
    ):
        for argv in ([*good[:3], path], [*good, f"--out={path}"]):
            with pytest.raises(ValueError, match="folder"):
                book.submit(visitor, "evaluate", "", argv)
    with pytest.raises(ValueError, match="begin with its kind"):
        book.submit(visitor, "evaluate", "", ["synth", "person"])
    with pytest.raises(ValueError, match="begin with its kind"):
        book.submit(visitor, "doctor", "", ["doctor"])
    assert not list(visitor.jobs.iterdir())
    quiet = books(AppSettings(home=settings.home / "quiet", train_allowed=False))
    with pytest.raises(FslabError, match="a server that trains"):
        quiet.submit(visitor, "train", "", train_argv(visitor))


def test_damaged_notes_are_passed_over(books, settings, visitor):
    for i, text in enumerate(("", "[]", "{}", "{", '{"id": "../x"}', "[" * 100_000)):
        folder = visitor.jobs / f"000000000000{i}-0000000{i}"
        folder.mkdir()
        (folder / JOB).write_text(text)
        (folder / STATUS).write_text(text)
        assert Status.load(folder) == Status()
    (settings.visitors / "stray.txt").write_text("")
    assert books(settings).latest(visitor) is None
    (folder / STATUS).write_text(json.dumps({"stage": 7, "done": "3", "error": ["a"], "note": None, "exit": None}))
    assert Status.load(folder) == Status("7", 3, 0, "None")


FULL = """
    import os, sys, time
    from pathlib import Path
    from fslab.errors import FslabError
    from fslab.webapp.folders import new_visitor
    from fslab.webapp.jobs import JobBook
    from fslab.webapp.settings import AppSettings
    from fslab.webapp.uploads import accept
    home, clip = Path(sys.argv[1]), Path(sys.argv[2])
    settings = AppSettings(home=home, min_free_mb=0)
    who, book = new_visitor(settings), JobBook(settings)
    for kind in ("uploads", "jobs", "people"):
        getattr(who, kind)
    argv = ["extract", clip, who.people / "ada", "--identity", "ada", "--consent", sys.argv[3]]
    job = book.submit(who, "extract", "ada", argv)
    left = os.statvfs(home)
    with open(home / "ballast", "wb", buffering=0) as ballast:
        try:
            while True:
                ballast.write(bytes(4096))
        except OSError:
            pass
    for attempt in (lambda: accept(who, clip, settings), lambda: book.submit(who, "extract", "ada", argv)):
        try:
            attempt()
            print("taken")
        except FslabError as error:
            print("refused:", error)
    while not (state := book.state(who, job.id)).ended:
        time.sleep(0.05)
    print(state.state, state.message)
    (home / "ballast").unlink()
    print("again:", book.resume(who, job.id).state)
    book.drop(who)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a small disk is mounted by Linux's own means")
def test_a_full_disk(tmp_path):
    home = tmp_path / "disk"
    home.mkdir()
    mount = f'mount -t tmpfs -o size=4m none {home} && exec "$@"'
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh"]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody mount a small disk")
    args = [sys.executable, "-c", textwrap.dedent(FULL), home, sample_path("ada.mp4"), CONSENT]
    done = subprocess.run([*command, *map(str, args)], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert all(re.match("refused: expected .*free disk space", line) for line in said[:2]), said
    assert not any(str(home) in line for line in said), said
    assert said[2].startswith("failed"), said
    assert said[3] in ("again: queued", "again: running")


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="signals as POSIX has them")
def test_a_job_that_takes_too_long_is_ended(books, tmp_path, facesets):
    settings = AppSettings(home=tmp_path, min_free_mb=0, max_job_minutes=0.001)
    who, book = new_visitor(settings), books(settings)
    for name, faceset in facesets.items():
        shutil.copytree(faceset.folder, who.people / name)
    job = book.submit(who, "train", "t", train_argv(who))
    over = until(lambda: (s := book.state(who, job.id)).ended and s, "the end")
    assert over.state == "failed"
    assert over.error[0] == "at most 0.001 minutes"
    assert not any(p.name.endswith(".part") for p in who.root.rglob("*"))
    assert os.path.exists(over.folder / "log.txt")
