"""Exact labels of a rendered frame from its own triangles: parts, the face's share of each pixel, and motion.

Triangles are projected by the renderer's pinhole and laid over each other back to front by their textures' opacity,
several points a pixel, so that masks are as smooth at hair and brows as the picture is.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fslab.synth.materials import opacity_of
from fslab.synth.scene import PARTS, Attributes, Camera, Part

GRID = 3  # masks see GRID x GRID points a pixel; odd, so that one of them is the pixel's centre
HIDDEN = 0.015  # dm behind what is seen before a surface counts as hidden
INSIDE_FACE = ("eyes", "brows", "lashes", "mouth")
ROUNDING = 1e-9  # pixels by which a point may miss an edge and still count, so that no seam opens between triangles
FACE = PARTS.index("face")


def project(points: np.ndarray, camera: Camera, size: int) -> np.ndarray:
    """Return where world points appear.

    Args:
        points: ``(..., 3)`` decimetres.
        camera: the pinhole they are seen by.
        size: side of the frame, pixels.

    Returns:
        ``(..., 2)`` float64 pixels (x, y); (0, 0) is the centre of the top-left pixel.
    """
    return to_screen(np.asarray(points, np.float64), camera, size)[..., :2]


def to_screen(points: np.ndarray, camera: Camera, size: int) -> np.ndarray:
    """Return world points ``(..., 3)`` on the screen, ``(..., 3)``: pixels (x, y) and distance along the axis, dm."""
    focal = size / 2 / np.tan(np.radians(camera.fov / 2))
    ahead = camera.distance - points[..., 2]
    x = (size - 1) / 2 + focal * (points[..., 0] - camera.shift[0]) / ahead
    y = (size - 1) / 2 - focal * (points[..., 1] - camera.shift[1]) / ahead
    return np.stack([x, y, ahead], -1)


@dataclass(frozen=True)
class FrameLabels:
    """What is known of one frame of ``(H, W)`` pixels.

    Attributes:
        parts: ``(H, W)`` uint8, index into `PARTS` of what is seen most in a pixel.
        face: ``(H, W)`` uint8, 255 times the share of a pixel in which the face is seen, weighted by its region.
        surface: ``(H, W)`` int32, the triangle seen most at a pixel's centre, counted over all parts; -1 for none.
        weights: ``(H, W, 3)`` float32, where on that triangle (barycentric, in space).
        depth: ``(H, W)`` float32, its distance in front of the camera, dm; infinite for none.
        corners: ``(T, 3, 3)`` float64, every triangle's corners in the world, dm.
        camera: what they were seen by.
    """

    parts: np.ndarray
    face: np.ndarray
    surface: np.ndarray
    weights: np.ndarray
    depth: np.ndarray
    corners: np.ndarray
    camera: Camera


@dataclass(frozen=True)
class _Hits:
    """N points where the rays through pixels meet triangles."""

    pixel: np.ndarray
    triangle: np.ndarray
    weights: np.ndarray
    depth: np.ndarray

    def __getitem__(self, chosen: np.ndarray) -> "_Hits":
        return _Hits(self.pixel[chosen], self.triangle[chosen], self.weights[chosen], self.depth[chosen])


def _runs(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return for items repeated ``counts`` times which item each repeat is of, and its number within the item."""
    item = np.repeat(np.arange(len(counts)), counts)
    return item, np.arange(len(item)) - np.repeat(np.cumsum(counts) - counts, counts)


def _planes(screen: np.ndarray) -> np.ndarray:
    """Return for triangles ``(T, 3, 3)`` how each corner's weight over its distance lies over the screen.

    Returns:
        ``(T, 3, 3)``: for each corner its value at (0, 0) and its slopes along x and y; zeros if seen edge-on. Weights
        over distances are linear on the screen, which makes interpolation true to perspective.
    """
    x, y, distance = screen[..., 0], screen[..., 1], screen[..., 2]
    x1, x2, y1, y2 = (np.roll(v, -k, axis=1) for v in (x, y) for k in (1, 2))
    values = np.stack([x1 * y2 - x2 * y1, y1 - y2, x2 - x1], -1)
    area = values[..., 0].sum(1)
    scale = np.divide(1, area[:, None] * distance, out=np.zeros_like(distance), where=area[:, None] != 0)
    return values * scale[..., None]


def _hits(screen: np.ndarray, side: int) -> _Hits:
    """Return every crossing of triangles ``(T, 3, 3)``, (x, y, distance), with the centres of ``side**2`` pixels."""
    planes = _planes(screen)
    first = np.maximum(np.ceil(screen[..., :2].min(1)), 0).astype(int)
    last = np.minimum(np.floor(screen[..., :2].max(1)), side - 1).astype(int)
    visible = (screen[..., 2].min(1) > 0) & (last[:, 0] >= first[:, 0]) & planes.any((1, 2))
    triangle, row = _runs(np.maximum(last[:, 1] - first[:, 1] + 1, 0) * visible)
    y = first[triangle, 1] + row
    start, slope = planes[triangle, :, 0] + planes[triangle, :, 2] * y[:, None], planes[triangle, :, 1]
    left, right = first[triangle, 0].astype(float), last[triangle, 0].astype(float)
    for k in range(3):  # within a row each corner's weight is positive on one side of a point
        edge = np.divide(-start[:, k], slope[:, k], out=np.zeros(len(row)), where=slope[:, k] != 0)
        left = np.where(slope[:, k] > 0, np.maximum(left, edge), left)
        right = np.where(slope[:, k] < 0, np.minimum(right, edge), right)
        right = np.where((slope[:, k] == 0) & (start[:, k] < 0), -1, right)
    left, right = np.ceil(left - ROUNDING).astype(int), np.floor(right + ROUNDING).astype(int)
    span, column = _runs(np.maximum(right - left + 1, 0))
    x = left[span] + column
    weights = np.maximum(start[span] + slope[span] * x[:, None], 0)
    nearness = weights[:, 0] + weights[:, 1] + weights[:, 2]
    return _Hits(y[span] * side + x, triangle[span], weights / nearness[:, None], 1 / nearness)


def _in_front(hits: _Hits, solid: np.ndarray, n_pixels: int) -> _Hits:
    """Return the hits that no solid triangle hides; ``solid (T,)`` tells which let nothing through."""
    nearest = np.full(n_pixels, np.inf)
    stops = solid[hits.triangle]
    np.minimum.at(nearest, hits.pixel[stops], hits.depth[stops])
    hits = hits[hits.depth <= nearest[hits.pixel]]
    return hits[np.lexsort((hits.depth, hits.pixel))]


def _coverage(hits: _Hits, opacity: np.ndarray) -> np.ndarray:
    """Return how much of a pixel each hit makes up, in [0, 1]: its opacity behind what is nearer."""
    passed = np.log(np.maximum(1 - opacity, 1e-6))
    before = np.cumsum(passed) - passed
    first = np.r_[True, hits.pixel[1:] != hits.pixel[:-1]]
    start = before[np.flatnonzero(first)][np.cumsum(first) - 1]
    return opacity * np.exp(before - start)


def _sampled(image: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Return ``image (H, W)`` at texture coordinates ``(N, 2)``, bilinear, clamped at the border."""
    height, width = image.shape
    x = np.clip(uv[:, 0] * width - 0.5, 0, width - 1)
    y = np.clip((1 - uv[:, 1]) * height - 0.5, 0, height - 1)
    x0, y0 = np.minimum(x.astype(int), width - 2), np.minimum(y.astype(int), height - 2)
    fx, fy = x - x0, y - y0
    top = image[y0, x0] * (1 - fx) + image[y0, x0 + 1] * fx
    return top * (1 - fy) + (image[y0 + 1, x0] * (1 - fx) + image[y0 + 1, x0 + 1] * fx) * fy


@dataclass(frozen=True)
class _Stack:
    """All parts' triangles in one list: which part each is of, and where a part's triangles begin."""

    parts: list[Part]
    owner: np.ndarray
    starts: np.ndarray
    opacities: list[np.ndarray | None]

    @classmethod
    def of(cls, parts: list[Part]) -> "_Stack":
        """Stack ``parts`` in their order."""
        counts = [len(p.triangles) for p in parts]
        opacities = [opacity_of(p) for p in parts]
        return cls(parts, np.repeat(np.arange(len(parts)), counts), np.cumsum([0, *counts]), opacities)

    def corners(self) -> np.ndarray:
        """Return every triangle's corners ``(T, 3, 3)``, dm."""
        return np.concatenate([p.vertices[p.triangles].astype(np.float64) for p in self.parts])

    def each(self, hits: _Hits) -> Iterator[tuple[Part, np.ndarray | None, np.ndarray, np.ndarray]]:
        """Yield each part with its opacity, which hits are on it, and on which of its own triangles they are."""
        owner = self.owner[hits.triangle]
        for index, (part, opacity) in enumerate(zip(self.parts, self.opacities)):
            chosen = np.flatnonzero(owner == index)
            if len(chosen):
                yield part, opacity, chosen, hits.triangle[chosen] - self.starts[index]

    def opacity(self, hits: _Hits) -> np.ndarray:
        """Return the opacity ``(N,)`` in [0, 1] where triangles are hit."""
        values = np.ones(len(hits.pixel))
        for part, opacity, chosen, triangle in self.each(hits):
            if opacity is not None:
                corners = part.uv[part.uv_triangles[triangle]]
                values[chosen] = _sampled(opacity, (corners * hits.weights[chosen, :, None]).sum(1))
        return values

    def meaning(self, hits: _Hits) -> tuple[np.ndarray, np.ndarray]:
        """Return the index into `PARTS` and the share of the face ``(N,)`` where triangles are hit."""
        label, face = np.zeros(len(hits.pixel), np.int64), np.zeros(len(hits.pixel))
        for part, _, chosen, triangle in self.each(hits):
            label[chosen] = PARTS.index(part.name)
            if part.region is not None:
                face[chosen] = (part.region[part.triangles[triangle]] * hits.weights[chosen]).sum(1)
                label[chosen[face[chosen] > 0.5]] = FACE
            elif part.name in INSIDE_FACE:
                face[chosen] = 1
        return label, face


def annotate(parts: list[Part], attributes: Attributes, size: int) -> FrameLabels:
    """Label a frame.

    Args:
        parts: what `fslab.synth.render.Renderer.render` is given.
        attributes: the camera is taken from them.
        size: side of the frame, pixels.

    Returns:
        Its labels; eyes, brows, lashes and the inside of the mouth belong to the face wherever they are seen.

    Raises:
        ValueError: if there are no parts.
    """
    if not parts:
        raise ValueError("there is nothing to label: no parts")
    stack, side = _Stack.of(parts), size * GRID
    corners = stack.corners()
    screen = to_screen(corners, attributes.camera, size)
    screen[..., :2] = (screen[..., :2] + 0.5) * GRID - 0.5
    solid = np.array([opacity is None for opacity in stack.opacities])[stack.owner]
    hits = _in_front(_hits(screen, side), solid, side * side)
    seen = _coverage(hits, stack.opacity(hits))
    label, face = stack.meaning(hits)
    row, column = hits.pixel // side, hits.pixel % side
    pixel = row // GRID * size + column // GRID
    shares = np.bincount(pixel * len(PARTS) + label, seen, size * size * len(PARTS)).reshape(-1, len(PARTS))
    shares[:, 0] = GRID**2 - shares.sum(1)
    mask = np.bincount(pixel, seen * face, size * size) * (255 / GRID**2)
    middle = np.flatnonzero((row % GRID == GRID // 2) & (column % GRID == GRID // 2))
    surface, weights, depth = _most_seen(hits[middle], pixel[middle], seen[middle], size)
    return FrameLabels(
        shares.argmax(1).astype(np.uint8).reshape(size, size),
        np.clip(mask + 0.5, 0, 255).astype(np.uint8).reshape(size, size),
        surface, weights, depth, corners, attributes.camera,
    )  # fmt: skip


def _most_seen(hits: _Hits, pixel: np.ndarray, seen: np.ndarray, size: int) -> tuple[np.ndarray, ...]:
    """Return triangle, weights and distance of the hit seen most in each pixel; none where the background is."""
    surface = np.full(size * size, -1, np.int32)
    weights, depth = np.zeros((size * size, 3), np.float32), np.full(size * size, np.inf, np.float32)
    order = np.lexsort((seen, pixel))
    order = order[np.r_[pixel[order][1:] != pixel[order][:-1], True]]
    order = order[seen[order] > 1 / 3]
    at = pixel[order]
    surface[at], weights[at], depth[at] = hits.triangle[order], hits.weights[order], hits.depth[order]
    return surface.reshape(size, size), weights.reshape(size, size, 3), depth.reshape(size, size)


def _faces_camera(screen: np.ndarray) -> np.ndarray:
    """Return which way round triangles ``(..., 3, 3)`` appear: the sign of their area on the screen."""
    a, b = screen[..., 1, :2] - screen[..., 0, :2], screen[..., 2, :2] - screen[..., 0, :2]
    return np.sign(a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0])


def flow_between(before: FrameLabels, after: FrameLabels) -> np.ndarray:
    """Return where what is seen in one frame goes by the next.

    Args:
        before: a frame.
        after: another of the same parts, `before`'s size.

    Returns:
        ``(H, W, 2)`` float16 pixels (x, y); NaN for the background and for what is hidden, turned away or outside the
        picture ``after``. Right to a pixel at the edges of what hides it.

    Raises:
        ValueError: if the two frames do not show the same triangles at the same size.
    """
    if before.corners.shape != after.corners.shape or before.surface.shape != after.surface.shape:
        raise ValueError("flow needs two frames of the same parts and size")
    size = before.surface.shape[0]
    flow = np.full((size, size, 2), np.nan, np.float16)
    y, x = np.nonzero(before.surface >= 0)
    triangle, weights = before.surface[y, x], before.weights[y, x].astype(np.float64)
    here, there = before.corners[triangle], after.corners[triangle]
    goal = to_screen((there * weights[..., None]).sum(1), after.camera, size)
    ways = (_faces_camera(to_screen(c, v.camera, size)) for c, v in ((here, before), (there, after)))
    turned = np.not_equal(*ways)
    inside = ((goal[:, :2] >= -0.5) & (goal[:, :2] < size - 0.5)).all(1)
    corner = np.clip(np.floor(goal[:, :2]).astype(int), 0, max(size - 2, 0))
    around = [after.depth[corner[:, 1] + j, corner[:, 0] + i] for i in (0, 1) for j in (0, 1)]
    farthest = np.max([np.where(np.isfinite(d), d, -np.inf) for d in around], axis=0)
    hidden = np.isfinite(farthest) & (goal[:, 2] > farthest + HIDDEN)
    known = inside & ~turned & ~hidden
    flow[y[known], x[known]] = (goal[:, :2] - np.stack([x, y], 1))[known]
    return flow
