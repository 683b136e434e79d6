from dataclasses import replace

import numpy as np
import pytest

from fslab.errors import ConsentError, NoFaceFound, OutputError, RunError
from fslab.faces import Detector, FaceMesh
from fslab.media import RgbFrame, read_frames, write_image
from fslab.preview import face_of_crop, preview_rows
from fslab.provenance import verify
from fslab.run import Run
from fslab.storage import sha256_file
from fslab.swap import SwapConfig, Swapper, choose_replaced, is_person, swap_frame, swap_image, swap_manifest


@pytest.fixture
def ada_frame(short_clips):
    return RgbFrame(next(iter(read_frames(short_clips["ada"]))).rgb())


def test_only_the_face_changes(tiny_run, ada_frame):
    before = ada_frame.rgb()
    assert swap_frame(Swapper(tiny_run, "dan"), ada_frame) == 1
    changed = np.abs(ada_frame.rgb().astype(int) - before).max(axis=2) > 0
    box = Detector().detect(before, min_face=60)[0].box
    inside = np.zeros(changed.shape, bool)
    x0, y0, x1, y1 = np.round(box).astype(int)
    inside[y0 - 20 : y1 + 10, x0 - 10 : x1 + 10] = True
    assert changed[inside].mean() > 0.4
    assert not changed[~inside].any()


def test_a_batch_gives_what_single_faces_give(tiny_run, ada_frame):
    swapper = Swapper(tiny_run, "dan")
    face = FaceMesh().fit(ada_frame, Detector().detect(ada_frame.rgb(), min_face=60)[0])
    aligned = swapper.align(ada_frame, face)
    one, both = swapper.convert([aligned])[0], swapper.convert([aligned, aligned])
    assert np.abs(one.crop.astype(int) - both[1].crop).max() <= 1
    assert np.allclose(one.mask, both[0].mask, atol=1e-3)
    assert swapper.convert([]) == []


@pytest.mark.parametrize("mask", ["both", "outline", "decoder"])
def test_every_mask_stays_inside_the_crop(tiny_run, ada_frame, mask):
    swapper = Swapper(tiny_run, "dan", SwapConfig(mask=mask))
    face = FaceMesh().fit(ada_frame, Detector().detect(ada_frame.rgb(), min_face=60)[0])
    drawn = swapper.convert([swapper.align(ada_frame, face)])[0]
    edge = np.concatenate([drawn.mask[0], drawn.mask[-1], drawn.mask[:, 0], drawn.mask[:, -1]])
    assert edge.max() == 0
    assert 0 <= drawn.mask.min() <= drawn.mask.max() <= 1


def test_colour_follows_the_target(tiny_run, ada_frame):
    swapper = Swapper(tiny_run, "dan", SwapConfig(sharpen=0))
    face = FaceMesh().fit(ada_frame, Detector().detect(ada_frame.rgb(), min_face=60)[0])
    drawn = swapper.convert([swapper.align(ada_frame, face)])[0]
    swapper.blend(frame := ada_frame.copy(), drawn)
    again = swapper.align(frame, face).crop
    inside = drawn.mask > 0.95
    assert np.abs(again[inside].mean(axis=0) - drawn.aligned.crop[inside].mean(axis=0)).max() < 6


def test_who_is_replaced_is_chosen_by_name(tiny_run):
    assert choose_replaced(tiny_run, "dan", None) == "ada"
    assert choose_replaced(tiny_run, "dan", "ada") == "ada"
    with pytest.raises(RunError, match="--replace to name one of ada"):
        choose_replaced(tiny_run, "dan", "eve")
    with pytest.raises(RunError, match="--replace"):
        choose_replaced(tiny_run, "dan", "dan")


def test_a_person_is_near_and_nearest(tiny_run):
    ada, dan = tiny_run.embeddings["ada"], tiny_run.embeddings["dan"]
    assert is_person(ada, tiny_run, "ada", 0.6)
    assert not is_person(dan, tiny_run, "ada", 10.0)  # near enough by a wild threshold, but dan is nearer
    assert not is_person(ada + 1, tiny_run, "ada", 0.6)


def test_an_unknown_identity_is_refused(tiny_run):
    with pytest.raises(RunError, match=r"identity of this run \(ada and dan\), found 'eve'"):
        Swapper(tiny_run, "eve")


def test_somebody_else_in_the_picture_is_not_swapped(tiny_run, short_clips):
    frame = RgbFrame(next(iter(read_frames(short_clips["dan"]))).rgb())
    before = frame.rgb()
    with pytest.raises(NoFaceFound, match=r"expected ada in the picture"):
        swap_frame(Swapper(tiny_run, "dan"), frame, "ada")
    assert np.array_equal(frame.rgb(), before)
    with pytest.raises(NoFaceFound, match="a face in the picture"):
        swap_frame(Swapper(tiny_run, "dan"), RgbFrame(np.full((200, 200, 3), 90, np.uint8)), "ada")


def test_without_consent_to_swapping_nothing_is_drawn(tiny_run, short_clips, facesets):
    limited = replace(tiny_run.consents["dan"], scope=("training",))
    run = replace(tiny_run, consents=tiny_run.consents | {"dan": limited})
    with pytest.raises(ConsentError, match="dan"):
        swap_manifest(Swapper(run, "dan"), "ada", short_clips["ada"])
    frame = RgbFrame(next(iter(read_frames(short_clips["ada"]))).rgb())
    before = frame.rgb()
    with pytest.raises(ConsentError, match="dan"):
        swap_frame(Swapper(run, "dan"), frame)
    assert np.array_equal(frame.rgb(), before)
    assert list(preview_rows(run, list(facesets.values()), 2)) == ["ada", "ada as ada", "dan", "dan as dan"]


def test_a_picture_is_swapped_and_marked(tiny_run, ada_frame, tmp_path):
    write_image(tmp_path / "in.png", ada_frame.rgb())
    assert swap_image(Swapper(tiny_run, "dan"), tmp_path / "in.png", tmp_path / "out.png") == 1
    assert verify(tmp_path / "out.png").state == "marked"
    with pytest.raises(OutputError, match="other than the target"):
        swap_image(Swapper(tiny_run, "dan"), tmp_path / "in.png", tmp_path / "in.png")


def test_the_preview_is_the_converter_on_held_out_faces(tiny_run, facesets):
    rows = preview_rows(tiny_run, list(facesets.values()), n_faces=2)
    assert list(rows) == ["ada", "ada as dan", "dan", "dan as ada"]
    faceset = facesets["ada"]
    record, crop = faceset.kept[-1], faceset.crops()[-1]
    frame = RgbFrame(crop.copy())
    swapper = Swapper(tiny_run, "dan")
    swapper.blend(frame, swapper.convert([swapper.align(frame, face_of_crop(record))])[0])
    assert np.array_equal(rows["ada as dan"][-1], frame.rgb())


@pytest.mark.parametrize("wrong", [{"colour": 2}, {"feather": -1}, {"colour_memory": 1.5}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SwapConfig(**wrong)


def test_the_manifest_names_the_weights_that_drew(tiny_run, short_clips):
    manifest = swap_manifest(Swapper(tiny_run, "dan"), "ada", short_clips["ada"])
    assert manifest.run["sha256"] == sha256_file(tiny_run.folder / "model.safetensors")
    assert Run.load(tiny_run.folder).weights_sha256 == manifest.run["sha256"]
