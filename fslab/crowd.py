"""Many people's faces on a device, and batches of one person drawn from a picture of another.

Rendered people who share what they show (``fslab synth faces --sharing N``) make pairs that no photograph can: the same
pose, expression, gaze and light on another face. Everybody else is only drawn from pictures of their own.

The answer is laid over the picture as a swap has it: moved and scaled as a whole so that the one face's mesh lies on
the other's. Crops are cut by five points, and people differ in where those sit in the face.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from fslab.consent import require_consent
from fslab.dataset import Batch, DataConfig, face_planes, move, to_batch, vary
from fslab.errors import ConsentError, FaceSetError
from fslab.faces import find_faces
from fslab.faceset import FaceSet
from fslab.geometry import align_matrix, crop_from_frame, transform_points, warp
from fslab.media import RgbFrame, is_image, read_image
from fslab.mesh import five_points
from fslab.storage import read_json

RENDERED = "faces rendered by `fslab synth faces`"
FACESET = "faceset.json"  # what makes a folder a face set


@dataclass(frozen=True)
class Faces:
    """Aligned faces of many people.

    Attributes:
        crops: ``(N, S0, S0, 3)`` uint8.
        meshes: ``(N, 468, 2)`` crop pixels.
        people: ``(N,)`` name of the person in each.
        scenes: ``(N,)`` what each shows; two faces of one scene differ in the person only. "" is a scene of its own.
        about: where they are from, as JSON types: what they are, how many pictures, and the licence or consent; of
            rendered ones also the hash and the side in pixels; of several folders, those of each under "sources".
    """

    crops: np.ndarray
    meshes: np.ndarray
    people: np.ndarray
    scenes: np.ndarray
    about: dict


def load_rendered(folder: Path, size: int, coverage: float) -> Faces:
    """Read a folder made by ``fslab synth faces``.

    Args:
        folder: the folder.
        size: side of the crops, pixels.
        coverage: the crops' coverage; rendered with another, they are cut anew.

    Raises:
        FaceSetError: if it is none or is damaged.
    """
    folder = Path(folder)
    head = read_json(folder / "index.json", f"{RENDERED} at '{folder}'", FaceSetError)
    try:
        config, side = head["config"], int(head["config"]["size"])
        first, sharing = int(config["first"]), int(config["sharing"])
        with np.load(folder / "labels.npz", allow_pickle=False) as labels:
            seeds, numbers, meshes = labels["seed"], labels["number"], labels["mesh"]
        files = [folder / "faces" / str(s) / f"{n:02d}.jpg" for s, n in zip(seeds, numbers)]
        pictures = [read_image(f) for f in files]
    except (KeyError, TypeError, OSError, ValueError) as reason:
        raise FaceSetError(f"{RENDERED} at '{folder}'", f"a damaged folder ({reason})", "render it again") from reason
    found = [_recut(picture, mesh, size, coverage) for picture, mesh in zip(pictures, meshes.astype(np.float32))]
    show = seeds - (seeds - first) % sharing if sharing else seeds * 0
    scenes = np.array([f"{head['hash'][:8]}/{s}/{n}" if sharing != 1 else "" for s, n in zip(show, numbers)])
    about = {
        "what": f"rendered people {first} to {first + int(config['people']) - 1}", "pictures": len(files),
        "hash": head["hash"], "side": side, "licence": "CC0-1.0",
    }  # fmt: skip
    crops, meshes = np.stack([f[0] for f in found]), np.stack([f[1] for f in found])
    return Faces(crops, meshes, np.array([f"person{s}" for s in seeds]), scenes, about)


def load_faceset(folder: Path, size: int) -> Faces:
    """Read a face set whose person agreed to training, as a person among others.

    Raises:
        ConsentError: without a valid consent to training.
        FaceSetError: if it is none or is damaged.
    """
    faceset = FaceSet.load(Path(folder))
    require_consent(faceset.consent, faceset.identity, "training")
    n = len(faceset.kept)
    about = {
        "what": f"face set of {faceset.identity}", "pictures": n, "synthetic": faceset.consent.synthetic,
        "consent": faceset.consent.confirmed_by,
    }  # fmt: skip
    people, scenes = np.full(n, faceset.identity), np.full(n, "")
    return Faces(faceset.crops(size), faceset.crop_meshes(size)[..., :2], people, scenes, about)


def load_pictures(folder: Path, size: int, coverage: float) -> Faces:
    """Find the faces in a folder of pictures that says under which licence they may be used.

    Each folder in it is a person; a picture that lies in none is a person of its own. Of each picture the largest face
    is taken; pictures without one are passed over.

    Raises:
        ConsentError: without a file LICENSE or LICENCE (with or without an ending) in the folder, or where a face set
            lies in it or around it: what its person agreed to counts, not the file.
        FaceSetError: if no picture shows a face.
    """
    folder = Path(folder)
    licence = next((p for p in sorted(folder.glob("LICEN[CS]E*")) if p.read_text(errors="replace").strip()), None)
    if licence is None:
        what = f"a file LICENSE in '{folder}' that says who may use these faces, and for what"
        raise ConsentError(what, "none", "use face sets of people who agreed, or pictures under a licence")
    if faceset := next((p for p in (*folder.rglob(FACESET), folder.resolve().parent / FACESET) if p.exists()), None):
        fix = "name the face set's own folder, so that its consent is read"
        raise ConsentError(f"pictures under a licence in '{folder}'", f"a face set at '{faceset.parent}'", fix)
    crops, meshes, people = [], [], []
    for path in sorted(p for p in folder.rglob("*") if is_image(p)):
        frame = RgbFrame(read_image(path))
        if faces := find_faces(frame):
            face = max(faces, key=lambda f: float(np.prod(f.box[2:] - f.box[:2])))
            matrix = align_matrix(face.landmarks, size, coverage)
            crops.append(crop_from_frame(frame, matrix, size))
            meshes.append(transform_points(face.mesh[:, :2], matrix))
            people.append(path.relative_to(folder).parts[0])
    if not crops:
        raise FaceSetError(f"pictures of faces in '{folder}'", "none", "check that the faces are large and upright")
    about = {"what": f"pictures in {folder.name}", "pictures": len(crops), "licence": licence.read_text()[:200].strip()}
    return Faces(np.stack(crops), np.stack(meshes), np.array(people), np.full(len(crops), ""), about)


def load_faces(folders: Sequence[Path], size: int, coverage: float) -> Faces:
    """Read folders of rendered faces, face sets and pictures under a licence, all brought to one size.

    Raises:
        FaceSetError: if one is none of them, is damaged, or is cut with another coverage.
        ConsentError: if a person did not agree to training, or pictures have no licence.
    """
    parts = []
    for folder in map(Path, folders):
        if (folder / "index.json").exists():
            parts.append(load_rendered(folder, size, coverage))
            continue
        if folder.is_dir() and not (folder / FACESET).exists():
            parts.append(load_pictures(folder, size, coverage))
            continue
        if FaceSet.load(folder).coverage != coverage:
            found = f"{FaceSet.load(folder).coverage:g}"
            raise FaceSetError(f"a face set of coverage {coverage:g} at '{folder}'", found, "extract it again")
        parts.append(load_faceset(folder, size))
    if not parts:
        raise FaceSetError("folders of faces", "none", f"name {RENDERED}, face sets, or pictures under a licence")
    columns = (np.concatenate([getattr(p, name) for p in parts]) for name in ("crops", "meshes", "people", "scenes"))
    sources = [{**p.about, "sha256": hashlib.sha256(p.crops.tobytes()).hexdigest()} for p in parts]  # of the crops
    return Faces(*columns, {"sources": sources})


def _recut(picture: np.ndarray, mesh: np.ndarray, size: int, coverage: float) -> tuple[np.ndarray, np.ndarray]:
    """Cut a crop out of a picture by the five points of its mesh ``(468, 2)``; return it and the mesh in it."""
    matrix = align_matrix(five_points(mesh), size, coverage)
    return warp(picture, matrix, size, smooth=True), transform_points(mesh, matrix)


class Crowd:
    """Everybody's faces on a device."""

    def __init__(self, faces: Faces, size: int, config: DataConfig, device: str | torch.device = "cpu"):
        """Put faces on a device.

        Args:
            faces: of two people or more.
            size: side of the network's pictures, pixels.
            config: how faces are varied.
            device: where they are kept and the batches are made.

        Raises:
            ValueError: if there are fewer than two people.
        """
        self.names, who = np.unique(faces.people, return_inverse=True)
        if len(self.names) < 2:
            raise ValueError(f"a base is trained on two people or more, got {len(self.names)}")
        self.size, self.config, self.device = size, config, torch.device(device)
        planes = np.stack([face_planes(m, faces.crops.shape[1], config) for m in faces.meshes])  # (N, 2, S0, S0)
        self._faces = torch.from_numpy(np.concatenate([faces.crops.transpose(0, 3, 1, 2), planes], 1)).to(self.device)
        self.who = torch.from_numpy(who).to(self.device)  # (N,)
        # Mesh points as complex numbers, x + iy in [-1, 1] from edge to edge: a similarity is then one product.
        at = (torch.from_numpy(faces.meshes.astype(np.float32)) + 0.5) / faces.crops.shape[1] * 2 - 1
        self._points = torch.view_as_complex(at[..., :2].contiguous()).to(self.device)  # (N, 468)
        self.partners, self.n_partners = (torch.from_numpy(a).to(self.device) for a in _partners(faces.scenes))

    def __len__(self) -> int:
        return len(self._faces)

    def batch(self, n: int, generator: torch.Generator, own: float = 0.2) -> tuple[Batch, torch.Tensor]:
        """Draw ``n`` faces and, as input of each, the same scene on another person.

        Args:
            n: faces, drawn with replacement.
            generator: source of all randomness; on the crowd's device.
            own: share of the faces whose input is their own picture, in [0, 1].

        Returns:
            The batch and who is drawn, ``(n,)`` indices into ``names``.
        """
        index = torch.randint(len(self._faces), (n,), generator=generator, device=self.device)
        draws = torch.rand((2, n), generator=generator, device=self.device)
        other = self.partners[index, (draws[0] * self.n_partners[index]).long()]
        inputs = torch.where(draws[1] < own, index, other)
        place = self._place(inputs, index)
        bent, planes, _ = vary(self._take(inputs, 3), self._take(index, 5), self.size, self.config, generator, place)
        return to_batch(bent, planes, self.config), self.who[index]

    def pictures(self, inputs: torch.Tensor, targets: torch.Tensor) -> Batch:
        """Return faces unvaried: pictures ``inputs (n,)`` and, laid over them, ``targets (n,)``."""
        flat = torch.eye(2, 3, device=self.device).expand(len(inputs), 2, 3)
        grid = F.affine_grid(flat, [len(inputs), 3, self.size, self.size], align_corners=False)
        over = move(grid, self._place(inputs, targets))
        bent = F.grid_sample(self._take(inputs, 3), grid, padding_mode="border", align_corners=False)
        planes = F.grid_sample(self._take(targets, 5), over, padding_mode="border", align_corners=False)
        return to_batch(bent, planes, self.config)

    def _place(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the similarities ``(n, 2, 3)`` that take the meshes of ``inputs`` to those of ``targets``."""
        p, q = self._points[inputs], self._points[targets]  # (n, 468)
        p0, q0 = p.mean(1, keepdim=True), q.mean(1, keepdim=True)
        turn = ((p - p0).conj() * (q - q0)).sum(1) / (p - p0).abs().square().sum(1)  # least squares: q ~ turn * p
        shift = (q0 - turn[:, None] * p0)[:, 0]
        rows = (turn.real, -turn.imag, shift.real, turn.imag, turn.real, shift.imag)
        return torch.stack(rows, 1).view(-1, 2, 3)

    def _take(self, index: torch.Tensor, planes: int) -> torch.Tensor:
        return self._faces[index, :planes].float() / 255  # (n, planes, S0, S0)


def _partners(scenes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return, for each face, the others of its scene ``(N, K)`` and how many they are ``(N,)``; itself if it has none.

    Args:
        scenes: ``(N,)`` names; "" stands for a scene of its own.
    """
    members: dict[str, list[int]] = {}
    for i, scene in enumerate(scenes):
        members.setdefault(scene or f"#{i}", []).append(i)
    others = [[j for j in members[s or f"#{i}"] if j != i] or [i] for i, s in enumerate(scenes)]
    most = max(map(len, others))
    table = np.array([row + row[:1] * (most - len(row)) for row in others], np.int64)
    return table, np.array([len(row) for row in others], np.int64)


def hold_out(faces: Faces, n_people: int) -> tuple[Faces, Faces]:
    """Split off people to measure on: the last by name of those who share scenes, or of all where nobody does.

    Args:
        faces: of everybody.
        n_people: how many to hold out.

    Returns:
        Those to train on, and those held out.

    Raises:
        ValueError: if fewer than two people would be left to train on.
    """
    names = np.unique(faces.people)
    shared = np.unique(faces.people[_partners(faces.scenes)[0][:, 0] != np.arange(len(faces.people))])
    if not 0 < n_people < len(names) - 1:
        raise ValueError(f"held_out_people must leave two people to train on, got {n_people} of {len(names)}")
    held = np.isin(faces.people, (shared if len(shared) >= n_people else names)[-n_people:])
    return _only(faces, ~held), _only(faces, held)


def _only(faces: Faces, chosen: np.ndarray) -> Faces:
    return Faces(faces.crops[chosen], faces.meshes[chosen], faces.people[chosen], faces.scenes[chosen], faces.about)
