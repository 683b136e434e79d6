"""Rendering and labelling: plates and balls whose picture can be worked out by hand, then a head."""

import hashlib
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from fslab.faces import Detector
from fslab.synth.annotate import annotate, flow_between, project
from fslab.synth.head import Head
from fslab.synth.identity import draw_identity
from fslab.synth.materials import opacity_of
from fslab.synth.render import Renderer, vertex_normals
from fslab.synth.scene import PARTS, Attributes, Camera, Light, Part
from fslab.synth.studio import HEIGHT, WIDTH, develop, surroundings, to_linear, towards

SIZE = 48
WIDE = Camera(fov=90.0, distance=10.0)  # at z = 0 the frame is 20 dm wide: 2.4 pixels a decimetre


def plate(low, high, z=0.0, colour=(128, 128, 128), **fields):
    """Return a rectangle facing the camera from corner ``low`` to ``high`` (x, y)."""
    (x0, y0), (x1, y1) = low, high
    vertices = np.float32([[x0, y0, z], [x1, y0, z], [x1, y1, z], [x0, y1, z]])
    triangles, uv = np.int32([[0, 1, 2], [0, 2, 3]]), np.float32([[0, 0], [1, 0], [1, 1], [0, 1]])
    texture = np.tile(np.uint8(colour), (4, 4, 1))
    given = {"name": "skin", "material": "lash", "region": np.ones(4, np.float32)} | fields
    return Part(vertices=vertices, triangles=triangles, uv=uv, uv_triangles=triangles, texture=texture, **given)


def ball(radius=4.0, n=24):
    """Return a grey sphere of plain diffuse paint at the origin."""
    a, b = np.meshgrid(np.linspace(0, np.pi, n), np.linspace(0, 2 * np.pi, n), indexing="ij")
    points = radius * np.stack([np.sin(a) * np.sin(b), np.cos(a), np.sin(a) * np.cos(b)], -1).reshape(-1, 3)
    k = np.arange(n * n).reshape(n, n)
    square = [k[:-1, :-1], k[1:, :-1], k[1:, 1:], k[:-1, 1:]]
    triangles = np.concatenate([np.stack([square[i].ravel() for i in t], 1) for t in ((0, 1, 2), (0, 2, 3))])
    uv = np.stack([b / 2 / np.pi, 1 - a / np.pi], -1).reshape(-1, 2)
    grey = np.full((4, 4, 3), 128, np.uint8)
    points, uv, triangles = points.astype(np.float32), uv.astype(np.float32), triangles.astype(np.int32)
    return Part("skin", "lash", points, triangles, uv, triangles, grey, np.ones(n * n, np.float32))


def at_pixel(x, y, z=0.0, camera=WIDE, size=SIZE):
    """Return the world point (x, y) at depth ``z`` that appears at a pixel: the pinhole, worked backwards."""
    scale = (camera.distance - z) / (size / 2 / np.tan(np.radians(camera.fov / 2)))
    return (x - (size - 1) / 2) * scale, ((size - 1) / 2 - y) * scale


def lit(**light):
    return Attributes(camera=WIDE, light=Light(**light))


@pytest.fixture(scope="module")
def head():
    return Head(draw_identity(1))


# ---- the film and the lights


def test_develop_is_srgb_up_to_the_knee_and_never_falls():
    ramp = np.linspace(0, 4, 400)
    out = develop(ramp)
    assert out[0] == 0
    assert out[-1] >= 254
    assert (np.diff(out.astype(int)) >= 0).all()
    assert develop(np.array([0.2140])) == 127  # sRGB's middle grey
    assert np.abs(develop(to_linear(np.arange(190, dtype=np.uint8))).astype(int) - np.arange(190)).max() <= 0


def test_a_lamp_stands_where_its_azimuth_and_elevation_say():
    for azimuth, elevation in ((-40, 30), (55, 5), (0, 20)):
        bright = surroundings(Light(azimuth, elevation), (0, 0, 0)).sum(-1)
        row, column = (v.mean() for v in np.nonzero(bright > 0.8 * bright.max()))
        polar, turn = (row + 0.5) / HEIGHT * np.pi, (column + 0.5) / WIDTH * 2 * np.pi - np.pi
        found = np.array([np.sin(turn) * np.sin(polar), np.cos(polar), -np.cos(turn) * np.sin(polar)])
        if azimuth == 0:  # seen at the picture's seam, where a mean column means nothing
            assert abs(found[1] - towards(azimuth, elevation)[1]) < 0.03
        else:
            assert np.degrees(np.arccos(found @ towards(azimuth, elevation))) < 3


def test_a_plate_reflects_the_share_of_the_light_that_its_paint_says():
    a = lit(azimuth=-20, elevation=20)
    sky = surroundings(a.light, a.background).astype(float)
    polar = (np.arange(HEIGHT) + 0.5) / HEIGHT * np.pi
    turn = (np.arange(WIDTH) + 0.5) / WIDTH * 2 * np.pi - np.pi
    facing = np.maximum(-np.cos(turn) * np.sin(polar)[:, None], 0)  # cosine to the plate's normal
    angle = np.sin(polar)[:, None] * (np.pi / HEIGHT) * (2 * np.pi / WIDTH)
    expected = (sky * (facing * angle)[..., None]).sum((0, 1)) / np.pi * to_linear(np.uint8([200, 128, 60]))
    picture = Renderer(SIZE).render_linear([plate((-5, -5), (5, 5), colour=(200, 128, 60))], a)
    np.testing.assert_allclose(picture[20:28, 20:28].mean((0, 1)), expected, rtol=0.03)


def test_the_backdrop_is_what_was_asked_for_and_softly_shaded():
    colour = (0.1, 0.2, 0.3)
    picture = Renderer(SIZE).render_linear([plate((-1, -1), (1, 1), z=-900)], Attributes(background=colour))
    ratio = picture / np.array(colour)
    assert (ratio > 0.5).all()
    assert (ratio < 1.6).all()
    assert 0.05 < ratio.max() - ratio.min() < 0.9


def halves(**light):
    """Return the mean brightness of a ball's left, right, upper and lower half."""
    grey = Renderer(SIZE).render_linear([ball()], lit(**light)).mean(-1)[17:31, 17:31]
    return grey[:, :7].mean(), grey[:, 7:].mean(), grey[:7].mean(), grey[7:].mean()


def test_azimuth_moves_the_bright_side_and_elevation_lifts_it():
    left, right, _, _ = halves(azimuth=-60, elevation=0)
    assert left > 1.5 * right
    left, right, _, _ = halves(azimuth=60, elevation=0)
    assert right > 1.5 * left
    (_, _, upper, lower), (_, _, high, low) = halves(elevation=5), halves(elevation=60)
    assert high / low > 1.3 * upper / lower


def test_strength_contrast_and_warmth_each_do_their_part():
    def picture(**light):
        return Renderer(SIZE).render_linear([ball()], lit(**light))[17:31, 17:31]

    np.testing.assert_allclose(picture(strength=2.0).mean(), 2 * picture(strength=1.0).mean(), rtol=0.02)
    deviation = [picture(contrast=c).std() / picture(contrast=c).mean() for c in (0.1, 0.5, 0.9)]
    assert deviation[0] < deviation[1] < deviation[2]
    warm, cold = picture(warmth=0.8).mean((0, 1)), picture(warmth=-0.8).mean((0, 1))
    assert warm[0] / warm[2] > 1.3 * cold[0] / cold[2]


# ---- the camera


def test_project_is_the_pinhole():
    camera = Camera(fov=90.0, distance=10.0, shift=(0.5, -1.0))
    assert project(np.array([1.0, 2.0, 4.0]), camera, 100) == pytest.approx([49.5 + 50 * 0.5 / 6, 49.5 - 50 * 3 / 6])
    assert project(np.zeros((2, 5, 3)), Camera(), 64).shape == (2, 5, 2)
    assert project(np.zeros(3), Camera(), 64) == pytest.approx([31.5, 31.5])


def test_the_picture_and_the_projection_agree():
    corners = at_pixel(9.5, 29.5), at_pixel(20.5, 12.5)
    a, renderer = lit(), Renderer(SIZE)
    empty = renderer.render([plate((-1, -1), (1, 1), z=-900)], a).astype(int)
    seen = np.abs(renderer.render([plate(*corners, colour=(0, 0, 0))], a) - empty).max(-1) > 40
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    assert (columns[0], columns[-1], rows[0], rows[-1]) == (10, 20, 13, 29)
    labels = annotate([plate(*corners)], a, SIZE)
    np.testing.assert_array_equal(labels.parts == PARTS.index("face"), seen)


def test_vertex_normals_of_a_ball_point_outwards():
    part = ball(1.0)
    inner = np.abs(part.vertices[:, 1]) < 0.99  # the poles are many vertices at one place
    outward = (vertex_normals(part.vertices, part.triangles) * part.vertices).sum(1)
    assert outward[inner & (np.abs(part.vertices[:, 0]) > 1e-3)].min() > 0.99


# ---- masks


def test_a_mask_holds_the_share_of_each_pixel():
    third = 1 / 3  # the grid has three points a side, so thirds are exact
    part = plate(at_pixel(9.5, 30.5 - third), at_pixel(20.5 + third, 12.5))
    face = annotate([part], Attributes(camera=WIDE), SIZE).face
    assert face[20, 15] == 255
    assert face[20, 21] == 85
    assert face[30, 15] == 170
    assert face[20, 22] == face[20, 9] == face[31, 15] == 0


def test_what_is_in_front_takes_the_face_away_by_its_opacity():
    skin = plate((-5, -5), (5, 5))
    veil = plate((-2, -2), (2, 2), z=1, colour=(9, 9, 9, 102), name="occluder", region=None)
    labels = annotate([veil, skin], Attributes(camera=WIDE), SIZE)
    assert labels.face[24, 24] == 153
    assert labels.parts[24, 24] == PARTS.index("face")
    thick = replace(veil, texture=np.full((4, 4, 4), 153, np.uint8))
    labels = annotate([skin, thick], Attributes(camera=WIDE), SIZE)
    assert labels.face[24, 24] == 102
    assert labels.parts[24, 24] == PARTS.index("occluder")
    assert labels.parts[0, 0] == PARTS.index("background")


def test_eyes_brows_lashes_and_mouth_are_face_while_hair_and_clothes_are_not():
    skin = plate((-5, -5), (5, 5))
    for name in PARTS[3:]:
        over = plate((-2, -2), (2, 2), z=1, name=name, region=None)
        labels = annotate([skin, over], Attributes(camera=WIDE), SIZE)
        assert labels.face[24, 24] == (255 if name in ("eyes", "brows", "lashes", "mouth") else 0)
        assert labels.parts[24, 24] == PARTS.index(name)


def test_the_region_fades_the_face_into_the_skin():
    part = plate((-5, -5), (5, 5), region=np.float32([0, 1, 1, 0]))
    labels = annotate([part], Attributes(camera=WIDE), SIZE)
    face = labels.face[24, 13:35].astype(int)
    assert (np.diff(face) > 0).all()
    assert np.abs(np.diff(face, 2)).max() <= 1  # a straight line
    assert labels.parts[24, 14] == PARTS.index("skin")
    assert labels.parts[24, 33] == PARTS.index("face")


def test_hair_is_labelled_as_opaque_as_it_is_drawn():
    card = plate((-2, -2), (2, 2), colour=(9, 9, 9, 100), name="hair", material="hair", region=None)
    assert opacity_of(card)[0, 0] == pytest.approx(130 / 255)
    assert opacity_of(replace(card, texture=card.texture[..., :3])) is None


# ---- flow


def moved(part, by):
    return replace(part, vertices=part.vertices + np.float32(by))


def test_flow_of_a_rigid_shift_is_the_shift():
    a, part = Attributes(camera=WIDE), plate((-5, -5), (5, 5))
    before, after = annotate([part], a, SIZE), annotate([moved(part, (0.5, -0.25, 0))], a, SIZE)
    flow = flow_between(before, after)
    inside = before.surface >= 0
    np.testing.assert_allclose(flow[inside], np.tile([1.2, 0.6], (inside.sum(), 1)), atol=2e-3)
    assert np.isnan(flow[~inside]).all()
    assert flow.dtype == np.float16


def test_flow_follows_depth_and_the_camera():
    a, part = Attributes(camera=WIDE), plate((-5, -5), (5, 5))
    flow = flow_between(annotate([part], a, SIZE), annotate([moved(part, (0, 0, 2))], a, SIZE))
    y, x = 20, 30
    assert flow[y, x] == pytest.approx([(x - 23.5) * (10 / 8 - 1), (y - 23.5) * (10 / 8 - 1)], abs=5e-3)
    shifted = replace(a, camera=replace(WIDE, shift=(0.5, 0.0)))
    flow = flow_between(annotate([part], a, SIZE), annotate([part], shifted, SIZE))
    assert flow[y, x] == pytest.approx([-1.2, 0.0], abs=2e-3)


def test_flow_is_unknown_where_something_comes_in_front_or_the_frame_ends():
    a, part = Attributes(camera=WIDE), plate((-5, -5), (5, 5))
    veil = plate((-2, -20), (2, -12), z=1, name="occluder", region=None)
    before, after = annotate([part, veil], a, SIZE), annotate([part, moved(veil, (0, 14, 0))], a, SIZE)
    flow = flow_between(before, after)
    assert np.isnan(flow[24, 24]).all()
    assert flow[24, 14] == pytest.approx([0, 0], abs=1e-3)
    away = flow_between(annotate([part], a, SIZE), annotate([moved(part, (8, 0, 0))], a, SIZE))
    assert np.isnan(away[24, 33]).all()
    assert away[24, 20] == pytest.approx([19.2, 0], abs=0.02)


def test_flow_is_unknown_where_a_surface_turns_its_back():
    a, part = Attributes(camera=WIDE), plate((-5, -5), (5, 5))
    turned = replace(part, vertices=part.vertices * np.float32([-1, 1, 1]))
    assert np.isnan(flow_between(annotate([part], a, SIZE), annotate([turned], a, SIZE))).all()


# ---- a head


def test_a_head_is_found_and_its_face_is_where_the_labels_say(head):
    a = Attributes(yaw=10)
    parts = head.parts(a)
    frame, labels = Renderer(128).render(parts, a), annotate(parts, a, 128)
    faces = Detector().detect(np.ascontiguousarray(np.kron(frame, np.ones((3, 3, 1), np.uint8))))
    assert len(faces) == 1
    rows, columns = np.nonzero(labels.face > 127)
    x0, y0, x1, y1 = np.asarray(faces[0].box) / 3
    assert abs((x0 + x1) / 2 - columns.mean()) < 8
    assert abs((y0 + y1) / 2 - rows.mean()) < 12
    assert 0.05 < (labels.face > 127).mean() < 0.4
    assert set(np.unique(labels.parts)) >= {PARTS.index(n) for n in ("background", "skin", "face", "eyes", "clothes")}


def test_blinking_hides_the_eyes(head):
    shut = Attributes(expression={"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0})
    seen = [(annotate(head.parts(a), a, 128).parts == PARTS.index("eyes")).sum() for a in (Attributes(), shut)]
    assert seen[0] >= 10
    assert seen[1] <= 0.1 * seen[0]


# ---- the same bytes, and refusals

PROGRAM = """
import os, sys, hashlib
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(sys.argv[1])])
from fslab.synth.head import Head
from fslab.synth.identity import draw_identity
from fslab.synth.render import Renderer
from fslab.synth.scene import Attributes
a = Attributes(yaw=10)
print(hashlib.sha256(Renderer(64).render(Head(draw_identity(1)).parts(a), a).tobytes()).hexdigest())
"""


def run(program, *arguments):
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ})


def test_frames_are_the_same_bytes_in_any_process_with_any_threads_and_after_others(head):
    a, renderer = Attributes(yaw=10), Renderer(64)
    here = renderer.render(head.parts(a), a)
    renderer.render([ball()], a)
    assert (renderer.render(head.parts(a), a) == here).all()
    digest = hashlib.sha256(here.tobytes()).hexdigest()
    result = run(PROGRAM, 1)
    assert result.stdout.strip() == digest, result.stderr[-500:]


def test_importing_the_renderer_does_not_load_mitsuba():
    program = "import sys, fslab.synth.render, fslab.synth.annotate; sys.exit(int('mitsuba' in sys.modules))"
    assert run(program).returncode == 0


@pytest.mark.parametrize("name", ["mitsuba", "pyoidn"])
def test_a_missing_renderer_or_denoiser_is_one_clear_line(monkeypatch, name):
    program = f"""
import sys
sys.modules["{name}"] = None
from fslab.errors import FslabError
from fslab.synth.render import Renderer
try:
    Renderer(16).render([], __import__("fslab.synth.scene", fromlist=["x"]).Attributes())
except FslabError as error:
    print(error)
"""
    assert "pip install" in run(program).stdout


def test_impossible_requests_are_refused():
    with pytest.raises(ValueError, match="16 pixels"):
        Renderer(8)
    with pytest.raises(ValueError, match="quality"):
        Renderer(64, "best")
    with pytest.raises(ValueError, match="no parts"):
        annotate([], Attributes(), 64)
    one, two = plate((-1, -1), (1, 1)), [plate((-1, -1), (1, 1)), plate((-2, -2), (2, 2), z=-1)]
    a = Attributes(camera=WIDE)
    with pytest.raises(ValueError, match="same parts"):
        flow_between(annotate([one], a, SIZE), annotate(two, a, SIZE))
    with pytest.raises(ValueError, match="same parts"):
        flow_between(annotate([one], a, SIZE), annotate([one], a, SIZE * 2))
