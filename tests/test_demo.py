"""The demo end to end, trained for seconds: every stage runs, everything it names is there and marked."""

import json
import re

import pytest

from fslab.cli import main
from fslab.provenance import verify


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return tmp_path_factory.mktemp("demo") / "demo out"


def test_the_demo_goes_from_footage_to_a_measured_and_marked_clip(demo, capsys):
    assert main(["demo", "--out", str(demo), "--budget", "6s"]) == 0
    out, _ = capsys.readouterr()
    for stage in ("extract ada", "extract dan", "train ada and dan", "swap ada_target.mp4", "evaluate out.mp4"):
        assert re.search(rf"✓ {re.escape(stage)} \(\d+\.\d s\)", out), stage
    assert re.search(r"done in \d+ s", out)
    for name in ("out.mp4", "contact_sheet.png", "report/index.html"):
        assert (demo / name).exists()
        assert name in out
    assert verify(demo / "out.mp4").state == "marked"
    assert verify(demo / "contact_sheet.png").state == "marked"
    assert json.loads((demo / "demo.json").read_text())["seconds"] > 0
    metrics = json.loads((demo / "report" / "report.json").read_text())["metrics"]
    assert {"closure", "leak", "identity_gap_closed"} <= set(metrics)


def test_an_existing_demo_is_kept_unless_asked(demo, capsys):
    before = (demo / "out.mp4").read_bytes()
    assert main(["demo", "--out", str(demo), "--budget", "6s"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (demo / "out.mp4").read_bytes() == before
