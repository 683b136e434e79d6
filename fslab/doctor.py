"""Is this machine ready? Each check does the real thing once and names one fix where it fails."""

import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from fslab.errors import FslabError

MIN_FREE_GB = 2.0


@dataclass(frozen=True)
class Check:
    """One answer: what was looked at, whether it is fine, what was found, and what to do if not."""

    name: str
    ok: bool
    found: str
    fix: str = ""


def check_python() -> Check:
    """Python 3.11 to 3.13."""
    version = sys.version_info[:2]
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Check(
        "Python", (3, 11) <= version <= (3, 13), found, "make a new environment with Python 3.11, 3.12 or 3.13"
    )


def check_torch(device: str = "auto") -> Check:
    """Torch, and the device that training will use; asking for a GPU that is not there fails."""
    from fslab.devices import choose_device

    try:
        chosen = choose_device(device)
    except FslabError as error:
        return Check("device", False, error.found, error.fix)
    x = torch.rand(64, 64, device=chosen)
    finite = bool(torch.isfinite(x @ x).all())
    found = f"torch {torch.__version__}, {chosen}, {torch.get_num_threads()} threads"
    return Check("device", finite, found, "reinstall torch for this machine from pytorch.org")


def check_codecs() -> Check:
    """Encode one second of H.264 and decode it again."""
    from fslab.media import read_frames, write_video

    ramp = np.linspace(0, 255, 160, dtype=np.uint8)[None, :, None].repeat(120, 0).repeat(3, 2)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "second.mp4"
        write_video(path, (np.roll(ramp, 4 * i, axis=1) for i in range(25)), Fraction(25))
        frames = [frame.rgb() for frame in read_frames(path)]
    error = float(np.abs(frames[0].astype(int) - ramp).mean()) if frames else 255.0
    found = f"{len(frames)} of 25 frames back, mean error {error:.1f} levels"
    return Check(
        "video codecs", len(frames) == 25 and error < 6, found, "reinstall PyAV: pip install --force-reinstall av"
    )


def check_disk(folder: Path = Path()) -> Check:
    """Free space and permission to write where the command was started."""
    free, fix = shutil.disk_usage(folder).free / 1e9, "start in a folder that you own, on a disk with room"
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return Check("disk", False, f"'{Path(folder).resolve().name}': {error.strerror}", fix)
    return Check(
        "disk", free >= MIN_FREE_GB, f"{free:.1f} GB free", f"free {MIN_FREE_GB:.0f} GB or start in another folder"
    )


def check_weights() -> Check:
    """The shipped weights: present and unchanged."""
    from fslab.storage import sha256_file
    from fslab.weights import WEIGHTS, weights_path

    bad = [n for n, digest in WEIGHTS.items() if not weights_path(n).exists() or sha256_file(weights_path(n)) != digest]
    found = f"{len(WEIGHTS) - len(bad)} of {len(WEIGHTS)} files intact" + (f"; not {', '.join(bad)}" if bad else "")
    return Check("weights", not bad, found, "reinstall fslab: pip install --force-reinstall fslab")


def check_forward(device: str = "auto") -> Check:
    """One real pass: find a face in the packaged footage, align it, run it through a `tiny` model."""
    from fslab.devices import choose_device
    from fslab.extract import ExtractConfig
    from fslab.faces import Detector, FaceMesh
    from fslab.geometry import align_matrix, crop_from_frame
    from fslab.media import read_frames
    from fslab.model import PRESETS, SwapAutoencoder
    from fslab.samples import sample_path

    frame = next(iter(read_frames(sample_path("ada_target.mp4"))))
    faces = Detector().detect(frame.rgb(), min_face=40)
    if len(faces) != 1:
        return Check(
            "one real pass", False, f"{len(faces)} faces in the packaged clip", "reinstall facenet-pytorch==2.5.3"
        )
    face = FaceMesh().fit(frame, faces[0])
    config = PRESETS["tiny"][0]
    crop = crop_from_frame(frame, align_matrix(face.landmarks, config.size, ExtractConfig().coverage), config.size)
    chosen = choose_device(device)
    model = SwapAutoencoder(config, ["a", "b"]).to(chosen).eval()
    with torch.inference_mode():
        rgb, mask = model(torch.from_numpy(crop).permute(2, 0, 1)[None].to(chosen).float() / 255, "b")
    finite = bool(torch.isfinite(rgb).all() and torch.isfinite(mask).all())
    return Check(
        "one real pass", finite, f"face found (score {face.score:.2f}), {config.size} px drawn", "reinstall torch"
    )


def run_checks(device: str = "auto") -> list[Check]:
    """Run every check; one that raises becomes a failed check with the error as what was found."""
    jobs: list[tuple[str, Callable[[], Check]]] = [
        ("Python", check_python), ("device", lambda: check_torch(device)), ("video codecs", check_codecs),
        ("disk", check_disk), ("weights", check_weights), ("one real pass", lambda: check_forward(device)),
    ]  # fmt: skip
    results = []
    for name, job in jobs:
        try:
            results.append(job())
        except (OSError, RuntimeError, ImportError, FslabError) as error:
            results.append(
                Check(name, False, " ".join(str(error).split())[:200], "reinstall fslab in a new environment")
            )
    return results
