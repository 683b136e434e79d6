"""What visitors send: taken in by content and within limits, or refused in a sentence that names no folder."""

import os
import shutil

import av
import numpy as np
import pytest
from clips import Clip, make_clip
from PIL import Image

from fslab.errors import FslabError
from fslab.media import probe, read_image, write_image, write_video
from fslab.samples import sample_path
from fslab.webapp.folders import check_space, find_visitor, forget, new_visitor, server_secret, sweep
from fslab.webapp.settings import AppSettings
from fslab.webapp.uploads import accept

PLACE = b"+48.2082+016.3738/"


@pytest.fixture
def settings(tmp_path):
    return AppSettings(home=tmp_path / "home", min_free_mb=0, max_upload_mb=1, max_seconds=4, max_pixels=300_000)


@pytest.fixture
def visitor(settings):
    return new_visitor(settings)


def refusal(visitor, path, settings, **kinds):
    """Send a file that must be refused; return the sentence. Nothing is kept, no folder is named."""
    with pytest.raises(FslabError) as caught:
        accept(visitor, path, settings, **kinds)
    assert not list(visitor.uploads.iterdir())
    assert str(path.parent) not in str(caught.value)
    return str(caught.value)


def test_a_clip_is_taken_in_under_a_name_of_ours(visitor, settings, short_clips):
    upload = accept(visitor, short_clips["ada"], settings)
    assert (upload.kind, upload.n_frames, upload.seconds) == ("video", 48, pytest.approx(1.92))
    assert upload.size == probe(short_clips["ada"]).size
    assert upload.path.parent == visitor.uploads
    assert "ada" not in upload.path.name
    assert upload.path.stat().st_size == short_clips["ada"].stat().st_size


def test_wrong_empty_corrupted_and_disguised_files(visitor, settings, tmp_path):
    good = sample_path("ada_target.mp4").read_bytes()
    contents = {
        "page.mp4": b"<!doctype html><script>alert(1)</script>", "empty.mp4": b"", "cut.mp4": good[: len(good) // 3],
        "noise.mp4": np.random.default_rng(0).bytes(5000), "noise.png": b"\x89PNG\r\n\x1a\n" + bytes(500),
        "list.mp4": b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
        "vector.png": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    }  # fmt: skip
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        assert f"'{name}'" in refusal(visitor, tmp_path / name, settings)
    refusal(visitor, tmp_path / "none.mp4", settings)
    refusal(visitor, tmp_path, settings)


def test_links_are_not_followed(visitor, settings, tmp_path, short_clips):
    (tmp_path / "link.mp4").symlink_to(short_clips["ada"])
    refusal(visitor, tmp_path / "link.mp4", settings)


def test_limits(visitor, settings, tmp_path, short_clips):
    (tmp_path / "huge.mp4").write_bytes(bytes(1_000_001))
    assert "at most 1 MB" in refusal(visitor, tmp_path / "huge.mp4", settings)
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")  # a few kilobytes that unpack to 400 megapixels
    assert "megapixels" in refusal(visitor, tmp_path / "bomb.png", settings)
    write_image(tmp_path / "dot.png", np.zeros((8, 8, 3), np.uint8))
    assert "32 pixels" in refusal(visitor, tmp_path / "dot.png", settings)
    write_video(tmp_path / "long.mp4", (np.full((64, 64, 3), i, np.uint8) for i in range(50)), 10)
    assert "at most 4 s" in refusal(visitor, tmp_path / "long.mp4", settings)
    write_video(tmp_path / "wide.mp4", [np.zeros((600, 800, 3), np.uint8)], 25)
    assert "megapixels" in refusal(visitor, tmp_path / "wide.mp4", settings)
    assert "a picture" in refusal(visitor, short_clips["ada"], settings, kinds=("image",))
    write_image(tmp_path / "still.png", np.zeros((64, 64, 3), np.uint8))
    assert "a video" in refusal(visitor, tmp_path / "still.png", settings, kinds=("video",))


def test_a_codec_nobody_films_with(visitor, settings, tmp_path):
    clip = make_clip(tmp_path / "old.avi", Clip(codec="msmpeg4v2", size=(64, 64), n=5))
    assert "codec" in refusal(visitor, clip, settings)


def test_exif_and_place_are_left_out_and_the_picture_stands_upright(visitor, settings, tmp_path):
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "SecretCamera", 6  # maker; turned by 90 degrees
    exif.get_ifd(0x8825)[1] = "N"
    exif.get_ifd(0x8825)[2] = (48.0, 12.0, 29.0)
    Image.new("RGB", (96, 64), "teal").save(tmp_path / "phone.jpg", exif=exif, comment=b"SecretNote")
    upload = accept(visitor, tmp_path / "phone.jpg", settings)
    assert (upload.kind, upload.size, upload.n_frames) == ("image", (96, 64), 1)
    kept = upload.path.read_bytes()
    assert b"Secret" not in kept
    with Image.open(upload.path) as image:
        assert not dict(image.getexif())
        assert image.format == "PNG"
    assert read_image(upload.path).shape == (96, 64, 3)


def test_the_place_in_a_clips_header_is_blanked_and_nothing_else(visitor, settings, tmp_path, short_clips):
    plain = short_clips["ada"].read_bytes()
    with (
        av.open(str(short_clips["ada"])) as source,
        av.open(str(tmp_path / "phone.mp4"), "w", options={"movflags": "use_metadata_tags"}) as target,
    ):
        target.metadata["location"], target.metadata["com.apple.quicktime.make"] = PLACE.decode(), "SecretCamera"
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    sent = (tmp_path / "phone.mp4").read_bytes()
    assert PLACE in sent
    assert PLACE not in plain
    upload = accept(visitor, tmp_path / "phone.mp4", settings)
    kept = upload.path.read_bytes()
    assert PLACE not in kept
    assert b"SecretCamera" not in kept
    assert len(kept) == len(sent)
    assert upload.n_frames == 48
    assert probe(upload.path).n_frames == 48


def test_of_other_kinds_of_clips_pictures_and_sound_alone_are_taken(visitor, settings, tmp_path, short_clips):
    with av.open(str(short_clips["ada"])) as source, av.open(str(tmp_path / "phone.webm.mkv"), "w") as target:
        target.metadata["location"], target.metadata["title"] = PLACE.decode(), "SecretTitle"
        streams = {s.index: target.add_stream_from_template(s) for s in source.streams if s.type in ("video", "audio")}
        for packet in source.demux(list(source.streams.video + source.streams.audio)):
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                target.mux(packet)
    assert PLACE in (tmp_path / "phone.webm.mkv").read_bytes()
    upload = accept(visitor, tmp_path / "phone.webm.mkv", settings)
    assert PLACE not in upload.path.read_bytes()
    assert b"SecretTitle" not in upload.path.read_bytes()
    assert (upload.n_frames, probe(upload.path).n_frames) == (48, 48)
    with av.open(str(upload.path)) as kept, av.open(str(short_clips["ada"])) as source:
        assert len(kept.streams.audio) == len(source.streams.audio)
        pictures = [frame.to_ndarray(format="rgb24") for frame in kept.decode(video=0)]
        assert all((a == b.to_ndarray(format="rgb24")).all() for a, b in zip(pictures, source.decode(video=0)))


def test_names_are_no_paths(settings, visitor, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    for name in ("", ".", "..", "../..", str(tmp_path), visitor.name + "/..", visitor.name.upper(), "a" * 32, None, 7):
        assert find_visitor(settings, name) is None
        forget(settings, name)
    (settings.visitors / ("b" * 32)).symlink_to(tmp_path)
    assert find_visitor(settings, "b" * 32) is None
    assert (tmp_path / "mine.txt").exists()
    assert find_visitor(settings, visitor.name) == visitor


def test_forgetting_removes_the_served_copies_too(settings, visitor, tmp_path, short_clips):
    from gradio.processing_utils import save_file_to_cache

    settings.cache.mkdir()
    sent = save_file_to_cache(str(short_clips["dan"]), str(settings.cache))
    accept(visitor, sent, settings)
    shutil.copy(short_clips["ada"], visitor.results / "out.mp4")
    save_file_to_cache(str(visitor.results / "out.mp4"), str(settings.cache))
    other = new_visitor(settings)
    assert len(list(settings.cache.iterdir())) == 2
    forget(settings, visitor.name)
    assert not visitor.root.exists()
    assert not list(settings.cache.iterdir())
    assert other.root.exists()


def test_old_visitors_are_swept_away(settings, visitor):
    stays = new_visitor(settings)
    for path in (visitor.root, stays.root):
        os.utime(path, (0, 0))
    find_visitor(settings, stays.name)  # was here just now
    assert sweep(settings) == 1
    assert (visitor.root.exists(), stays.root.exists()) == (False, True)


def test_room_on_the_disk_and_for_each_visitor(visitor, settings, short_clips, tmp_path):
    tight = AppSettings(home=settings.home, min_free_mb=10**9)
    with pytest.raises(FslabError, match="free disk space"):
        accept(visitor, short_clips["ada"], tight)
    with pytest.raises(FslabError, match="files a visitor"):
        check_space(AppSettings(home=settings.home, min_free_mb=0, max_visitor_mb=1), visitor, 2_000_000)


def test_the_servers_secret_stays(settings):
    assert server_secret(settings) == server_secret(settings)
    assert len(server_secret(settings)) > 30
    assert (settings.home / "secret").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("change", [{"max_seconds": 0}, {"max_upload_mb": -1}, {"train_budgets": ("soon",)}])
def test_settings_that_make_no_sense(change):
    with pytest.raises(ValueError, match=r"must|duration"):
        AppSettings(**change)


def test_the_public_preset_is_the_smaller_one():
    own, public = AppSettings(), AppSettings.for_public(max_seconds=5)
    assert public.public
    assert not public.train_allowed
    assert public.max_seconds == 5
    for name in ("max_upload_mb", "max_visitor_mb", "max_pixels", "keep_hours", "max_jobs_queued", "max_job_minutes"):
        assert getattr(public, name) < getattr(own, name)
