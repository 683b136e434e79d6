"""What a swap must beat, and what it cannot: three swaps that no network draws.

To beat: the target in the source's colours, and the source's most similar frame pasted in. The ceiling: the source
doing exactly what the target does, rendered, and pasted by the same converter, mesh on mesh. All use what only a
rendered case knows: the exact mask of the face, and everybody's exact pose and expression.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from fslab.blend import ColourShift, apply_colour, colour_shift, outline_mask, paste, sharpen
from fslab.consent import Consent, require_consent
from fslab.geometry import align_matrix, crop_from_frame, transform_points, umeyama
from fslab.labels import ClipLabels
from fslab.media import Frame, RgbFrame, VideoOptions, YuvFrame, read_footage, read_frames
from fslab.mesh import FEATURES, face_region, five_points
from fslab.provenance import Manifest, open_marked_video
from fslab.swap import SwapConfig
from fslab.visible import visible_face

N_COLOURS = 20_000  # pixels that a person's colours are measured on
LIMIT = 3.0  # largest gain of contrast; wider than a swap's, because here it is between whole people
COVERAGE = 0.64

# Differences that count as one: 10 degrees of pose or gaze, or an expression unit moved by half its way.
DEGREES, UNITS = 10.0, 0.5
Change = Callable[[int, YuvFrame], None]


def face_colours(frames: Iterator[Frame], faces: np.ndarray) -> np.ndarray:
    """Return `N_COLOURS` pixels of a person's face, ``(1, N, 3)`` uint8, spread evenly over the frames.

    Args:
        frames: the frames.
        faces: ``(n, H, W)`` uint8, 255 where a pixel is all face.
    """
    pixels = np.concatenate([frame.rgb()[face > 242] for frame, face in zip(frames, faces)])
    if not len(pixels):
        raise ValueError("no pixel of the frames is face")
    return pixels[np.linspace(0, len(pixels) - 1, N_COLOURS).round().astype(int)][None]


def colour_transfer(target: np.ndarray, source: np.ndarray) -> ColourShift:
    """Return the change that gives the target's face the mean and spread of the source's, one for the whole clip.

    Args:
        target: ``(1, N, 3)``, see `face_colours`.
        source: the same number.
    """
    return colour_shift(target, source, np.ones(target.shape[:2], np.float32), LIMIT)


def recolour(frame: Frame, face: np.ndarray, shift: ColourShift) -> None:
    """Apply a colour shift to the face of a frame, in place; ``face`` ``(H, W)`` uint8 is its exact mask."""
    paste(frame, apply_colour(frame.rgb(), shift), face.astype(np.float32) / 255, np.eye(2, 3))


def attribute_vectors(labels: ClipLabels) -> np.ndarray:
    """Return one vector a frame, ``(N, 3 + 2 + units)``, whose distances say how alike pose and expression are."""
    return np.concatenate([labels.pose / DEGREES, labels.gaze / DEGREES, labels.expression / UNITS], axis=1)


def nearest_frames(target: ClipLabels, source: ClipLabels) -> np.ndarray:
    """Return, for each frame of the target, the source's frame with the most similar attributes, ``(N,)`` int."""
    a, b = attribute_vectors(target), attribute_vectors(source)
    return np.array([int(np.linalg.norm(b - row, axis=1).argmin()) for row in a])


def paste_face(frame: Frame, mesh: np.ndarray, crop: np.ndarray, matrix: np.ndarray, config: SwapConfig) -> None:
    """Paste an aligned picture of another face into a frame, in place, as a swap is: outline, colour, sharpness.

    Args:
        frame: the frame to change.
        mesh: ``(468, 2)`` mesh of its face.
        crop: ``(S, S, 3)`` the other face.
        matrix: ``(2, 3)`` frame -> crop.
        config: how swaps are blended.
    """
    size = len(crop)
    own = crop_from_frame(frame, matrix, size)
    outline, features = (
        transform_points(p, matrix) for p in (face_region(mesh, config.forehead), mesh[list(FEATURES)])
    )
    seen = np.minimum(*(visible_face(c, outline, features) for c in (own, crop)))
    mask = outline_mask(outline, size, config.erode, config.feather, seen)
    shift = colour_shift(crop, own, mask)
    if shift:
        crop = apply_colour(crop, shift, config.colour)
    paste(frame, sharpen(crop, own, mask, config.sharpen), mask, matrix)


def aligned_source(frames: Iterator[Frame], labels: ClipLabels, wanted: Sequence[int], size: int) -> dict:
    """Return the wanted frames of the source, aligned: index -> ``(size, size, 3)`` uint8."""
    chosen = set(map(int, wanted))
    return {
        i: crop_from_frame(frame, align_matrix(five_points(labels.mesh[i]), size, COVERAGE), size)
        for i, frame in enumerate(frames)
        if i in chosen
    }


def write_changed(
    target: Path, output: Path, change: Change, consents: Sequence[Consent], options: VideoOptions
) -> Path:
    """Write a marked copy of a clip whose frames ``change(index, frame)`` altered, and return its path.

    Raises:
        ConsentError: if anybody shown does not agree to swapping.
    """
    for consent in consents:
        require_consent(consent, consent.person, "swapping")
    manifest = Manifest.new(f"baseline {output.stem}", [target], {}, consents, {})
    with open_marked_video(output, target, options, manifest) as video:
        n = 0
        for n, frame in enumerate(read_frames(target), 1):
            change(n - 1, frame)
            video.write(frame)
        video.manifest = video.manifest.with_frames(n, n)
    return output


def colour_change(target: Path, labels: ClipLabels, source: Path, source_labels: ClipLabels) -> Change:
    """Return the change of the colour baseline; clips or folders of pictures, with their labels."""
    ours = face_colours(read_frames(target), labels.face)
    theirs = face_colours((f for _, f in read_footage(source)), source_labels.face)
    shift = colour_transfer(ours, theirs)
    return lambda i, frame: recolour(frame, labels.face[i], shift)


def nearest_change(labels: ClipLabels, source: Path, source_labels: ClipLabels) -> Change:
    """Return the change of the nearest-frame baseline; the source is a clip or a folder of pictures."""
    size, config = min(max(labels.size), 512), SwapConfig()
    chosen = nearest_frames(labels, source_labels)
    crops = aligned_source((f for _, f in read_footage(source)), source_labels, chosen, size)

    def change(i: int, frame: Frame) -> None:
        matrix = align_matrix(five_points(labels.mesh[i]), size, COVERAGE)
        paste_face(frame, labels.mesh[i], crops[int(chosen[i])], matrix, config)

    return change


def ceiling_change(labels: ClipLabels, twin: Sequence[np.ndarray], twin_labels: ClipLabels) -> Change:
    """Return the change of the ceiling: no network that draws the source as it is gets further with this converter.

    What is left to the truth is the converter's: the target's outline stays, and colours are matched as a whole.

    Args:
        labels: the target's.
        twin: ``(H, W, 3)`` uint8, the source doing what the target does, frame by frame.
        twin_labels: its labels.
    """
    size, config = min(max(labels.size), 512), SwapConfig()

    def change(i: int, frame: Frame) -> None:
        matrix = align_matrix(five_points(labels.mesh[i]), size, COVERAGE)
        over = umeyama(twin_labels.mesh[i], labels.mesh[i])
        crop = crop_from_frame(RgbFrame(twin[i]), matrix @ np.vstack([over, [0, 0, 1]]), size)
        paste_face(frame, labels.mesh[i], crop, matrix, config)

    return change
