"""What a search over settings varies, and what it calls better."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Annotated, get_args, get_origin, get_type_hints

import optuna
import pytest
import tyro
from tyro.conf import OmitSubcommandPrefixes

from fslab import cli
from fslab.model import PRESETS, SwapAutoencoder
from fslab.search import DIALS, LOST, TuneConfig, flatten, held_out_score, train_command, with_settings


def test_every_dial_turns_a_setting_that_exists_and_starts_from_every_preset():
    for model, config in PRESETS.values():
        settings = flatten(model, config)
        assert set(DIALS) <= set(settings)
        assert {n for n in DIALS if not DIALS[n].holds(settings[n])} == set()


def test_every_drawn_setting_is_held_by_its_dial_and_makes_a_network():
    drawn = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for i in range(12):
        trial = drawn.ask()
        values = {name: dial.suggest(trial, name) for name, dial in DIALS.items()}
        assert all(DIALS[n].holds(v) for n, v in values.items()), values
        model, config = (with_settings(c, values) for c in PRESETS["tiny"])
        assert {n: v for n, v in flatten(model, config).items() if n in values} == values
        unchanged = {n: v for n, v in flatten(*PRESETS["tiny"]).items() if n not in values}
        assert {n: flatten(model, config)[n] for n in unchanged} == unchanged
        if i < 2:
            SwapAutoencoder(replace(model, size=32), ["ada", "dan"])


def test_what_a_dial_does_not_hold():
    assert not DIALS["lr"].holds(0.5)
    assert not DIALS["width"].holds(33)
    assert not DIALS["encoder"].holds("timm:mobilenetv2_100")
    model, config = PRESETS["tiny"]
    timm = flatten(replace(model, encoder="timm:mobilenetv2_100"), replace(config, base="none"))
    assert "encoder" not in TuneConfig().names(timm)
    with pytest.raises(ValueError, match="encoder must start within small, fakeapp, got timm"):
        TuneConfig(search="lr,encoder").names(timm)
    assert TuneConfig(search="blocks, lr").names(timm) == ["lr", "blocks"]


def test_the_shape_of_a_network_is_searched_only_where_no_base_fixes_it():
    model, config = PRESETS["tiny"]
    assert config.base == "tiny"
    assert not set(TuneConfig().names(flatten(model, config))) & {"width", "blocks", "decoder", "encoder"}
    assert {"width", "lr"} <= set(TuneConfig().names(flatten(model, replace(config, base="none"))))
    with pytest.raises(ValueError, match="width can be searched with --base none alone"):
        TuneConfig(search="lr,width").names(flatten(model, config))


def test_the_command_line_says_the_settings_exactly():
    drawn = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    for preset in ("tiny", "fakeapp"):
        trial = drawn.ask()
        values = {name: dial.suggest(trial, name) for name, dial in DIALS.items()}
        model, config = (with_settings(c, values) for c in PRESETS[preset])
        model, config = replace(model, draw_mask=False), replace(config, steps=7, measure_every=1.5)
        line = train_command([Path("my faces/ada"), Path("dan")], Path("out"), preset, model, config)
        program, *words = shlex.split(line)
        assert program == "fslab"
        parsed = tyro.cli(OmitSubcommandPrefixes[cli._commands(words)], args=words)
        assert parsed.facesets == (Path("my faces/ada"), Path("dan"))
        assert parsed.model == model
        assert parsed.train == replace(config, measure_every=parsed.train.measure_every)
    assert train_command([Path("a")], Path("o"), "tiny", *PRESETS["tiny"]).endswith("--preset tiny --budget 10m")


def test_the_score_is_the_swaps_then_the_redrawing():
    row = {"held_out": {"ada": {"l1": 0.1, "ssim": 0.5}, "dan": {"l1": 0.2, "ssim": 0.7}}}
    assert held_out_score(row | {"score": 0.0}) == pytest.approx(0.006)
    assert held_out_score(row | {"score": 0.4}) == pytest.approx(0.406)
    assert held_out_score({"loss": {"ada": 1.0}}) is None
    assert held_out_score(row | {"score": None}) == LOST
    assert held_out_score({"held_out": {"ada": {"l1": None, "ssim": None}}, "score": 0.3}) == LOST
    assert held_out_score({"held_out": {"ada": {"l1": 1.0, "ssim": -0.5}}, "score": 0.0}) == 0.0 > LOST


def options(config):
    for name, hint in get_type_hints(config, include_extras=True).items():
        kind = get_args(hint)[0] if get_origin(hint) is Annotated else hint
        yield from options(kind) if hasattr(kind, "__dataclass_fields__") else [name]


def test_every_option_of_the_command_has_a_name_of_its_own():
    names = list(options(cli.Tune))
    assert len(set(names)) == len(names)
