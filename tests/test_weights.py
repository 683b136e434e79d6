"""The packaged weights: whole, small, licensed, and as their card says."""

import pytest

from fslab.base import Base, misfits
from fslab.model import PRESETS
from fslab.storage import sha256_file
from fslab.synth.identity import TRAIN_SEEDS
from fslab.weights import WEIGHTS, weights_path
from fslab.weights.cards import CARD, packaged_bases, write_card

BASES = packaged_bases()


@pytest.mark.parametrize("name", WEIGHTS)
def test_every_file_is_whole_and_licensed(name):
    assert sha256_file(weights_path(name)) == WEIGHTS[name]
    assert f"`{name}`" in weights_path("LICENSES.md").read_text(encoding="utf-8")


def test_the_card_is_what_the_files_say():
    assert CARD.read_text(encoding="utf-8") == write_card(BASES)


@pytest.mark.parametrize("name", BASES)
def test_a_base_is_small_fits_its_preset_and_was_never_trained_on_whom_it_is_measured_on(name):
    base, (model, train) = BASES[name], PRESETS[name]
    assert weights_path(f"base_{name}.safetensors").stat().st_size < 15e6
    assert train.base == name
    assert misfits(base, model, base.coverage) == {}
    card = base.card
    held = {int(p.removeprefix("person")) for p in card["held_out_people"]}
    assert held <= set(TRAIN_SEEDS)  # nobody of the benchmark
    assert card["held_out"]["closure"] > 0.5
    assert Base.load(name).card == card


def test_presets_name_only_bases_that_ship():
    assert {train.base for _, train in PRESETS.values()} - {"none"} == set(BASES)
