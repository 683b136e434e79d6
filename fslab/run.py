"""A run folder: the trained networks and all that is needed to swap with them or to train on.

``config.json`` (settings, people, consents, counters), ``best.safetensors`` (the averaged weights that measured best,
what swaps use), ``model.safetensors`` (the newest), ``state.safetensors`` (everything training needs to go on, bit for
bit), ``state.prev.safetensors`` (the one before),
``log.jsonl`` (one row about every second), ``previews/``.
"""

import hashlib
import json
import logging
import math
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

import fslab
from fslab.consent import Consent
from fslab.dataset import DataConfig
from fslab.errors import ConsentError, RunError
from fslab.faceset import FaceSet
from fslab.losses import LossConfig
from fslab.model import ModelConfig, SwapAutoencoder
from fslab.schedule import TrainConfig
from fslab.storage import atomic_path, explained, kept_as, read_json, sha256_file, write_json, write_json_lines

SCHEMA = 1
BEST = "best.safetensors"
DIGEST = "sha256"  # in the header of a file of tensors; files of others have none
FALLEN_BACK = "fallen_back"  # counter of a state that is not the newest, because that is damaged
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Best:
    """When in a training the best weights were measured, and their score (`fslab.watch.Measurement.score`)."""

    step: int
    seconds: float
    score: float

    def is_beaten_by(self, score: float) -> bool:
        """Say whether a later score is as good or better; what differs by less than a thousandth is as good."""
        return round(score, 3) >= round(self.score, 3)


@dataclass
class Run:
    """A trained, or half-trained, swap network with its people.

    ``model`` is in evaluation mode. ``embeddings`` holds each person's mean identity embedding ``(128,)``, ``facesets``
    what each was trained from (faces, sources and hashes), ``encoder_weights`` where the encoder started ("hub",
    "packaged", "random"). ``step`` and ``seconds`` say when in the training these weights were taken, ``finished``
    whether the whole budget was used.
    """

    folder: Path
    model: SwapAutoencoder = field(repr=False)
    model_config: ModelConfig
    train_config: TrainConfig
    identities: list[str]
    coverage: float
    embeddings: dict[str, np.ndarray] = field(repr=False)
    consents: dict[str, Consent]
    facesets: dict[str, dict] = field(repr=False)
    encoder_weights: str = "random"
    step: int = 0
    seconds: float = 0.0
    finished: bool = False
    best: Best | None = None

    def head(self) -> dict:
        """Return ``config.json`` as a dict."""
        return {
            "schema": SCHEMA,
            "fslab": fslab.__version__,
            "identities": self.identities,
            "coverage": self.coverage,
            "step": self.step,
            "seconds": round(self.seconds, 3),
            "finished": self.finished,
            "best": asdict(self.best) if self.best else None,
            "encoder_weights": self.encoder_weights,
            "model": asdict(self.model_config),
            "train": asdict(self.train_config),
            "consents": {name: c.to_dict() for name, c in self.consents.items()},
            "facesets": self.facesets,
            "embeddings": {name: [round(float(v), 5) for v in e] for name, e in self.embeddings.items()},
        }

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the averaged weights in memory; equals that of the newest ``model.safetensors`` once saved."""
        return hashlib.sha256(pack_tensors(self.model.state_dict(), {})).hexdigest()

    def save(self, folder: Path | None = None) -> None:
        """Write the averaged weights and ``config.json`` to ``folder`` (default: the run's own)."""
        folder = Path(folder or self.folder)
        save_tensors(folder / "model.safetensors", self.model.state_dict(), {})
        write_json(folder / "config.json", self.head())

    def keep_if_best(self, score: float) -> bool:
        """Keep the weights as ``best.safetensors`` if no earlier ones scored better; a score of NaN never does.

        Returns:
            Whether they were kept.
        """
        if not math.isfinite(score) or (self.best and not self.best.is_beaten_by(score)):
            return False
        best = Best(self.step, round(self.seconds, 3), score)
        save_tensors(self.folder / BEST, self.model.state_dict(), {k: str(v) for k, v in asdict(best).items()})
        self.best = best
        return True

    @classmethod
    def load(cls, folder: Path, device: str | torch.device = "cpu", newest: bool = False) -> "Run":
        """Read a run folder, with the model in evaluation mode on ``device``.

        The weights are those that measured best, whether or not training is over. Where there are none (a run that was
        never measured) or they are damaged, the newest take their place, and for those, if they are damaged too, the
        averaged weights in the training state; a warning says so.

        Args:
            folder: the run folder.
            device: where the model is wanted.
            newest: take the newest weights, however they measured.

        Raises:
            RunError: if the folder is not a run, is damaged, or was written by a newer version.
        """
        folder = Path(folder)
        run = _from_head(folder, read_head(folder))
        weights, best = (None, None) if newest else load_best(folder, run.best)
        if best:
            run.step, run.seconds, run.best = best.step, best.seconds, best
        else:
            weights = _load_weights(folder)
        try:
            run.model.load_state_dict(weights)
        except RuntimeError as reason:
            raise _damaged(folder, "weights that do not fit its config.json") from reason
        run.model.to(device).eval().requires_grad_(False)
        return run


def is_run(folder: Path) -> bool:
    """Say whether ``folder`` holds a run."""
    return (Path(folder) / "config.json").exists()


def _what(folder: Path) -> str:
    return f"a run folder (made by `fslab train`) at '{folder}'"


def _damaged(folder: Path, found: str) -> RunError:
    return RunError(_what(folder), found, "restore it from a copy or train again into a new folder")


def read_head(folder: Path) -> dict:
    """Read ``config.json`` as a dict; raises RunError if it is missing, damaged or of another version."""
    head = read_json(Path(folder) / "config.json", _what(folder), RunError)
    if not isinstance(head, dict) or "schema" not in head:
        raise _damaged(folder, "a config.json that is not a run's")
    if head["schema"] != SCHEMA:
        raise RunError(_what(folder), f"one of version {head['schema']}", "update fslab")
    return head


def _from_head(folder: Path, head: dict) -> Run:
    """Build a run with fresh weights from its ``config.json``."""
    try:
        train = dict(head["train"])
        train |= {"losses": LossConfig(**train["losses"]), "data": DataConfig(**train["data"])}
        config = ModelConfig(**head["model"])
        return Run(
            folder=folder,
            model=SwapAutoencoder(replace(config, pretrained=False), head["identities"]),
            model_config=config,
            train_config=TrainConfig(**train),
            identities=list(head["identities"]),
            coverage=float(head["coverage"]),
            embeddings={name: np.asarray(e, np.float32) for name, e in head["embeddings"].items()},
            consents={name: Consent.from_dict(c) for name, c in head["consents"].items()},
            facesets=head["facesets"],
            encoder_weights=head["encoder_weights"],
            step=int(head["step"]),
            seconds=float(head["seconds"]),
            finished=bool(head["finished"]),
            best=Best(**head["best"]) if head.get("best") else None,
        )
    except (KeyError, TypeError, ValueError, AttributeError, ConsentError) as reason:
        raise _damaged(folder, f"a damaged config.json ({reason!r})") from reason


def load_best(folder: Path, expected: Best | None = None) -> tuple[dict[str, torch.Tensor] | None, Best | None]:
    """Return the weights that measured best and when that was, as their own file says; None and None without them.

    A file that is damaged, or missing though one is ``expected``, is no error: a warning tells that the newest weights
    take its place.
    """
    path = Path(folder) / BEST
    if not path.exists() and expected is None:
        return None, None
    try:
        weights, about = load_tensors(path)
        return weights, Best(int(about["step"]), float(about["seconds"]), float(about["score"]))
    except (RunError, KeyError, ValueError):
        log.warning("'%s' is missing or damaged; using the newest weights", path)
        return None, None


def _load_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Return the averaged weights, from the training state where their own file is damaged."""
    try:
        return load_tensors(folder / "model.safetensors")[0]
    except RunError as error:
        try:
            tensors, _ = load_state(folder)
        except RunError:
            raise error from None
        log.warning("'%s' is missing or damaged; using the weights in the training state", folder / "model.safetensors")
        return {k.removeprefix("ema/"): v for k, v in tensors.items() if k.startswith("ema/")}


def pack_tensors(tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> bytes:
    """Return tensors as the bytes of a ``.safetensors`` file whose header tells the SHA-256 of what follows it."""
    blank = "~" * 64
    data = save({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, metadata | {DIGEST: blank})
    return data.replace(blank.encode(), _digest(data).encode(), 1)


def _digest(data: bytes) -> str:
    """Return the SHA-256 of the tensors in the bytes of a ``.safetensors`` file, 64 hexadecimal digits."""
    return hashlib.sha256(memoryview(data)[8 + int.from_bytes(data[:8], "little") :]).hexdigest()


def save_tensors(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str], previous: str = "") -> None:
    """Write tensors atomically: the new file is read back and compared before it takes the place of the old one.

    Whenever the process is killed, there is a whole file at ``path`` if there was one before, and the one at
    ``previous`` goes only once a newer one stands at ``path``.

    Args:
        path: the ``.safetensors`` file.
        tensors: by name, on any device.
        metadata: texts kept in the file's header.
        previous: file name under which the old file is kept; empty keeps none.

    Raises:
        OutputError: if it cannot be written.
        RunError: if a tensor is not finite, or the file does not read back as written.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise RunError("finite weights", f"'{name}' is not finite", "train on from the last checkpoint")
    data = pack_tensors(tensors, metadata)
    with ExitStack() as stack, atomic_path(path) as part:
        part.write_bytes(data)
        if part.read_bytes() != data:
            raise RunError(f"'{path.name}' to read back as written", "other bytes", "check the disk")
        if previous and path.exists():
            stack.enter_context(kept_as(path, path.with_name(previous)))


def unpack_tensors(data: bytes) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Return tensors and metadata of the bytes that `pack_tensors` made; ValueError if they are others by now."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    tensors, metadata = load(data), header.get("__metadata__", {})
    if metadata.pop(DIGEST, None) not in (None, _digest(data)):
        raise ValueError("other tensors than were written")
    return tensors, metadata


def load_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read tensors and metadata of a ``.safetensors`` file into memory; the file is closed again.

    Raises:
        RunError: if it is missing or damaged.
    """
    try:
        return unpack_tensors(Path(path).read_bytes())
    except FileNotFoundError:
        raise RunError(f"the file '{path}'", "none", "restore it from a copy") from None
    except (OSError, SafetensorError, ValueError, UnicodeDecodeError) as reason:
        raise RunError(f"a whole file '{path}'", "a damaged one", "restore it from a copy") from reason


def pack_state(
    networks: dict[str, torch.nn.Module], optimizers: dict[str, torch.optim.Optimizer]
) -> dict[str, torch.Tensor]:
    """Return the tensors of networks and optimisers under names for one file, such as ``model/encoder.code.weight``."""
    tensors = {f"{name}/{k}": v for name, network in networks.items() for k, v in network.state_dict().items()}
    for name, optimizer in optimizers.items():
        for i, slots in optimizer.state_dict()["state"].items():
            tensors |= {f"{name}/{i}/{k}": v for k, v in slots.items()}
    return tensors


def unpack_state(
    tensors: dict[str, torch.Tensor],
    networks: dict[str, torch.nn.Module],
    optimizers: dict[str, torch.optim.Optimizer],
) -> None:
    """Put back what `pack_state` took; networks and optimisers that are new since then stay as they are.

    Raises:
        RunError: if the tensors are not those of these networks and optimisers.
    """
    try:
        for name, network in networks.items():
            found = {k.removeprefix(f"{name}/"): v for k, v in tensors.items() if k.startswith(f"{name}/")}
            if found or name in ("model", "ema"):  # a critic may be new, these never are
                network.load_state_dict(found)
        for name, optimizer in optimizers.items():
            groups = optimizer.state_dict()["param_groups"]
            slots: dict[int, dict[str, torch.Tensor]] = {i: {} for group in groups for i in group["params"]}
            for key, value in tensors.items():
                first, _, rest = key.partition("/")
                number, _, slot = rest.partition("/")
                if first == name and int(number) in slots:  # not there: a backbone that is frozen from now on
                    slots[int(number)][slot] = value
            state = {i: found for i, found in slots.items() if found}
            optimizer.load_state_dict({"state": state, "param_groups": groups})
    except (RuntimeError, ValueError, KeyError) as reason:
        raise RunError(
            "a checkpoint of this training", "one of other settings", "train with the run's own settings"
        ) from reason


def save_state(folder: Path, tensors: dict[str, torch.Tensor], counters: dict[str, object]) -> None:
    """Write the training state, keeping the one before."""
    metadata = {k: str(v) for k, v in counters.items()}
    save_tensors(Path(folder) / "state.safetensors", tensors, metadata, "state.prev.safetensors")


def load_state(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read the training state; where the newest is damaged, the one before, with a warning.

    Raises:
        RunError: if neither can be read.
    """
    folder = Path(folder)
    try:
        return load_tensors(folder / "state.safetensors")
    except RunError as error:
        try:
            tensors, metadata = load_tensors(folder / "state.prev.safetensors")
        except RunError:
            raise error from None
        log.warning(
            "'%s' is missing or damaged; going on from the checkpoint before it (step %s)",
            folder / "state.safetensors", metadata.get("step", "?"),
        )  # fmt: skip
        return tensors, metadata | {FALLEN_BACK: "yes"}


def append_log(folder: Path, row: dict) -> dict:
    """Append a row to ``log.jsonl`` and return it; numbers that are not finite become null."""
    row, path = _finite(row), Path(folder) / "log.jsonl"
    with explained(path), open(path, "a", encoding="utf-8", newline="\n") as file:
        file.write(json.dumps(row, separators=(",", ":")) + "\n")
    return row


def trim_log(folder: Path, step: int) -> None:
    """Drop the rows after ``step``, made between a checkpoint and a crash, and a half-written last row."""
    path, rows = Path(folder) / "log.jsonl", []
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    write_json_lines(path, [row for row in rows if row["step"] <= step])


def _finite(value: object) -> object:
    """Replace numbers that JSON cannot hold by None, in nested dicts."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def describe_faceset(faceset: FaceSet) -> dict:
    """Return what a run remembers of a face set: faces, sources with their hashes, and the hash of its records."""
    return {
        "faces": len(faceset.kept),
        "sources": faceset.sources,
        "sha256": sha256_file(faceset.folder / "faces.jsonl"),
    }
