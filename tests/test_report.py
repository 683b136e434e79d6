import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from fslab.errors import OutputError
from fslab.evaluate import METRICS, EvalReport, Moment, Pictures
from fslab.label import VisibleLabel
from fslab.media import RgbFrame, read_image
from fslab.provenance import Manifest, sidecar_path, verify
from fslab.provenance.metadata import tags
from fslab.report import write_report

VOID = {"meta", "img", "br", "path", "use", "rect"}


class Page(HTMLParser):
    """Collects a page's elements and checks that they nest."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.words = [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "svg"} & set(self.open):
            self.words.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self):
        return re.sub(r"\s+", " ", "".join(self.words))


def make_report(with_truth=True, **changes):
    arms = ("target", "swap", "truth") if with_truth else ("target", "swap")
    known = {n for n, metric in METRICS.items() if (with_truth or not metric.needs_truth) and not metric.also_needs}
    values = {name: 0.25 if name in known else None for name in METRICS}
    series = {name: [0.1, None, 0.3] for name in ("closure", "ssim", "pose_error", "flicker", "unsteadiness", "change")}
    shade = {arm: np.full((90, 120, 3), 60 * i + 60, np.uint8) for i, arm in enumerate(arms)}
    moments = (Moment(0, 0.0, shade, {a: p[:, :90] for a, p in shade.items()}, 5.0), Moment(1, 0.04, shade, {}))
    report = EvalReport(
        metrics=values,
        baselines={arm: {n: v and float(arm == "truth") for n, v in values.items()} for arm in arms if arm != "swap"},
        per_frame={"time": [0.0, 0.04, 0.08], **series},
        n_frames=3,
        n_faces=2,
        inputs={a: {"file": f"{a}.mp4", "sha256": "0" * 64} for a in arms}
        | {"size": [90, 120], "fps": 25.0, "source": True},
        settings={"embed_every": 5, "track": {"min_score": 0.9}},
        notes=("A note to read.",),
        pictures=Pictures(moments, moments[:1], {"xmp": None, "tags": {"AIGC": "another tool's"}}),
    )  # fmt: skip
    return replace(report, **changes)


@pytest.fixture(params=[True, False], ids=["with truth", "without"])
def folder(request, tmp_path):
    write_report(make_report(request.param), tmp_path / "report")
    return tmp_path / "report"


def test_the_page_is_whole_nests_and_needs_nothing_from_elsewhere(folder):
    text = (folder / "index.html").read_text(encoding="utf-8")
    page = Page(text)
    assert not page.all("script")
    assert not page.all("link")
    for reference in re.findall(r'(?:src|href)="([^"#]+)"', text):
        assert "//" not in reference
        assert (folder / reference).is_file(), reference
    assert "url(http" not in text
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert page.all("html")[0]["lang"] == "en"


def test_pictures_have_words_and_sizes_for_those_who_do_not_see_them(folder):
    images = Page((folder / "index.html").read_text(encoding="utf-8")).all("img")
    assert len(images) in (9 + 3, 6 + 2)
    for image in images:
        assert image["alt"]
        height, width = read_image(folder / image["src"]).shape[:2]
        assert (int(image["width"]), int(image["height"])) == (width, height)
        assert ("_swap" in image["src"]) == ("AI face swap" in image["alt"])


def test_every_picture_of_a_swap_carries_every_mark_and_no_other_does(folder):
    pictures = sorted((folder / "pictures").glob("*.jpg"))
    assert len(pictures) in (9, 6)
    for path in pictures:
        report = verify(path)
        if "_swap" in path.name:
            assert report.state == "marked", path.name
            assert {layer.state for layer in report.layers} == {"intact"}
            assert report.manifest.action == "report picture"
            assert report.manifest.inputs == ({"name": "swap.mp4", "sha256": "0" * 64},)
            assert report.manifest.settings == {"frame": int(path.name[:6])}
            assert (report.manifest.run, report.manifest.consents) == ({}, ())
        else:
            assert report.state == "unmarked", path.name
            assert not sidecar_path(path).exists()


def test_pictures_say_what_the_video_says_of_its_run_and_show_one_label(tmp_path):
    size, seen = (480, 640), (360, 480)
    run, consents = {"id": "ada-dan", "sha256": "1" * 64, "identities": ["ada", "dan"]}, ({"person": "ada"},)
    box = [int(v) for v in VisibleLabel(size).box]
    video = replace(Manifest.new("swap", [], run, [], {}), consents=consents, label={"text": "", "box": box})
    footage, swap = np.full((*size, 3), 60, np.uint8), RgbFrame(np.full((*size, 3), 130, np.uint8))
    VisibleLabel(size).apply(swap)
    smaller = [cv2.resize(image, seen[::-1], interpolation=cv2.INTER_AREA) for image in (footage, swap.rgb())]
    moment = Moment(0, 0.0, dict(zip(("target", "swap"), smaller)), {}, 1.0)
    pictures = Pictures((moment,), (), {"xmp": None, "tags": tags(video)})
    inputs = make_report(False).inputs | {"size": list(size)}
    write_report(make_report(False, pictures=pictures, inputs=inputs), tmp_path / "report")
    path = tmp_path / "report" / "pictures" / "000000_frame_swap.jpg"
    assert (verify(path).manifest.run, verify(path).manifest.consents) == (run, consents)
    once = RgbFrame(smaller[0])
    VisibleLabel(seen).apply(once)
    x0, y0, x1, y1 = VisibleLabel(seen).box
    assert np.abs(read_image(path)[y0:y1, x0:x1].astype(int) - once.rgb()[y0:y1, x0:x1]).mean() < 4


def test_tiny_pictures_grow_until_they_can_carry_the_label(tmp_path):
    small = dict.fromkeys(("target", "swap"), np.full((20, 40, 3), 99, np.uint8))
    pictures = Pictures((Moment(0, 0.0, small, small, 1.0),))
    write_report(make_report(False, pictures=pictures), tmp_path / "report")
    for path in (tmp_path / "report" / "pictures").glob("*.jpg"):
        assert read_image(path).shape == (48, 96, 3)
        assert verify(path).state == ("marked" if "_swap" in path.name else "unmarked")


def test_every_known_figure_is_told_with_its_meaning(folder):
    page = Page((folder / "index.html").read_text(encoding="utf-8"))
    with_truth = "truth.mp4" in page.text
    for metric in METRICS.values():
        shown = (with_truth or not metric.needs_truth) and not metric.also_needs
        assert (metric.meaning in page.text) == shown, metric.title
    assert "A note to read." in page.text
    assert "AI face swap" in page.text
    assert page.text.count("0.250") >= 3


def test_what_was_known_beside_the_clips_is_told_and_other_clips_do_not_disturb(tmp_path):
    inputs = make_report().inputs | {"labels": True, "gallery": 200, "colour only": {"file": "c.mp4", "sha256": "0"}}
    metrics = make_report().metrics | {"landmark_error": 0.0312, "top1": 0.875, "warp_excess": -0.5}
    baselines = make_report().baselines | {"colour only": metrics}
    report = make_report(inputs=inputs, metrics=metrics, baselines=baselines, own_errors={"pose": 1.5})
    page = Page(write_report(report, tmp_path / "r").read_text(encoding="utf-8"))
    for metric in METRICS.values():
        assert metric.meaning in page.text, metric.title
    for words in ("3.1", "88", "−0.50", "the labels say a swap replaces"):
        assert words in page.text
    assert EvalReport.from_dict(json.loads((tmp_path / "r" / "report.json").read_text("utf-8"))) == report


def test_the_json_holds_the_whole_report(folder):
    data = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    again = EvalReport.from_dict(data)
    assert again == make_report("truth" in data["inputs"])


def test_names_are_shown_and_not_run(tmp_path):
    inputs = make_report().inputs | {"swap": {"file": "<script>alert(1)</script>.mp4", "sha256": "0"}}
    page = write_report(make_report(inputs=inputs), tmp_path / "r").read_text(encoding="utf-8")
    assert not Page(page).all("script")
    assert "<script>alert(1)</script>.mp4" in Page(page).text


def test_a_report_without_pictures_series_or_values_still_stands(tmp_path):
    nothing = dict.fromkeys(METRICS)
    bare = make_report(pictures=Pictures(), per_frame={"time": []}, metrics=nothing, baselines={}, notes=())
    page = Page(write_report(bare, tmp_path / "r").read_text(encoding="utf-8"))
    assert not page.all("img")
    assert "Over time" not in page.text
    assert "–" in page.text


@pytest.mark.parametrize(("closure", "words"), [(0.8, "removes 80%"), (-0.5, "is no nearer to the truth")])
def test_the_summary_says_what_the_figures_say(tmp_path, closure, words):
    report = make_report(metrics=make_report().metrics | {"closure": closure})
    assert words in Page(write_report(report, tmp_path / "r").read_text(encoding="utf-8")).text


def test_the_same_report_gives_the_same_page(tmp_path):
    first, second = (write_report(make_report(), tmp_path / name).read_bytes() for name in "ab")
    assert first == second


def test_only_an_earlier_report_is_replaced(tmp_path):
    page = write_report(make_report(), tmp_path / "report")
    (page.parent / "old.txt").write_text("from before")
    with pytest.raises(OutputError, match="--overwrite"):
        write_report(make_report(), tmp_path / "report")
    write_report(make_report(with_truth=False), tmp_path / "report", overwrite=True)
    assert not (page.parent / "old.txt").exists()
    (tmp_path / "holiday").mkdir()
    (tmp_path / "holiday" / "photo.jpg").write_bytes(b"dear to someone")
    with pytest.raises(OutputError, match="other things in it"):
        write_report(make_report(), tmp_path / "holiday", overwrite=True)
    (tmp_path / "file").write_text("a file")
    with pytest.raises(OutputError, match="an earlier report"):
        write_report(make_report(), tmp_path / "file", overwrite=True)
    assert (tmp_path / "holiday" / "photo.jpg").read_bytes() == b"dear to someone"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "holiday", "report"]


def test_a_report_that_fails_leaves_the_earlier_one(tmp_path):
    page = write_report(make_report(), tmp_path / "report")
    before = page.read_bytes()
    broken = make_report(per_frame={"time": ["not a number"], "closure": [0.1, 0.2, 0.3]})
    with pytest.raises((TypeError, KeyError, ValueError)):
        write_report(broken, tmp_path / "report", overwrite=True)
    assert page.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["report"]
