"""The app as a Hugging Face Space: a folder that holds all it needs, and the upload of that folder.

Staged from a checkout: the package with the samples inside it, ``app.py``, a finished run if one is given, and what a
host wants to know (``README.md`` with its front matter, ``requirements.txt``, ``Dockerfile``). The same inputs give the
same bytes.
"""

import re
import shutil
import tomllib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal

from jinja2 import Environment, StrictUndefined
from typing_extensions import Doc

import fslab
from fslab.consent import require_consent
from fslab.errors import ConsentError, FslabError
from fslab.run import BEST, Run, save_tensors
from fslab.storage import atomic_dir, explained, prepare_folder, write_json

MARKER = "requirements.txt"
PACKAGED = "packaged"
PYTHON = "3.12"  # Spaces start with 3.10 unless told otherwise; ZeroGPU has 3.12 beside it
TORCH_BELOW = "2.12"  # ZeroGPU has 2.8 to 2.11; left open, pip would take a newer one that finds no GPU there
MEGABYTE = 1_000_000  # bytes
MAX_FILE, MAX_TOTAL = 50 * MEGABYTE, 300 * MEGABYTE
IGNORED = (".*", "__pycache__", "*.pyc", "*.part*", "*.orig", "*.log", "*~")
REFUSED = ("*.pem", "*.key", "*.p12", "id_rsa*", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle")
SECRET = re.compile(
    rb"\bhf_[A-Za-z]{30,}|\bgh[opsu]_[A-Za-z0-9]{36}|\bsk-[A-Za-z0-9_-]{32,}|\bAKIA[0-9A-Z]{16}\b"
    rb"|BEGIN [A-Z ]*PRIVATE KEY-----"
)
TEXT = {".py", ".md", ".txt", ".json", ".jsonl", ".toml", ".yml", ".yaml", ".j2", ".css", ".js", ".html", ".cfg", ""}


@dataclass(frozen=True)
class PushConfig:
    """How a Space is made."""

    hardware: Annotated[
        Literal["cpu-basic", "zero-a10g"], Doc("what a new Space runs on: two CPU cores, or ZeroGPU's lent GPU")
    ] = "cpu-basic"
    public: Annotated[bool, Doc("anybody may see a new Space; else you alone")] = False


@dataclass(frozen=True)
class StagedFile:
    """A file of a staged Space: ``name`` relative to its folder with forward slashes, ``size`` in bytes."""

    name: str
    size: int


def find_checkout() -> Path:
    """Return the root of the checkout that fslab runs from.

    Raises:
        FslabError: if it was installed without one; the app's own file and the samples lie there.
    """
    root = Path(fslab.__file__).resolve().parents[1]
    missing = [n for n in ("app.py", "pyproject.toml", "LICENSE", "samples") if not (root / n).exists()]
    if missing:
        fix = "clone fslab and install it with `pip install -e '.[app]'`"
        raise FslabError("a checkout of fslab to stage from", f"a package without {', '.join(missing)}", fix)
    return root


def list_requirements(project: dict) -> list[str]:
    """Return the requirements of a parsed ``pyproject.toml``, those of the app included, as a Space can meet them."""
    table = project["project"]
    found = [*table["dependencies"], *table["optional-dependencies"]["app"]]
    return [f"{r},<{TORCH_BELOW}" if re.match(r"torch\b(?!vision)", r) else r for r in found]


def find_sdk_version(project: dict) -> str:
    """Return the Gradio version a Space is built with: the oldest that ``pyproject.toml`` allows, as 6.31.0.

    Raises:
        FslabError: if there is no such floor.
    """
    for requirement in project["project"]["optional-dependencies"]["app"]:
        if floor := re.match(r"gradio>=(\d+(?:\.\d+)*)", requirement):
            return ".".join((floor[1] + ".0.0").split(".")[:3])
    raise FslabError("a floor for gradio in pyproject.toml", "none", "write it as gradio>=6.31")


def check_packaged(run_dir: Path) -> Run:
    """Load a run that strangers are to swap with.

    Raises:
        RunError: if it is no run, or damaged.
        ConsentError: unless everybody in it is synthetic, with consent to swapping and publishing.
    """
    run = Run.load(run_dir)
    for name in run.identities:
        for scope in ("swapping", "publishing"):
            consent = require_consent(run.consents.get(name), name, scope)
        if not consent.synthetic:
            fix = "package a run of rendered people; real faces do not go to a public page"
            raise ConsentError(f"a run of synthetic people in '{run_dir}'", f"'{name}', who is real", fix)
    return run


def stage_space(out: Path, run_dir: Path | None = None, overwrite: bool = False) -> list[StagedFile]:
    """Make a folder that is a ready Space, and a ready Docker context.

    Args:
        out: the folder to make.
        run_dir: a finished run that visitors may swap with, instead of the one among the samples.
        overwrite: replace an earlier Space at ``out``.

    Returns:
        Its files, sorted by name.

    Raises:
        FslabError: without a checkout, or if something in it must not leave this machine or is too large.
        RunError: if ``run_dir`` is no run.
        ConsentError: if ``run_dir`` shows anybody real.
        OutputError: if ``out`` cannot be written.
    """
    root, out = find_checkout(), Path(out)
    ours = root / "samples" / "run"
    run = check_packaged(run_dir or ours) if run_dir or ours.is_dir() else None
    if out.resolve().is_relative_to(root / "fslab") or out.resolve().is_relative_to(root / "samples"):
        raise FslabError("a folder outside what is staged", f"'{out}'", "choose another place")
    prepare_folder(out, overwrite, MARKER)
    with atomic_dir(out) as part:
        copy_tree(root / "fslab", part / "fslab")
        copy_tree(root / "samples", part / "fslab" / "samples")
        for name in ("app.py", "LICENSE"):
            _copy(root / name, part / name)
        if run_dir:
            shutil.rmtree(part / "fslab" / "samples" / "run", ignore_errors=True)
            pack_run(run, part / PACKAGED)
        _write_cards(root, part, run)
        staged = check_staged(part)
    return staged


def copy_tree(source: Path, out: Path) -> None:
    """Copy a folder's files, without what `IGNORED` names; raises FslabError at a symbolic link."""
    for path in walk(source):
        _copy(path, out / path.relative_to(source))


def walk(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder in a fixed order, without what `IGNORED` names.

    Raises:
        FslabError: at a symbolic link, which could lead anywhere.
    """
    for path in sorted(folder.iterdir()):
        if any(fnmatch(path.name, pattern) for pattern in IGNORED):
            continue
        if path.is_symlink():
            raise FslabError("plain files and folders", f"the symbolic link '{path}'", "put the file itself there")
        if path.is_dir():
            yield from walk(path)
        else:
            yield path


def _copy(source: Path, out: Path) -> None:
    with explained(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, out)


def pack_run(run: Run, out: Path) -> None:
    """Write what a swap needs of a run: its weights in half precision, its settings, people and consents.

    The state that training needs stays behind.
    """
    with explained(out):
        out.mkdir(parents=True, exist_ok=True)
    tensors = {name: t.half() if t.is_floating_point() else t for name, t in run.model.state_dict().items()}
    about = {name: str(value) for name, value in asdict(run.best).items()} if run.best else {}
    save_tensors(out / (BEST if run.best else "model.safetensors"), tensors, about)
    write_json(out / "config.json", run.head())
    Run.load(out)


def _write_cards(root: Path, out: Path, run: Run | None) -> None:
    """Write what a host reads: README.md with its front matter, requirements.txt, Dockerfile."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    values = {
        "sdk_version": find_sdk_version(project),
        "python_version": PYTHON,
        "version": project["project"]["version"],
        "people": " and ".join(run.identities) if run else "",
    }
    templates, render = root / "fslab" / "assets" / "space", Environment(undefined=StrictUndefined, autoescape=False)
    for name, template in (
        ("README.md", "README.md.j2"), ("Dockerfile", "Dockerfile"), (".dockerignore", "dockerignore")
    ):  # fmt: skip
        text = render.from_string((templates / template).read_text(encoding="utf-8")).render(values)
        (out / name).write_text(text.rstrip() + "\n", encoding="utf-8", newline="\n")
    (out / MARKER).write_text("\n".join(list_requirements(project)) + "\n", encoding="utf-8", newline="\n")


def check_staged(folder: Path) -> list[StagedFile]:
    """Return the files of a staged Space, sorted by name, if all of them may be published.

    Raises:
        FslabError: at a symbolic link, a key, a pickle, a text with a secret in it, or more than the size limits.
    """
    staged = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            raise FslabError("plain files and folders", f"the symbolic link '{name}'", "put the file itself there")
        if path.is_dir():
            continue
        if any(fnmatch(path.name.lower(), pattern) for pattern in REFUSED):
            raise FslabError("files that may be published", f"'{name}'", "move it out of the checkout")
        if path.suffix in TEXT and SECRET.search(path.read_bytes()):
            raise FslabError("text without secrets", f"what looks like a key or token in '{name}'", "remove it")
        staged.append(StagedFile(name, path.stat().st_size))
        if staged[-1].size > MAX_FILE:
            fix = "train a smaller preset, or leave the file out"
            raise FslabError(f"files of at most {MAX_FILE // MEGABYTE} MB", f"'{name}'", fix)
    total = sum(file.size for file in staged)
    if total > MAX_TOTAL:
        raise FslabError(
            f"at most {MAX_TOTAL // MEGABYTE} MB in all", f"{total / MEGABYTE:.0f} MB", "leave the run out"
        )
    return sorted(staged, key=lambda file: file.name)


def check_repo(repo: str) -> str:
    """Return ``repo`` if it is a Space's name, USER/NAME; raises FslabError otherwise."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", repo) or ".." in repo or "--" in repo:
        raise FslabError("a Space's name USER/NAME", f"'{repo}'", "write it like ada/face-swap-lab")
    return repo


def plan_push(run_dir: Path | None = None) -> list[StagedFile]:
    """Return the files that `push_space` would upload; the network is not touched."""
    with TemporaryDirectory() as folder:
        return stage_space(Path(folder) / "space", run_dir)


def push_space(repo: str, run_dir: Path | None = None, config: PushConfig | None = None) -> str:
    """Stage a Space and upload it: what it held before and is not staged is deleted.

    Args:
        repo: USER/NAME; made if it is not there, and then private unless ``config`` says otherwise.
        run_dir: as for `stage_space`.
        config: what a new Space is like; one that exists keeps its hardware and visibility.

    Returns:
        Its address.

    Raises:
        FslabError: as `stage_space` does, for a wrong name, without a token, or if Hugging Face refuses or cannot be
            reached.
    """
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError

    check_repo(repo)
    config = config or PushConfig()
    if not get_token():
        fix = "make one that may write at huggingface.co/settings/tokens and run `hf auth login`"
        raise FslabError("a Hugging Face token", "none", fix)
    refusals = HfHubHTTPError.__bases__  # with it, the HTTP client's own: its name changes with the hub's version
    with TemporaryDirectory() as folder:
        stage = Path(folder) / "space"
        stage_space(stage, run_dir)
        try:
            api = HfApi()
            url = api.create_repo(
                repo, repo_type="space", space_sdk="gradio", private=not config.public, exist_ok=True,
                space_hardware=config.hardware,
            )  # fmt: skip
            api.upload_folder(
                repo_id=repo, repo_type="space", folder_path=stage, delete_patterns="*",
                ignore_patterns=["__pycache__", "*.pyc"], commit_message=f"fslab {fslab.__version__}",
            )  # fmt: skip
        except refusals as reason:
            found = str(reason).strip().splitlines() or [type(reason).__name__]
            fix = "check the network, the token's rights and whether your plan may run Spaces"
            raise FslabError(f"Hugging Face to take the Space '{repo}'", found[0], fix) from reason
    return str(url)
