"""Frames, colours and still images. Videos are in test_media_video.py and test_media_refusals.py."""

import itertools
from io import BytesIO

import av
import cv2
import numpy as np
import pytest
from av.video.reformatter import Interpolation
from clips import SAMPLE, make_clip, scene
from PIL import Image, ImageCms, ImageOps

from fslab.errors import MediaError, OutputError
from fslab.media import (
    RgbFrame,
    YuvFrame,
    decode_image,
    encode_image,
    read_frames,
    read_image,
    read_marks,
    write_image,
)
from fslab.media.colour import double, halve, planes_to_rgb, to_rgb, to_ycc

COLOURS = [(1, 1), (1, 2), (5, 1), (6, 2), (9, 1), (2, 0)]  # H.273 matrix, FFmpeg range


def yuv_frame(matrix=1, colour_range=1, size=(96, 128), i=0) -> YuvFrame:
    """A frame of the smooth scene, built from planes by the matrices of the standard in float64."""
    full = colour_range == 2
    ycc = scene(i, size) @ to_ycc(matrix, full)[:, :3].T.astype(float) + to_ycc(matrix, full)[:, 3]
    picture = av.VideoFrame(size[1], size[0], "yuv420p")
    picture.colorspace, picture.color_range, picture.pts = matrix, colour_range, 0
    frame = YuvFrame(picture)
    frame.planes[0][:] = np.rint(ycc[..., 0])
    for plane, channel in zip(frame.planes[1:], (1, 2)):
        plane[:] = np.rint(ycc[..., channel].reshape(size[0] // 2, 2, size[1] // 2, 2).mean(axis=(1, 3)))
    return frame


def planes_of(frame: YuvFrame) -> list[np.ndarray]:
    return [plane.copy() for plane in frame.planes]


# ---- known answers


@pytest.mark.parametrize(
    ("matrix", "full", "red"),
    [(1, False, (63, 102, 240)), (6, False, (81, 90, 240)), (9, False, (74, 97, 240)), (5, True, (76, 85, 255))],
)
def test_primaries_have_the_code_values_of_the_standards(matrix, full, red):
    colours = np.array([[255, 0, 0], [255, 255, 255], [0, 0, 0]], float)
    ycc = colours @ to_ycc(matrix, full)[:, :3].T + to_ycc(matrix, full)[:, 3]
    white, black = (255, 0) if full else (235, 16)
    assert np.abs(ycc - [red, (white, 128, 128), (black, 128, 128)]).max() <= 0.6  # 255.5 is written as 255


def test_a_chroma_sample_covers_its_block_and_a_block_is_averaged():
    plane = np.array([[10, 20], [30, 41]], np.uint8)
    assert double(plane).tolist() == [[10, 10, 20, 20]] * 2 + [[30, 30, 41, 41]] * 2
    assert halve(np.array([[0, 10], [20, 30]], np.uint8)).tolist() == [[15]]
    noise = np.random.default_rng(0).integers(0, 256, (40, 60)).astype(np.uint8)
    assert (halve(double(noise)) == noise).all()


def test_a_pasted_block_mixes_old_and_new_chroma_by_their_pixels():
    frame = yuv_frame()
    before = planes_of(frame)
    red = np.full((2, 2, 3), (255, 0, 0), np.uint8)
    frame.paste(red, 10, 20, np.array([[True, False], [False, False]]))
    for plane, old, new in zip(frame.planes[1:], before[1:], (102, 240)):
        assert abs(int(plane[10, 5]) - (3 * int(old[10, 5]) + new) / 4) <= 0.5
    assert frame.planes[0][20, 10] == 63
    assert frame.planes[0][20, 11] == before[0][20, 11]


# ---- trusted references


@pytest.mark.parametrize(("matrix", "colour_range"), COLOURS)
def test_rgb_agrees_with_swscale(matrix, colour_range):
    frame = yuv_frame(matrix, colour_range)
    exact = Interpolation.POINT | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
    reference = frame.picture.reformat(format="rgb24", interpolation=exact, dst_color_range=2).to_ndarray()
    difference = np.abs(frame.rgb().astype(int) - reference)
    assert difference.max() <= 2
    assert difference.mean() < 0.6


def test_fast_integer_conversion_is_within_one_level_of_floating_point():
    ycc = np.array(list(itertools.product(range(16, 236, 5), range(16, 241, 7), range(16, 241, 7))), np.uint8)
    for matrix in (1, 6, 9):
        rgb = planes_to_rgb(*(ycc[None, :, i].copy() for i in range(3)), to_rgb(matrix, False))[0]
        exact = np.clip(ycc @ np.float64(to_rgb(matrix, False))[:, :3].T + to_rgb(matrix, False)[:, 3], 0, 255)
        assert np.abs(rgb - exact).max() <= 1


def test_thumbnails_look_like_area_averages():
    for frame in (yuv_frame(size=(500, 700)), RgbFrame(scene(0, (500, 700)))):
        for side in (480, 170, 64):
            small, scale = frame.thumbnail(side)
            reference = cv2.resize(frame.rgb(), small.shape[1::-1], interpolation=cv2.INTER_AREA)
            assert max(small.shape) == side
            assert scale == pytest.approx(side / 700)
            assert np.abs(small.astype(int) - reference).mean() < 1.5


# ---- properties


@pytest.mark.parametrize("frame", [yuv_frame(), RgbFrame(scene(0))], ids=["yuv", "rgb"])
def test_every_crop_equals_that_part_of_the_whole(frame):
    whole, rng = frame.rgb(), np.random.default_rng(0)
    boxes = [(0, 0, 128, 96), (127, 95, 128, 96), (0, 0, 1, 1), (5, 7, 6, 90)]
    for _ in range(40):
        x0, y0 = int(rng.integers(0, 127)), int(rng.integers(0, 95))
        boxes.append((x0, y0, int(rng.integers(x0 + 1, 129)), int(rng.integers(y0 + 1, 97))))
    for x0, y0, x1, y1 in boxes:
        crop = frame.crop(x0, y0, x1, y1)
        assert (crop == whole[y0:y1, x0:x1]).all()
        crop[:] = 0  # a copy: the frame keeps its pixels
    assert (frame.rgb() == whole).all()


@pytest.mark.parametrize(("matrix", "colour_range"), COLOURS)
def test_pasting_a_crop_back_changes_nothing(matrix, colour_range):
    frame = yuv_frame(matrix, colour_range)
    before = planes_of(frame)
    region = frame.crop(11, 7, 100, 80)
    assert region.min() > 0
    assert region.max() < 255  # colours outside RGB cannot come back
    frame.paste(region, 11, 7, np.ones(region.shape[:2], bool))
    for plane, old in zip(frame.planes, before):
        assert np.abs(plane.astype(int) - old).max() <= 1


@pytest.mark.parametrize(("matrix", "colour_range"), COLOURS)
def test_a_pasted_region_reads_back_within_three_levels(matrix, colour_range):
    frame, region = yuv_frame(matrix, colour_range), scene(9, (600, 700))[:60, :70]
    frame.paste(region, 31, 17, np.ones((60, 70), bool))
    difference = np.abs(frame.crop(31, 17, 101, 77).astype(int) - region)[1:-1, 1:-1]
    assert difference.max() <= 3  # but for the border, whose blocks share their chroma with the frame
    assert difference.mean() < 1


def test_pixels_that_are_not_changed_stay_bit_identical():
    frame = yuv_frame()
    before = planes_of(frame)
    rng = np.random.default_rng(0)
    changed = rng.random((41, 53)) < 0.1
    frame.paste(rng.integers(0, 256, (41, 53, 3)).astype(np.uint8), 33, 21, changed)
    touched = np.zeros((96, 128), bool)
    touched[21:62, 33:86] = changed
    blocks = touched.reshape(48, 2, 64, 2).any(axis=(1, 3))
    assert (frame.planes[0][~touched] == before[0][~touched]).all()
    for plane, old in zip(frame.planes[1:], before[1:]):
        assert (plane[~blocks] == old[~blocks]).all()
    assert (frame.planes[0][touched] != before[0][touched]).mean() > 0.9


def test_pasting_into_decoded_frames_leaves_the_decoder_its_references():
    untouched = [planes_of(frame) for frame in read_frames(SAMPLE, stop=3)]
    white = np.full((384, 384, 3), 255, np.uint8)
    for frame, planes in zip(read_frames(SAMPLE, stop=3), untouched, strict=True):
        assert all((a == b).all() for a, b in zip(frame.planes, planes))
        frame.paste(white, 0, 0, np.ones((384, 384), bool))
        assert frame.rgb().min() >= 254


def test_a_decoded_frame_is_read_without_copying_its_planes(tmp_path):
    frame = next(read_frames(make_clip(tmp_path / "clip.mp4")))
    addresses = [plane.buffer_ptr for plane in frame.picture.planes]
    frame.crop(0, 0, 50, 50)
    frame.thumbnail(64)
    assert [plane.ctypes.data for plane in frame.planes] == addresses


@pytest.mark.parametrize("make", [yuv_frame, lambda: RgbFrame(scene(0))], ids=["yuv", "rgb"])
def test_a_copy_is_independent_and_keeps_its_place_in_time(make):
    frame = make()
    frame.index, frame.time = 7, 0.28
    twin, before = frame.copy(), frame.rgb()
    twin.paste(np.zeros((20, 20, 3), np.uint8), 3, 3, np.ones((20, 20), bool))
    assert (frame.rgb() == before).all()
    assert (twin.crop(3, 3, 23, 23) != before[3:23, 3:23]).any()
    assert (twin.index, twin.time, twin.size) == (7, 0.28, (96, 128))
    if isinstance(frame, YuvFrame):
        assert (twin.pts, twin.picture.colorspace, twin.picture.color_range) == (0, 1, 1)


def test_an_rgb_frame_takes_exactly_the_changed_pixels():
    image, region = scene(0), scene(5, (30, 30))
    changed = np.random.default_rng(0).random((30, 30)) < 0.5
    frame = RgbFrame(image.copy())
    frame.paste(region, 5, 6, changed)
    expected = image.copy()
    expected[6:36, 5:35][changed] = region[changed]
    assert (frame.rgb() == expected).all()


# ---- edges


def test_thumbnails_never_grow_and_never_vanish():
    frame = RgbFrame(scene(0, (10, 1000)))
    small, scale = frame.thumbnail(50)
    assert small.shape == (1, 50, 3)
    same, scale = frame.thumbnail(5000)
    assert scale == 1.0
    assert (same == frame.rgb()).all()


def test_pasting_nothing_changes_nothing():
    frame = yuv_frame()
    before = planes_of(frame)
    frame.paste(np.zeros((9, 9, 3), np.uint8), 1, 1, np.zeros((9, 9), bool))
    assert all((a == b).all() for a, b in zip(frame.planes, before))


def test_a_region_may_be_a_view_of_something_larger():
    frame, region = yuv_frame(), scene(3, (800, 800))[:80:2, 80:0:-2]
    frame.paste(region, 0, 0, np.ones((40, 40), bool))
    assert np.abs(frame.crop(0, 0, 40, 40).astype(int) - region).mean() < 2


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (4320, 7680)])
def test_images_of_any_size_come_back(tmp_path, size):
    image = np.full((*size, 3), 77, np.uint8)
    write_image(tmp_path / "a.png", image)
    assert (read_image(tmp_path / "a.png") == image).all()
    assert RgbFrame(image).thumbnail(32)[0].max() == 77


# ---- refusals


@pytest.mark.parametrize("box", [(-1, 0, 5, 5), (0, 0, 129, 5), (0, 0, 5, 97), (5, 5, 5, 9), (9, 9, 5, 12)])
def test_boxes_outside_the_frame_are_refused(box):
    for frame in (yuv_frame(), RgbFrame(scene(0))):
        with pytest.raises(ValueError, match="inside the 128 x 96 frame"):
            frame.crop(*box)


def test_regions_that_do_not_fit_are_refused():
    region, changed = np.zeros((9, 9, 3), np.uint8), np.ones((9, 9), bool)
    for frame in (yuv_frame(), RgbFrame(scene(0))):
        with pytest.raises(ValueError, match="inside"):
            frame.paste(region, 125, 0, changed)
        with pytest.raises(ValueError, match="region"):
            frame.paste(region.astype(float), 0, 0, changed)
        with pytest.raises(ValueError, match="changed"):
            frame.paste(region, 0, 0, changed[:5])
        with pytest.raises(ValueError, match="changed"):
            frame.paste(region, 0, 0, changed.astype(np.uint8))
        with pytest.raises(ValueError, match="long_side"):
            frame.thumbnail(0)


def test_frames_refuse_what_they_cannot_hold():
    with pytest.raises(ValueError, match="rgb"):
        RgbFrame(np.zeros((5, 5), np.uint8))
    with pytest.raises(ValueError, match="rgb"):
        RgbFrame(np.zeros((0, 5, 3), np.uint8))
    for picture in (av.VideoFrame(16, 16, "rgb24"), av.VideoFrame(15, 16, "yuv420p")):
        with pytest.raises(ValueError, match="yuv420p"):
            YuvFrame(picture)


# ---- still images


@pytest.mark.parametrize("name", ["a.png", "a.PNG", "a.jpg", "a.jpeg", "a.webp", "脸 é ü.jpg"])
def test_images_come_back_with_their_marks(tmp_path, name):
    image, tags = scene(2), {"AIGC": '{"Label": "1", "Producer": "合成"}', "Software": "fslab"}
    write_image(tmp_path / name, image, xmp="<x:xmpmeta>é 合成</x:xmpmeta>", text=tags)
    difference = np.abs(read_image(tmp_path / name).astype(int) - image)
    assert difference.mean() < (1e-9 if name.lower().endswith("png") else 1.5)
    assert read_marks(tmp_path / name) == {"xmp": "<x:xmpmeta>é 合成</x:xmpmeta>", "tags": tags}


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_images_without_marks_have_none(tmp_path, suffix):
    write_image(tmp_path / f"a{suffix}", scene(0))
    assert read_marks(tmp_path / f"a{suffix}") == {"xmp": None, "tags": {}}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    upright = Image.fromarray(scene(0))
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}.get(orientation)  # the transpose that undoes it
    stored = upright if back is None else upright.transpose(Image.Transpose(back))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    assert (np.array(ImageOps.exif_transpose(Image.open(tmp_path / "a.png"))) == scene(0)).all()
    assert (read_image(tmp_path / "a.png") == scene(0)).all()


def test_every_kind_of_pixel_becomes_rgb(tmp_path):
    colour = Image.fromarray(scene(0))
    grey = np.asarray(colour.convert("L"))
    kinds = {
        "grey.png": (colour.convert("L"), np.repeat(grey[:, :, None], 3, axis=2), 0),
        "grey16.png": (Image.fromarray(grey.astype(np.uint16) * 257), np.repeat(grey[:, :, None], 3, axis=2), 0),
        "grey16.tif": (Image.fromarray(grey.astype(np.uint16) * 257), np.repeat(grey[:, :, None], 3, axis=2), 0),
        "one_bit.png": (colour.convert("1"), np.array(colour.convert("1").convert("RGB")), 0),
        "palette.gif": (colour.quantize(256), np.array(colour.quantize(256).convert("RGB")), 0),
        "cmyk.jpg": (colour.convert("CMYK"), scene(0), 20),
        "rgba.png": (colour.convert("RGBA"), scene(0), 0),
        "photo.bmp": (colour, scene(0), 0),
        "photo.ppm": (colour, scene(0), 0),
    }
    for name, (image, expected, tolerance) in kinds.items():
        image.save(tmp_path / name)
        found = read_image(tmp_path / name)
        assert found.dtype == np.uint8, name
        assert found.shape == expected.shape, name
        assert np.abs(found.astype(int) - expected).max() <= tolerance, name


def test_transparency_is_laid_on_white(tmp_path):
    clear = np.zeros((4, 4, 4), np.uint8)
    clear[:2] = (200, 10, 20, 255)
    Image.fromarray(clear).save(tmp_path / "a.png")
    found = read_image(tmp_path / "a.png")
    assert (found[:2] == (200, 10, 20)).all()
    assert (found[2:] == 255).all()


def test_other_colour_profiles_become_srgb(tmp_path):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = srgb.replace(b"rXYZ", b"????", 1).replace(b"gXYZ", b"rXYZ", 1).replace(b"????", b"gXYZ", 1)
    for profile, channels in ((srgb, [0, 1, 2]), (swapped, [1, 0, 2]), (b"not a profile", [0, 1, 2])):
        Image.fromarray(scene(0)).save(tmp_path / "a.png", icc_profile=profile)
        assert np.abs(read_image(tmp_path / "a.png").astype(int) - scene(0)[:, :, channels]).max() <= 1


def test_bad_image_files_are_refused_in_one_line(tmp_path):
    whole = BytesIO()
    Image.fromarray(scene(0)).save(whole, "PNG")
    cases = {
        "missing.png": (None, "no file"),
        "empty.png": (b"", "0 bytes"),
        "text.png": (b"hello\n" * 50, "text in"),
        "cut.png": (whole.getvalue()[:2000], "PNG image"),
        "noise.png": (np.random.default_rng(0).bytes(4000), "cannot be decoded"),
    }
    for name, (content, words) in cases.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(MediaError, match=words) as caught:
            read_image(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(MediaError, match="folder"):
        read_image(tmp_path)


def test_images_are_not_written_where_they_cannot_be(tmp_path):
    with pytest.raises(MediaError, match=r"\.png, \.jpg or \.webp"):
        write_image(tmp_path / "a.bmp", scene(0))
    with pytest.raises(OutputError, match="nowhere"):
        write_image(tmp_path / "nowhere" / "a.png", scene(0))
    with pytest.raises(ValueError, match="image must be"):
        write_image(tmp_path / "a.png", scene(0).astype(float))
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_keeps_the_old_image(tmp_path):
    write_image(tmp_path / "a.jpg", scene(0))
    before = (tmp_path / "a.jpg").read_bytes()
    with pytest.raises(ValueError, match="too long"):
        write_image(tmp_path / "a.jpg", scene(1), xmp="x" * 70_000)
    assert (tmp_path / "a.jpg").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(("suffix", "tolerance"), [(".png", 0), (".jpg", 3), (".webp", 4)])
def test_images_are_coded_and_decoded_in_memory(suffix, tolerance):
    found = decode_image(encode_image(scene(0), suffix))
    assert np.abs(found.astype(int) - scene(0)).mean() <= tolerance


def test_what_cannot_be_coded_or_decoded_is_refused():
    for data in (b"", b"nothing", encode_image(scene(0))[:20]):
        with pytest.raises(ValueError, match="data must be an image"):
            decode_image(data)
    with pytest.raises(ValueError, match="suffix"):
        encode_image(scene(0), ".gif")
    with pytest.raises(ValueError, match="image must be"):
        encode_image(scene(0)[:, :, 0])
