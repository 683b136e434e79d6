from importlib import resources
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from skimage.data import astronaut

from fslab.errors import MediaError
from fslab.label import MATCH, MIN_SIDE, TEXT, VisibleLabel
from fslab.media import RgbFrame, VideoOptions, VideoWriter, decode_image, encode_image, read_frames

SAMPLES = Path(__file__).parents[1] / "samples"
SIZES = [(48, 48), (64, 64), (97, 131), (100, 60), (128, 128), (384, 384), (720, 1280), (1280, 720), (1080, 1920)]


@pytest.fixture(scope="module")
def people():
    """Three frames of two clips each, and a photograph."""
    clips = [read_frames(SAMPLES / f"{name}.mp4", stop=2.9) for name in ("ada_target", "dan")]
    return [*(frame.rgb() for clip in clips for frame in clip if frame.index % 30 == 5), astronaut()]


def resized(image, size):
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)


def labelled(image):
    frame = RgbFrame(image.copy())
    VisibleLabel(frame.size).apply(frame)
    return frame.rgb()


def test_the_words_name_ai_and_its_making():
    assert "AI" in TEXT
    assert "合成" in TEXT


def test_box_and_words_have_the_colours_they_should():
    image = labelled(np.full((384, 384, 3), 200, np.uint8))
    x0, y0, x1, y1 = VisibleLabel((384, 384)).box
    assert (image[(y0 + y1) // 2, x0 + 2] == round(200 * (1 - 0.62))).all()
    assert image[y0:y1, x0:x1].max() == 255
    assert (image[y0, x0] > 150).all(), "the corner is round"


@pytest.mark.parametrize("size", [s for s in SIZES if s[1] >= 64])
def test_capitals_are_at_least_five_percent_of_the_short_side(size):
    image = labelled(np.zeros((*size, 3), np.uint8))
    count, _, stats, _ = cv2.connectedComponentsWithStats((image[:, :, 0] > 60).astype(np.uint8))
    first = stats[1:][stats[1:, cv2.CC_STAT_LEFT].argmin()]  # the A
    assert count > 2
    assert first[cv2.CC_STAT_HEIGHT] >= 0.05 * min(size)


@pytest.mark.parametrize("size", [*SIZES, (48, 3000), (3000, 48), (2160, 3840)])
def test_the_box_lies_bottom_right_inside_a_margin_on_even_pixels(size):
    x0, y0, x1, y1 = VisibleLabel(size).box
    assert x0 >= 2
    assert 0 < size[1] - x1 <= 0.03 * min(size) + 3
    assert 0 < size[0] - y1 <= 0.03 * min(size) + 3
    assert y0 >= 0.5 * size[0] or size[0] <= 64, "it must not hide more than it has to"
    assert not any(v % 2 for v in (x0, y0, x1, y1))


def test_only_the_box_changes_in_an_image(people):
    for size in SIZES:
        before = resized(people[0], size)
        after = labelled(before)
        x0, y0, x1, y1 = VisibleLabel(size).box
        changed = np.argwhere((before != after).any(axis=2))
        assert changed.min(axis=0).tolist() >= [y0, x0]
        assert (changed.max(axis=0) < [y1, x1]).all()
        assert len(changed) > 0.8 * (y1 - y0) * (x1 - x0)


def test_only_the_box_changes_in_a_video_frame():
    frame = next(read_frames(SAMPLES / "ada_target.mp4"))
    before = [plane.copy() for plane in frame.planes]
    label = VisibleLabel(frame.size)
    label.apply(frame)
    x0, y0, x1, y1 = label.box
    for old, new, step in zip(before, frame.planes, (1, 2, 2)):
        outside = np.ones(old.shape, bool)
        outside[y0 // step : y1 // step, x0 // step : x1 // step] = False
        assert (old[outside] == new[outside]).all()
        assert (old[~outside] != new[~outside]).any()


@pytest.mark.parametrize("size", SIZES)
def test_a_label_is_found_after_jpeg_and_nowhere_else(people, size):
    label = VisibleLabel(size)
    for image in people:
        image = resized(image, size)
        assert label.found_in(labelled(image)) >= 0.85
        assert label.found_in(decode_image(encode_image(labelled(image), ".jpg", 75))) >= 0.8
        assert label.found_in(image) <= 0.4
        assert label.match(image).max() < MATCH


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_label_on_a_flat_picture_is_found_and_a_flat_picture_has_none(value):
    image = np.full((240, 320, 3), value, np.uint8)
    label = VisibleLabel((240, 320))
    assert label.found_in(labelled(image)) > 0.97
    assert label.found_in(image) == 0


def test_a_label_on_the_worst_background_is_found():
    checks = (np.indices((384, 384)) // 4).sum(axis=0) % 2 * 255
    image = np.repeat(checks.astype(np.uint8)[:, :, None], 3, axis=2)
    label = VisibleLabel((384, 384))
    assert label.found_in(labelled(image)) >= 0.75
    assert label.match(image).max() <= 0.2


def test_a_label_survives_h264_at_crf_23(tmp_path):
    source, path = SAMPLES / "ada_target.mp4", tmp_path / "a.mp4"
    label = VisibleLabel((384, 384))
    with VideoWriter(path, source, VideoOptions(crf=23), {}, None) as writer:
        for frame in read_frames(source, stop=0.6):
            label.apply(frame)
            writer.write(frame)
    scores = [label.found_in(frame.rgb()) for frame in read_frames(path)]
    assert len(scores) == 15
    assert min(scores) >= 0.8


def test_a_label_that_was_scaled_down_and_up_again_is_found(people):
    label = VisibleLabel((720, 1280))
    image = labelled(resized(people[0], (720, 1280)))
    assert label.found_in(resized(resized(image, (480, 854)), (720, 1280))) >= 0.8


@pytest.mark.parametrize("part", range(4))
def test_a_label_with_a_word_covered_is_not_whole(people, part):
    label = VisibleLabel((384, 384))
    image = labelled(people[0])
    x0, y0, x1, y1 = label.box
    a, b = np.linspace(x0, x1, 5).astype(int)[part : part + 2]
    image[y0:y1, a:b] = 40
    assert label.found_in(image) < MATCH
    assert label.match(image).max() >= 0.8


def test_other_words_in_its_place_are_not_the_label(people):
    label = VisibleLabel((384, 384))
    x0, y0, x1, y1 = label.box
    picture = Image.fromarray(people[0])
    draw = ImageDraw.Draw(picture)
    draw.rectangle((x0, y0, x1, y1), fill=(20, 20, 20))
    draw.text((x0 + 12, y1 - 8), "Lesson four: colour", fill="white", anchor="ls", font=ImageFont.load_default(26))
    assert label.found_in(np.asarray(picture)) < 0.4


def test_the_font_ships_with_its_licence_and_every_character():
    assets = resources.files("fslab").joinpath("assets")
    font = ImageFont.truetype(str(assets.joinpath("NotoSansCJKsc-Bold-subset.otf")), 40)
    missing = bytes(font.getmask("\uffff"))
    printable = [chr(c) for c in range(0x21, 0x7F)]
    assert all(bytes(font.getmask(c)) != missing for c in [*printable, *TEXT.replace(" ", "")])
    assert "SIL OPEN FONT LICENSE Version 1.1" in assets.joinpath("OFL.txt").read_text(encoding="utf-8")
    assert len(assets.joinpath("NotoSansCJKsc-Bold-subset.otf").read_bytes()) < 40_000


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (47, 47), (47, 1000), (1000, 47)])
def test_a_picture_too_small_to_carry_a_label_is_refused_in_one_line(size):
    with pytest.raises(MediaError, match=f"at least {MIN_SIDE} x {MIN_SIDE} pixels.*found {size[1]} x {size[0]}"):
        VisibleLabel(size)


def test_a_frame_of_another_size_is_refused():
    label = VisibleLabel((64, 64))
    with pytest.raises(ValueError, match="as the label"):
        label.apply(RgbFrame(np.zeros((64, 66, 3), np.uint8)))
    with pytest.raises(ValueError, match="image must be"):
        label.found_in(np.zeros((66, 64, 3), np.uint8))


def test_the_same_label_is_drawn_every_time(people):
    assert (labelled(people[0]) == labelled(people[0])).all()
