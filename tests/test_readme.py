"""What the README says is run: its commands in order, its Python, its links, its file tree."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fslab.samples import sample_path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FASTER = {"--budget 10m": "--budget 8s"}  # the one change: the test does not train for ten minutes


def fenced(language):
    """Return the fenced blocks of a language, in order."""
    parts = README.split("```")[1::2]  # what lies between an opening and a closing fence
    return [block.partition("\n")[2] for block in parts if block.partition("\n")[0].strip() == language]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with the packaged people's clips, as somebody would have their own."""
    folder = tmp_path_factory.mktemp("readme")
    for name in ("ada.mp4", "dan.mp4", "ada_target.mp4"):
        shutil.copy(sample_path(name), folder / name)
    return folder


def test_the_commands_run_as_written(workplace):
    block = next(b for b in fenced("") if "fslab consent new" in b)
    for line in block.strip().splitlines():
        for slow, fast in FASTER.items():
            line = line.replace(slow, fast)
        program, *args = shlex.split(line)
        assert program == "fslab"
        done = subprocess.run(
            [sys.executable, "-m", "fslab", *args], cwd=workplace, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    assert (workplace / "out.mp4").exists()
    assert (workplace / "report" / "index.html").exists()


SMALLER = {
    "synth person": ["--size", "64", "--quality", "bulk"],
    "synth clip": ["--size", "64", "--fps", "1"],
    "synth pair": ["--size", "64", "--n-train", "1", "--n-target", "1"],
    "synth faces": ["--size", "64", "--people", "1", "--each", "1"],
}


def test_the_people_are_made_as_written(tmp_path):
    block = next(b for b in fenced("") if "fslab synth person" in b)
    lines = [shlex.split(line) for line in block.strip().splitlines()]
    assert [" ".join(line[1:3]) for line in lines] == [*SMALLER, "bench quality"]
    for line in lines[:-1]:  # the benchmark itself is run small in a test of its own
        args = [*line[1:], *SMALLER[" ".join(line[1:3])]]
        done = subprocess.run(
            [sys.executable, "-m", "fslab", *args], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{args}\n{done.stdout}\n{done.stderr}"
    for made in ("person7/portrait.png", "person7.mp4", "person7.labels.npz", "pair/pair.json", "faces/labels.npz"):
        assert (tmp_path / "out" / made).exists(), made


SHORT = {
    "synth faces": ["--size", "64", "--people", "4", "--each", "2", "--sharing", "2"],
    "pretrain": ["--steps", "2", "--held-out-people", "2", "--batch", "2", "--device", "cpu"],
    "train": ["--steps", "2", "--device", "cpu"],
}


def test_a_base_is_made_and_used_as_written(tmp_path, workplace, facesets):
    for name, faceset in facesets.items():
        shutil.copytree(faceset.folder, tmp_path / "faces" / name)
    block = next(b for b in fenced("") if "fslab pretrain" in b)
    for line, (command, shorter) in zip(block.strip().splitlines(), SHORT.items(), strict=True):
        args = shlex.split(line)[1:]
        assert " ".join(args).startswith(command)
        done = subprocess.run(
            [sys.executable, "-m", "fslab", *args, *shorter], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{args}\n{done.stdout}\n{done.stderr}"
    assert (tmp_path / "out" / "base" / "base.safetensors").exists()
    assert json.loads((tmp_path / "runs" / "own" / "config.json").read_text())["encoder_weights"] == "base"


def test_the_python_runs_as_written(tmp_path, workplace):
    for name in ("ada.mp4", "dan.mp4", "ada_target.mp4"):
        shutil.copy(workplace / name, tmp_path / name)
    shutil.copytree(sample_path("consents"), tmp_path / "consents")
    code = next(block for block in fenced("python") if "swap_video" in block)
    assert '*PRESETS["tiny"])' in code
    code = code.replace('*PRESETS["tiny"])', 'PRESETS["tiny"][0], TrainConfig(steps=4))')
    code = "from fslab.schedule import TrainConfig\n" + code
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.mp4").exists()


def test_every_make_target_named_is_there():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"(?:^|`)make ([a-z]+)\b", README, re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_links_and_pictures_resolve():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", README):
        assert (ROOT / target).exists(), target


def test_the_file_tree_is_the_real_one():
    tree = next(b for b in fenced("") if b.startswith("fslab/\n"))
    named = set(re.findall(r"\b([a-z_]+)\.py\b", tree))
    real = {p.stem for p in (ROOT / "fslab").glob("*.py")} - {"__init__", "__main__"}
    assert named == real


def test_the_benchmarks_named_are_there():
    for name in re.findall(r"python -m benchmarks\.(\w+)", README):
        assert (ROOT / "benchmarks" / f"{name}.py").exists(), name


def test_the_figures_in_the_readme_are_those_of_the_result_files():
    """Each figure of the results table names its file and key; the number in the table is the one in the file."""
    table = README[README.index("| what | measured |") :].split("\n\n")[0].splitlines()[2:]
    row = re.compile(r"^\|[^|]*\| ([−\d.]+) \|[^|]*\| `(\w+)\.json` ([\w./]+) \|$")
    rows = [row.match(line) for line in table]
    assert rows, "the results table names no figure"
    assert all(rows), [line for line, found in zip(table, rows, strict=True) if not found]
    for value, name, key in (found.groups() for found in rows):
        found = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())
        for part in key.split("/"):
            found = found[part]
        digits = len(value.partition(".")[2])
        assert round(float(found), digits) == float(value.replace("−", "-")), f"{name}.json {key}"
