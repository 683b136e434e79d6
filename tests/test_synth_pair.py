"""Pairs: footage of two synthetic people, a target clip and the exact truth of its swap, rendered small."""

import json
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest
import tyro
from tyro.conf import OmitSubcommandPrefixes

from fslab.cli_synth import SynthCommand, next_commands
from fslab.errors import ConsentError, FslabError, MediaError, OutputError
from fslab.media import read_frames, read_image
from fslab.synth.clip import content_hash, person_name
from fslab.synth.pair import PARTS, Pair, PairConfig, render_pair
from fslab.synth.scene import PARTS as SEEN
from fslab.synth.takes import load_frames, load_labels, render_take

CONFIG = PairConfig(1001, 1010, size=64, n_train=2, n_target=2, source_range="never-left", degrade="noise")


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return render_pair(CONFIG, tmp_path_factory.mktemp("pair") / "pair")


@pytest.fixture
def copied(pair, tmp_path):
    """A pair that may be spoilt."""
    return shutil.copytree(pair.folder, tmp_path / "pair")


def test_a_pair_is_a_ready_case(pair):
    assert {p.name for p in pair.folder.iterdir()} == {
        "pair.json", "a.consent.json", "b.consent.json",
        *(f"{name}.mp4" for name in PARTS), *(f"{name}.labels.npz" for name in PARTS),
    }  # fmt: skip
    assert [c.person for c in pair.consents] == [person_name(1010), person_name(1001)]  # a is the target
    assert all(c.synthetic for c in pair.consents)
    for name, n in (("a_train", 2), ("b_train", 2), ("target", 2), ("truth", 2)):
        assert sum(1 for _ in read_frames(getattr(pair, name))) == n
        assert len(pair.labels(name)) == n
    assert pair.config == CONFIG
    assert not pair.folder.with_name("pair.part").exists()


@pytest.fixture(scope="module")
def again(tmp_path_factory):
    """The same frames rendered a second time, by their clip."""
    folder, takes = tmp_path_factory.mktemp("again"), CONFIG.takes()
    for name, take in takes.items():
        render_take(take, folder / name)
    return {name: list(load_frames(folder / name, take)) for name, take in takes.items()}


def test_two_renders_of_a_pair_have_the_same_frames_and_hash(pair, again):
    assert content_hash(frame for frames in again.values() for frame in frames) == pair.hash


def test_the_truth_is_the_target_with_another_face(pair, again):
    assert CONFIG.takes()["target"].track == CONFIG.takes()["truth"].track
    faces = [pair.labels(name).face for name in ("target", "truth")]
    for t, (target, truth) in enumerate(zip(again["target"], again["truth"])):
        noise_free = cv2.GaussianBlur(target.astype(float) - truth, (0, 0), 3)  # only the target has noise
        change = np.abs(noise_free).mean(axis=-1)
        inside = np.minimum(faces[0][t], faces[1][t]) > 250
        around = cv2.dilate(np.maximum(faces[0][t], faces[1][t]), np.ones((7, 7))) == 0
        assert change[inside].mean() > 4
        assert change[around].mean() < 2  # light that the face throws on the rest, and what is left of the noise
    assert np.allclose(pair.labels("target").pose, pair.labels("truth").pose)
    assert not np.allclose(pair.labels("target").landmarks, pair.labels("truth").landmarks, atol=0.3)


def test_all_footage_is_degraded_and_only_the_truth_is_free_of_noise(pair):
    takes = CONFIG.takes()
    assert takes["target"].seed == takes["truth"].seed
    assert len({take.seed for take in takes.values()}) == 3
    assert {take.degrade for take in takes.values()} == {"noise"}
    assert {name for name, take in takes.items() if take.clean} == {"truth"}


def test_ranges_hold_for_whom_they_were_given():
    config = replace(CONFIG, n_train=200, n_target=200)
    takes = config.takes()
    yaw = {name: np.array([a.yaw for a in take.track]) for name, take in takes.items()}
    assert yaw["b_train"].min() >= -4
    assert yaw["target"].min() < -8
    assert yaw["a_train"].min() < -8
    shut = replace(config, source_range="mouth-shut").takes()["b_train"]
    assert max(a.expression.get("jawOpen", 0) for a in shut.track) < 0.02


def test_the_target_clip_does_not_depend_on_how_much_there_is_to_train_on():
    few, many = CONFIG.takes(), replace(CONFIG, n_train=9).takes()
    assert few["target"] == many["target"]
    assert few["a_train"].track == many["a_train"].track[:2]
    assert few["target"].track[0].background == few["a_train"].track[0].background  # one take, one light
    assert few["target"].track[0].background != few["b_train"].track[0].background


def test_glasses_stay_on_in_training_and_a_hand_only_passes_in_the_target():
    def worn(occluder):
        return {name for name, take in replace(CONFIG, occluder=occluder).takes().items() if take.occluder != "none"}

    assert worn("glasses") == {"a_train", "target", "truth"}
    assert worn("hand") == {"target", "truth"}
    assert worn("none") == set()


def test_glasses_lie_over_the_face_of_target_and_truth_in_the_same_place(tmp_path):
    config = replace(CONFIG, occluder="glasses", degrade="none", n_target=1, size=96)
    shown = []
    for name in ("target", "truth"):
        take = config.takes()[name]
        render_take(take, tmp_path / name)
        labels = load_labels(tmp_path / name, take)
        rims = labels.parts[0] == SEEN.index("occluder")
        assert rims.sum() > 20
        shown.append(rims)
    both, either = (shown[0] & shown[1]).sum(), (shown[0] | shown[1]).sum()
    assert both > 0.9 * either


def test_stills_are_pictures_without_flow(tmp_path):
    pair = render_pair(replace(CONFIG, stills=True, n_train=1, n_target=1), tmp_path / "p")
    assert sorted(p.name for p in pair.a_train.iterdir()) == ["000000.png"]
    assert read_image(pair.b_train / "000000.png").shape == (64, 64, 3)
    assert pair.labels("b_train").flow.shape == (0, 64, 64, 2)
    assert f"{pair.folder}/a_train --" not in next_commands(pair.folder, "b", "a")[0]
    assert f"{pair.folder}/a_train {pair.folder}/faces/a" in next_commands(pair.folder, "b", "a")[0]


def test_nothing_flows_from_one_still_to_the_next(tmp_path):
    take = replace(CONFIG, stills=True).takes()["a_train"]
    assert len({a.background for a in take.track}) == 2  # nothing in common, the room included
    render_take(take, tmp_path / "w")
    assert np.isnan(load_labels(tmp_path / "w", take).flow.astype(float)).all()


def test_a_second_render_over_a_pair_is_refused_and_nothing_is_lost(pair):
    with pytest.raises(OutputError, match="--overwrite"):
        render_pair(CONFIG, pair.folder)
    assert Pair.load(pair.folder).hash == pair.hash


def test_a_folder_of_something_else_is_never_replaced(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="other files"):
        render_pair(CONFIG, tmp_path, overwrite=True)


@pytest.mark.parametrize("name", ["truth.mp4", "b_train.labels.npz"])
def test_a_pair_without_one_of_its_files_is_refused(copied, name):
    (copied / name).unlink()
    with pytest.raises(MediaError, match=name):
        Pair.load(copied)


def test_a_pair_without_a_consent_is_refused(copied):
    (copied / "b.consent.json").unlink()
    with pytest.raises(ConsentError, match=r"b\.consent\.json"):
        Pair.load(copied)


def test_a_pair_whose_description_was_changed_is_refused(copied):
    head = json.loads((copied / "pair.json").read_text())
    head["config"]["source_seed"] = 1002
    (copied / "pair.json").write_text(json.dumps(head))
    with pytest.raises(MediaError, match="changed"):
        Pair.load(copied)


@pytest.mark.parametrize(
    "content", ["", "[]", '{"schema": 99}', '{"schema": 1}', '{"schema": 1, "config": {"size": 1}}']
)
def test_a_foreign_or_damaged_pair_is_told_in_one_sentence(copied, content):
    (copied / "pair.json").write_text(content)
    with pytest.raises(FslabError, match=r"expected .*; .*"):
        Pair.load(copied)


def test_a_folder_that_is_no_pair_is_told_in_one_sentence(tmp_path):
    with pytest.raises(MediaError, match="fslab synth pair"):
        Pair.load(tmp_path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"target_seed": 1001}, "two people"),
        ({"source_seed": 500}, "a person's seed must be one of"),
        ({"target_seed": -1}, "a person's seed must be one of"),
        ({"size": 65}, "even and 64 pixels or more"),
        ({"size": 100_000}, "at most 2048, got 100000"),
        ({"n_train": 0}, "n_train and n_target must be 1 or more"),
        ({"fps": 0}, "fps 1 to 120"),
        ({"source_range": "sideways"}, "a range must be one of full, never-left, mouth-shut, narrow"),
        ({"occluder": "mask"}, "occluder must be one of"),
        ({"degrade": "fog"}, "degrade must be one of"),
    ],
)
def test_a_pair_that_cannot_be_is_refused_in_one_sentence(values, message):
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **values)


# The command line


def parse(*words):
    return tyro.cli(OmitSubcommandPrefixes[SynthCommand], args=words).command


def test_the_commands_read_as_the_documentation_writes_them(tmp_path):
    assert parse("person", "--seed", "7", "out/person7/").config.seed == 7
    clip = parse("clip", "--person", "7", "--seconds", "8", "out/a.mp4", "--occluder", "hand", "--motion", "narrow")
    assert (clip.config.person, clip.config.seconds, str(clip.out), clip.config.occluder) == (7, 8, "out/a.mp4", "hand")
    pair = parse("pair", "7", "12", "out/pair/", "--n-train", "20", "--source-range", "never-left")
    assert (pair.config.source_seed, pair.config.target_seed, str(pair.output.out)) == (7, 12, "out/pair")
    assert (pair.config.n_train, pair.config.source_range) == (20, "never-left")
    faces = parse("faces", "--people", "200", "--each", "10", "out/faces/", "--sharing", "0")
    assert (faces.config.people, faces.config.each, faces.config.sharing) == (200, 10, 0)


def test_the_commands_that_follow_a_pair_name_its_files_and_people(pair):
    lines = next_commands(pair.folder, person_name(1001), person_name(1010))
    assert [line.split()[1] for line in lines] == ["extract", "extract", "train", "swap", "evaluate"]
    assert f"--identity {person_name(1010)} --consent {pair.folder}/a.consent.json" in lines[0]
    assert f"--identity {person_name(1001)} --replace {person_name(1010)}" in lines[3]
    assert f"--truth {pair.folder}/truth.mp4" in lines[4]
