import threading

import numpy as np
import pytest

from fslab.errors import NoFaceFound, OutputError
from fslab.faces import Face
from fslab.media import probe, read_frames, write_video
from fslab.provenance import verify
from fslab.samples import sample_path
from fslab.swap import Swapper
from fslab.tracking import FrameFaces, TrackedFace
from fslab.video import PersonChooser, VideoConfig, swap_video


def difference(a, b):
    return np.abs(a.astype(int) - b).mean(axis=2)


def test_a_clip_is_swapped_marked_and_keeps_time_and_sound(tiny_run, tmp_path):
    source, output = sample_path("ada_target.mp4"), tmp_path / "交换 out.mp4"
    calls = []
    summary = swap_video(Swapper(tiny_run, "dan"), source, output, on_progress=lambda *a: calls.append(a))
    assert (summary.n_frames, summary.replaced) == (75, "ada")
    assert summary.n_swapped == 75
    assert calls[-1] == (75, 75)
    assert verify(output).state == "marked"
    assert probe(output).has_audio
    for a, b in zip(read_frames(source), read_frames(output), strict=True):
        assert a.pts * a.time_base == b.pts * b.time_base
        if a.index == 40:
            assert difference(a.rgb(), b.rgb())[:60, :60].mean() < 2  # background: the codec only
            assert difference(a.rgb(), b.rgb()).max() > 20  # the face


@pytest.fixture(scope="module")
def crossing(tmp_path_factory, short_clips):
    """ada left of dan, a cut, ada right of dan."""
    ada, dan = ([f.rgb() for f in read_frames(short_clips[n])] for n in ("ada", "dan"))
    frames = [np.hstack([a, d] if i < 14 else [d, a]) for i, (a, d) in enumerate(zip(ada[:28], dan[:28]))]
    path = tmp_path_factory.mktemp("crossing") / "crossing.mp4"
    write_video(path, frames, 25)
    return path


def test_the_named_person_is_swapped_wherever_they_stand(tiny_run, crossing, tmp_path):
    output = tmp_path / "out.mp4"
    assert swap_video(Swapper(tiny_run, "dan"), crossing, output, "ada").n_swapped == 28
    for a, b in zip(read_frames(crossing), read_frames(output), strict=True):
        change = difference(a.rgb(), b.rgb())[:330]  # above the label
        left, right = (np.percentile(part, 98) for part in (change[:, :384], change[:, 384:]))
        ada, dan = (left, right) if a.index < 14 else (right, left)
        assert ada > 15
        assert dan < 8  # the codec only


def test_frames_without_the_person_pass_untouched(tiny_run, short_clips, tmp_path):
    ada = [f.rgb() for f in read_frames(short_clips["ada"])][:12]
    blank = np.full_like(ada[0], 120)
    clip = tmp_path / "clip.mp4"
    write_video(clip, [*ada, *[blank] * 12], 25)
    summary = swap_video(Swapper(tiny_run, "dan"), clip, tmp_path / "out.mp4")
    assert (summary.n_frames, summary.n_swapped) == (24, 12)
    last = list(read_frames(tmp_path / "out.mp4"))[-1].rgb()
    assert difference(last, blank)[:300].max() <= 2


def test_a_clip_without_the_person_is_one_sentence_and_leaves_nothing(tiny_run, short_clips, tmp_path):
    with pytest.raises(NoFaceFound, match=r"expected ada in 'dan.mp4', found nobody nearer than 0"):
        swap_video(Swapper(tiny_run, "dan"), short_clips["dan"], tmp_path / "out.mp4", "ada")
    assert not any(tmp_path.iterdir())


def test_an_interrupted_swap_leaves_no_half_written_file(tiny_run, tmp_path):
    output = tmp_path / "out.mp4"

    def interrupt(done, total):
        if done == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        swap_video(Swapper(tiny_run, "dan"), sample_path("ada_target.mp4"), output, on_progress=interrupt)
    assert not any(tmp_path.iterdir())
    assert not [t.name for t in threading.enumerate() if t.name.startswith("prefetch")]


def test_the_target_is_never_written_over(tiny_run, short_clips, tmp_path):
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(short_clips["ada"].read_bytes())
    with pytest.raises(OutputError, match="an output other than the target"):
        swap_video(Swapper(tiny_run, "dan"), clip, clip)
    assert clip.read_bytes() == short_clips["ada"].read_bytes()


def test_one_odd_look_does_not_change_who_somebody_is(tiny_run):
    chooser = PersonChooser(tiny_run, "ada", 0.5, VideoConfig(lookahead=4))
    ada, dan = tiny_run.embeddings["ada"], tiny_run.embeddings["dan"]
    looks = iter([ada, dan, ada, *[ada] * 20])  # the second of the first three looks fails

    class Looks:
        def embed(self, frame, faces):
            return np.stack([next(looks) for _ in faces])

    chooser.embedder = Looks()
    face = TrackedFace(0, Face(np.zeros(4), np.zeros((5, 2)), 1.0))
    stream = [FrameFaces(None, (face,)) for _ in range(30)]
    chosen = list(chooser.choose(stream))
    assert len(chosen) == 30
    assert all(faces == (face,) for _, faces in chosen)


@pytest.mark.parametrize("wrong", [{"batch": 0}, {"smooth": -1}, {"embed_every": 0}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match="must be"):
        VideoConfig(**wrong)
