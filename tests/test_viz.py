import re
from pathlib import Path

import numpy as np
import pytest

from fslab import viz
from fslab.coverage import PITCH_EDGES, YAW_EDGES, Coverage
from fslab.evaluate import Moment
from fslab.label import VisibleLabel

RED, GREEN = np.full((60, 60, 3), (200, 0, 0), np.uint8), np.full((60, 80, 3), (0, 200, 0), np.uint8)


def where(sheet, colour):
    """Return the bounding box (x0, y0, x1, y1) of a colour, edges exclusive."""
    rows, columns = np.nonzero((sheet == colour).all(axis=2))
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def test_pictures_keep_their_size_and_columns_line_up():
    sheet = viz.image_grid([[RED, GREEN], [GREEN, None]])
    assert sheet.dtype == np.uint8
    mask = (sheet == GREEN[0, 0]).all(axis=2)
    x0, y0, x1, y1 = where(sheet, RED[0, 0])
    assert (x1 - x0, y1 - y0) == (60, 60)
    assert mask.sum() == 2 * GREEN[..., 0].size
    assert x0 >= 10, "the narrower picture is centred in its column"


def test_a_cell_scales_pictures_and_keeps_their_proportions():
    x0, y0, x1, y1 = where(viz.image_grid([[GREEN]], cell=120), GREEN[0, 0])
    assert (x1 - x0, y1 - y0) == (160, 120)


def test_labels_stand_beside_and_above_and_touch_no_picture():
    bare = viz.image_grid([[RED, RED]])
    named = viz.image_grid([[RED, RED]], ["ada as dan"], ["before", "after"])
    assert named.shape[0] > bare.shape[0]
    assert named.shape[1] > bare.shape[1]
    assert (named == RED[0, 0]).all(axis=2).sum() == 2 * 60 * 60
    x0, y0, _, _ = where(named, RED[0, 0])
    assert named[:y0].max() > 200
    assert named[y0 : y0 + 60, :x0].max() > 100


def test_a_grid_without_pictures_is_refused():
    for rows in ([], [[]], [[None]]):
        with pytest.raises(ValueError, match="at least one picture"):
            viz.image_grid(rows)


def test_a_caption_changes_only_the_lower_edge_and_leaves_the_picture_given_alone():
    image = np.full((200, 160, 3), 180, np.uint8)
    marked = viz.caption_strip(image)
    assert (image == 180).all()
    assert (marked[:180] == 180).all()
    assert marked[190:].min() < 70
    assert marked[180:].max() == 255
    assert viz.caption_strip(image[:40, :30]).shape == (40, 30, 3)


@pytest.mark.parametrize("with_truth", [True, False])
def test_a_contact_sheet_leaves_room_for_the_label_below_the_pictures(with_truth):
    frames = [RED] * 3
    sheet = viz.contact_sheet(frames, frames, frames if with_truth else None, times=[0, 1, 2], cell=150)
    assert (sheet == RED[0, 0]).all(axis=2).sum() == (9 if with_truth else 6) * 150 * 150
    assert VisibleLabel(sheet.shape[:2]).box[1] >= where(sheet, RED[0, 0])[3]


def test_a_sheet_of_moments_shows_frames_and_marked_faces():
    arms = ("target", "swap", "truth")
    moment = Moment(3, 0.12, dict.fromkeys(arms, RED), dict.fromkeys(arms, GREEN))
    faceless = Moment(9, 0.36, dict.fromkeys(arms, RED), {})
    sheet = viz.moments_sheet([moment, faceless], cell=60)
    assert (sheet == RED[0, 0]).all(axis=2).sum() == 6 * 60 * 60
    green = (sheet == GREEN[0, 0]).all(axis=2).sum()
    assert 2 * GREEN[..., 0].size < green < 3 * GREEN[..., 0].size, (
        "the swapped face lost its lower edge to the caption"
    )


def test_clips_of_different_length_are_refused():
    with pytest.raises(ValueError, match=r"\[2, 1\]"):
        viz.contact_sheet([RED, RED], [RED])


def test_a_curve_shows_gaps_levels_and_sparse_values():
    figure = viz.plot_series(range(6), [1, 2, None, 4, 5, 6], {"target": 0.5, "truth": 7}, "Closure")
    curve, untouched, truth = figure.axes[0].lines
    assert np.isnan(curve.get_ydata()).tolist() == [False, False, True, False, False, False]
    assert (untouched.get_ydata()[0], truth.get_ydata()[0]) == (0.5, 7)
    sparse = viz.plot_series(range(6), [1, None, None, None, None, 6]).axes[0].lines[0]
    assert sparse.get_ydata().tolist() == [1, 6]
    assert viz.to_rgb(figure).shape == (405, 690, 3)
    viz.to_rgb(viz.plot_series([0, 1], [None, None]))


def test_an_svg_takes_the_pages_colours_font_and_width_and_its_ids_are_its_own():
    first, again, second = (
        viz.to_svg(viz.plot_series([0, 1, 2], [1, 2, 3], {"target": 1}, "A title"), name) for name in "aab"
    )
    assert first == again
    assert first.startswith("<svg")
    for variable in ("var(--swap)", "var(--target)", "var(--ink)", "var(--muted)", "var(--line)", "var(--font)"):
        assert variable in first
    assert "A title" in first, "text stays text"
    assert not re.search(r"<svg[^>]* width=", first)
    assert "<style" not in first
    ids = [re.findall(r'id="([^"]+)"', svg) for svg in (first, second)]
    assert not set(ids[0]) & set(ids[1])
    assert len(set(ids[0])) == len(ids[0])
    assert set(re.findall(r"(?:url\(|href=\")#([^)\"]+)", first)) <= set(ids[0])


def test_a_coverage_card_grows_with_its_warnings_and_survives_an_empty_set():
    poses = np.arange(35).reshape(len(PITCH_EDGES) - 1, len(YAW_EDGES) - 1)
    full = Coverage("ada", 600, 595, {"blurry": 5}, poses, np.linspace(50, 300, 595), 61.0, ("film more. " * 30,))
    none = Coverage("dan", 3, 0, {"tiny": 3}, poses * 0, np.zeros(0, np.float32), 0.0, ())
    full, none = viz.coverage_card(full), viz.coverage_card(none)
    assert full.shape[0] > none.shape[0]
    assert full.shape[1:] == none.shape[1:] == (1200, 3)
    assert (full[0] == 255).all()


def test_nothing_opens_a_window_or_touches_pyplot():
    assert "pyplot" not in Path(viz.__file__).read_text(encoding="utf-8")
