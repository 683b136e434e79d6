import json
from dataclasses import replace

import cv2
import matplotlib.cbook
import numpy as np
import pytest
import skimage.data
import torch
from drawn_people import SKIN, drawn_crop, drawn_faceset, drawn_mesh

from fslab.base import Base
from fslab.consent import Consent
from fslab.crowd import Crowd, Faces, _partners, hold_out, load_faces
from fslab.dataset import DataConfig
from fslab.errors import ConsentError, FaceSetError, RunError
from fslab.geometry import crop_template
from fslab.losses import LossConfig
from fslab.media import read_image, write_image
from fslab.mesh import five_points
from fslab.model import ModelConfig
from fslab.pretrain import PretrainConfig, Pretrainer, pretrain, score_held_out
from fslab.synth.faces import FacesConfig, render_faces

TINY = ModelConfig(size=32, width=8, latent_channels=16, blocks=1, patch=2)
STILL = DataConfig(rotation=0, scale=0, shift=0, warp=0, flip=0, light=0, colour=0, margin=1.0)


def drawn_crowd(n_scenes=12, size=32):
    """Return four drawn people, all in the same scenes."""
    rng = np.random.default_rng(0)
    rows = []
    for name in SKIN:
        for i in range(n_scenes):
            mesh = drawn_mesh(size, np.sin(i / 2), 0.5 + 0.5 * np.sin(i))
            rows.append((drawn_crop(name, size, mesh, rng), mesh, name, f"scene{i}"))
    crops, meshes, people, scenes = map(np.array, zip(*rows))
    return Faces(crops, meshes, people, scenes, {"sources": [{"what": "drawn people"}]})


def config(**changes):
    values = {"steps": 4, "batch": 4, "style": 4, "held_out_people": 2, "device": "cpu", "precision": "fp32"}
    return PretrainConfig(**({"data": STILL} | values | changes))


def test_partners_are_the_others_of_a_scene():
    table, count = _partners(np.array(["a", "b", "a", "", "", "a"]))
    assert count.tolist() == [2, 1, 2, 1, 1, 2]
    assert sorted(table[0, :2].tolist()) == [2, 5]
    assert table[1, 0] == 1  # alone in its scene: itself
    assert table[3, 0] == 3  # no scene at all
    assert table[4, 0] == 4


def test_a_batch_draws_one_person_from_a_picture_of_another_in_the_same_scene():
    faces = drawn_crowd()
    crowd = Crowd(faces, 32, STILL)
    batch, who = crowd.batch(64, torch.Generator().manual_seed(0), own=0.0)
    stored = torch.from_numpy(faces.crops).permute(0, 3, 1, 2).float() / 255

    def nearest(x):
        return (stored[None] - x[:, None]).abs().mean((2, 3, 4)).argmin(1).numpy()

    inputs, targets = nearest(batch.input), nearest(batch.target)
    assert (faces.scenes[inputs] == faces.scenes[targets]).all()
    assert (faces.people[inputs] != faces.people[targets]).all()
    assert (crowd.names[who.numpy()] == faces.people[targets]).all()
    own, _ = crowd.batch(16, torch.Generator().manual_seed(0), own=1.0)
    assert torch.allclose(own.input, own.target, atol=1e-5)


def test_the_answer_is_laid_over_the_picture_mesh_on_mesh():
    faces = drawn_crowd(n_scenes=3, size=64)
    half = faces.meshes.copy()
    for i in np.flatnonzero(faces.people == "dan"):  # dan fills less of his crops, and sits elsewhere in them
        matrix = np.array([[0.8, 0, 4], [0, 0.8, 8]])
        faces.crops[i] = cv2.warpAffine(faces.crops[i], matrix, (64, 64), borderMode=cv2.BORDER_REPLICATE)
        half[i] = half[i] * 0.8 + (4, 8)
    crowd = Crowd(replace(faces, meshes=half), 64, STILL)
    ada, dan = (torch.from_numpy(np.flatnonzero(faces.people == name)) for name in ("ada", "dan"))
    placed, own = crowd.pictures(ada, dan), crowd.pictures(ada, ada)
    assert torch.equal(placed.input, own.input)
    assert (placed.mask - own.mask).abs().mean() < 0.02  # up to its soft edge
    assert (crowd.pictures(dan, dan).mask - own.mask).abs().mean() > 0.05
    assert torch.allclose(crowd._place(ada, ada), torch.eye(2, 3).expand(3, 2, 3), atol=1e-5)


def test_people_held_out_are_never_trained_on():
    faces = drawn_crowd()
    train, held = hold_out(faces, 2)
    assert set(held.people) == {"eve", "fay"}
    assert set(train.people) == {"ada", "dan"}
    assert len(train.crops) + len(held.crops) == 48
    alone = np.where(faces.people == "fay", "", faces.scenes)  # fay's pictures have no partners
    assert set(hold_out(replace(faces, scenes=alone), 2)[1].people) == {"dan", "eve"}
    assert set(hold_out(replace(faces, scenes=np.full(len(alone), "")), 2)[1].people) == {"eve", "fay"}
    with pytest.raises(ValueError, match="held_out_people must leave two people"):
        hold_out(drawn_crowd(), 3)


def test_a_perfect_base_scores_one_and_one_that_copies_scores_nothing():
    crowd = Crowd(drawn_crowd(), 32, STILL)

    class Copies(torch.nn.Module):
        style, perfect = 0, False

        def encode(self, x):
            return x

        def draw(self, z, vectors):
            return (self.goal if self.perfect else z), z[:, :1]

    copies = Copies()
    assert score_held_out(copies, crowd, LossConfig())["closure"] == pytest.approx(0, abs=1e-3)
    index = torch.linspace(0, len(crowd) - 1, 128)
    halves = torch.cat([torch.arange(12 * k + 6, 12 * k + 12) for k in range(4)])
    index = halves[torch.linspace(0, len(halves) - 1, len(halves)).long()]
    turn = torch.arange(len(index)) % crowd.n_partners[index]
    copies.perfect, copies.goal = True, crowd.pictures(crowd.partners[index, turn], index).target
    scores = score_held_out(copies, crowd, LossConfig())
    assert scores["closure"] == pytest.approx(1, abs=1e-4)
    assert scores["sharpness"] == pytest.approx(1, abs=1e-3)


def test_a_pretraining_learns_and_its_best_is_kept(tmp_path):
    trainer = Pretrainer(drawn_crowd(), tmp_path / "base", TINY, config(steps=120, batch=12, lr=5e-3))
    before = score_held_out(trainer.ema, trainer.held, LossConfig())
    losses = [float(trainer.step(i / 120)) for i in range(120)]
    trainer.step_count = 120
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:10])
    trainer.measure()
    stored = Base.load(tmp_path / "base" / "base.safetensors")
    assert stored.card["held_out"]["own"] > before["own"] + 2
    assert stored.card["held_out_people"] == ["eve", "fay"]
    best = stored.card["held_out"]
    trainer.best = 2.0  # nothing is as good
    trainer.measure()
    assert Base.load(tmp_path / "base" / "base.safetensors").card["held_out"] == best


def test_a_stopped_pretraining_goes_on_bit_for_bit(tmp_path, monkeypatch):
    monkeypatch.setattr("fslab.pretrain.load_faces", lambda *_: drawn_crowd())
    hard = config(data=DataConfig(occlude=0.3, blur=0.02, noise=0.05, jpeg=1.0, margin=1.0))
    whole = Pretrainer(drawn_crowd(), tmp_path / "whole", TINY, hard)
    torch.manual_seed(0)
    whole = pretrain([], tmp_path / "a", TINY, replace(hard, steps=6))
    pretrain([], tmp_path / "b", TINY, replace(hard, steps=6), on_step=None)
    first = Pretrainer(drawn_crowd(), tmp_path / "c", TINY, replace(hard, steps=6))
    for i in range(3):
        first.step(i / 6)
        first.step_count += 1
    first.save()
    again = Pretrainer(drawn_crowd(), tmp_path / "c", TINY, replace(hard, steps=6))
    assert again.step_count == 3
    for i in range(3, 6):
        first.step(i / 6)
        again.step(i / 6)
    for a, b in zip(first.model.parameters(), again.model.parameters()):
        assert torch.equal(a, b)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, Base.load(tmp_path / "b" / "base.safetensors").model.state_dict()[name]), name


def test_other_settings_and_other_folders_are_refused(tmp_path):
    Pretrainer(drawn_crowd(), tmp_path / "base", TINY, config()).save()
    with pytest.raises(RunError, match="other settings"):
        Pretrainer(drawn_crowd(), tmp_path / "base", replace(TINY, width=16), config())
    others = replace(drawn_crowd(), about={"sources": [{"what": "other people"}]})
    with pytest.raises(RunError, match=r"other settings \(sources\)"):
        Pretrainer(others, tmp_path / "base", TINY, config())
    with pytest.raises(RunError, match=r"other settings \(style\)"):
        Pretrainer(drawn_crowd(), tmp_path / "base", TINY, config(style=2))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note.txt").write_text("mine")
    with pytest.raises(RunError, match="something else"):
        Pretrainer(drawn_crowd(), tmp_path / "full", TINY, config())
    assert (tmp_path / "full" / "note.txt").read_text() == "mine"
    for wrong in ({"style": -1}, {"own": 2}, {"budget": "soon"}, {"device": "tpu"}, {"coverage": 0}):
        with pytest.raises(ValueError, match=r"must|wanted"):
            config(**wrong)


def test_a_base_starts_from_another_as_far_as_it_fits(tmp_path):
    first = Pretrainer(drawn_crowd(), tmp_path / "first", TINY, config())
    first.measure()
    wider = replace(TINY, size=48, patch=3)  # finer pictures, the same code
    second = Pretrainer(drawn_crowd(), tmp_path / "second", wider, config(), tmp_path / "first" / "base.safetensors")
    second.measure()
    again = Pretrainer(drawn_crowd(), tmp_path / "second", wider, config())
    again.measure()
    stages = Base.load(tmp_path / "second" / "base.safetensors").card["stages"]
    assert [s["pictures"] for s in stages] == [len(first.crowd)]
    assert again.stages == stages
    ours, theirs = second.model.state_dict(), first.model.state_dict()
    same = [name for name in ours if ours[name].shape == theirs[name].shape]
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-2) for name in same)
    assert {"encoder.conv1.weight", "decoder.head.conv.weight"} == {n for n in ours if n not in same and "weight" in n}


# Folders


def test_rendered_folders_and_face_sets_are_read_as_one_crowd(tmp_path):
    rendered = render_faces(
        FacesConfig(people=2, each=2, size=64, sharing=0, masks=False), tmp_path / "rendered"
    )  # fmt: skip
    drawn_faceset(tmp_path / "ada", "ada", n=9, size=48, coverage=0.64)
    faces = load_faces([rendered, tmp_path / "ada"], 40, 0.64)
    assert faces.crops.shape == (13, 40, 40, 3)
    assert faces.meshes.shape == (13, 468, 2)
    assert sorted(set(faces.people)) == ["ada", "person1000", "person1001"]
    assert faces.scenes[0] == faces.scenes[2] != faces.scenes[1]
    assert (faces.scenes[4:] == "").all()
    assert [s["pictures"] for s in faces.about["sources"]] == [4, 9]
    assert json.loads(json.dumps(faces.about)) == faces.about


def test_pictures_under_a_licence_are_taken_face_by_face(tmp_path):
    hopper = read_image(matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))
    folder = tmp_path / "pictures"
    for person, name in (("eileen", "a.jpg"), ("eileen", "b.jpg"), ("grace", "c.jpg")):
        (folder / person).mkdir(parents=True, exist_ok=True)
        write_image(folder / person / name, skimage.data.astronaut() if person == "eileen" else hopper)
    write_image(folder / "wall.png", np.full((120, 160, 3), 90, np.uint8))  # nobody
    with pytest.raises(ConsentError, match="a file LICENSE"):
        load_faces([folder], 64, 0.64)
    (folder / "LICENSE.txt").write_text("Public domain.")
    faces = load_faces([folder], 64, 0.64)
    assert faces.people.tolist() == ["eileen", "eileen", "grace"]
    assert faces.about["sources"][0]["licence"] == "Public domain."
    template = crop_template(64, 0.64)
    assert all(np.abs(five_points(mesh) - template).max() < 4 for mesh in faces.meshes)
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "LICENSE").write_text("CC0")
    with pytest.raises(FaceSetError, match="pictures of faces"):
        load_faces([tmp_path / "bare"], 64, 0.64)


def test_faces_that_cannot_be_used_are_refused(tmp_path):
    with pytest.raises(FaceSetError, match="folders of faces"):
        load_faces([], 40, 0.64)
    no = Consent("ada", "drawn", "2026-01-01", scope=("swapping",), synthetic=True)
    drawn_faceset(tmp_path / "no", "ada", size=48, coverage=0.64, consent=no)
    with pytest.raises(ConsentError, match="training"):
        load_faces([tmp_path / "no"], 40, 0.64)
    drawn_faceset(tmp_path / "other", "ada", size=48, coverage=0.5)
    with pytest.raises(FaceSetError, match=r"coverage 0\.64"):
        load_faces([tmp_path / "other"], 40, 0.64)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "index.json").write_text('{"config": {}}')
    with pytest.raises(FaceSetError, match="damaged"):
        load_faces([tmp_path / "damaged"], 40, 0.64)


@pytest.mark.parametrize("name", ["perceptual", "identity", "adversarial"])
def test_losses_that_a_base_is_not_trained_by_are_refused_not_ignored(name):
    with pytest.raises(ValueError, match=f"{name} must be 0"):
        PretrainConfig(losses=LossConfig(**{name: 0.1}))


def test_a_licence_beside_face_sets_does_not_stand_in_for_their_consent(tmp_path):
    faceset = drawn_faceset(tmp_path / "people" / "ada", "ada", size=48, coverage=0.64)
    for folder in (tmp_path / "people", faceset.folder / "crops"):
        (folder / "LICENSE").write_text("CC0")
        with pytest.raises(ConsentError, match="a face set at"):
            load_faces([folder], 40, 0.64)
