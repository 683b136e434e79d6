"""Watching a training: what its weights make of held-out faces, as the same person and as everybody else.

Redrawing a person well proves little: a network that leaks redraws both people and swaps nobody. So every measurement
has two sides:

* *reconstruction*, person by person, on the end of the footage, which is never trained on: ``l1`` and ``ssim`` inside
  the face;
* *swap*, for every ordered pair: is it the other person (``identity``), does it still do what the target does
  (``follows``), and is it drawn as sharply as that person is filmed (``detail``)? Where a truth is known, also
  ``closure`` and ``leak`` (`fslab.measures`). Half of these faces are held out, half are spread over the rest of the
  footage: the end alone may hardly move, and no network is ever shown what a swap should look like, of whichever face.

These swaps are measured in memory, never shown and never written: part of the training that people agreed to.

`swap_score` makes one number of them, by which the best weights of a training are kept. Detail has a part in it because
squared error has none: while a training from the packaged base goes on, features grow sharp and the likeness rises, but
each sharp edge that lies a pixel off costs more than a blur in its place, and by closure alone the first minute's blur
would be kept.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from fslab.dataset import Batch, DataConfig, face_planes, held_out_records
from fslab.embedder import Embedder, chip_matrix
from fslab.faceset import FaceRecord, FaceSet
from fslab.geometry import rescale_matrix, transform_points, warp
from fslab.losses import l1_loss, ssim_map, weighted_mean
from fslab.measures import TruthSums, gradient_power
from fslab.media import RgbFrame
from fslab.mesh import estimate_pose, expression, five_points, mesh_box
from fslab.model import SwapAutoencoder

HELD_OUT_FACES = 16  # faces of each person that reconstruction is measured on
SWAPPED_FACES = 32  # faces drawn as somebody else in one measurement, over all pairs; 10 ms each on a CPU core
MIN_GAP = 0.1  # embedding distance; two people nearer than this cannot be told apart well enough to say who it is
MIN_READ = 4  # faces whose mesh can be read, fewer say nothing of motion
MIN_MESH_SCORE = 0.5
# What a face does, each in the unit in which it counts: the mean deviation from its median that can just be read from a
# small face. Mouth in eye spans, eyes in eye widths, yaw and pitch in degrees.
MOTIONS = {"mouth": 0.01, "eyes": 0.015, "yaw": 1.0, "pitch": 1.0}
# The exact truth of the packaged pair reaches an identity of 0.41: a swap keeps the target's head. More than this says
# nothing of a better swap: a picture of the source pasted into the target's head reaches 0.4 to 0.6.
ENOUGH_IDENTITY = 0.5


def identity_moved(untouched: np.ndarray, swapped: np.ndarray, own: np.ndarray, mean: np.ndarray) -> float | None:
    """Return how far a swap has moved from the target person A to the source person B.

    ``(mean d(A, b) - mean d(S, b)) / (mean d(A, b) - mean d(B, b))`` with Euclidean distances d to b, the mean
    embedding of B. 0 untouched, 1 as much B as B's own frames, below 0 further from B than A is, without bound;
    higher is better up to `ENOUGH_IDENTITY`, a little above the exact truth of a swap, which keeps A's head.

    Args:
        untouched: ``(N, 128)`` embeddings of A's faces.
        swapped: ``(N, 128)`` of the same faces drawn as B.
        own: ``(M, 128)`` of B's own faces.
        mean: ``(128,)``, b.

    Returns:
        The share, or None where A and B are nearer than `MIN_GAP`.
    """
    start, now, end = (float(np.linalg.norm(v - mean, axis=1).mean()) for v in (untouched, swapped, own))
    return (start - now) / (start - end) if start - end >= MIN_GAP else None


def motion_followed(swapped: np.ndarray, target: np.ndarray) -> float | None:
    """Return how much of what the target does the swap does too, in [0, 1]; higher is better.

    ``1 - sum |s - t| / sum |t|``, at least 0, over faces and motions, with readings s of the swap and t of the target
    in the units of `MOTIONS` and what a face does at rest (the median) taken off both. 0 a face that stays as it is, 1
    every motion as large as the target's; what the footage shows much of counts most. Rest is taken off because people
    differ in it: a wide mouth reads as another opening. The exact truth of the packaged pair reaches 0.8.

    Args:
        swapped: ``(N, 4)``, in the order of `MOTIONS`; a row of NaN where no face could be read, which counts as rest.
        target: ``(N, 4)`` of the same frames; rows of NaN are left out.

    Returns:
        The share, or None where the footage hardly moves or fewer than `MIN_READ` faces can be read.
    """
    there = np.isfinite(target).all(axis=1)
    if there.sum() < MIN_READ:
        return None
    s, t = swapped[there], target[there]
    read = np.isfinite(s).all(axis=1)
    t = t - np.median(t, axis=0)
    s = np.where(read[:, None], s - np.median(s[read], axis=0), 0.0) if read.any() else np.zeros_like(t)
    unit = np.array(list(MOTIONS.values()))
    if (np.abs(t).mean(axis=0) < unit).all():
        return None
    return float(np.clip(1 - (np.abs(s - t) / unit).sum() / (np.abs(t) / unit).sum(), 0, 1))


def detail_drawn(drawn: np.ndarray, masks: np.ndarray, own: np.ndarray, own_masks: np.ndarray) -> float:
    """Return the gradient energy a pixel of drawn faces over that of the person's own, at least 0; 1 is as sharp.

    Args:
        drawn: ``(N, S, S, 3)`` uint8, faces drawn as B.
        masks: ``(N, S, S)`` in [0, 1], where they are faces.
        own: ``(M, S, S, 3)`` uint8, B's own faces.
        own_masks: ``(M, S, S)``.
    """
    mine = gradient_power(own, own_masks) / max(float(own_masks.sum()), 1e-6)
    return gradient_power(drawn, masks) / max(float(masks.sum()), 1e-6) / max(mine, 1e-6)


def swap_score(ssim: float, identity: float | None, follows: float | None, detail: float | None = None) -> float:
    """Return one number for a pair, in [0, 1]; higher is better.

    The harmonic mean of how well the source is redrawn (``ssim``), how much the swap is the source (``identity`` over
    `ENOUGH_IDENTITY`), how much it does what the target does (``follows``) and how sharp it is (``detail``), each cut
    to [0, 1]; what is None is left out. The smallest rules: a network that leaks (identity 0) or draws one face
    whatever the target does (follows 0) scores 0, however well it redraws.
    """
    parts = [ssim, None if identity is None else identity / ENOUGH_IDENTITY, follows, detail]
    parts = [min(max(float(part), 0.0), 1.0) for part in parts if part is not None]
    return len(parts) / sum(1 / part for part in parts) if min(parts) > 0 else 0.0


@dataclass(frozen=True)
class Measurement:
    """One look at a training.

    Attributes:
        held_out: person -> "l1" and "ssim" of redrawing held-out faces.
        swaps: "ada as dan" -> "identity", "follows", "detail", "score", and with a truth "closure" and "leak"; None:
            cannot be told.
        score: the mean of the pairs' `swap_score`, in [0, 1]; higher is better. NaN if the network drew no numbers.
    """

    held_out: dict[str, dict[str, float]]
    swaps: dict[str, dict[str, float | None]]
    score: float

    def to_row(self) -> dict:
        """Return the measurement as the fields of a row of ``log.jsonl``."""
        return {"held_out": self.held_out, "swaps": self.swaps, "score": round(self.score, 4)}


@dataclass(frozen=True)
class _Sight:
    """The faces of one person that are swapped, ``(N, S, S, 3)`` uint8, and what is known of them untouched."""

    pictures: np.ndarray
    masks: np.ndarray
    meshes: np.ndarray
    vectors: np.ndarray
    motions: np.ndarray


def swapped_records(faceset: FaceSet, data: DataConfig, count: int) -> list[FaceRecord]:
    """Return the records of at most ``count`` faces, in the order of the footage: half held out, half from before."""
    held = held_out_records(faceset, data)
    before = faceset.kept[: -len(held)]
    picks = [
        [faces[i] for i in np.unique(np.linspace(0, len(faces) - 1, n).round().astype(int))]
        for faces, n in ((before, count // 2), (held, count - count // 2))
    ]
    return picks[0] + picks[1]


class Watch:
    """Measures the same faces again and again while a training goes on. Draws no random numbers."""

    def __init__(
        self,
        facesets: Sequence[FaceSet],
        held_out: Sequence[Batch],
        data: DataConfig,
        truths: Mapping[str, np.ndarray] | None = None,
    ):
        """Read the faces; the networks that look at them are loaded at the first measurement.

        Args:
            facesets: everybody's, in the order of ``held_out``.
            held_out: `FaceDataset.held_out` of each, at most `HELD_OUT_FACES`.
            data: how the held-out faces were chosen.
            truths: "ada as dan" -> exact swaps ``(N, S, S, 3)`` uint8 of the faces in ``records["ada"]``, cut as they
                are and scaled to the network's size; also taken later, as an attribute.

        Raises:
            FaceSetError: if a crop is missing or damaged.
        """
        self.names, self.held_out, self.truths = [f.identity for f in facesets], list(held_out), dict(truths or {})
        self.means = {f.identity: f.embedding() for f in facesets}
        self.device, size = held_out[0].input.device, held_out[0].input.shape[-1]
        count = max(SWAPPED_FACES // (len(facesets) * (len(facesets) - 1)), 2 * MIN_READ)
        self.records = {f.identity: swapped_records(f, data, count) for f in facesets}
        self._faces: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for faceset in facesets:
            chosen = self.records[faceset.identity]
            meshes = [transform_points(r.mesh, rescale_matrix(r.matrix, faceset.size, size)) for r in chosen]
            self._faces[faceset.identity] = faceset.crops(size, chosen), np.stack(meshes)

    @torch.inference_mode()
    def reconstruct(self, model: SwapAutoencoder) -> dict[str, dict[str, float]]:
        """Return how well a model redraws each person's held-out faces: l1 and ssim inside the face."""
        scores = {}
        for name, batch in zip(self.names, self.held_out):
            rgb, _ = model(batch.input, name)
            inner = batch.mask[:, :, 3:-3, 3:-3]
            scores[name] = {
                "l1": round(float(l1_loss(rgb, batch.target, batch.mask)), 5),
                "ssim": round(float(weighted_mean(ssim_map(rgb, batch.target), inner)), 5),
            }
        return scores

    def measure(self, model: SwapAutoencoder) -> Measurement:
        """Return what a model, in evaluation mode, makes of the held-out faces."""
        held_out, swaps, scores = self.reconstruct(model), {}, []
        for target in self.names:
            for source in self.names:
                if target != source:
                    own = self._measure_pair(model, target, source)
                    score = swap_score(held_out[source]["ssim"], own["identity"], own["follows"], own["detail"])
                    scores.append(score if np.isfinite(held_out[source]["ssim"]) else float("nan"))
                    swaps[f"{target} as {source}"] = {k: None if v is None else round(v, 4) for k, v in own.items()}
                    swaps[f"{target} as {source}"]["score"] = round(scores[-1], 4)
        return Measurement(held_out, swaps, float(np.mean(scores)))

    def _measure_pair(self, model: SwapAutoencoder, target: str, source: str) -> dict[str, float | None]:
        """Return the swap side of one ordered pair."""
        sight, other, (drawn, pictures) = self._sights[target], self._sights[source], self.draw(model, target, source)
        vectors = self._embed(pictures, sight.meshes)
        found = {
            "identity": identity_moved(sight.vectors, vectors, other.vectors, self.means[source]),
            "follows": motion_followed(self._read(drawn, sight.meshes), sight.motions),
            "detail": detail_drawn(drawn, sight.masks, other.pictures, other.masks),
        }
        truth = self.truths.get(f"{target} as {source}")
        if truth is not None:
            sums = TruthSums.of(pictures, sight.pictures, truth, sight.masks)
            found |= {"closure": sums.closure, "leak": sums.leak}
        return found

    @torch.inference_mode()
    def draw(self, model: SwapAutoencoder, target: str, source: str) -> tuple[np.ndarray, np.ndarray]:
        """Return faces of ``target`` as ``source``, ``(N, S, S, 3)`` uint8 RGB: as drawn, and pasted.

        Motion is read from what was drawn, where the target's outline cannot lend its own; identity where it is pasted
        into the target's head, as in a video.
        """
        sight = self._sights[target]
        x = torch.from_numpy(sight.pictures).to(self.device).permute(0, 3, 1, 2).float() / 255
        rgb = model(x, source)[0].float().nan_to_num(0, 1, 0).clamp(0, 1)
        drawn = (rgb * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        mask = sight.masks[..., None]
        return drawn, np.round(drawn * mask + sight.pictures * (1 - mask)).astype(np.uint8)

    @cached_property
    def _sights(self) -> dict[str, _Sight]:
        """Look at everybody's faces once, untouched."""
        sights = {}
        for name, (pictures, meshes) in self._faces.items():
            masks = np.stack([face_planes(mesh, pictures.shape[1], DataConfig())[0] for mesh in meshes])
            sights[name] = _Sight(
                pictures, masks.astype(np.float32) / 255, meshes,
                self._embed(pictures, meshes), self._read(pictures, meshes),
            )  # fmt: skip
        return sights

    @cached_property
    def _embedder(self) -> Embedder:
        with torch.random.fork_rng(devices=[]):  # a network is born random, which must not change the training
            return Embedder(self.device)

    @cached_property
    def _mesh(self):
        from fslab.faces import FaceMesh  # its module brings the detector, which training has no use for

        return FaceMesh()

    def _embed(self, pictures: np.ndarray, meshes: np.ndarray) -> np.ndarray:
        """Return embeddings ``(N, 128)`` of crops whose faces lie where ``meshes`` say."""
        matrices = [chip_matrix(five_points(mesh)) for mesh in meshes]
        chips = [warp(p, matrix, Embedder.chip_size, smooth=True) for p, matrix in zip(pictures, matrices)]
        return self._embedder.embed_chips(np.stack(chips))

    def _read(self, pictures: np.ndarray, meshes: np.ndarray) -> np.ndarray:
        """Return what the faces do, ``(N, 4)`` in the order of `MOTIONS`; NaN where the mesh sees no face."""
        from fslab.faces import Face

        rows = np.full((len(pictures), len(MOTIONS)), np.nan)
        for row, picture, mesh in zip(rows, pictures, meshes):
            known = Face(mesh_box(mesh), five_points(mesh), 1.0, np.pad(mesh, ((0, 0), (0, 1))), 1.0)
            face = self._mesh.fit(RgbFrame(picture), known)
            if face.mesh_score >= MIN_MESH_SCORE:
                look, (yaw, pitch, _) = expression(face.mesh), estimate_pose(face.mesh)
                row[:] = look["mouth_open"], (look["eye_left_open"] + look["eye_right_open"]) / 2, yaw, pitch
        return rows
