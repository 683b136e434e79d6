"""Durations, rates and strengths over a training, and settings that make no sense."""

from dataclasses import replace

import pytest

from fslab.schedule import TrainConfig, ema_decay, learning_rate, parse_duration, warp_strength


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("1h", 3600), ("1h30m", 5400), ("45", 45), (" 1.5M ", 90)]
)
def test_durations_are_read(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "ten minutes", "10x", "-5m", "0s", "5m10", "1h 30m", "nan"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


def test_the_learning_rate_rises_then_falls_along_a_cosine():
    assert learning_rate(0.05, 0.1) == pytest.approx(0.5)
    assert learning_rate(0.1, 0.1) == pytest.approx(1)
    assert learning_rate(0.55, 0.1, floor=0) == pytest.approx(0.5)
    assert learning_rate(1.0, 0.1, floor=0.02) == pytest.approx(0.02)
    assert learning_rate(0.0, 0.1) > 0
    assert learning_rate(0.0, 0.0) == 1


def test_the_warp_is_full_then_fades_then_is_off():
    assert warp_strength(0.0, 0.7) == warp_strength(0.69, 0.7) == 1
    assert warp_strength(0.775, 0.7) == pytest.approx(0.5)
    assert warp_strength(0.85, 0.7) == pytest.approx(0, abs=1e-9)
    assert warp_strength(1.0, 0.7) == 0
    assert warp_strength(1.0, 1.0) == 1


def test_the_averaged_weights_follow_closely_at_first():
    assert ema_decay(0, 0.99) == pytest.approx(0.1)
    assert ema_decay(10**6, 0.99) == 0.99


def test_progress_is_by_steps_where_they_are_given_else_by_time():
    assert TrainConfig(steps=100, budget="1s").progress(25, 1000.0) == 0.25
    assert TrainConfig(budget="10m").progress(10**6, 300.0) == 0.5
    assert TrainConfig(budget="10m").progress(0, 1200.0) == 1


@pytest.mark.parametrize(
    "change", [{"steps": 0}, {"batch": 0}, {"lr": 0}, {"ema": 2}, {"budget": "x"}, {"save_every": 0}]
)
def test_impossible_settings_are_refused(change):
    with pytest.raises(ValueError, match="duration" if "budget" in change else next(iter(change))):
        replace(TrainConfig(), **change)
