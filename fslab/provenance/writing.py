"""The only two ways a swap is written: as an image or a video that carries every mark."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from fslab.label import VisibleLabel
from fslab.media import RgbFrame, VideoOptions, VideoWriter, YuvFrame, probe, write_image
from fslab.provenance.manifest import Manifest
from fslab.provenance.metadata import tags, xmp
from fslab.storage import explained, sha256_file, write_json


def sidecar_path(path: Path) -> Path:
    """Return where the manifest beside a file stands: ``out.mp4`` -> ``out.mp4.manifest.json``."""
    path = Path(path)
    return path.with_name(f"{path.name}.manifest.json")


def _write_sidecar(path: Path, manifest: Manifest) -> None:
    sidecar = sidecar_path(path)
    with explained(sidecar):
        sidecar.unlink(missing_ok=True)  # an earlier file's: should the write fail, none is better than a wrong one
        digest = sha256_file(path)
    write_json(sidecar, {"file": {"name": Path(path).name, "sha256": digest}, "manifest": manifest.to_dict()})


def _labelled(manifest: Manifest, label: VisibleLabel) -> Manifest:
    return replace(manifest, label={"text": label.text, "box": [int(v) for v in label.box]})


def save_marked_image(path: Path, image: np.ndarray, manifest: Manifest) -> None:
    """Label an image and write it with all its marks; what stands at ``path`` is replaced.

    The image is written first, then its sidecar, each atomically: should the second fail, the first is whole and
    marked.

    Args:
        path: ends in .png, .jpg, .jpeg or .webp.
        image: ``(H, W, 3)`` uint8 RGB; it is not changed.
        manifest: how the image was made.

    Raises:
        MediaError: for another suffix, or an image too small to carry the label.
        OutputError: if a file cannot be written.
    """
    frame = RgbFrame(image.copy())
    label = VisibleLabel(frame.size)
    label.apply(frame)
    manifest = _labelled(manifest, label)
    write_image(path, frame.rgb(), xmp=xmp(manifest), text=tags(manifest))
    _write_sidecar(path, manifest)


class MarkedVideo:
    """A video in the making; `open_marked_video` gives it. Set ``manifest`` before the end to add the frame counts."""

    def __init__(self, writer: VideoWriter, label: VisibleLabel, manifest: Manifest):
        self.manifest = manifest
        self._writer, self._label = writer, label

    def write(self, frame: YuvFrame) -> None:
        """Label a frame, in place, and write it."""
        self._label.apply(frame)
        self._writer.write(frame)


@contextmanager
def open_marked_video(path: Path, like: Path, options: VideoOptions, manifest: Manifest) -> Iterator[MarkedVideo]:
    """Open a video for labelled frames; what stands at ``path`` is replaced when the block ends without an error.

    Args:
        path: ends in .mp4 or .mov.
        like: the clip that the frames come from; its sound is copied.
        options: how the video is encoded.
        manifest: how the video was made.

    Yields:
        The video to write frames to. After the block the file stands, then its sidecar.

    Raises:
        MediaError: for another suffix, an unreadable ``like``, or frames too small to carry the label.
        OutputError: if a file cannot be written.
    """
    label = VisibleLabel(probe(like).size)
    manifest = _labelled(manifest, label)
    with VideoWriter(path, like, options, tags(manifest), xmp(manifest)) as writer:
        video = MarkedVideo(writer, label, manifest)
        yield video
    _write_sidecar(path, video.manifest)
