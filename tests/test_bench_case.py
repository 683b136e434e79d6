"""The cases: what the tiers cover, whom they show, what is rendered for them."""

import numpy as np
import pytest

from fslab.bench.case import TIERS, Case, pair_config
from fslab.model import PRESETS
from fslab.synth.identity import BENCH_SEEDS, draw_identity, gallery, similar_tone
from fslab.synth.pair import PairConfig

ALL = [(tier, case) for tier in TIERS.values() for case in tier.cases]


def test_the_tiers_have_the_sizes_and_numbers_of_cases_that_are_documented():
    told = {name: (t.frame_size, t.model_size, len(t.cases)) for name, t in TIERS.items()}
    assert told == {"ci": (128, 64, 2), "lab": (192, 128, 6), "full": (320, 256, 12)}


def test_the_tiers_grow():
    budgets = [TIERS[name].budget for name in ("ci", "lab", "full")]
    assert budgets == sorted(budgets)
    assert all(t.preset in PRESETS and t.model_size % 16 == 0 for t in TIERS.values())


@pytest.mark.parametrize("name", TIERS)
def test_cases_of_a_tier_have_names_of_their_own(name):
    names = [case.name for case in TIERS[name].cases]
    assert len(set(names)) == len(names)


def test_the_full_tier_covers_what_the_benchmark_promises():
    cases = TIERS["full"].cases
    assert {c.n_frames for c in cases} == {25, 100, 500}
    assert {c.degrade for c in cases} == {"none", "noise", "blur", "jpeg", "low-light"}
    assert {c.occluder for c in cases} == {"none", "glasses", "hand"}
    assert {c.stills for c in cases} == {False, True}
    assert len({c.source_range for c in cases}) == 3


def test_everybody_is_from_the_seeds_kept_for_benchmarks_and_no_two_meet_twice():
    for _, case in ALL:
        assert {case.source_seed, case.target_seed} <= set(BENCH_SEEDS)
    pairs = [frozenset((case.source_seed, case.target_seed)) for case in TIERS["full"].cases]
    assert len(set(pairs)) == len(pairs)


def test_people_differ_in_sex_only_where_a_case_is_about_that():
    for _, case in ALL:
        source, target = draw_identity(case.source_seed), draw_identity(case.target_seed)
        assert (source.sex == target.sex) != (case.name == "other-sex-age")


def test_the_look_alikes_are_as_near_as_two_people_of_the_cases_come():
    seeds, embeddings = gallery()
    place = {int(seed): vector for seed, vector in zip(seeds, embeddings)}
    apart = {
        c.name: np.linalg.norm(place[c.source_seed] - place[c.target_seed]) for c in TIERS["full"].cases
    }  # fmt: skip
    assert min(apart, key=apart.get) == "look-alike"


def test_people_of_a_case_have_similar_skin_tones():
    pairs = {(c.source_seed, c.target_seed) for _, c in ALL}
    assert all(similar_tone(draw_identity(a), draw_identity(b)) for a, b in pairs)


def shown(track):
    """Return what matters most of each frame, in degrees: yaw, pitch, and 40 for a mouth wide open."""
    return np.array([(a.yaw, a.pitch, 40 * a.expression.get("jawOpen", 0.0)) for a in track])


@pytest.mark.parametrize(("tier", "case"), ALL, ids=lambda x: x.name)
def test_a_case_is_about_what_it_says(tier, case):
    takes = pair_config(case, tier).takes()
    target, source, own = (shown(takes[name].track) for name in ("target", "b_train", "a_train"))
    apart = np.linalg.norm(target[:, None] - source[None], axis=-1).min(1)
    if case.source_range == "never-left":
        assert source[:, 0].min() >= -4
        assert target[:, 0].min() < -15
        assert target[:, 0].max() > 0
    elif case.source_range == "mouth-shut":
        assert source[:, 2].max() == 0
        assert target[:, 2].max() > 16
    else:
        assert apart.max() < 13, "the source shows whatever the target does"
    assert np.median(np.linalg.norm(target[:, None] - own[None], axis=-1).min(1)) < 20


def test_a_case_asks_the_renderer_for_what_it_says():
    tier, case = TIERS["full"], TIERS["full"].cases[1]
    assert pair_config(case, tier) == PairConfig(
        case.source_seed, case.target_seed, 320, 25, 100, 150, source_range=case.source_range, seed=case.seed
    )
    assert pair_config(case, tier).takes().keys() == {"a_train", "b_train", "target", "truth"}


@pytest.mark.parametrize("wrong", [{"name": "a/b"}, {"n_frames": 4}, {"source_seed": 2}])
def test_impossible_cases_are_refused(wrong):
    with pytest.raises(ValueError, match="case"):
        Case(**{"name": "a", "text": "", "source_seed": 1, "target_seed": 2, **wrong})
