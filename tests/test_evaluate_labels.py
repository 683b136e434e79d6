"""Clips of known motion at 128 pixels, a face 70 pixels wide, with exact labels: what a detector is not needed for."""

from dataclasses import replace
from fractions import Fraction

import cv2
import numpy as np
import pytest

from fslab.errors import MediaError
from fslab.evaluate import METRICS, EvalConfig, Gallery, References, evaluate_videos
from fslab.faces import Embedder, find_faces, outline
from fslab.labels import ClipLabels
from fslab.media import RgbFrame, read_frames, write_video
from fslab.mesh import EYES
from fslab.meter import Meter
from fslab.patch import EYES_PART, Patch, exact_face
from fslab.samples import sample_path
from fslab.synth.scene import PARTS
from fslab.tracking import FrameFaces, TrackedFace

SIZE, N, FPS = 128, 6, Fraction(25)
PATH = np.array([(-4, 2), (-1, 0), (1, 3), (-2, 1), (2, -3), (5, -1), (3, 2), (0, 0)])  # where the picture goes, pixels
CONFIG = EvalConfig(has_label=False, embed_every=2, edge_band=3)


def moved(image, t):
    """The picture at time ``t``; what comes in at the border repeats it."""
    matrix = np.column_stack([np.eye(2), PATH[t]]).astype(np.float32)
    return cv2.warpAffine(image, matrix, (SIZE, SIZE), borderMode=cv2.BORDER_REPLICATE)


@pytest.fixture(scope="module")
def still():
    """The first frame of target and truth, small, and the truth's mesh in it."""
    frames = {k: next(iter(read_frames(sample_path(f"{k}.mp4")))) for k in ("ada_target", "ada_as_dan_truth")}
    mesh = find_faces(frames["ada_as_dan_truth"])[0].mesh
    scale = SIZE / frames["ada_target"].size[0]
    small = [cv2.resize(f.rgb(), (SIZE, SIZE), interpolation=cv2.INTER_AREA) for f in frames.values()]
    return *small, ((mesh[:, :2] + 0.5) * scale - 0.5).astype(np.float32)


def labels_of(mesh, n=N):
    """Exact labels of a still that moves: the face is the outline of its mesh, with soft edges."""
    meshes = (mesh + PATH[:n, None]).astype(np.float32)
    face = np.zeros((n, SIZE, SIZE), np.uint8)
    eyes = np.zeros_like(face)
    for t in range(n):
        cv2.fillPoly(face[t], [np.round(outline(meshes[t]) * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
        for eye in EYES:
            cv2.fillPoly(eyes[t], [np.round(meshes[t][list(eye)] * 16).astype(np.int32)], 1, shift=4)
    parts = np.where(eyes, PARTS.index("eyes"), np.where(face > 127, PARTS.index("face"), 0)).astype(np.uint8)
    flow = np.zeros((n - 1, SIZE, SIZE, 2), np.float16) + np.diff(PATH[:n], axis=0)[:, None, None].astype(np.float16)
    return ClipLabels(
        parts, face, flow, np.zeros((n, 68, 2), np.float32), meshes,
        np.zeros((n, 3), np.float32), np.zeros((n, 2), np.float32), np.zeros((n, 52), np.float32),
        np.array([f"unit{i}" for i in range(52)]),
    )  # fmt: skip


@pytest.fixture(scope="module")
def labels(still):
    return labels_of(still[2])


@pytest.fixture(scope="module")
def frames(still):
    return {"target": [moved(still[0], t) for t in range(N)], "truth": [moved(still[1], t) for t in range(N)]}


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labelled")

    def write(name, pictures):
        path = folder / f"{name}.mp4"
        write_video(path, [np.clip(f, 0, 255).astype(np.uint8) for f in pictures], FPS)
        return path

    return write


@pytest.fixture(scope="module")
def clips(make, frames):
    return {name: make(name, pictures) for name, pictures in frames.items()}


@pytest.fixture(scope="module")
def gallery():
    """Strangers around the origin, which no face is near, and room for one more."""
    rng = np.random.default_rng(0)
    return Gallery(np.arange(1000, 1200), rng.normal(0, 0.13, (200, 128)).astype(np.float32), 1007)


@pytest.fixture(scope="module")
def scored(make, clips, frames, labels, gallery):
    """All candidates through one pass: name -> metrics."""
    target, truth = (np.stack(frames[k]).astype(np.float32) for k in ("target", "truth"))
    grain = np.random.default_rng(1).normal(0, 6, truth.shape)
    candidates = {
        "half": (target + truth) / 2,
        "blur": [cv2.GaussianBlur(f, (0, 0), 2) for f in truth],
        "cast": truth + np.array([14, 0, -14]),
        "jitter": [np.roll(f, 1 if t % 2 else -1, axis=1) for t, f in enumerate(truth)],
        "shift": np.roll(truth, 5, axis=2),
        "noise": truth + grain,
    }
    others = {name: make(name, pictures) for name, pictures in candidates.items()}
    references = References(labels=labels, gallery=gallery, others=others)
    report = evaluate_videos(clips["truth"], clips["target"], clips["truth"], references, CONFIG)
    return report.baselines | {"swap": report.metrics, "report": report}


def test_the_truth_scores_what_is_perfect_and_the_target_the_other_end(scored):
    for arm in ("swap", "truth"):
        for name in (n for n, m in METRICS.items() if m.perfect is not None):
            assert scored[arm][name] == pytest.approx(METRICS[name].perfect, abs=1e-5), name
    untouched = scored["target"]
    assert (untouched["closure"], untouched["leak"]) == pytest.approx((0, 1), abs=1e-9)
    assert untouched["identity_gap_closed"] == pytest.approx(0, abs=1e-9)
    for name in ("colour_error", "landmark_error", "mouth_to_truth"):
        assert untouched[name] > scored["truth"][name], name


def test_a_half_way_blend_closes_three_quarters_and_leaks_half(scored):
    half = scored["half"]
    assert (half["closure"], half["leak"]) == pytest.approx((0.75, 0.5), abs=0.05), "but for the codec"
    assert half["ms_ssim"] > scored["target"]["ms_ssim"]
    assert half["colour_error"] == pytest.approx(scored["target"]["colour_error"] / 2, rel=0.3)


def test_each_fault_moves_its_own_metric(scored):
    assert scored["blur"]["sharpness"] < 0.4
    assert scored["blur"]["warp_excess"] < 0.2
    assert scored["blur"]["colour_shift"] < 1 < 4 < scored["cast"]["colour_shift"]
    assert abs(scored["cast"]["warp_excess"]) < 0.2
    assert scored["cast"]["ms_ssim"] > 0.95
    assert scored["jitter"]["warp_excess"] > 2
    assert scored["noise"]["warp_excess"] > 1
    assert abs(scored["shift"]["warp_excess"]) < 0.5 * scored["jitter"]["warp_excess"], "shifted, but steadily"
    assert scored["shift"]["landmark_error"] > scored["truth"]["landmark_error"] + 0.1
    assert scored["shift"]["closure"] < 0.5


def test_every_clip_has_every_figure_by_one_formula(scored, labels, clips, gallery):
    report = scored["report"]
    assert set(report.baselines) == {"target", "truth", "half", "blur", "cast", "jitter", "shift", "noise"}
    for values in report.baselines.values():
        assert set(values) == set(METRICS)
        assert None not in values.values()
    assert (report.inputs["labels"], report.inputs["gallery"], report.inputs["source"]) == (True, 200, True)
    assert report.inputs["half"]["file"] == "half.mp4"
    references = References(labels=labels, gallery=gallery)
    half = clips["target"].with_name("half.mp4")
    alone = evaluate_videos(half, clips["target"], clips["truth"], references, CONFIG).metrics
    assert {n: alone[n] for n in METRICS} == pytest.approx(report.baselines["half"], abs=1e-5, nan_ok=True)


def test_the_estimators_say_their_own_error(scored):
    report = scored["report"]
    assert set(report.own_errors) == {"pose", "mouth", "eyes"}
    assert report.own_errors["mouth"] < 0.05
    assert any("own mean error" in note for note in report.notes)
    assert scored["truth"]["landmark_error"] < 0.06


def test_what_counts_is_the_labelled_face_and_nothing_else(make, clips, frames, labels):
    outside = [np.where(f[..., None] > 0, g, 0) for f, g in zip(labels.face, frames["truth"])]
    config = replace(CONFIG, n_moments=1, n_worst=0)
    report = evaluate_videos(make("cut", outside), clips["target"], clips["truth"], References(labels=labels), config)
    assert report.metrics["closure"] > 0.9, "the codec smears what was cut into the face"
    only = replace(labels, face=np.where(np.arange(SIZE)[:, None] < 64, labels.face, 0).astype(np.uint8))
    half = [np.where(np.arange(SIZE)[:, None, None] < 62, g, f) for f, g in zip(frames["target"], frames["truth"])]
    upper = evaluate_videos(make("upper", half), clips["target"], clips["truth"], References(labels=only), config)
    assert upper.metrics["closure"] > 0.9


def test_faces_that_no_detector_finds_are_measured_all_the_same(make, clips, frames, labels):
    covered = [np.full_like(f, 90) for f in frames["target"]]
    grey = make("grey", covered)
    report = evaluate_videos(grey, grey, clips["truth"], References(labels=labels), CONFIG)
    assert report.n_faces == N
    assert report.metrics["closure"] == pytest.approx(0, abs=1e-9)
    assert report.metrics["pose_to_truth"] is None


def test_clips_in_which_the_mesh_sees_no_face_are_told_with_their_frames(make, clips, frames, labels):
    half = make("half covered", [np.full_like(f, 90) if t % 2 else f for t, f in enumerate(frames["target"])])
    references = References(labels=labels, others={"late": half})
    report = evaluate_videos(clips["truth"], clips["target"], clips["truth"], references, CONFIG)
    assert any(f"late in {N // 2};" in note for note in report.notes)
    assert not any("none in the swap" in note for note in report.notes)


def test_frames_without_a_face_in_the_labels_are_left_out(clips, labels):
    gone = labels.face.copy()
    gone[2] = 0
    report = evaluate_videos(
        clips["truth"], clips["target"], clips["truth"], References(labels=replace(labels, face=gone)), CONFIG
    )
    assert report.n_faces == N - 1
    assert [v is None for v in report.per_frame["closure"]] == [t == 2 for t in range(N)]
    assert [v is None for v in report.per_frame["warp_excess"]] == [t in (0, 2, 3) for t in range(N)]


def test_the_visible_label_hides_nothing_where_there_is_none(clips, labels, frames):
    frame = {k: RgbFrame(v[0]) for k, v in frames.items()} | {"swap": RgbFrame(frames["truth"][0])}
    faces = FrameFaces(frame["target"], (TrackedFace(0, exact_face(labels, 0)),))
    everywhere, weights = replace(labels, face=np.full_like(labels.face, 255)), []
    for has_label in (False, True):
        config = replace(CONFIG, has_label=has_label)
        meter = Meter(tuple(frame), (SIZE, SIZE), References(labels=everywhere), config)
        meter.add(faces, frame)
        weights.append(meter.arms["swap"].sums.weight)
    assert weights[0] == 3 * SIZE * SIZE
    assert weights[1] < 0.95 * weights[0]


def test_eyes_that_look_elsewhere_show_in_the_gaze_and_nowhere_else_in_what_the_face_does(labels, frames):
    """The eyeballs' pixels are replaced by their mirror image: dark to the other side."""
    meter = Meter(("target", "swap", "truth"), (SIZE, SIZE), References(labels=labels), CONFIG)
    truth, swap = frames["truth"][0], frames["truth"][0].copy()
    for eye in EYES:
        (x0, y0), (x1, y1) = (
            f(labels.mesh[0, list(eye)]).astype(int) for f in (lambda p: p.min(0), lambda p: p.max(0))
        )
        swap[y0 : y1 + 1, x0 : x1 + 1] = swap[y0 : y1 + 1, x0 : x1 + 1][:, ::-1]
    now = {"target": RgbFrame(frames["target"][0]), "swap": RgbFrame(swap), "truth": RgbFrame(truth)}
    meter.add(FrameFaces(now["target"], (TrackedFace(0, exact_face(labels, 0)),)), now)
    assert meter.series["gaze_to_truth"][0] > 5
    assert meter.series["pose_to_truth"][0] < 1
    assert meter.series["mouth_to_truth"][0] < 0.01


def test_the_skin_is_followed_by_the_flow_of_its_own_frame_and_only_the_skin(labels, frames):
    noise = np.random.default_rng(2)
    meter = Meter(("target", "swap", "truth"), (SIZE, SIZE), References(labels=labels), CONFIG)
    for t in range(N):
        truth = frames["truth"][t]
        around = noise.integers(0, 256, truth.shape).astype(np.uint8)
        swap = np.where(labels.face[t, ..., None] > 0, truth, around)
        now = {"target": RgbFrame(frames["target"][t]), "swap": RgbFrame(swap), "truth": RgbFrame(truth)}
        meter.add(FrameFaces(now["target"], (TrackedFace(0, exact_face(labels, t)),)), now)
    assert meter.series["warp_excess"][0] is None
    assert meter.series["warp_excess"][1:] == pytest.approx([0] * (N - 1), abs=1e-6)


def test_the_number_of_the_eyes_part_is_the_scenes_own():
    assert PARTS[EYES_PART] == "eyes"


def test_soft_edges_weigh_and_the_band_lies_along_them():
    mask = np.zeros((60, 60))
    mask[20:40, 20:40], mask[19, 20:40] = 1, 0.25
    patch = Patch.of(mask, 2, None)
    assert patch.mask.sum() == pytest.approx(405)
    x0, y0 = patch.box[:2]
    rows = np.flatnonzero(patch.band[:, 30 - x0]) + y0
    assert rows.tolist() == [18, 19, 20, 21, 38, 39, 40, 41]
    assert Patch.of(mask * 0, 2, None) is None
    assert Patch.of(mask, 2, (0, 0, 60, 60)) is None


def test_labels_of_another_clip_are_refused_in_one_line(clips, labels, still):
    longer = labels_of(still[2], N + 2)
    shorter = labels_of(still[2], N - 2)
    half = replace(labels, parts=labels.parts[:, :64], face=labels.face[:, :64], flow=labels.flow[:, :64])
    for wrong, words in (
        (longer, f"expected labels of {N} frames, as 'target.mp4' has, found labels of {N + 2} frames"),
        (shorter, f"expected labels of {N} frames, as 'target.mp4' has, found labels of {N - 2} frames"),
        (half, "expected labels of 128 x 128 pixels, as 'target.mp4' has, found labels of 128 x 64 pixels"),
    ):
        with pytest.raises(MediaError, match=words) as error:
            evaluate_videos(clips["truth"], clips["target"], clips["truth"], References(labels=wrong), CONFIG)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["target", "swap", "truth", "size", "source"])
def test_other_clips_may_not_take_a_name_that_is_taken(name, clips):
    with pytest.raises(ValueError, match=name):
        References(others={name: clips["truth"]})


def test_the_gallery_finds_the_person_put_in(clips, labels, gallery):
    seen = evaluate_videos(clips["truth"], clips["target"], clips["truth"], References(labels=labels), CONFIG)
    assert seen.metrics["top1"] is None
    assert seen.metrics["identity_source"] is None
    frame = next(iter(read_frames(clips["truth"])))
    dan = Embedder().embed(frame, [exact_face(labels, 0)])[0]
    people = gallery.embeddings.copy()
    people[7] = dan
    found = evaluate_videos(
        clips["truth"], clips["target"], clips["truth"],
        References(labels=labels, gallery=replace(gallery, embeddings=people)), CONFIG,
    )  # fmt: skip
    assert found.metrics["top1"] == found.baselines["truth"]["top1"] == 1
    assert found.metrics["identity_source"] < found.baselines["target"]["identity_source"]
