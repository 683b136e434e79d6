"""Swap one frame's faces: align, encode, decode as the other person, match colour, paste."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import cv2
import numpy as np
import torch
from typing_extensions import Doc

from fslab.blend import ColourShift, apply_colour, colour_shift, outline_mask, paste, sharpen
from fslab.consent import Consent, require_consent
from fslab.embedder import SAME_PERSON_MEANS, Embedder
from fslab.errors import NoFaceFound, OutputError, RunError
from fslab.faces import Face, find_faces
from fslab.geometry import align_matrix, crop_from_frame, transform_points
from fslab.media import Frame, RgbFrame, read_image
from fslab.mesh import FEATURES, face_region
from fslab.provenance import Manifest, save_marked_image
from fslab.run import Run
from fslab.visible import visible_face


@dataclass(frozen=True)
class SwapConfig:
    """How a decoded face is blended into its frame."""

    mask: Annotated[Literal["both", "outline", "decoder"], Doc("what bounds the face: mesh outline, decoder, both")] = (
        "both"
    )
    forehead: Annotated[float, Doc("share of the forehead that is replaced, 0 (up to the brows) to 1 (all)")] = 0.6
    keep_in_front: Annotated[
        bool, Doc("leave hair and what else is not skin: the target's stays in front, the source's is not drawn")
    ] = True
    erode: Annotated[float, Doc("how far the mask's edge lies inside the outline, share of the face's size")] = 0.04
    feather: Annotated[float, Doc("width of the mask's soft edge, share of the face's size")] = 0.12
    colour: Annotated[float, Doc("strength of the colour match, 0 to 1")] = 1.0
    colour_memory: Annotated[
        float, Doc("smoothing of the colour over time: share kept from frame to frame, 0 to 1")
    ] = 0.8
    sharpen: Annotated[
        float, Doc("share of the target's own gradient energy that a softer face is sharpened to, 0 = off")
    ] = 0.65
    same_person: Annotated[float, Doc("embedding distance below which a face is the person to replace")] = (
        SAME_PERSON_MEANS
    )

    def __post_init__(self):
        for name in ("colour", "colour_memory", "forehead"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        for name in ("erode", "feather", "sharpen", "same_person"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be >= 0, got {getattr(self, name)}")


@dataclass(frozen=True)
class AlignedFace:
    """A target face ready for the network.

    ``matrix`` (2, 3) frame -> crop, ``crop`` (S, S, 3); ``outline`` (N, 2) of the face and ``features`` (M, 2), points
    of eyes and mouth, crop pixels.
    """

    matrix: np.ndarray
    crop: np.ndarray
    outline: np.ndarray
    features: np.ndarray


@dataclass(frozen=True)
class SwappedFace:
    """What the network drew for one face: ``crop`` (S, S, 3) uint8 before blending, ``mask`` (S, S) in [0, 1]."""

    aligned: AlignedFace
    crop: np.ndarray
    mask: np.ndarray


class Swapper:
    """A trained run with the person whose face is put in. One thread may `convert` while another runs `blend`."""

    def __init__(self, run: Run, identity: str, config: SwapConfig | None = None):
        """Prepare ``run`` to draw ``identity``.

        Raises:
            RunError: if the run was not trained on ``identity``.
        """
        if identity not in run.identities:
            known = " and ".join(run.identities)
            raise RunError(f"an identity of this run ({known})", f"'{identity}'", "choose one of them")
        self.run, self.identity, self.config = run, identity, config or SwapConfig()
        self.size = run.model_config.size
        self.device = next(run.model.parameters()).device

    def align(self, frame: Frame, face: Face) -> AlignedFace:
        """Cut the crop of a face (with a mesh) as the run expects it."""
        matrix = align_matrix(face.landmarks, self.size, self.run.coverage)
        crop = crop_from_frame(frame, matrix, self.size)
        region = face_region(face.mesh, self.config.forehead)
        features = face.mesh[list(FEATURES), :2]
        return AlignedFace(matrix, crop, transform_points(region, matrix), transform_points(features, matrix))

    @torch.inference_mode()
    def convert(self, faces: Sequence[AlignedFace]) -> list[SwappedFace]:
        """Draw the identity's face for a batch of aligned faces."""
        if not faces:
            return []
        batch = torch.from_numpy(np.stack([f.crop for f in faces])).to(self.device)
        rgb, mask = self.run.model(batch.permute(0, 3, 1, 2).float() / 255, self.identity)  # (B, 3, S, S), (B, 1, S, S)
        rgb = (rgb.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        drawn = mask[:, 0].float().cpu().numpy()  # (B, S, S)
        return [
            SwappedFace(face, crop, self._mask(face, crop, inner))
            for face, crop, inner in zip(faces, rgb, drawn, strict=True)
        ]

    def _mask(self, face: AlignedFace, crop: np.ndarray, drawn: np.ndarray) -> np.ndarray:
        """Combine the target's outline, less what hides either face, with the decoder's mask; see `SwapConfig.mask`."""
        config = self.config
        if config.mask == "decoder":
            sigma = max(config.feather * self.size / 4, 0.5)
            drawn = cv2.GaussianBlur(drawn, (0, 0), sigma)
            drawn[[0, -1]] = drawn[:, [0, -1]] = 0
            return drawn
        seen = None
        if config.keep_in_front:
            seen = np.minimum(*(visible_face(c, face.outline, face.features) for c in (face.crop, crop)))
        mask = outline_mask(face.outline, self.size, config.erode, config.feather, seen)
        if config.mask == "outline":
            return mask
        sigma = max(config.feather * self.size / 8, 0.5)
        return mask * np.clip(cv2.GaussianBlur(drawn, (0, 0), sigma) * 2, 0, 1)

    def blend(self, frame: Frame, face: SwappedFace, last: ColourShift | None = None) -> ColourShift | None:
        """Paste a swapped face into ``frame``, in place.

        Args:
            frame: the frame it was cut from.
            face: what `convert` drew.
            last: the colour shift of the same face in the frame before, or None after a cut.

        Returns:
            The colour shift that was used, for the next frame.
        """
        crop, shift = face.crop, None
        if self.config.colour:
            now = colour_shift(crop, face.aligned.crop, face.mask)
            shift = last.towards(now, 1 - self.config.colour_memory) if now and last else now or last
        if shift:
            crop = apply_colour(crop, shift, self.config.colour)
        crop = sharpen(crop, face.aligned.crop, face.mask, self.config.sharpen)
        paste(frame, crop, face.mask, face.aligned.matrix)
        return shift


def choose_replaced(run: Run, identity: str, replace: str | None) -> str:
    """Return who in the target is replaced: ``replace``, or the only other person of the run.

    Raises:
        RunError: if the run doesn't know ``replace``, or has several other people and none was named.
    """
    others = [name for name in run.identities if name != identity]
    if replace is None and len(others) == 1:
        return others[0]
    if replace in others:
        return replace
    found = f"'{replace}'" if replace else "none named"
    raise RunError(f"--replace to name one of {', '.join(others)}", found, "choose one of them")


def require_swap_consents(run: Run) -> list[Consent]:
    """Return everybody's consent; raises ConsentError unless each person of the run agreed to swapping."""
    return [require_consent(run.consents.get(name), name, "swapping") for name in run.identities]


def swap_manifest(swapper: Swapper, replaced: str, target: Path) -> Manifest:
    """Check everybody's consent to swapping and describe the swap that is about to be made.

    Raises:
        ConsentError: without a valid consent of everybody in the run.
    """
    run = swapper.run
    consents = require_swap_consents(run)
    about = {"id": run.folder.name, "sha256": run.weights_sha256, "identities": list(run.identities)}
    settings = {"identity": swapper.identity, "replaced": replaced, "step": run.step, "swap": swapper.config}
    return Manifest.new("swap", [target], about, consents, settings)


def is_person(embedding: np.ndarray, run: Run, person: str, threshold: float) -> bool:
    """Say whether a face is ``person``: nearer than ``threshold`` and nearest among the people of the run."""
    distances = {name: float(np.linalg.norm(embedding - known)) for name, known in run.embeddings.items()}
    return distances[person] < threshold and distances[person] == min(distances.values())


def swap_frame(swapper: Swapper, frame: Frame, replace: str | None = None) -> int:
    """Swap every face of the replaced person in one still frame, in place.

    Args:
        swapper: the run and the identity to put in.
        frame: the frame to change.
        replace: who is replaced; None takes the run's other person.

    Returns:
        How many faces were swapped.

    Raises:
        ConsentError: without a valid consent of everybody in the run.
        NoFaceFound: if the frame shows no face, or not the person to replace.
    """
    person = choose_replaced(swapper.run, swapper.identity, replace)
    require_swap_consents(swapper.run)
    faces = find_faces(frame)
    if not faces:
        raise NoFaceFound("a face in the picture", "none", "use a larger or clearer picture")
    vectors = Embedder().embed(frame, faces)
    chosen = [f for f, v in zip(faces, vectors) if is_person(v, swapper.run, person, swapper.config.same_person)]
    if not chosen:
        nearest = min(float(np.linalg.norm(v - swapper.run.embeddings[person])) for v in vectors)
        raise NoFaceFound(
            f"{person} in the picture (embedding distance below {swapper.config.same_person})",
            f"{len(faces)} face(s), the nearest at {nearest:.2f}",
            "name the right person with --replace or raise --same-person",
        )
    for face in swapper.convert([swapper.align(frame, f) for f in chosen]):
        swapper.blend(frame, face)
    return len(chosen)


def check_target(source: Path, output: Path) -> None:
    """Refuse to write a swap over the footage it is made from; raises OutputError."""
    if Path(output).exists() and Path(source).exists() and Path(output).samefile(source):
        raise OutputError("an output other than the target", f"'{output}' for both", "choose another name")


def swap_image(swapper: Swapper, source: Path, output: Path, replace: str | None = None) -> int:
    """Swap a picture file and write the marked result.

    Args:
        swapper: the run and the identity to put in.
        source: the target picture.
        output: a .png, .jpg or .webp path; an existing file is replaced.
        replace: who is replaced; None takes the run's other person.

    Returns:
        How many faces were swapped.

    Raises:
        ConsentError: without a valid consent of everybody in the run.
        NoFaceFound: if the picture shows no face, or not the person to replace.
    """
    check_target(source, output)
    person = choose_replaced(swapper.run, swapper.identity, replace)
    manifest = swap_manifest(swapper, person, source)
    frame = RgbFrame(read_image(source))
    n_faces = swap_frame(swapper, frame, replace)
    save_marked_image(output, frame.rgb(), manifest.with_frames(1, 1))
    return n_faces
