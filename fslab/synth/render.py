"""Heads become frames: Mitsuba 3 (Jakob et al. 2022) traces the light, Open Image Denoise clears the noise.

The same parts and attributes give the same bytes, in any process and with any number of threads.
"""

import importlib
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import cv2
import numpy as np

from fslab.errors import FslabError
from fslab.synth.materials import load_mitsuba, material
from fslab.synth.scene import Attributes, Camera, Part
from fslab.synth.studio import develop, surroundings

Quality = Literal["bulk", "high"]
SAMPLES: dict[str, int] = {"bulk": 8, "high": 64}
DEPTH: dict[str, int] = {"bulk": 4, "high": 6}
FINE = 160  # pixels a side; below, frames are rendered twice as large, for the denoiser keeps noise as fine as a beard
BLOCK = 16  # pixels a side of what one thread renders; fixed, for Mitsuba's own choice depends on the number of threads
MARGIN = 8  # pixels mirrored round a frame while it is denoised, which tints the outermost ones
KEPT = 64  # materials and topologies kept between frames


@dataclass(frozen=True)
class _Topology:
    """A part's triangles with one vertex per pair of position and texture coordinate, as Mitsuba wants them."""

    sources: tuple[np.ndarray, np.ndarray, np.ndarray]  # kept, so that no other array takes their place in memory
    vertices: np.ndarray
    uv: np.ndarray
    faces: np.ndarray

    @classmethod
    def of(cls, part: Part) -> "_Topology":
        """Split the vertices of ``part`` along its texture seams."""
        stride = len(part.uv) + 1
        keys = part.triangles.astype(np.int64).ravel() * stride + part.uv_triangles.ravel()
        unique, faces = np.unique(keys, return_inverse=True)
        uv = part.uv[unique % stride] * np.float32([1, -1]) + np.float32([0, 1])
        sources = (part.triangles, part.uv_triangles, part.uv)
        return cls(sources, unique // stride, uv.astype(np.float32), faces.reshape(-1).astype(np.uint32))


def vertex_normals(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Return unit normals ``(V, 3)`` float32, each the area-weighted mean of the triangles round a vertex."""
    a, b, c = (vertices[triangles[:, k]].astype(np.float64) for k in range(3))
    faces = np.cross(b - a, c - a)
    index = triangles.T.ravel()
    total = [np.bincount(index, np.tile(faces[:, k], 3), len(vertices)) for k in range(3)]
    normals = np.stack(total, 1)
    return (normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)).astype(np.float32)


class Renderer:
    """Renders square frames; keeps textures between frames, so that only meshes change within a clip.

    Arrays are told apart by identity: a head should hand out the same texture and triangle arrays for every frame.
    """

    def __init__(self, size: int, quality: Quality = "bulk"):
        """Set up frames of ``size`` pixels a side; "high" takes more samples.

        Raises:
            ValueError: if the size is under 16 pixels, or the quality is none of `Quality`.
        """
        if size < 16:
            raise ValueError(f"a frame needs at least 16 pixels a side, got {size}")
        if quality not in get_args(Quality):
            raise ValueError(f"quality must be one of {', '.join(get_args(Quality))}, got '{quality}'")
        self.size, self.quality = size, quality
        self._kept: OrderedDict[tuple, tuple[tuple, Any]] = OrderedDict()

    def render(self, parts: list[Part], attributes: Attributes) -> np.ndarray:
        """Return the frame, ``(size, size, 3)`` uint8 sRGB.

        Args:
            parts: what stands in front of the camera, world coordinates.
            attributes: light, camera and background; where the parts stand is theirs.

        Raises:
            FslabError: if Mitsuba or the denoiser is not installed.
        """
        return develop(self.render_linear(parts, attributes))

    def render_linear(self, parts: list[Part], attributes: Attributes) -> np.ndarray:
        """Return the frame before the film, ``(size, size, 3)`` float32 linear radiance; see `render`."""
        mitsuba = load_mitsuba()
        times = 2 if self.size < FINE else 1
        scene = {
            "type": "scene",
            "integrator": {"type": "volpath", "max_depth": DEPTH[self.quality], "block_size": BLOCK},
            "sensor": self._sensor(attributes.camera, times),
            "surroundings": self._surroundings(attributes),
            **{f"part{i}": self._mesh(part) for i, part in enumerate(parts)},
        }
        noisy = np.array(mitsuba.render(mitsuba.load_dict(scene)), dtype=np.float32)
        clean = self._denoise(np.ascontiguousarray(noisy[..., :3]))
        return clean if times == 1 else cv2.resize(clean, (self.size, self.size), interpolation=cv2.INTER_AREA)

    def _sensor(self, camera: Camera, times: int) -> dict[str, Any]:
        """Return the pinhole camera, ``times`` as fine as the frame.

        It has a box filter, for the denoiser wants pixels that share no samples.
        """
        frame = load_mitsuba().ScalarTransform4f
        x, y = camera.shift
        place = frame().look_at(origin=[x, y, camera.distance], target=[x, y, 0], up=[0, 1, 0])
        film = {"type": "hdrfilm", "width": self.size * times, "height": self.size * times, "rfilter": {"type": "box"}}
        sampler = {"type": "multijitter", "sample_count": SAMPLES[self.quality] // times, "seed": 1}
        film["pixel_format"] = "rgb"
        return {"type": "perspective", "fov": camera.fov, "to_world": place, "film": film, "sampler": sampler}

    def _surroundings(self, attributes: Attributes) -> dict[str, Any]:
        """Return everything that shines, turned so that the picture's middle lies behind the head."""
        mitsuba = load_mitsuba()
        picture = mitsuba.Bitmap(surroundings(attributes.light, attributes.background))
        turn = mitsuba.ScalarTransform4f().rotate([0, 1, 0], 180)
        return {"type": "envmap", "bitmap": picture, "to_world": turn}

    def _mesh(self, part: Part) -> Any:
        """Return ``part`` as a Mitsuba mesh with the material and topology kept from earlier frames."""
        mitsuba = load_mitsuba()
        looks = (part.texture, part.bump, part.material)
        bsdf = self._keep(looks, lambda: material(part))
        topology = self._keep((part.triangles, part.uv_triangles, part.uv), lambda: _Topology.of(part))
        props = mitsuba.Properties()
        props["bsdf"] = bsdf
        counts = (len(topology.vertices), len(topology.faces) // 3)
        mesh = mitsuba.Mesh(part.name, *counts, has_vertex_normals=True, has_vertex_texcoords=True, props=props)
        values = mitsuba.traverse(mesh)
        values["vertex_positions"] = part.vertices[topology.vertices].astype(np.float32).ravel()
        values["vertex_normals"] = vertex_normals(part.vertices, part.triangles)[topology.vertices].ravel()
        values["vertex_texcoords"] = topology.uv.ravel()
        values["faces"] = topology.faces
        values.update()
        return mesh

    def _keep(self, sources: tuple, make: Any) -> Any:
        """Return what was made of the same ``sources`` before, or make it; the oldest leave when there are too many."""
        key = tuple(map(id, sources))
        if key not in self._kept:
            self._kept[key] = (sources, make())  # holds the sources: a freed array's id could return
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key][1]

    @cached_property
    def _denoiser(self) -> Any:
        """Return the denoiser's module."""
        try:
            return importlib.import_module("pyoidn")
        except ImportError as reason:
            fix = "run 'pip install mitsuba pyoidn'"
            raise FslabError("the denoiser pyoidn", f"none ({reason})", fix) from reason

    def _denoise(self, noisy: np.ndarray) -> np.ndarray:
        """Return ``noisy (S, S, 3)`` linear float32 without the noise."""
        edge = ((MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0))
        clean = self._denoiser.denoise(np.pad(noisy, edge, mode="reflect"), hdr=True)
        return np.ascontiguousarray(clean[MARGIN:-MARGIN, MARGIN:-MARGIN])
