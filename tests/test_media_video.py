"""Videos in and out: every clock, orientation, colour and sound that phones and cameras bring."""

import gc
import weakref
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from clips import MILLISECOND, SAMPLE, Clip, Sound, make_clip, packets, pixels, rewrite, scene, times

from fslab.errors import MediaError
from fslab.media import (
    RgbFrame,
    VideoOptions,
    VideoWriter,
    count_footage,
    probe,
    read_footage,
    read_frames,
    read_marks,
    read_samples,
    write_image,
    write_video,
)
from fslab.media.files import mp4_boxes

LOSSLESS = VideoOptions(crf=0, preset="ultrafast")
VARIABLE = (0, 300, 812, 1530, 1531, 9000, 9777, 12000, 12512, 20000, 20001, 20002, 40003)
CLOCKS = {
    "constant.mp4": Clip(),
    "variable.mp4": Clip(ticks=VARIABLE),
    "late.mp4": Clip(ticks=tuple(t + 6401 for t in VARIABLE), sounds=(Sound(),)),
    "ntsc.mov": Clip(time_base=Fraction(1001, 30000), ticks=tuple(range(15))),
    "b_frames.mp4": Clip(n=30, options={"bf": "8", "b-adapt": "2", "b-pyramid": "normal"}),
    "milliseconds.mkv": Clip(time_base=MILLISECOND, ticks=tuple(7 + 3 * i * i for i in range(15)), sounds=(Sound(),)),
    "vp9.webm": Clip(codec="libvpx-vp9", time_base=MILLISECOND, options={"deadline": "realtime", "cpu-used": "8"}),
    "broadcast.ts": Clip(time_base=Fraction(1, 90000), sounds=(Sound(), Sound("libmp3lame", 44100))),
    "coarse.avi": Clip(codec="mpeg4", time_base=Fraction(1, 25), sounds=(Sound("libmp3lame", 44100),)),
    "stream.h264": Clip(),
    "one_frame.mp4": Clip(n=1, sounds=(Sound(seconds=3),)),
}


# ---- reading: known answers


def test_a_sample_is_what_it_is_known_to_be():
    info = probe(SAMPLE)
    assert (info.size, info.fps, info.n_frames, info.duration) == ((384, 384), 25, 200, 8.0)
    assert (info.has_audio, info.rotation, info.hdr, info.codec) == (True, 0, False, "h264")
    frames = list(read_frames(SAMPLE))
    assert [f.index for f in frames] == list(range(200))
    assert [f.time for f in frames] == pytest.approx([i / 25 for i in range(200)])
    assert count_footage(SAMPLE) == 200


def test_reading_starts_and_stops_where_it_is_told():
    frames = list(read_frames(SAMPLE, start=1.0, stop=3.2))
    assert [frames[0].time, frames[-1].time] == [1.0, pytest.approx(3.16)]
    assert [f.index for f in frames] == list(range(55))
    whole = list(read_frames(SAMPLE, stop=1.01))
    assert (frames[0].rgb() == whole[-1].rgb()).all()
    with pytest.raises(MediaError, match="after 99 s"):
        list(read_frames(SAMPLE, start=99))


@pytest.mark.parametrize("name", ["clip.mp4", "clip.ts", "clip.h264", "clip.mkv"])
def test_a_start_between_key_frames_loses_no_frame(tmp_path, name):
    base = {"clip.ts": Fraction(1, 90000), "clip.mkv": MILLISECOND}.get(name, Fraction(1, 12800))
    path = make_clip(tmp_path / name, Clip(n=60, time_base=base, options={"g": "25", "bf": "2"}))
    everything = list(read_frames(path))
    for start in (0.01, 0.9, 1.0, 1.5, 2.3):
        expected = [f for f in everything if f.time >= start]
        found = list(read_frames(path, start=start))
        assert [f.pts for f in found] == [f.pts for f in expected]
        assert (found[0].rgb() == expected[0].rgb()).all()


def test_folders_are_read_by_name_and_other_files_passed_over(tmp_path):
    write_image(tmp_path / "b.png", scene(1))
    make_clip(tmp_path / "a.mp4", Clip(n=3))
    make_clip(tmp_path / "c.dat.mkv", Clip(n=2, time_base=MILLISECOND))
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / ".hidden.png").write_bytes((tmp_path / "b.png").read_bytes())
    found = list(read_footage(tmp_path))
    assert [name for name, _ in found] == ["a.mp4"] * 3 + ["b.png"] + ["c.dat.mkv"] * 2
    assert [frame.index for _, frame in found] == [0, 1, 2, 0, 0, 1]
    assert isinstance(found[3][1], RgbFrame)
    assert count_footage(tmp_path) == 6
    assert [frame.size for _, frame in read_footage(tmp_path / "b.png")] == [(96, 128)]


# ---- reading: trusted references


def test_frames_agree_with_opencv():
    capture = cv2.VideoCapture(str(SAMPLE))
    for frame in read_frames(SAMPLE, stop=1.0):
        reference = cv2.cvtColor(capture.read()[1], cv2.COLOR_BGR2RGB)
        assert np.abs(frame.rgb().astype(int) - reference).mean() < 2


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotated_clips_stand_upright_as_in_opencv(tmp_path, rotation):
    path = make_clip(tmp_path / "clip.mp4", Clip(n=5, rotation=rotation, size=(96, 130)))
    capture = cv2.VideoCapture(str(path))
    info = probe(path)
    assert (info.rotation, info.size) == (rotation, (96, 130) if rotation == 180 else (130, 96))
    for frame in read_frames(path):
        assert frame.size == info.size
        reference = cv2.cvtColor(capture.read()[1], cv2.COLOR_BGR2RGB)
        assert np.abs(frame.rgb().astype(int) - reference).mean() < 2
    out = rewrite(path, tmp_path / "out.mp4")
    assert (probe(out).rotation, probe(out).size) == (0, info.size)


@pytest.mark.parametrize("pixel_format", ["yuvj420p", "yuv422p", "yuv444p", "nv12", "yuv420p10le", "yuvj422p"])
def test_every_pixel_format_shows_the_same_scene(tmp_path, pixel_format):
    codec = "mjpeg" if pixel_format == "yuvj422p" else "libx264"
    full = {"color_range": 2} if pixel_format.startswith("yuvj") else {}
    clip = Clip(n=3, codec=codec, pixels=pixel_format, time_base=MILLISECOND, tags=full)
    for i, frame in enumerate(read_frames(make_clip(tmp_path / "clip.mkv", clip))):
        assert np.abs(frame.rgb().astype(int) - scene(i)).mean() < 4


def test_colour_matrices_are_taken_from_the_file(tmp_path):
    tags = {"colorspace": 1, "color_range": 1, "color_trc": 1, "color_primaries": 1}
    write_video(tmp_path / "clip.mp4", [scene(i) for i in range(3)], 25)
    picture = next(read_frames(rewrite(tmp_path / "clip.mp4", tmp_path / "out.mp4"))).picture
    assert {name: getattr(picture, name) for name in tags} == tags
    assert np.abs(pixels(tmp_path / "out.mp4")[0].astype(int) - scene(0)).mean() < 3


@pytest.mark.parametrize("tags", [{}, {"colorspace": 1, "color_trc": 1, "color_primaries": 1}], ids=["bare", "709"])
def test_full_range_becomes_plain_yuv420p_and_keeps_its_pixels_and_other_tags(tmp_path, tags):
    source = make_clip(tmp_path / "full.mp4", Clip(n=3, pixels="yuvj420p", tags={"color_range": 2, **tags}))
    out = rewrite(source, tmp_path / "out.mp4", LOSSLESS)
    old, new = (next(read_frames(path)).picture for path in (source, out))
    assert (old.format.name, old.color_range) == ("yuvj420p", 2)
    assert new.format.name == "yuv420p"
    assert new.color_range == (1 if tags else 0), "H.264 leaves its default unsaid where nothing else is said"
    for tag in ("colorspace", "color_trc", "color_primaries"):
        assert getattr(old, tag) == getattr(new, tag)
    before, after = (pixels(path).astype(int) for path in (source, out))
    assert np.abs(before - after).mean() < 1
    assert np.abs(before - after).max() <= 2
    assert times(out) == times(source)


def test_unspecified_colours_stay_unspecified(tmp_path):
    source = make_clip(tmp_path / "bare.mp4", Clip(n=3))
    old, new = (next(read_frames(path)).picture for path in (source, rewrite(source, tmp_path / "out.mp4")))
    for tag in ("colorspace", "color_range", "color_trc", "color_primaries"):
        assert getattr(old, tag) == getattr(new, tag)
    assert np.abs(pixels(source).astype(int) - pixels(tmp_path / "out.mp4")).mean() < 2


def test_hdr_is_mapped_to_bt709(tmp_path):
    tags = {"colorspace": 9, "color_range": 1, "color_trc": 16, "color_primaries": 9}
    source = tmp_path / "hdr.mp4"
    with av.open(str(source), "w") as output:
        stream = output.add_stream("libx265", rate=25)
        stream.height, stream.width, stream.pix_fmt = 64, 128, "yuv420p10le"
        stream.options = {"x265-params": "log-level=none:lossless=1"}
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)
        frame = av.VideoFrame(128, 64, "yuv420p10le")
        frame.pts, frame.color_trc, frame.colorspace, frame.color_primaries, frame.color_range = 0, 16, 9, 9, 1
        codes = 64 + 876 * np.repeat([0, 0.25, 0.508, 0.58], 32)  # PQ: black, dark, 100 and 203 cd/m2 (paper white)
        for plane, value in zip(frame.planes, (codes.astype(np.uint16), 512, 512)):
            np.frombuffer(plane, np.uint16)[:] = np.resize(value, plane.buffer_size // 2)
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    assert probe(source).hdr
    out = rewrite(source, tmp_path / "out.mp4", LOSSLESS)
    picture = next(read_frames(out)).picture
    assert (picture.colorspace, picture.color_range, picture.color_trc, picture.color_primaries) == (1, 1, 1, 1)
    assert not probe(out).hdr
    grey = pixels(out)[0, 32, 16::32]
    assert np.ptp(grey, axis=1).max() <= 2
    assert grey[:, 0] == pytest.approx([0, 55, 189, 253], abs=8)


def test_an_odd_last_row_and_column_are_cut(tmp_path):
    clip = Clip(n=2, size=(97, 129), codec="ffv1", time_base=MILLISECOND)
    path = make_clip(tmp_path / "odd.mkv", clip)
    assert probe(path).size == (96, 128)
    with av.open(str(path)) as container:
        picture = next(container.decode(video=0))
    luma = np.frombuffer(picture.planes[0], np.uint8).reshape(97, -1)[:96, :128]
    assert (next(read_frames(path)).planes[0] == luma).all()


# ---- writing: what stays exactly as it was


@pytest.mark.parametrize("name", CLOCKS)
def test_timestamps_survive_exactly(tmp_path, name):
    source = make_clip(tmp_path / name, CLOCKS[name])
    out = rewrite(source, tmp_path / "out.mp4")
    assert times(out) == times(source)
    assert len(times(out)) == (len(CLOCKS[name].ticks) or CLOCKS[name].n)
    sounds = len(CLOCKS[name].sounds)
    assert [len(packets(out, "audio", i)) > 0 for i in range(sounds)] == [True] * sounds


@pytest.mark.parametrize("options", [VideoOptions(preset="ultrafast"), VideoOptions()], ids=["in order", "B-frames"])
def test_a_long_last_frame_stays_long(tmp_path, options):
    clip = Clip(ticks=VARIABLE, last=128000, options={"bf": "0"}, sounds=(Sound(seconds=13),))
    source = make_clip(tmp_path / "clip.mp4", clip)
    seconds = (VARIABLE[-1] + 128000) / 12800
    assert probe(source).duration == pytest.approx(seconds)
    out = rewrite(source, tmp_path / "out.mp4", options)
    again = rewrite(out, tmp_path / "again.mp4", options)
    for path in (out, again):
        assert times(path) == times(source)
        assert probe(path).duration == pytest.approx(seconds, abs=0.04)
        assert len(packets(path, "audio")) == len(packets(source, "audio"))
    part = rewrite(source, tmp_path / "part.mp4", options, start=1.5)
    assert probe(part).duration == pytest.approx(seconds - 20000 / 12800, abs=0.04)
    head = rewrite(source, tmp_path / "head.mp4", options, stop=1.5)
    assert probe(head).duration == pytest.approx(20000 / 12800, abs=0.04)


def test_samples_are_spread_by_position_with_the_first_and_the_last(tmp_path):
    source = make_clip(tmp_path / "clip.mp4", Clip(ticks=VARIABLE, last=128000))
    assert [frame.pts for frame in read_samples(source, 5)] == [VARIABLE[i] for i in (0, 3, 6, 9, 12)]
    assert len(list(read_samples(make_clip(tmp_path / "short.mp4", Clip(n=3)), 5))) == 3


def test_a_broadcast_clock_is_set_to_zero_and_sound_stays_in_step(tmp_path):
    sounds = (Sound(start=3600), Sound("mp2", 44100, start=3600.2))  # one is copied, one becomes AAC
    ticks = tuple(90000 * 3600 + 3600 * i for i in range(30))
    source = make_clip(tmp_path / "clip.ts", Clip(time_base=Fraction(1, 90000), ticks=ticks, sounds=sounds))
    assert [f.index for f in read_frames(source, start=0.5, stop=0.9)] == list(range(10))
    out = rewrite(source, tmp_path / "out.mp4")
    first = min(time for time, _ in packets(source, "video"))
    assert first >= 3600
    assert 0 <= times(source)[0] < 0.1
    for i in range(2):
        step = packets(source, "audio", i)[0][0] - first
        assert packets(out, "audio", i)[0][0] - float(times(out)[0]) == pytest.approx(step, abs=0.03)


def test_key_frames_are_the_encoder_s_choice(tmp_path):
    source = make_clip(tmp_path / "clip.mp4", Clip(n=30, options={"g": "1"}))
    out = rewrite(source, tmp_path / "out.mp4")
    for path, n_keys in ((source, 30), (out, 1)):
        with av.open(str(path)) as container:
            assert sum(packet.is_keyframe for packet in container.demux(video=0) if packet.size) == n_keys


def test_untouched_frames_reach_the_encoder_bit_exact(tmp_path):
    source = make_clip(tmp_path / "clip.mp4")
    out = rewrite(source, tmp_path / "out.mp4", LOSSLESS)
    for old, new in zip(read_frames(source), read_frames(out), strict=True):
        assert all((a == b).all() for a, b in zip(old.planes, new.planes))


def test_only_pasted_pixels_differ_after_encoding(tmp_path):
    with VideoWriter(tmp_path / "out.mp4", SAMPLE, LOSSLESS) as writer:
        for frame in read_frames(SAMPLE, stop=0.4):
            frame.paste(np.full((50, 60, 3), 200, np.uint8), 101, 103, np.ones((50, 60), bool))
            writer.write(frame)
    for old, new in zip(read_frames(SAMPLE), read_frames(tmp_path / "out.mp4")):
        differs = old.planes[0] != new.planes[0]
        assert differs[103:153, 101:161].any()
        differs[103:153, 101:161] = False
        assert not differs.any()
        assert np.abs(new.crop(102, 104, 160, 152).astype(int) - 200).max() <= 2


def test_all_sound_is_copied_packet_by_packet(tmp_path):
    sounds = (Sound(), Sound("libmp3lame", 44100), Sound("ac3", 48000, "5.1", 2.0), Sound("libopus", seconds=0.2))
    source = make_clip(tmp_path / "clip.mkv", Clip(time_base=MILLISECOND, sounds=sounds))
    out = rewrite(source, tmp_path / "out.mp4")
    for i in range(len(sounds)):
        old, new = packets(source, "audio", i), packets(out, "audio", i)
        assert [content for _, content in old] == [content for _, content in new]
        offset = old[0][0] - new[0][0]
        assert abs(offset) < 0.03
        assert max(abs(a[0] - b[0] - offset) for a, b in zip(old, new)) <= 0.0011  # Matroska counts milliseconds
    sample = rewrite(SAMPLE, tmp_path / "sample.mp4", VideoOptions(preset="ultrafast"))
    assert packets(sample, "audio") == packets(SAMPLE, "audio")


def test_ten_sound_streams_and_no_sound_are_both_kept(tmp_path):
    for n in (0, 10):
        source = make_clip(tmp_path / f"clip{n}.mp4", Clip(n=3, sounds=(Sound(seconds=0.3),) * n))
        out = rewrite(source, tmp_path / f"out{n}.mp4")
        with av.open(str(out)) as container:
            assert len(container.streams.audio) == n
        assert probe(out).has_audio == (n > 0)


@pytest.mark.parametrize(
    ("sound", "suffix"),
    [
        (Sound("pcm_s16le", 44100, "mono"), ".mov"),
        (Sound("pcm_s16le", 48000, "5.1.4"), ".mkv"),
        (Sound("pcm_s16le", 37000, start=0.5), ".mkv"),
    ],
    ids=["mono", "ten channels", "odd rate, late"],
)
def test_sound_that_mp4_players_do_not_expect_becomes_aac(tmp_path, sound, suffix):
    base = Fraction(1, 12800) if suffix == ".mov" else MILLISECOND
    source = make_clip(tmp_path / f"clip{suffix}", Clip(n=30, time_base=base, sounds=(sound,)))
    with av.open(str(rewrite(source, tmp_path / "out.mp4"))) as container:
        stream = container.streams.audio[0]
        assert stream.codec_context.name == "aac"
        frames = [(f.time, f.to_ndarray()[0]) for f in container.decode(stream)]
    rate, heard = stream.rate, np.concatenate([samples for _, samples in frames])
    loud = np.flatnonzero(np.abs(heard) > 0.02) / rate + frames[0][0]
    assert loud[0] == pytest.approx(sound.start, abs=0.05)
    assert loud[-1] == pytest.approx(sound.start + sound.seconds, abs=0.06)
    middle = heard[len(heard) // 2 :][: rate // 10]
    assert abs(np.fft.rfft(middle)[44]) > 0.9 * np.abs(np.fft.rfft(middle)).max()  # 440 Hz


def test_a_part_of_a_clip_starts_at_zero_with_its_own_sound(tmp_path):
    out = rewrite(SAMPLE, tmp_path / "out.mp4", start=2.0, stop=5.0)
    assert [float(t) for t in times(out)] == pytest.approx([i / 25 for i in range(75)])
    old, new = packets(SAMPLE, "audio"), packets(out, "audio")
    first = next(i for i, (_, content) in enumerate(old) if content == new[0][1])
    assert [content for _, content in old[first:]][: len(new)] == [content for _, content in new]
    assert old[first][0] - new[0][0] == pytest.approx(2.0, abs=1e-4)
    assert new[0][0] == pytest.approx(0, abs=0.05)
    assert new[-1][0] == pytest.approx(3, abs=0.05)


def test_sound_longer_or_shorter_than_the_pictures_is_whole(tmp_path):
    for seconds in (0.1, 4.0):
        source = make_clip(tmp_path / "clip.mp4", Clip(n=25, sounds=(Sound(seconds=seconds),)))
        assert packets(rewrite(source, tmp_path / "out.mp4"), "audio") == packets(source, "audio")


def test_writing_holds_few_frames_and_sends_sound_in_step(tmp_path):
    sound = np.zeros((30 * 8000, 1), np.int16)
    write_video(tmp_path / "long.mp4", (scene(i, (32, 48)) for i in range(750)), 25, (sound, 8000))
    alive = []
    with VideoWriter(tmp_path / "out.mp4", tmp_path / "long.mp4", VideoOptions(preset="ultrafast")) as writer:
        for frame in read_frames(tmp_path / "long.mp4"):
            writer.write(frame)
            alive.append(weakref.ref(frame))
            del frame
        gc.collect()
        assert sum(ref() is not None for ref in alive) <= 2
    ahead = {"video": 0.0, "audio": 0.0}
    with av.open(str(tmp_path / "out.mp4")) as container:
        for packet in sorted((p for p in container.demux() if p.size), key=lambda p: p.pos):
            ahead[packet.stream.type] = float(packet.dts * packet.time_base)
            assert abs(ahead["video"] - ahead["audio"]) < 1.5


def test_pixels_that_are_not_square_stay_so(tmp_path):
    source = make_clip(tmp_path / "clip.mp4", Clip(n=2, tags={"sample_aspect_ratio": Fraction(4, 3)}))
    with av.open(str(rewrite(source, tmp_path / "out.mp4"))) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(4, 3)


def test_marks_are_stored_and_read_back(tmp_path):
    tags, xmp = {"AIGC": '{"Label": "1", "Producer": "合成"}', "title": "é", "manifest": "x" * 20_000}, "<x>é 合成</x>"
    for name in ("out.mp4", "out 脸.mov"):
        with VideoWriter(tmp_path / name, SAMPLE, metadata=tags, xmp=xmp) as writer:
            for frame in read_frames(SAMPLE, stop=0.2):
                writer.write(frame)
        assert read_marks(tmp_path / name) == {"xmp": xmp, "tags": tags}
        assert len(times(tmp_path / name)) == 5
    comment = "a synthetic person, rendered by fslab; nobody real"
    assert read_marks(SAMPLE) == {"xmp": None, "tags": {"comment": comment}}


def test_a_browser_can_start_before_the_file_is_complete(tmp_path):
    out = rewrite(make_clip(tmp_path / "clip.mp4"), tmp_path / "out.mp4")
    with open(out, "rb") as file:
        kinds = [kind for kind, _, _ in mp4_boxes(file)]
    assert kinds.index(b"moov") < kinds.index(b"mdat")
    with av.open(str(out)) as container:
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"


def test_writing_twice_gives_the_same_file(tmp_path):
    source = make_clip(tmp_path / "clip.mp4", Clip(sounds=(Sound(),)))
    first, second = (rewrite(source, tmp_path / f"{name}.mp4").read_bytes() for name in "ab")
    assert first == second


def test_images_become_a_video_with_sound(tmp_path):
    sound = np.random.default_rng(0).integers(-9000, 9000, (22050, 1)).astype(np.int16)
    write_video(tmp_path / "a.mp4", (scene(i, (97, 129)) for i in range(30)), 30000 / 1001, (sound, 22050))
    info = probe(tmp_path / "a.mp4")
    assert (info.size, info.n_frames, info.fps, info.has_audio) == ((96, 128), 30, Fraction(30000, 1001), True)
    assert times(tmp_path / "a.mp4") == [Fraction(1001 * i, 30000) for i in range(30)]
    for found, i in zip(pixels(tmp_path / "a.mp4"), range(30)):
        assert np.abs(found.astype(int) - scene(i, (97, 129))[:96, :128]).mean() < 3
