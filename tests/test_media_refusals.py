"""Damaged and hostile videos, full disks, work that is cut short: one clear line, and no leftovers."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from clips import MILLISECOND, SAMPLE, Clip, Sound, make_clip, rewrite, scene, times

from fslab.errors import MediaError, OutputError
from fslab.media import (
    VideoOptions,
    VideoWriter,
    is_video,
    probe,
    read_footage,
    read_frames,
    read_image,
    write_image,
    write_video,
)
from fslab.media.movie import PRESETS, check_finished


def test_the_smallest_video_works_and_a_single_pixel_is_refused(tmp_path):
    tiny = make_clip(tmp_path / "tiny.mkv", Clip(size=(2, 2), codec="ffv1", time_base=MILLISECOND))
    assert probe(rewrite(tiny, tmp_path / "out.mp4")).size == (2, 2)
    pixel = Clip(size=(1, 1), codec="ffv1", pixels="yuv444p", time_base=MILLISECOND)
    with pytest.raises(MediaError, match="2 x 2"):
        list(read_frames(make_clip(tmp_path / "pixel.mkv", pixel)))


def test_what_is_not_a_video_is_refused_in_one_line(tmp_path):
    write_image(tmp_path / "still.png", scene(0))
    whole = make_clip(tmp_path / "whole.mp4").read_bytes()  # with its index at the end
    cases = {
        "empty.mp4": (b"", "0 bytes"),
        "text.mp4": (b"hello\n" * 99, "text in"),
        "playlist.mp4": (f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{SAMPLE}\n".encode(), "text in"),
        "script.mp4": (f"ffconcat version 1.0\nfile {SAMPLE.name}\n".encode(), "text in"),
        "subtitles.mp4": (b"1\n00:00:00,000 --> 00:00:01,000\nhi\n", "text in"),
        "still.mp4": ((tmp_path / "still.png").read_bytes(), "PNG image"),
        "noise.mp4": (np.random.default_rng(0).bytes(9999), "cannot be decoded"),
        "cut.mp4": (whole[: len(whole) // 2], "without its index"),
    }
    for name, (content, words) in cases.items():
        (tmp_path / name).write_bytes(content)
        assert not is_video(tmp_path / name)
        for read in (probe, lambda path: list(read_frames(path))):
            with pytest.raises(MediaError, match=words) as caught:
                read(tmp_path / name)
            assert "\n" not in str(caught.value)
    for path, words in ((tmp_path / "missing.mp4", "no file"), (tmp_path, "folder")):
        with pytest.raises(MediaError, match=words):
            probe(path)
    for address in ("http://example.com/a.mp4", f"concat:{SAMPLE}|{SAMPLE}", f"file:{SAMPLE}"):
        with pytest.raises(MediaError, match="no file"):
            probe(address)
    with pytest.raises(MediaError, match="a video, an image, or a folder"):
        list(read_footage(tmp_path / "text.mp4"))
    with pytest.raises(MediaError, match="none"):
        list(read_footage(Path(tmp_path / "empty").mkdir() or tmp_path / "empty"))


def test_sound_alone_is_no_video(tmp_path):
    with av.open(str(tmp_path / "song.mp4"), "w") as output:
        stream = output.add_stream("aac", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 9600), np.int16), format="s16", layout="stereo")
        frame.sample_rate = 48000
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    with pytest.raises(MediaError, match="sound without pictures"):
        probe(tmp_path / "song.mp4")


def test_half_a_video_yields_what_it_has_and_then_says_so(tmp_path):
    content = SAMPLE.read_bytes()
    (tmp_path / "half.mp4").write_bytes(content[: len(content) // 2])
    (tmp_path / "most.mp4").write_bytes(content[: int(len(content) * 0.97)])
    assert probe(tmp_path / "half.mp4").n_frames == 200
    frames = []
    with pytest.raises(MediaError, match=r"9\d readable of 200"):
        frames.extend(frame.index for frame in read_frames(tmp_path / "half.mp4"))
    assert 80 < len(frames) < 100
    assert 180 < len(list(read_frames(tmp_path / "most.mp4"))) < 200


def test_damage_in_the_middle_costs_only_its_frames(tmp_path):
    content = bytearray(SAMPLE.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 3000] = np.random.default_rng(0).bytes(3000)
    (tmp_path / "damaged.mp4").write_bytes(content)
    assert len(list(read_frames(tmp_path / "damaged.mp4"))) > 180


def test_frames_that_do_not_belong_together_are_refused(tmp_path):
    small, large = make_clip(tmp_path / "small.mp4"), make_clip(tmp_path / "large.mp4", Clip(size=(128, 128)))
    with pytest.raises(ValueError, match="like the first"), VideoWriter(tmp_path / "out.mp4", small) as writer:
        for source in (small, large):
            writer.write(next(read_frames(source)))
    with pytest.raises(ValueError, match="later"), VideoWriter(tmp_path / "out.mp4", small) as writer:
        for _ in range(2):
            writer.write(next(read_frames(small)))
    with pytest.raises(ValueError, match="int16"):
        write_video(tmp_path / "out.mp4", [scene(0)], 25, (np.zeros((5, 3), np.int16), 48000))
    assert not (tmp_path / "out.mp4").exists()


def test_options_and_names_are_checked(tmp_path):
    for bad in ({"crf": 52}, {"crf": -1}, {"preset": "placebo!"}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            VideoOptions(**bad)
    assert [VideoOptions(preset=name).preset for name in PRESETS] == list(PRESETS)
    for name in ("out.webm", "out.avi", "out"):
        with pytest.raises(MediaError, match=r"\.mp4 or \.mov"):
            VideoWriter(tmp_path / name, SAMPLE)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(5, "the caller's own"), ValueError("the caller's own")])
def test_an_interrupted_video_leaves_what_was_there(tmp_path, error):
    (tmp_path / "out.mp4").write_bytes(b"an older file")
    with pytest.raises(type(error)) as caught, VideoWriter(tmp_path / "out.mp4", SAMPLE) as writer:
        for frame in read_frames(SAMPLE):
            writer.write(frame)
            if frame.index == 60:
                raise error
    assert caught.value is error
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]
    assert (tmp_path / "out.mp4").read_bytes() == b"an older file"


def test_a_file_that_lacks_what_was_written_is_refused(tmp_path):
    part = make_clip(tmp_path / "part.mp4", Clip(sounds=(Sound(),)))
    for n_frames, n_streams, words in ((16, 1, "15 of 16 frames"), (15, 2, "1 of 2 sound streams")):
        movie = SimpleNamespace(n_frames=n_frames, audio=SimpleNamespace(n_streams=n_streams))
        with pytest.raises(OutputError, match=words):
            check_finished(part, movie, tmp_path / "out.mp4")
    part.write_bytes(part.read_bytes()[:1000])
    with pytest.raises(OutputError, match="cannot be opened"):
        check_finished(part, movie, tmp_path / "out.mp4")


def test_a_video_without_frames_is_not_written(tmp_path):
    with pytest.raises(MediaError, match="at least one frame"), VideoWriter(tmp_path / "out.mp4", SAMPLE):
        pass
    with pytest.raises(MediaError, match="no file"), VideoWriter(tmp_path / "out.mp4", tmp_path / "missing.mp4"):
        pass
    with pytest.raises(OutputError, match="nowhere"), VideoWriter(tmp_path / "nowhere" / "out.mp4", SAMPLE):
        pass
    assert list(tmp_path.iterdir()) == []


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from types import SimpleNamespace
from fslab.errors import OutputError
from fslab.media import VideoOptions, VideoWriter, read_frames
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
try:
    with VideoWriter(sys.argv[2], sys.argv[1], VideoOptions(preset="ultrafast")) as writer:
        for frame in read_frames(sys.argv[1]):
            writer.write(frame)
except OutputError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the limit on file sizes that stands in for a full disk is POSIX")
@pytest.mark.parametrize("limit", [100, 200_000])
def test_a_full_disk_leaves_nothing(tmp_path, limit):
    command = [sys.executable, "-c", FULL_DISK, str(SAMPLE), str(tmp_path / "out.mp4"), str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ, cwd=SAMPLE.parent.parent)
    assert done.stdout.startswith("expected a writable path")
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_without_permission_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="permission"), VideoWriter(tmp_path / "out.mp4", SAMPLE):
        pass


def test_names_with_spaces_and_any_script_work(tmp_path):
    folder = tmp_path / "mes vidéos 视频"
    folder.mkdir()
    source = make_clip(tmp_path / "clip.mp4").rename(folder / "été 脸 100%.mp4")
    out = rewrite(source, folder / "换脸 - %d out.mp4")
    assert len(times(out)) == 15
    write_image(folder / "图.png", scene(0))
    assert (read_image(folder / "图.png") == scene(0)).all()


def test_importing_and_reading_print_nothing(tmp_path):
    (tmp_path / "bad.mp4").write_bytes(SAMPLE.read_bytes()[:90_000])
    code = "import sys, fslab.media as m\ntry:\n  list(m.read_frames(sys.argv[1]))\nexcept Exception: pass"
    command = [sys.executable, "-c", code, str(tmp_path / "bad.mp4")]
    done = subprocess.run(command, capture_output=True, check=True, cwd=SAMPLE.parent.parent)
    assert (done.stdout, done.stderr) == (b"", b"")
