import json
from dataclasses import replace

import numpy as np
import pytest
from test_run import make_run

from fslab.run import append_log
from fslab.verdict import MIN_MEASURED, judge_curve, judge_run, read_log, running_median, scatter


def rows_of(score, identity=None, ssim=None, follows=None, every=20.0, noise=0.0, seed=0):
    """Return log rows of a measured curve, one a measurement, with a losses row before each."""
    rng, rows = np.random.default_rng(seed), []
    n = len(score)
    identity, ssim, follows = (
        np.full(n, d) if v is None else v for v, d in ((identity, 0.4), (ssim, 0.8), (follows, 0.7))
    )
    for i in range(n):
        about = {"step": 10 * (i + 1), "seconds": every * (i + 1)}
        rows.append(about | {"loss": {"ada": 0.1, "dan": 0.1}})
        pairs = {"ada as dan": {"identity": identity[i], "follows": follows[i]}}
        measured = {"held_out": {"ada": {"ssim": ssim[i]}, "dan": {"ssim": ssim[i]}}, "swaps": pairs}
        rows.append(about | measured | {"score": float(score[i] + noise * rng.normal())})
    return rows


N = 40
RISING = np.linspace(0.2, 0.7, N)
FLAT = np.minimum(0.7, 0.2 + np.arange(N) * 0.05)  # at its level after 10 measurements


def test_the_scatter_of_a_curve_is_that_of_its_noise_whatever_its_trend():
    noise = np.random.default_rng(1).normal(0, 0.02, 4000)
    assert scatter(noise) == pytest.approx(0.02, rel=0.06)
    assert scatter(noise + np.linspace(0, 50, 4000)) == pytest.approx(scatter(noise))
    assert scatter(np.linspace(0, 1, 9)) == pytest.approx(0)
    assert scatter([0.1, 0.2]) == 0


def test_a_running_median_ignores_one_lucky_value():
    assert running_median([1, 1, 9, 1, 1]).tolist() == [1, 1, 1, 1, 1]
    assert running_median([1, 2, 3, 4]).tolist() == [2, 2, 3, 3]
    assert running_median([5, 6]).tolist() == [5, 6]


@pytest.mark.parametrize("noise", [0.0, 0.01])
@pytest.mark.parametrize("seed", range(5))
def test_a_rising_curve_is_still_getting_better(noise, seed):
    verdict = judge_curve(rows_of(RISING, noise=noise, seed=seed))
    assert verdict.kind == "improving"
    assert "Still getting better" in verdict.text
    assert "--budget" in verdict.text


@pytest.mark.parametrize("noise", [0.0, 0.01, 0.03])
@pytest.mark.parametrize("seed", range(5))
def test_a_flat_curve_is_a_plateau_however_it_trembles(noise, seed):
    verdict = judge_curve(rows_of(FLAT, noise=noise, seed=seed), ["footage of ada looking left"])
    assert verdict.kind == "plateau"
    assert 7 < verdict.minutes_since_best < 12.5
    assert f"No better for {verdict.minutes_since_best:.0f} minutes" in verdict.text
    assert "More footage of ada looking left would help more than more time." in verdict.text
    assert verdict.best == pytest.approx(0.7, abs=0.04)


def test_one_lucky_measurement_does_not_end_a_plateau():
    score = FLAT.copy()
    score[-2] = 0.95
    assert judge_curve(rows_of(score, noise=0.01)).kind == "plateau"


def test_a_plateau_says_what_is_weakest():
    assert judge_curve(rows_of(FLAT, identity=np.full(N, 0.05))).side == "identity"
    verdict = judge_curve(rows_of(FLAT, follows=np.full(N, 0.1)))
    assert verdict.side == "follows"
    assert "motion" in verdict.text
    assert "More time will not help" in verdict.text


@pytest.mark.parametrize("seed", range(5))
def test_a_swap_side_that_falls_while_redrawing_improves_is_a_leak(seed):
    identity = np.concatenate([np.linspace(0.1, 0.45, N // 2), np.linspace(0.45, 0.1, N // 2)])
    score = identity + 0.2
    verdict = judge_curve(rows_of(score, identity=identity, ssim=np.linspace(0.6, 0.9, N), noise=0.01, seed=seed))
    assert (verdict.kind, verdict.side) == ("worse", "identity")
    assert "leaks" in verdict.text
    assert "--match" in verdict.text
    assert verdict.minutes_since_best > 4


def test_getting_worse_names_the_side_that_fell():
    fall = np.concatenate([np.linspace(0.3, 0.8, N // 2), np.linspace(0.8, 0.3, N // 2)])
    assert judge_curve(rows_of(fall, follows=fall)).side == "follows"
    verdict = judge_curve(rows_of(fall, ssim=fall))
    assert verdict.side == "ssim"
    assert "by heart" in verdict.text


def test_a_dip_within_chance_is_not_worse():
    score = FLAT.copy()
    score[-4:] -= 0.01
    assert judge_curve(rows_of(score, noise=0.01)).kind == "plateau"


@pytest.mark.parametrize("n", [0, 1, MIN_MEASURED - 1])
def test_few_measurements_say_nothing(n):
    verdict = judge_curve(rows_of(RISING[:n]))
    assert verdict.kind == "early"
    assert f"{n} of at least" in verdict.text


def test_rows_without_a_score_or_a_number_do_not_count():
    rows = [{k: v for k, v in row.items() if k != "score"} for row in rows_of(RISING)]
    assert judge_curve(rows).kind == "early"
    rows = rows_of(RISING)
    rows[1]["score"] = None
    rows[3]["swaps"] = {"ada as dan": {"identity": None, "follows": None}}
    assert judge_curve(rows).kind == "improving"


def test_the_verdict_goes_into_the_log_once(tmp_path):
    run = replace(make_run(tmp_path), step=400, seconds=800.0)
    for row in rows_of(FLAT):
        append_log(tmp_path, row)
    verdict = judge_run(run)
    judge_run(run)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    told = [row for row in rows if "verdict" in row]
    assert [row["event"] for row in told] == [verdict.text]
    assert told[0]["verdict"]["kind"] == "plateau"
    assert told[0]["step"] == 400
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write('{"step": 4')
    assert read_log(tmp_path) == rows
    assert read_log(tmp_path / "nothing") == []
