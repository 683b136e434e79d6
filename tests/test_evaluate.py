import json
from fractions import Fraction
from itertools import islice

import cv2
import numpy as np
import pytest

from fslab.errors import MediaError, NoFaceFound
from fslab.evaluate import METRICS, EvalConfig, EvalReport, References, evaluate_videos
from fslab.faces import Detector, Embedder, find_faces
from fslab.label import VisibleLabel
from fslab.media import RgbFrame, read_frames, write_video
from fslab.mesh import outline
from fslab.patch import Patch
from fslab.samples import sample_path

FPS = Fraction(25)
N = 12


def frames_of(name, n=N):
    return [frame.rgb() for frame in islice(read_frames(sample_path(name)), n)]


@pytest.fixture(scope="module")
def pictures():
    return {"target": frames_of("ada_target.mp4"), "truth": frames_of("ada_as_dan_truth.mp4")}


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """Write frames as a clip and return its path."""
    folder = tmp_path_factory.mktemp("clips")

    def write(name, frames, fps=FPS):
        write_video(folder / f"{name}.mp4", [np.clip(f, 0, 255).astype(np.uint8) for f in frames], fps)
        return folder / f"{name}.mp4"

    return write


@pytest.fixture(scope="module")
def clips(make, pictures):
    return {name: make(name, frames) for name, frames in pictures.items()}


@pytest.fixture(scope="module")
def score(make, clips, pictures):
    """Score a swap made from the truth's frames by a function of (frame, index)."""

    def run(change, **config):
        frames = [change(frame.astype(np.float32), i) for i, frame in enumerate(pictures["truth"])]
        return evaluate_videos(make("swap", frames), clips["target"], clips["truth"], config=EvalConfig(**config))

    return run


@pytest.fixture(scope="module")
def perfect(clips):
    return evaluate_videos(clips["truth"], clips["target"], clips["truth"])


def test_truth_as_swap_is_perfect_and_the_baselines_are_the_ends_of_the_scale(perfect):
    for scores in (perfect.metrics, perfect.baselines["truth"]):
        for name in (n for n, m in METRICS.items() if m.perfect is not None and not m.also_needs):
            assert scores[name] == pytest.approx(METRICS[name].perfect, abs=1e-5), name
    untouched = perfect.baselines["target"]
    assert untouched["closure"] == pytest.approx(0, abs=1e-9)
    assert untouched["leak"] == pytest.approx(1)
    assert untouched["identity_gap_closed"] == pytest.approx(0, abs=1e-9)
    assert untouched["flicker_relative"] == pytest.approx(1)
    assert untouched["identity_target"] == untouched["pose_error"] == untouched["share_swapped"] == 0
    assert perfect.metrics["share_swapped"] == 1
    assert (perfect.n_frames, perfect.n_faces) == (N, N)


def test_the_samples_score_as_their_readme_says():
    report = evaluate_videos(*[sample_path("ada_target.mp4")] * 2, sample_path("ada_as_dan_truth.mp4"))
    assert report.metrics["closure"] == pytest.approx(0, abs=1e-9)
    assert report.metrics["leak"] == pytest.approx(1)
    assert 18 < report.metrics["psnr"] < 21
    assert report.metrics["share_swapped"] == 0
    assert any("not swapped" in note for note in report.notes)


def test_a_half_way_blend_leaks_half(make, clips, pictures):
    blend = [(a.astype(np.float32) + b) / 2 for a, b in zip(pictures["target"], pictures["truth"])]
    report = evaluate_videos(make("blend", blend), clips["target"], clips["truth"])
    assert report.metrics["closure"] == pytest.approx(0.75, abs=0.03)
    assert report.metrics["leak"] == pytest.approx(0.5, abs=0.03)
    assert 0 < report.metrics["identity_gap_closed"] < 1


def test_blur_costs_sharpness_and_little_psnr(score, perfect):
    report = score(lambda frame, i: cv2.GaussianBlur(frame, (0, 0), 2))
    assert report.metrics["sharpness"] < 0.5
    assert report.metrics["psnr"] > perfect.baselines["target"]["psnr"] + 3
    assert report.metrics["flicker"] < perfect.baselines["target"]["flicker"]


def test_flicker_shows_in_flicker_and_unsteadiness(score, perfect):
    report = score(lambda frame, i: frame + (8 if i % 2 else -8))
    assert report.metrics["flicker"] == pytest.approx(16, abs=2)
    assert report.metrics["unsteadiness"] > 2 * perfect.metrics["unsteadiness"]
    assert report.metrics["sharpness"] == pytest.approx(1, abs=0.1)


def test_a_steady_colour_cast_costs_closure_and_does_not_flicker(score, perfect):
    report = score(lambda frame, i: frame + np.array([12, 0, -12]))
    assert report.metrics["closure"] < 0.95
    assert report.metrics["flicker"] < 0.5 * perfect.baselines["target"]["flicker"]
    assert report.metrics["colour_shift"] > 3
    assert report.metrics["colour_error"] == pytest.approx(report.metrics["colour_shift"], abs=1)


def test_a_seam_shows_in_the_band(score, perfect, pictures):
    edges = [outline(find_faces(RgbFrame(frame))[0].mesh) for frame in pictures["target"]]

    def with_seam(frame, i):
        ring = cv2.polylines(np.zeros(frame.shape[:2], np.uint8), [np.round(edges[i]).astype(np.int32)], True, 1, 6)
        return np.where(ring[..., None] > 0, 255, frame)

    assert score(with_seam).metrics["band_error"] > perfect.baselines["target"]["band_error"]


def test_a_shifted_face_scores_badly(score):
    report = score(lambda frame, i: np.roll(frame, 6, axis=1))
    assert report.metrics["closure"] < 0.5
    assert report.metrics["ssim"] < 0.8
    assert report.metrics["ms_ssim"] < 0.9
    assert report.metrics["colour_shift"] < 0.5 * report.metrics["colour_error"]


def test_the_visible_label_does_not_count(score, clips):
    def labelled(frame, i):
        picture = RgbFrame(frame.astype(np.uint8))
        VisibleLabel(picture.size).apply(picture)
        return picture.rgb()

    assert score(labelled).metrics["closure"] > 0.98


def test_pixels_under_an_excluded_box_are_no_part_of_the_face():
    square = np.array([[10, 10], [50, 10], [50, 50], [10, 50]], np.float32)
    patch = Patch.around(square, (80, 80), 4, (40, 40, 90, 90))
    x0, y0 = patch.box[:2]
    assert patch.mask[39 - y0, 39 - x0]
    assert not patch.mask[40 - y0 :, 40 - x0 :].any()
    assert not patch.band[40 - y0 :, 40 - x0 :].any()
    assert Patch.around(square, (80, 80), 4, (0, 0, 80, 80)) is None
    assert Patch.around(square + 200, (80, 80), 4, None) is None


def test_without_a_truth_only_what_can_be_known_is_told(clips):
    frame = next(iter(read_frames(sample_path("dan.mp4"))))
    dan = Embedder().embed(frame, Detector().detect(frame.rgb())[:1])[0]
    report = evaluate_videos(clips["truth"], clips["target"], references=References(dan))
    unknown = {n for n, m in METRICS.items() if m.needs_truth or m.also_needs}
    assert {n for n, v in report.metrics.items() if v is None} == unknown
    assert "truth" not in report.baselines
    assert report.metrics["identity_source"] < report.baselines["target"]["identity_source"], "it looks more like dan"
    assert report.metrics["identity_target"] > 0.3
    assert 0 < report.metrics["pose_error"] < 3
    assert report.metrics["mouth_error"] < 0.1
    assert any("No truth" in note for note in report.notes)
    assert not any("No face set" in note for note in report.notes)


def test_frames_without_a_face_are_skipped_and_counted(make, pictures):
    def with_gap(frames):
        return [*frames[:6], *[np.full_like(frames[0], 90)] * 4, *frames[6:12]]

    target, truth = (make(f"gap_{k}", with_gap(v)) for k, v in pictures.items())
    report = evaluate_videos(truth, target, truth)
    assert (report.n_frames, report.n_faces) == (16, 12)
    assert report.metrics["closure"] == pytest.approx(1, abs=1e-6)
    assert [v is None for v in report.per_frame["closure"]] == [6 <= i < 10 for i in range(16)]
    assert report.per_frame["flicker"][10] is None or report.per_frame["flicker"][10] == 0
    assert "4 of 16 frames" in report.notes[0]


def test_of_two_faces_the_one_that_was_swapped_is_measured(make, pictures):
    bystander = [cv2.resize(f, (480, 480)) for f in frames_of("dan.mp4", 8)]  # the larger face

    def beside(frames):
        return [
            np.hstack([cv2.copyMakeBorder(f, 0, 96, 0, 0, cv2.BORDER_REPLICATE), b]) for f, b in zip(frames, bystander)
        ]

    target, truth = (make(f"two_{k}", beside(v)) for k, v in pictures.items())
    report = evaluate_videos(truth, target, truth)
    assert report.metrics["share_swapped"] == 1
    assert report.baselines["target"]["psnr"] < 25
    assert any("more than one face" in note for note in report.notes)


def test_identity_is_taken_on_every_nth_frame(clips):
    report = evaluate_videos(clips["truth"], clips["target"], clips["truth"], config=EvalConfig(embed_every=6))
    taken = [i for i, v in enumerate(report.per_frame["identity_target"]) if v is not None]
    assert taken == [0, 6]
    assert len({len(series) for series in report.per_frame.values()}) == 1


def test_pictures_are_few_small_and_from_the_right_moments(make, pictures, clips):
    frames = [t if i in (3, 9) else g for i, (t, g) in enumerate(zip(pictures["target"], pictures["truth"]))]
    config = EvalConfig(n_moments=2, n_worst=2, picture_side=128)
    shown = evaluate_videos(make("holes", frames), clips["target"], clips["truth"], config=config).pictures
    assert [m.index for m in shown.moments] == [4, 7]
    assert {m.index for m in shown.worst} == {3, 9}
    assert shown.worst[0].badness >= shown.worst[1].badness
    moment = shown.moments[0]
    assert set(moment.frames) == set(moment.faces) == {"target", "swap", "truth"}
    assert moment.frames["swap"].shape == (128, 128, 3)
    assert moment.faces["swap"].shape == (64, 64, 3)


def test_a_report_survives_json(perfect):
    text = json.dumps(perfect.to_dict(), allow_nan=False)
    assert EvalReport.from_dict(json.loads(text)) == perfect
    assert "pictures" not in json.loads(text)
    for broken in ([], {}, {"schema": 99}, {"schema": 1, "metrics": {}}):
        with pytest.raises(ValueError, match="report"):
            EvalReport.from_dict(broken)


def test_the_same_clips_give_the_same_report(perfect, clips):
    assert evaluate_videos(clips["truth"], clips["target"], clips["truth"]) == perfect


def test_progress_is_told_frame_by_frame(make, pictures):
    seen, clip = [], make("short", pictures["target"][:3])
    evaluate_videos(clip, clip, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_clips_of_other_length_size_or_timing_are_refused_in_one_line(make, pictures, clips):
    short = make("shorter", pictures["truth"][:-2])
    with pytest.raises(MediaError, match=f"'shorter.mp4' \\(swap\\) with {N - 2} frames") as error:
        evaluate_videos(short, clips["target"], clips["truth"])
    assert f"'target.mp4' (target) with {N} frames" in str(error.value)
    with pytest.raises(MediaError, match=f"'truth.mp4' \\(swap\\) with {N} frames"):
        evaluate_videos(clips["truth"], make("few", pictures["target"][:5]))
    small = make("small", [f[:200, :300] for f in pictures["truth"]])
    with pytest.raises(MediaError, match=r"384 x 384.*300 x 200") as error:
        evaluate_videos(clips["truth"], clips["target"], small)
    assert "\n" not in str(error.value)
    slow = make("slow", pictures["truth"], Fraction(20))
    with pytest.raises(MediaError, match="the same timestamps"):
        evaluate_videos(slow, clips["target"])


def test_footage_without_a_face_is_refused(make):
    blank = make("blank", [np.full((96, 96, 3), 120, np.uint8)] * 4)
    with pytest.raises(NoFaceFound, match=r"a face in 'blank.mp4', found none in 4 frames"):
        evaluate_videos(blank, blank)


@pytest.mark.parametrize("bad", [{"embed_every": 0}, {"edge_band": 0}, {"n_moments": 0}, {"picture_side": 9}])
def test_impossible_settings_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        EvalConfig(**bad)
