"""The staged Space: complete, the same every time, fit to be published, and alive in an environment without fslab."""

import ast
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
import tomllib
import urllib.request
import venv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from packaging.requirements import Requirement

from fslab import space
from fslab.cli import main
from fslab.errors import ConsentError, FslabError, OutputError, RunError
from fslab.model import PRESETS, SwapAutoencoder
from fslab.run import Run
from fslab.space import check_staged, list_requirements, stage_space, walk

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
ZERO_GPU_TORCH = ("2.8.0", "2.9.1", "2.10.0", "2.11.0")  # what Hugging Face's documentation lists

# Stands in for the package `spaces`: notes what is decorated, and that nothing has touched CUDA by then.
FAKE_SPACES = """
import json, os, sys

def GPU(task=None, duration=60, **options):
    def decorate(work):
        torch = sys.modules.get("torch")
        touched = bool(torch and torch.cuda.is_initialized())
        note = {"name": work.__name__, "callable": callable(duration), "cuda": touched}
        with open(os.environ["SPACES_NOTES"], "a") as file:
            file.write(json.dumps(note) + "\\n")
        return work
    return decorate(task) if callable(task) else decorate

def gradio_auto_wrap(task):  # Gradio asks for it on every Space
    return task
"""


def digests(folder):
    files = (p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def front_matter(folder):
    _, head, body = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(head), body


@pytest.fixture(scope="module")
def a_run(tmp_path_factory, consents):
    """A run of ada and dan that was never trained: what is staged does not depend on how well it draws."""
    model, train = PRESETS["tiny"]
    model, names = replace(model, pretrained=False), ["ada", "dan"]
    nobody = {name: np.zeros(128, np.float32) for name in names}
    about = {name: {"faces": 1, "sources": {}, "sha256": ""} for name in names}
    folder = tmp_path_factory.mktemp("ada-dan")
    run = Run(folder, SwapAutoencoder(model, names), model, train, names, 0.6, nobody, consents, about)
    run.save()
    (folder / "state.safetensors").write_bytes(b"what training needs")
    (folder / "log.jsonl").write_bytes(b"")
    return run


@pytest.fixture(scope="module")
def staged(tmp_path_factory, a_run):
    out = tmp_path_factory.mktemp("space") / "space"
    stage_space(out, a_run.folder)
    return out


def test_the_same_inputs_give_the_same_bytes(staged, tmp_path, a_run):
    files = stage_space(tmp_path / "again", a_run.folder)
    assert digests(tmp_path / "again") == digests(staged)
    assert [f.name for f in files] == sorted(digests(staged))
    assert all((staged / f.name).stat().st_size == f.size for f in files)


def test_it_holds_all_that_it_needs_and_nothing_else(staged):
    names = set(digests(staged))
    assert {"app.py", "README.md", "requirements.txt", "Dockerfile", ".dockerignore", "LICENSE"} <= names
    assert {"fslab/__main__.py", "fslab/samples/ada_target.mp4", "fslab/samples/consents/dan.json"} <= names
    package = {p.relative_to(ROOT).as_posix() for p in walk(ROOT / "fslab")}
    assert package <= names
    assert {n for n in names if n.startswith("packaged/")} <= {
        "packaged/config.json", "packaged/best.safetensors", "packaged/model.safetensors"
    }  # fmt: skip
    assert not [n for n in names if "__pycache__" in n or n.endswith(".pyc") or "state" in Path(n).stem.split(".")]
    assert not [p for p in staged.rglob("*") if p.is_symlink()]


def test_a_packaged_run_swaps(staged, a_run):
    packaged = Run.load(staged / "packaged")
    assert packaged.identities == a_run.identities
    assert not (staged / "fslab" / "samples" / "run").exists(), "in its place, not beside it"
    theirs, ours = packaged.model.state_dict(), Run.load(a_run.folder).model.state_dict()
    assert all(torch.equal(theirs[k], v.half().float() if v.is_floating_point() else v) for k, v in ours.items())
    assert '"/' not in (staged / "packaged" / "config.json").read_text(encoding="utf-8"), "a path of this machine"


def test_front_matter(staged):
    head, body = front_matter(staged)
    gradio = next(r for r in map(Requirement, PROJECT["project"]["optional-dependencies"]["app"]) if r.name == "gradio")
    floor = next(s.version for s in gradio.specifier if s.operator == ">=")
    assert head["sdk"] == "gradio"
    assert head["sdk_version"] == (floor + ".0.0")[: len("6.31.0")]
    assert gradio.specifier.contains(head["sdk_version"])
    assert head["python_version"] == "3.12", "text: as a number, 3.10 would be 3.1"
    assert (staged / head["app_file"]).is_file()
    assert (head["license"], head["disable_embedding"]) == ("mit", True)
    assert len(head["short_description"]) <= 60
    assert all(isinstance(tag, str) for tag in head["tags"])
    assert {"colorFrom", "colorTo"} <= {k for k in head if head[k] in COLOURS}
    for word in ("consent", "synthetic", "marked", "learning", "ada and dan", "Training is off"):
        assert word.lower() in body.lower(), word
    assert "{{" not in body


COLOURS = ("red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray")  # the only ones that are accepted


def test_requirements_are_those_of_the_project(staged):
    lines = (staged / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert lines == list_requirements(PROJECT)
    wanted = [*PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"]["app"]]
    given, wanted = (sorted(map(Requirement, rows), key=lambda r: r.name) for rows in (lines, wanted))
    assert [r.name for r in given] == [r.name for r in wanted]
    for mine, theirs in zip(given, wanted, strict=True):
        extra = {str(s) for s in mine.specifier} - {str(s) for s in theirs.specifier}
        assert extra == ({"<2.12"} if mine.name == "torch" else set())
        assert {str(s) for s in theirs.specifier} <= {str(s) for s in mine.specifier}


def test_requirements_can_be_met_on_zero_gpu(staged):
    given = {r.name: r for r in map(Requirement, (staged / "requirements.txt").read_text().splitlines())}
    assert all(given["torch"].specifier.contains(version) for version in ZERO_GPU_TORCH)
    assert not given["torch"].specifier.contains("2.12.0"), "pip would take it, and ZeroGPU has none"
    assert "spaces" not in given, "Spaces bring their own"


def test_environment_yml_installs_the_same_extras():
    packages = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    editable = next(p for p in packages if isinstance(p, dict))["pip"]
    assert [p for p in editable if re.fullmatch(r"--editable \.\[app,.*\]", p)]
    assert "python=3.11" in packages


def test_dockerfile(staged):
    text = (staged / "Dockerfile").read_text(encoding="utf-8")
    lines = text.replace("\\\n", " ").splitlines()
    assert "FROM python:3.12-slim" in lines
    user = next(i for i, line in enumerate(lines) if line.startswith("USER "))
    assert lines[user] not in ("USER root", "USER 0")
    assert user < next(i for i, line in enumerate(lines) if line.startswith("CMD "))
    assert "whl/cpu" in text
    assert "FSLAB_PUBLIC=1" in text
    health = next(line for line in lines if line.startswith("HEALTHCHECK"))
    command = json.loads(health.split("CMD", 1)[1])
    ast.parse(command[2])
    torch = [r for r in list_requirements(PROJECT) if re.match(r"^(torch|torchvision)[^a-z-]", r)]
    assert [Requirement(r).name for r in torch] == ["torch", "torchvision"]


def test_without_a_run_the_one_among_the_samples_goes_along(tmp_path):
    stage_space(tmp_path / "space")
    assert not (tmp_path / "space" / "packaged").exists()
    assert Run.load(tmp_path / "space" / "fslab" / "samples" / "run").identities == ["ada", "dan"]
    assert "the finished run of ada and dan" in front_matter(tmp_path / "space")[1]


def test_a_space_is_replaced_only_when_asked_and_other_folders_never(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("mine")
    with pytest.raises(OutputError):
        stage_space(tmp_path / "other", overwrite=True)
    assert (tmp_path / "other" / "letter.txt").read_text() == "mine"
    stage_space(tmp_path / "space")
    (tmp_path / "space" / "stale.txt").write_text("old")
    with pytest.raises(OutputError, match="--overwrite"):
        stage_space(tmp_path / "space")
    stage_space(tmp_path / "space", overwrite=True)
    assert not (tmp_path / "space" / "stale.txt").exists()
    with pytest.raises(FslabError, match="outside what is staged"):
        stage_space(ROOT / "fslab" / "new")


def test_real_people_are_not_packaged(tmp_path, a_run):
    run = tmp_path / "run"
    shutil.copytree(a_run.folder, run)
    head = json.loads((run / "config.json").read_text())
    head["consents"]["dan"]["synthetic"] = False
    (run / "config.json").write_text(json.dumps(head))
    with pytest.raises(ConsentError, match="'dan', who is real"):
        stage_space(tmp_path / "space", run)
    head["consents"]["dan"] |= {"synthetic": True, "scope": ["training", "swapping"]}
    (run / "config.json").write_text(json.dumps(head))
    with pytest.raises(ConsentError, match="publishing"):
        stage_space(tmp_path / "space", run)
    with pytest.raises(RunError):
        stage_space(tmp_path / "space", tmp_path)
    assert not (tmp_path / "space").exists()


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("signing.pem", b"x", "may be published"),
        ("id_rsa", b"x", "may be published"),
        ("model.pt", b"x", "may be published"),
        ("notes.md", b"token: hf_" + b"a" * 34, "key or token"),
        ("a.txt", b"-----BEGIN RSA PRIVATE " + b"KEY-----", "key or token"),
    ],
)
def test_secrets_are_refused(tmp_path, name, content, found):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FslabError, match=found):
        check_staged(tmp_path)


def test_links_and_large_files_are_refused(tmp_path, monkeypatch):
    (tmp_path / "fine.txt").write_bytes(bytes(10))
    (tmp_path / "link.txt").symlink_to(tmp_path / "fine.txt")
    with pytest.raises(FslabError, match="symbolic link"):
        check_staged(tmp_path)
    with pytest.raises(FslabError, match="symbolic link"):
        list(walk(tmp_path))
    (tmp_path / "link.txt").unlink()
    monkeypatch.setattr(space, "MAX_FILE", 9)
    with pytest.raises(FslabError, match="files of at most"):
        check_staged(tmp_path)
    monkeypatch.setattr(space, "MAX_FILE", 10)
    monkeypatch.setattr(space, "MAX_TOTAL", 9)
    with pytest.raises(FslabError, match="in all"):
        check_staged(tmp_path)


def test_hidden_and_passing_files_stay_behind(tmp_path):
    for name in (".env", ".git", "a.pyc", "b.part.json", "c.log", "kept.py"):
        (tmp_path / name).touch()
    assert [p.name for p in walk(tmp_path)] == ["kept.py"]


def test_a_package_without_a_checkout_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(space.fslab, "__file__", str(tmp_path / "fslab" / "__init__.py"))
    with pytest.raises(FslabError, match="clone fslab"):
        stage_space(tmp_path / "space")


@pytest.mark.usefixtures("no_network")
def test_a_dry_run_lists_everything_and_touches_no_network(capsys, a_run, staged):
    assert main(["space", "push", "ada/face-swap-lab", "--dry-run", "--packaged", str(a_run.folder)]) == 0
    *lines, last = capsys.readouterr().out.strip().splitlines()
    assert {line.split(maxsplit=1)[1] for line in lines} == set(digests(staged))
    assert "ada/face-swap-lab" in last
    assert "nothing was sent" in last


def test_the_command_builds(capsys, tmp_path):
    assert main(["space", "build", str(tmp_path / "space")]) == 0
    assert "files" in capsys.readouterr().out
    assert (tmp_path / "space" / "app.py").is_file()


@pytest.fixture(scope="module")
def clean(staged, tmp_path_factory):
    """A fresh environment in which fslab is not installed, with a stand-in for `spaces`.

    The installed libraries are lent to it by PYTHONPATH instead of being downloaded anew: folders on that path have
    their ``.pth`` files passed over, so an editable fslab stays out of sight.
    """
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder / "env", with_pip=False)
    (folder / "fakes").mkdir()
    (folder / "fakes" / "spaces.py").write_text(FAKE_SPACES)
    libraries = dict.fromkeys([sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
    python = folder / "env" / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    environment = {k: os.environ[k] for k in ("PATH", "SYSTEMROOT", "LANG", "OMP_NUM_THREADS") if k in os.environ} | {
        "HOME": str(folder), "XDG_DATA_HOME": str(folder / "data"), "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": os.pathsep.join([str(folder / "fakes"), *libraries]), "HF_HUB_OFFLINE": "1",
        "SPACES_NOTES": str(folder / "notes.jsonl"), "SPACE_ID": "ada/lab", "SYSTEM": "spaces",
        "GRADIO_SERVER_NAME": "127.0.0.1",
    }  # fmt: skip
    return folder, python, environment


def test_the_environment_is_clean(clean):
    folder, python, environment = clean
    result = subprocess.run(
        [python, "-c", "import fslab"], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert "No module named 'fslab'" in result.stderr


def test_a_job_of_the_space_finds_the_staged_package(clean, staged, tmp_path):
    _, python, environment = clean
    (tmp_path / "job").mkdir()
    code = (
        "import sys, time; from pathlib import Path; from fslab.webapp.worker import Worker\n"
        "worker = Worker.start(['consent', 'show', sys.argv[1]], Path(sys.argv[2]))\n"
        "sys.exit(worker.wait(120))"
    )
    consent = staged / "fslab" / "samples" / "consents" / "ada.json"
    result = subprocess.run(
        [python, "-c", code, consent, tmp_path / "job"], cwd=staged, env=environment, capture_output=True, text=True,
        check=False, timeout=180,
    )  # fmt: skip
    log = "".join(p.read_text() for p in (tmp_path / "job").glob("*.txt"))
    assert result.returncode == 0, result.stderr + log
    assert "person: ada" in log


def test_the_space_starts_and_borrows_a_gpu_for_crops_alone(clean, staged):
    folder, python, environment = clean
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    url, log = f"http://127.0.0.1:{port}", folder / "app.log"
    with open(log, "wb") as output:
        server = subprocess.Popen(
            [python, staged / "app.py"], cwd=staged, env=environment | {"GRADIO_SERVER_PORT": str(port)},
            stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        page = wait_for(url, server, log)
        assert "gradio" in page.lower()
        endpoints = json.loads(urllib.request.urlopen(f"{url}/gradio_api/info", timeout=20).read())["named_endpoints"]
        assert {"/swap_image", "/verify"} <= set(endpoints)
    finally:
        server.terminate()
        server.wait(30)
    notes = [json.loads(line) for line in (folder / "notes.jsonl").read_text().splitlines()]
    assert len(notes) == 1, "one seam, however often it is called"
    assert notes[0]["callable"], "the duration depends on the batch"
    assert not notes[0]["cuda"], "CUDA was touched while importing"
    assert not list(staged.rglob("__pycache__"))


def wait_for(url, server, log, seconds=120):
    """Return the page once it answers; fails with the server's log if it never does."""
    end, reason = time.monotonic() + seconds, None
    while time.monotonic() < end and server.poll() is None:
        try:
            return urllib.request.urlopen(url, timeout=20).read().decode()
        except OSError as error:
            reason = error
            time.sleep(0.3)
    pytest.fail(f"no page after {seconds} s: {reason!r}\n{log.read_text(errors='replace')[-3000:]}")
