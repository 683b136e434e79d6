"""The little that every lab needs: how long to work, the packaged people's faces, the packaged run, a way to show."""

import inspect
import os
from itertools import islice
from pathlib import Path

import numpy as np
from IPython.display import Image, Markdown, display

from fslab.consent import Consent
from fslab.extract import extract_faces
from fslab.faceset import FaceSet
from fslab.label import VisibleLabel
from fslab.media import RgbFrame, encode_image, read_frames
from fslab.run import Run
from fslab.samples import sample_path

FAST = os.environ.get("FSLAB_FAST") == "1"  # a run-through in seconds, as CI does it
WORK = Path(os.environ.get("FSLAB_LABS_WORK", "work"))  # what the labs make, beside them


def budget(full: str, fast: str) -> str:
    """Return a training time: ``full``, or ``fast`` where FSLAB_FAST=1 asks for a run-through."""
    return fast if FAST else full


def read_clip(name: str, count: int, step: int = 1) -> list[np.ndarray]:
    """Return ``count`` frames of a packaged clip, every ``step``-th, ``(H, W, 3)`` uint8 RGB."""
    return [frame.rgb() for frame in islice(read_frames(sample_path(name)), 0, count * step, step)]


def faces_of(name: str) -> FaceSet:
    """Return the face set of a packaged person, "ada" or "dan"; extracted at the first call, then kept in `WORK`."""
    folder = WORK / "faces" / name
    if (folder / "faceset.json").exists():
        return FaceSet.load(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    consent = Consent.load(sample_path(f"consents/{name}.json"))
    return extract_faces(sample_path(f"{name}.mp4"), folder, consent, overwrite=True).faceset


def packaged_run() -> Run:
    """Return the trained run of ada and dan that ships with fslab."""
    return Run.load(sample_path("run"))


def show(image: np.ndarray, alt: str = "", width: int | None = None) -> None:
    """Show a picture ``(H, W, 3)`` uint8 RGB, or ``(H, W)`` grey, in the notebook.

    Args:
        image: the picture.
        alt: what it shows, for those who cannot see it.
        width: on the page, pixels; its own where left out.
    """
    if image.ndim == 2:
        image = np.repeat(image[:, :, None], 3, axis=2)
    display(Image(encode_image(image, ".png"), width=width or min(image.shape[1], 960), alt=alt))


def source_of(thing: object) -> None:
    """Show the source code of a function or class of fslab: the text of a lab cannot drift from it."""
    where = f"`{thing.__module__}.{thing.__qualname__}`"
    display(Markdown(f"{where}\n\n```python\n{inspect.getsource(thing)}```"))


def show_swap(image: np.ndarray, alt: str = "", width: int | None = None) -> None:
    """Show a picture with swapped faces in it: under the visible label, as everywhere in fslab; else as `show`."""
    frame = RgbFrame(image.copy())
    VisibleLabel(frame.size).apply(frame)
    show(frame.rgb(), alt, width)
