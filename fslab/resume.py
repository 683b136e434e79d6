"""Going on with a run: what a folder must hold, and what may have changed since."""

import shutil
from dataclasses import asdict
from pathlib import Path

from fslab.errors import RunError
from fslab.faceset import FaceSet
from fslab.model import ModelConfig
from fslab.run import is_run, read_head
from fslab.schedule import TrainConfig
from fslab.storage import atomic_path

FELL_BACK = "the newest checkpoint is damaged: going on from the one before it"


def open_folder(folder: Path) -> dict:
    """Return ``config.json`` of the run in a folder, {} for a folder that is new or empty.

    Raises:
        RunError: if something else is there, or the run cannot be read.
    """
    if is_run(folder):
        return read_head(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(f"a new folder or a run at '{folder}'", "something else", "choose another folder")
    return {}


def check_settings(
    folder: Path, head: dict, facesets: list[FaceSet], model_config: ModelConfig, config: TrainConfig
) -> list[FaceSet]:
    """Return the face sets in the order of the run whose ``config.json`` is ``head``.

    Raises:
        RunError: if that run is of other people, another network or another split of the faces.
    """
    by_name = {f.identity: f for f in facesets}
    what, fix = f"the settings of the run in '{folder}'", "train into another folder, or with the run's own settings"
    if set(head.get("identities", [])) != set(by_name):
        known = " and ".join(head.get("identities", []))
        raise RunError(f"the people of the run in '{folder}' ({known})", " and ".join(by_name), fix)
    if head.get("coverage") != facesets[0].coverage:
        raise RunError(f"{what} (coverage {head.get('coverage')})", f"coverage {facesets[0].coverage}", fix)
    split = {k: asdict(config.data)[k] for k in ("held_out", "gap")}  # else held-out faces would be trained on
    then, now = head.get("model", {}), asdict(model_config)
    then, now = then | {k: head.get("train", {}).get("data", {}).get(k) for k in split}, now | split
    differs = [k for k in now if now[k] != then.get(k)]
    if differs:
        wanted = ", ".join(f"{k} {then.get(k)}" for k in differs)
        raise RunError(f"{what} ({wanted})", ", ".join(f"{k} {now[k]}" for k in differs), fix)
    return [by_name[name] for name in head["identities"]]


def put_back(folder: Path) -> None:
    """Put the state before in the place of the newest, which is damaged, so that the next save does not keep that."""
    with atomic_path(Path(folder) / "state.safetensors") as part:
        shutil.copyfile(Path(folder) / "state.prev.safetensors", part)
