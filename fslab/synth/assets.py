"""What synthetic heads are made of: one base mesh, targets that move it, meshes that are fitted to it, and textures.

All of it is packed by `fslab.synth.pack` from MakeHuman's core assets, which are CC0. The base mesh is hm08, cut below
the chest; lengths are decimetres, x to the person's left (the picture's right), y up, z out of the face.
"""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

import cv2
import numpy as np

from fslab.errors import FslabError

DATA_FOLDER = Path(__file__).parent / "data"
CUT_OUT = ("eyes", "brows", "lashes", "hair", "teeth")  # kinds whose textures all come with their opacity
REST_DISTANCES = np.array([1.4160, 2.3073, 1.9231])  # dm; MakeHuman's scale of a proxy's offsets is 1 at these

# ARKit's 52 expression units; Left and Right are the person's own, as ARKit has it.
UNITS = (
    "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight", "cheekPuff",
    "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft", "eyeLookDownRight",
    "eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight",
    "eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight", "jawForward", "jawLeft", "jawOpen", "jawRight",
    "mouthClose", "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft", "mouthFrownRight", "mouthFunnel",
    "mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight", "mouthPucker",
    "mouthRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthSmileLeft",
    "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft", "mouthUpperUpRight",
    "noseSneerLeft", "noseSneerRight", "tongueOut",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Target:
    """A change of the base mesh: ``indices`` ``(N,)`` int64 of vertices, ``offsets`` ``(N, 3)`` float32 at weight 1."""

    indices: np.ndarray
    offsets: np.ndarray


@dataclass(frozen=True, eq=False)
class Proxy:
    """A mesh that hangs on the base mesh: each vertex on three of it, with an offset.

    Attributes:
        triangles: ``(T, 3)`` int32.
        uv: ``(U, 2)`` float32 in [0, 1], v upwards.
        uv_triangles: ``(T, 3)`` int32 into ``uv``.
        refs: ``(V, 3)`` int64 into the base mesh.
        weights: ``(V, 3)`` float32, rows sum to 1.
        offsets: ``(V, 3)`` float32 dm, to be multiplied by `Assets.proxy_scale`.
    """

    triangles: np.ndarray
    uv: np.ndarray
    uv_triangles: np.ndarray
    refs: np.ndarray
    weights: np.ndarray
    offsets: np.ndarray

    def fit(self, vertices: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """Return the proxy's ``(V, 3)`` vertices on the base mesh's; ``offsets`` are the proxy's, scaled."""
        return np.einsum("vkc,vk->vc", vertices[self.refs], self.weights) + offsets


@dataclass(frozen=True, eq=False)
class Assets:
    """All that ships.

    Attributes:
        vertices: ``(V, 3)`` float32, the base mesh: first the ``n_skin`` of the skin, then helpers for eyes, lashes,
            teeth and tongue and what clothes hang on.
        triangles, uv, uv_triangles: the skin, as in `fslab.synth.scene.Part`.
        scale_vertices: ``(3, 2)`` vertices whose distances along x, y, z scale the proxies' offsets.
        helpers: vertex indices by helper group of the base mesh.
        targets: by ``folder/name``; the expression units are ``units/NAME``.
        proxies: by ``kind/name``.
    """

    vertices: np.ndarray
    triangles: np.ndarray
    uv: np.ndarray
    uv_triangles: np.ndarray
    scale_vertices: np.ndarray
    helpers: Mapping[str, np.ndarray]
    targets: Mapping[str, Target]
    proxies: Mapping[str, Proxy]

    @property
    def n_skin(self) -> int:
        """Return how many vertices, the first ones, are the skin's."""
        return int(self.triangles.max()) + 1

    def proxy_scale(self, vertices: np.ndarray) -> np.ndarray:
        """Return the scale ``(3,)`` of proxy offsets on this shape of the base mesh."""
        axes = np.arange(3)
        a, b = self.scale_vertices.T
        return np.abs(vertices[a, axes] - vertices[b, axes]) / REST_DISTANCES

    def names(self, kind: str) -> tuple[str, ...]:
        """Return the names of the proxies of a kind, "hair" for example."""
        return tuple(sorted(name.split("/")[1] for name in self.proxies if name.startswith(f"{kind}/")))


def _damaged(path: Path, reason: object) -> FslabError:
    return FslabError(f"the packaged data '{path.name}'", f"none that can be read ({reason})", "install fslab again")


def _targets(data: Mapping[str, np.ndarray]) -> dict[str, Target]:
    starts, indices = data["targets/starts"], data["targets/indices"].astype(np.int64)
    offsets, targets = data["targets/offsets"], {}
    for name, start, stop, step in zip(data["targets/names"], starts[:-1], starts[1:], data["targets/steps"]):
        targets[str(name)] = Target(indices[start:stop], offsets[start:stop].astype(np.float32) * step)
    return targets


def _proxies(data: Mapping[str, np.ndarray]) -> dict[str, Proxy]:
    types = {"triangles": np.int32, "uv": np.float32, "uv_triangles": np.int32, "refs": np.int64,
             "weights": np.float32, "offsets": np.float32}  # fmt: skip
    names = [name.removesuffix("/refs") for name in data if name.endswith("/refs")]
    return {name: Proxy(**{key: data[f"{name}/{key}"].astype(kind) for key, kind in types.items()}) for name in names}


@cache
def load_assets(folder: Path = DATA_FOLDER) -> Assets:
    """Read the packaged geometry, once.

    Raises:
        FslabError: if it is missing or damaged.
    """
    path = folder / "geometry.npz"
    try:
        with np.load(path, allow_pickle=False) as file:
            data = {name: file[name] for name in file.files}
        helpers = {k.split("/")[1]: v.astype(np.int64) for k, v in data.items() if k.startswith("helpers/")}
        return Assets(
            vertices=data["vertices"], triangles=data["triangles"].astype(np.int32), uv=data["uv"],
            uv_triangles=data["uv_triangles"].astype(np.int32),
            scale_vertices=data["scale_vertices"].astype(np.int64), helpers=MappingProxyType(helpers),
            targets=MappingProxyType(_targets(data)), proxies=MappingProxyType(_proxies(data)),
        )  # fmt: skip
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as reason:
        raise _damaged(path, reason) from reason


def _decode(path: Path, flags: int) -> np.ndarray:
    try:
        image = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), flags)
    except (OSError, cv2.error) as reason:
        raise _damaged(path, reason) from reason
    if image is None:
        raise _damaged(path, "not a picture")
    return image


@cache
def load_texture(name: str, folder: Path = DATA_FOLDER) -> np.ndarray:
    """Read a texture, once; do not write into it.

    Args:
        name: ``kind/name``, for example "skin/young_asian_male_3" or "hair/short01".
        folder: where the packaged data are.

    Returns:
        ``(H, W, 3)`` uint8 sRGB, or ``(H, W, 4)`` with opacity where there is any.

    Raises:
        FslabError: if it is missing or damaged.
    """
    image = cv2.cvtColor(_decode(folder / f"{name}.webp", cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    opacity = folder / f"{name}.opacity.webp"
    if opacity.exists() or name.split("/")[0] in CUT_OUT:
        image = np.dstack([image, _decode(opacity, cv2.IMREAD_GRAYSCALE)])
    image.setflags(write=False)
    return image
