"""The benchmark's page and figures: nothing is missing from it, nothing is fetched, every swap is marked."""

import re

import numpy as np
import pytest
from drawn_people import drawn_mesh
from pairs import labels_of

from fslab.bench.case import Case, Tier
from fslab.bench.machine import hardware
from fslab.bench.page import ARM_NAMES, plot_curves, render_page, show_moments, strip
from fslab.bench.quality import aggregates, mean_rows, summarise
from fslab.bench.trial import ARMS
from fslab.metrics import METRICS
from fslab.viz import to_svg

CASES = (Case("easy", "Two <people>.", 1, 2), Case("hard", "Other people.", 3, 4))
TIER = Tier("tiny", 128, 64, "tiny", 8.0, 8, CASES, "cpu")


def row(value):
    return dict.fromkeys(METRICS, value)


def result(base):
    rows = {arm: row(base + i / 10) for i, arm in enumerate(ARMS)}
    curves = {
        arm: [{"seconds": s, "step": int(s), "metrics": row(base + s / 20)} for s in (1.0, 2.0, 4.0, 8.0)]
        for arm in ("classic", "fslab")
    }
    return {
        "hash": "ab" * 32, "rows": rows, "curves": curves, "notes": ["Read with care."], "seconds": {"render": 1.0},
        "faces": {"ada": 20, "dan": 21}, "hardware": hardware("cpu"), "date": "2026-11-23T00:00:00+00:00",
    }  # fmt: skip


@pytest.fixture(scope="module")
def body():
    return summarise(TIER, {"easy": result(0.1), "hard": result(0.3)})


@pytest.fixture(scope="module")
def page(body):
    return render_page(body, {"easy": b"first picture", "hard": b"second picture"})


def test_the_page_has_a_row_for_every_arm_of_every_case_and_of_the_mean(page):
    head = page.split('id="table"')[1].split("</table>")[0]
    for name in ARM_NAMES.values():
        assert head.count(f">{name}</th>") == 3
    for name in ("Mean of the cases", "easy", "hard"):
        assert re.search(rf'rowgroup"[^>]*>{name}', head)


def test_the_page_shows_every_metric_and_the_figures_of_the_json(page, body):
    for metric in METRICS.values():
        assert f">{metric.title}" in page
    for case in ("easy", "hard"):
        assert METRICS["closure"].text(body["rows"][case]["fslab"]["closure"]) in page


def test_the_page_needs_no_network_and_no_script_and_escapes_words(page):
    assert "<script" not in page
    assert not re.findall(r'(?:src|href)="(?!data:|#)[^"]+"', page)
    assert "url(http" not in page
    assert "Two &lt;people&gt;." in page


def test_the_page_says_what_renders_cannot_tell_and_how_time_was_counted(page):
    assert "not\n    FaceForensics++" in page or "not FaceForensics++" in page.replace("\n    ", " ")
    assert "share of the budget" in page
    assert "AI face swap" in page


def test_the_pictures_are_in_the_page_and_the_cases_hashes_too(page):
    assert page.count("data:image/jpeg;base64,") == 2
    assert page.count("ab" * 32) == 2


def test_an_unfinished_benchmark_says_so():
    part = summarise(TIER, {"easy": result(0.1)})
    assert not part["complete"]
    assert "Not finished" in render_page(part, {"easy": b""})
    assert summarise(TIER, {})["means"]["fslab"]["closure"] is None


def test_means_pass_over_what_was_not_taken():
    cases = [{arm: row(0.2) for arm in ARMS}, {arm: row(0.4) for arm in ARMS}]
    cases[1]["fslab"]["top1"] = None
    means = mean_rows(cases)
    assert means["fslab"]["closure"] == pytest.approx(0.3)
    assert means["fslab"]["top1"] == pytest.approx(0.2)
    cases[0]["fslab"]["top1"] = None
    assert mean_rows(cases)["fslab"]["top1"] is None


def test_areas_compare_both_arms_over_the_seconds_that_both_have():
    def curve(points):
        return [{"seconds": s, "metrics": {"closure": c}} for s, c in points]

    both = {"classic": curve([(2, 0.0), (8, 0.0)]), "fslab": curve([(1, 0.0), (2, 0.2), (4, 0.4), (8, 0.6)])}
    found = aggregates(both)
    assert found["classic"] == {"area": 0.0, "seconds_to": None}
    assert found["fslab"]["area"] == pytest.approx(0.4)  # its mean from 2 to 8 s, over log time
    assert found["fslab"]["seconds_to"] == pytest.approx(4 * 2**0.5)


def test_a_single_or_missing_point_has_no_area():
    points = [{"seconds": 3.0, "metrics": {"closure": 0.1}}]
    lost = [{"seconds": 3.0, "metrics": {"closure": None}}]
    for classic in (points, lost):
        found = aggregates({"classic": classic, "fslab": points})
        assert found["fslab"] == {"area": None, "seconds_to": None}


def test_a_strip_ends_with_the_brightened_difference_of_swap_and_truth():
    target, swap, truth = (np.full((8, 8, 3), v, np.uint8) for v in (10, 100, 120))
    pictures = strip(target, swap, truth)
    assert [int(p[0, 0, 0]) for p in pictures] == [10, 100, 120, 60]
    assert strip(target, np.full_like(truth, 250), truth)[3].max() == 255  # no overflow


def test_the_middle_and_the_most_turned_frame_are_shown():
    meshes = np.stack([drawn_mesh(64)] * 5)
    poses = [(0, 0, 0), (-30, 0, 0), (5, 0, 0), (20, 0, 0), (0, 0, 0)]
    assert show_moments(labels_of(meshes, 64, poses)) == [2, 1]
    assert show_moments(labels_of(meshes[:1], 64)) == [0]


def test_a_plot_of_one_point_and_missing_levels_can_be_drawn():
    figure = plot_curves({"classic": [(3.0, 0.1)], "fslab": []}, {"target": 0.0, "nearest": None}, "Closure")
    assert "<svg" in to_svg(figure, "one")


def test_the_machine_is_described_without_its_name():
    told = hardware("cpu")
    assert told["device"] == "cpu"
    assert told["gpu"] == "none"
    assert told["cores"] >= 1
