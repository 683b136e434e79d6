"""Simple solids as triangle meshes: tubes along a curve, and smooth unions of round cones."""

import numpy as np


def tube(path: np.ndarray, radii: np.ndarray, sides: int = 10, closed: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Return a tube round a curve, its ends capped by points.

    Args:
        path: ``(N, 3)`` points of the curve; a closed one does not repeat the first.
        radii: ``(N,)`` or ``(N, 2)``, the second along the binormal.
        sides: corners of the cross-section.
        closed: whether the last point joins the first.

    Returns:
        Vertices ``(V, 3)`` float32 and triangles ``(T, 3)`` int32, facing outwards.
    """
    path, n = np.asarray(path, float), len(path)
    radii = np.broadcast_to(np.asarray(radii, float).reshape(len(np.atleast_1d(radii)), -1), (n, 2))
    ahead = np.roll(path, -1, 0) - np.roll(path, 1, 0) if closed else np.gradient(path, axis=0)
    ahead /= np.linalg.norm(ahead, axis=1, keepdims=True)
    normal = _carried_normals(ahead, closed)
    angle = np.arange(sides) * 2 * np.pi / sides
    across = np.cross(ahead, normal)
    rings = (
        path[:, None]
        + radii[:, :1, None] * np.cos(angle)[None, :, None] * normal[:, None]
        + radii[:, 1:, None] * np.sin(angle)[None, :, None] * across[:, None]
    )
    vertices = rings.reshape(-1, 3)
    rows = np.arange(n if closed else n - 1)[:, None] * sides
    after = (rows + sides) % (n * sides)
    side, beside = np.arange(sides)[None], (np.arange(sides)[None] + 1) % sides
    quads = np.stack(np.broadcast_arrays(rows + side, rows + beside, after + beside, after + side), -1).reshape(-1, 4)
    triangles = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    if not closed:
        ends, last = np.array([n * sides, n * sides + 1]), (n - 1) * sides
        vertices = np.concatenate([vertices, path[[0, -1]]])
        side, beside = side[0], beside[0]
        caps = [np.stack([beside, side, np.full(sides, ends[0])], 1)]
        caps += [np.stack([last + side, last + beside, np.full(sides, ends[1])], 1)]
        triangles = np.concatenate([triangles, *caps])
    return vertices.astype(np.float32), triangles.astype(np.int32)


def _carried_normals(ahead: np.ndarray, closed: bool) -> np.ndarray:
    """Return a normal for each tangent ``(N, 3)``, turned as little as possible from one to the next."""
    first = np.cross(ahead[0], np.eye(3)[np.argmin(np.abs(ahead[0]))])
    normals = [first / np.linalg.norm(first)]
    for t in ahead[1:]:
        n = normals[-1] - t * (t @ normals[-1])
        normals.append(n / np.linalg.norm(n))
    normals = np.array(normals)
    if closed:  # spread the angle by which the last misses the first
        n = normals[-1] - ahead[0] * (ahead[0] @ normals[-1])
        miss = np.arctan2(np.cross(normals[0], n) @ ahead[0], normals[0] @ n)
        turn = -miss * np.arange(len(ahead)) / len(ahead)
        normals = normals * np.cos(turn)[:, None] + np.cross(ahead, normals) * np.sin(turn)[:, None]
    return normals


def round_cones(bones: np.ndarray, points: np.ndarray, blend: float) -> np.ndarray:
    """Return the signed distance of points to a smooth union of round cones, negative inside.

    Polynomial smooth minimum and distances as in Quilez, "Smooth minimum" and "Distance functions" (2013).

    Args:
        bones: ``(B, 8)``: start, end, radius at the start and at the end.
        points: ``(P, 3)``.
        blend: distance over which two cones flow into each other.
    """
    union = np.full(len(points), np.inf)
    for bone in np.asarray(bones, float):
        start, end, r0, r1 = bone[:3], bone[3:6], bone[6], bone[7]
        along = end - start
        t = np.clip((points - start) @ along / max(along @ along, 1e-12), 0, 1)
        distance = np.linalg.norm(points - start - t[:, None] * along, axis=1) - (r0 + (r1 - r0) * t)
        both = np.where(np.isfinite(union), np.maximum(blend - np.abs(union - distance), 0) / blend, 0)
        union = np.minimum(union, distance) - both**2 * blend / 4
    return union


def surface(bones: np.ndarray, blend: float, step: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the surface of a smooth union of round cones by surface nets: Gibson (1998), MICCAI, LNCS 1496.

    Args:
        bones: as for `round_cones`.
        blend: as there.
        step: side of the grid's cells; half the smallest radius or less.

    Returns:
        Vertices ``(V, 3)`` float32 and triangles ``(T, 3)`` int32, facing outwards.
    """
    bones = np.asarray(bones, float)
    reach = bones[:, 6:].max() + 2 * step + blend
    corners = np.concatenate([bones[:, :3], bones[:, 3:6]])
    low, high = corners.min(0) - reach, corners.max(0) + reach
    axes = [np.arange(a, b, step) for a, b in zip(low, high)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    field = round_cones(bones, grid.reshape(-1, 3), blend).reshape(grid.shape[:3])
    cells = np.zeros([n - 1 for n in field.shape], bool)
    sums, counts = np.zeros((*cells.shape, 3)), np.zeros(cells.shape)
    crossings = []
    for axis in range(3):
        a, b = _neighbours(field, axis)
        crossed = (a < 0) != (b < 0)
        share = np.where(crossed, a / np.where(crossed, a - b, 1), 0)
        place = np.moveaxis(np.moveaxis(grid, axis, 0)[:-1], 0, axis) + share[..., None] * step * np.eye(3)[axis]
        crossings.append((crossed, a < 0))
        for shift in np.ndindex(*(1 if i == axis else 2 for i in range(3))):
            mine = tuple(slice(s, s + n) for s, n in zip(shift, cells.shape))
            here = crossed[mine]
            cells |= here
            sums += np.where(here[..., None], place[mine], 0)
            counts += here
    number = np.full(cells.shape, -1)
    number[cells] = np.arange(cells.sum())
    vertices = sums[cells] / counts[cells][:, None]
    return vertices.astype(np.float32), _quads(crossings, number)


def _neighbours(field: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a field's values at the lower and upper ends of the grid's edges along an axis."""
    moved = np.moveaxis(field, axis, 0)
    return np.moveaxis(moved[:-1], 0, axis), np.moveaxis(moved[1:], 0, axis)


def _quads(crossings: list[tuple[np.ndarray, np.ndarray]], number: np.ndarray) -> np.ndarray:
    """Return two triangles for every grid edge that the surface crosses, between the four cells around it."""
    triangles = []
    for axis, (crossed, inside) in enumerate(crossings):
        u, v = (axis + 1) % 3, (axis + 2) % 3
        at = np.argwhere(crossed)
        at = at[(at[:, u] > 0) & (at[:, v] > 0)]
        du, dv = np.eye(3, dtype=int)[[u, v]]
        ring = np.stack([number[tuple((at - s).T)] for s in (du + dv, dv, 0 * du, du)], 1)
        out = inside[tuple(at.T)]
        ring = np.where(out[:, None], ring, ring[:, ::-1])
        triangles += [ring[:, [0, 1, 2]], ring[:, [0, 2, 3]]]
    return np.concatenate(triangles).astype(np.int32)
