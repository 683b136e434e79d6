"""Curves of quality against training time on one case. No pair is rendered."""

import json
import shutil
from dataclasses import replace

import pytest
from pairs import make_pair

from fslab.bench import curves as module
from fslab.bench.case import TIERS, Case, Tier, pair_config, recipe
from fslab.bench.curves import curve_variants, run_curves, table_of, times_to_reference
from fslab.bench.variants import SCHEMA, Study, Variant
from fslab.errors import OutputError
from fslab.media import read_image
from fslab.metrics import METRICS
from fslab.model import PRESETS, ModelConfig
from fslab.schedule import TrainConfig
from fslab.storage import write_json

CASE = Case("small", "Small and quick.", 3, 4, n_frames=16)
TIER = Tier("small", 128, 32, "tiny", 1.0, 6, (CASE,), "cpu")
STUDY = Study("curves", TIER, CASE)
MODEL = ModelConfig(size=32, width=8, latent_channels=8, blocks=1, encoder_blocks=0)
CONFIG = TrainConfig(batch=2, budget="1s", device="cpu")
ROWS = [Variant("scratch", MODEL, CONFIG), Variant("wide", replace(MODEL, width=16), CONFIG)]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    out = tmp_path_factory.mktemp("bench") / "out"
    out.mkdir()
    write_json(out / STUDY.marker, {"schema": SCHEMA, "study": STUDY.to_dict(), "curves": {}})
    shutil.copytree(
        make_pair(tmp_path_factory.mktemp("made") / "pair", pair_config(CASE, TIER)), out / "case" / "pair"
    )  # fmt: skip
    return out, run_curves(STUDY, out, variants=ROWS)


def test_a_curve_has_a_point_at_each_moment_with_every_metric(done):
    out, body = done
    assert list(body["curves"]) == ["scratch", "wide"]
    for points in body["curves"].values():
        seconds = [p["seconds"] for p in points]
        assert seconds == sorted(seconds)
        assert seconds[0] < 0.7
        assert seconds[-1] >= 1.0
        assert all(set(p["metrics"]) == set(METRICS) for p in points)
    assert json.loads((out / STUDY.marker).read_text()) == json.loads(json.dumps(body))
    assert min(read_image(out / module.PLOT).shape[:2]) > 200
    columns, rows = table_of(body)
    assert [row[0] for row in rows] == ["scratch", "wide"]
    assert {len(row) for row in rows} == {len(columns)}


def test_what_is_done_is_kept_and_another_study_is_refused(done):
    out, body = done
    again = run_curves(STUDY, out, variants=ROWS)
    assert again["curves"] == body["curves"]
    longer = replace(STUDY, tier=replace(TIER, budget=2.0))
    with pytest.raises(OutputError, match="a benchmark of curves"):
        run_curves(longer, out, variants=ROWS)
    assert (out / STUDY.marker).exists()
    assert not (out / "runs").exists()


def test_a_curve_whose_settings_changed_is_made_anew_and_the_others_are_kept(done, tmp_path):
    out, body = done
    shutil.copytree(out, tmp_path / "out")
    changed = replace(ROWS[1], train=replace(CONFIG, lr=1e-3))
    again = run_curves(STUDY, tmp_path / "out", variants=[ROWS[0], changed])
    assert again["curves"]["scratch"] == body["curves"]["scratch"]
    assert again["curves"]["wide"] != body["curves"]["wide"]
    assert again["settings"]["wide"]["train"]["lr"] == 1e-3


def test_the_time_to_the_reference_is_read_off_the_curves():
    def curve(*points):
        return [{"seconds": s, "metrics": {"closure": c}} for s, c in points]

    times = times_to_reference(
        {
            "scratch": curve((10, 0.1), (20, 0.3), (40, 0.2)),
            "base": curve((5, 0.35), (10, 0.5)),
            "worse": curve((10, 0.0), (40, 0.1)),
        }
    )
    assert times == {"scratch": 20.0, "base": 5.0, "worse": None}
    assert times_to_reference({"base": curve((5, 0.35))}) == {}


def test_the_trainings_differ_in_base_and_matching_alone():
    lab = Study("curves", TIERS["lab"], TIERS["lab"].cases[0])
    rows = {v.name: v for v in curve_variants(lab)}
    model, train = recipe(lab.tier)
    assert set(rows) == {"base", "base-tuned", "base-tuned-no-match", "scratch", "scratch-no-match"}
    assert rows["base-tuned"].train == replace(train, encoder_train="full")
    assert (rows["base"].model, rows["base"].train) == (model, train)
    assert {v.train.base for n, v in rows.items() if n.startswith("scratch")} == {"none"}
    assert {v.train.losses.match for n, v in rows.items() if n.endswith("no-match")} == {0.0}
    assert set(v.name for v in curve_variants(STUDY)) == {"scratch", "scratch-no-match"}


def test_a_tier_of_another_size_trains_without_the_base():
    assert recipe(TIERS["lab"])[1].base == PRESETS["tiny"][1].base == "tiny"
    assert recipe(TIERS["ci"])[1].base == "none"
    assert recipe(TIERS["ci"])[0].size == TIERS["ci"].model_size
