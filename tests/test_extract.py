from dataclasses import replace

import cv2
import numpy as np
import pytest

from fslab.coverage import summarise
from fslab.errors import ConsentError, FaceSetError, NoFaceFound, OutputError
from fslab.extract import ExtractConfig, embed_photo, extract_faces, judge, sharpness
from fslab.faceset import FaceSet
from fslab.geometry import crop_from_frame, transform_points
from fslab.media import read_frames, write_image, write_video


def test_every_frame_gives_one_face_of_one_person(facesets):
    for faceset in facesets.values():
        assert [r.frame for r in faceset.records] == list(range(48))
        assert {r.person for r in faceset.records} == {0}
        assert len({r.track for r in faceset.records}) == 1
        assert len(faceset.kept) >= 40


def test_a_face_set_loads_as_it_was_made(facesets):
    made = facesets["ada"]
    loaded = FaceSet.load(made.folder)
    assert loaded.head() == made.head()
    assert len(loaded.records) == len(made.records)
    for a, b in zip(made.records, loaded.records):
        assert (a.crop, a.frame, a.track, a.keep, a.why) == (b.crop, b.frame, b.track, b.keep, b.why)
        assert np.array_equal(a.matrix, b.matrix)
        assert np.abs(a.mesh - b.mesh).max() <= 0.051


def test_the_stored_matrix_cuts_the_stored_crop(facesets, short_clips):
    faceset = facesets["ada"]
    crops = faceset.crops()
    for frame in read_frames(short_clips["ada"]):
        if frame.index in (0, 20, 47):
            again = crop_from_frame(frame, faceset.records[frame.index].matrix, faceset.size)
            stored = (
                crops[[r.frame for r in faceset.kept].index(frame.index)]
                if faceset.records[frame.index].keep
                else again
            )
            assert np.abs(again.astype(int) - stored).mean() < 2  # JPEG


def test_the_whole_face_lies_inside_its_crop(facesets):
    for faceset in facesets.values():
        points = faceset.crop_meshes()
        assert ((points >= 0) & (points <= faceset.size - 1)).all(axis=2).mean() > 0.999


def test_eyes_lie_level_and_in_the_upper_half_of_the_crop(facesets):
    for faceset in facesets.values():
        for record in faceset.kept:
            eyes = transform_points(record.landmarks, record.matrix)[:2]
            assert abs(eyes[0, 1] - eyes[1, 1]) < 0.06 * faceset.size
            assert eyes[:, 1].max() < 0.5 * faceset.size


def test_sharpness_falls_with_blur():
    crop = np.random.default_rng(0).integers(0, 255, (256, 256, 3), np.uint8)
    values = [sharpness(cv2.GaussianBlur(crop, (0, 0), s) if s else crop) for s in (0, 1, 2, 4)]
    assert values == sorted(values, reverse=True)


def test_rules_drop_and_say_why(facesets):
    records = list(facesets["ada"].records[:8])
    thumbnails = [np.full((32, 32, 3), 20 * i, np.uint8) for i in range(8)]
    thumbnails[5] = thumbnails[4]
    records[1] = replace(records[1], person=3)
    records[2] = replace(records[2], landmarks=records[2].landmarks * 0.1)
    records[3] = replace(records[3], sharpness=0.0)
    records[6] = replace(records[6], pose=(80.0, 0.0, 0.0))
    judged = judge(records, thumbnails, 0, ExtractConfig())
    assert [r.why.split(":")[0].split(" (")[0] for r in judged] == [
        "", "another person", "tiny", "blurry", "", "duplicate", "turned away", "",
    ]  # fmt: skip
    assert [r.keep for r in judged] == [not r.why for r in judged]


def test_coverage_counts_and_warns(facesets):
    card = summarise("ada", facesets["ada"].records)
    assert card.n_faces == 48
    assert card.poses.sum() == card.n_kept
    assert any("usable faces of ada" in w for w in card.warnings)
    assert summarise("ada", []).warnings == ("no usable face of ada: the swap cannot be trained.",)


@pytest.fixture(scope="module")
def two_people(tmp_path_factory, short_clips):
    """ada on the left and dan on the right, then, after a cut, the other way round; dan leaves for some frames."""
    ada, dan = ([f.rgb() for f in read_frames(short_clips[n])] for n in ("ada", "dan"))
    frames = [np.hstack([a, d] if i < 16 else [d, a]) for i, (a, d) in enumerate(zip(ada[:32], dan[:32]))]
    frames += [np.hstack([np.full_like(a, 90), a]) for a in ada[32:44]]
    path = tmp_path_factory.mktemp("two") / "two people.mp4"
    write_video(path, frames, 25)
    return path


def test_people_are_told_apart_by_identity_not_by_place(two_people, tmp_path, consents, facesets):
    result = extract_faces(two_people, tmp_path / "ada", consents["ada"])
    assert len(result.people) == 2
    assert "most frequent of 2" in result.reason
    kept = result.faceset.kept
    right = [r for r in kept if r.box[[0, 2]].mean() > 384]
    left = [r for r in kept if r.box[[0, 2]].mean() < 384]
    assert left
    assert right
    assert all(r.frame < 16 for r in left)
    ada = facesets["ada"].embedding()
    assert np.linalg.norm(result.faceset.embedding() - ada) < 0.4


def test_an_example_photo_chooses_the_person(two_people, tmp_path, consents, facesets, short_clips):
    photo = tmp_path / "dan.png"
    write_image(photo, next(iter(read_frames(short_clips["dan"]))).rgb())
    result = extract_faces(two_people, tmp_path / "dan", consents["dan"], ExtractConfig(example=photo))
    assert "nearest of 2 to 'dan.png'" in result.reason
    assert np.linalg.norm(result.faceset.embedding() - facesets["dan"].embedding()) < 0.4
    assert np.linalg.norm(embed_photo(photo) - facesets["dan"].embedding()) < 0.6


def test_an_example_of_somebody_else_is_refused(short_clips, tmp_path, consents):
    photo = tmp_path / "dan.png"
    write_image(photo, next(iter(read_frames(short_clips["dan"]))).rgb())
    with pytest.raises(NoFaceFound, match=r"expected the person of 'dan.png'.*nearest at 0\.\d\d"):
        extract_faces(short_clips["ada"], tmp_path / "x", consents["ada"], ExtractConfig(example=photo))
    assert [p.name for p in tmp_path.iterdir()] == ["dan.png"]


def test_a_folder_of_pictures_is_footage_too(short_clips, tmp_path, consents):
    pictures = tmp_path / "照片 of ada"
    pictures.mkdir()
    for frame in read_frames(short_clips["ada"]):
        if frame.index % 16 == 0:
            write_image(pictures / f"{frame.index:03d}.png", frame.rgb())
    faceset = extract_faces(pictures, tmp_path / "set", consents["ada"]).faceset
    assert [r.source for r in faceset.records] == ["000.png", "016.png", "032.png"]
    assert len(faceset.sources) == 3
    assert len({r.person for r in faceset.records}) == 1


def test_without_consent_nothing_is_extracted(short_clips, tmp_path, consents):
    expired = replace(consents["ada"], date="2020-01-01", expires="2020-02-01")
    with pytest.raises(ConsentError):
        extract_faces(short_clips["ada"], tmp_path / "x", expired)
    assert not any(tmp_path.iterdir())


def test_footage_without_a_face_is_one_sentence_and_leaves_nothing(tmp_path, consents):
    clip = tmp_path / "wall.mp4"
    write_video(clip, (np.full((120, 160, 3), 90, np.uint8) for _ in range(10)), 25)
    with pytest.raises(NoFaceFound, match=r"expected a face in 'wall.mp4', found none in 10 frames"):
        extract_faces(clip, tmp_path / "x", consents["ada"])
    assert [p.name for p in tmp_path.iterdir()] == ["wall.mp4"]


def test_an_existing_face_set_is_kept_unless_asked(facesets, short_clips, consents):
    with pytest.raises(OutputError, match="exists"):
        extract_faces(short_clips["ada"], facesets["ada"].folder, consents["ada"])
    assert len(FaceSet.load(facesets["ada"].folder).records) == 48


def test_a_damaged_face_set_is_named(facesets, tmp_path):
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(facesets["ada"].folder, broken)
    (broken / "crops" / FaceSet.load(broken).kept[0].crop).write_bytes(b"no picture")
    with pytest.raises(FaceSetError, match="missing or damaged"):
        FaceSet.load(broken).crops()
    (broken / "faces.jsonl").write_text('{"crop": "a.jpg"}\n')
    with pytest.raises(FaceSetError, match="damaged"):
        FaceSet.load(broken)
    with pytest.raises(FaceSetError, match="expected a face set folder"):
        FaceSet.load(tmp_path)


def test_two_extractions_agree_to_the_bit(short_clips, tmp_path, consents, facesets):
    again = extract_faces(short_clips["dan"], tmp_path / "dan", consents["dan"]).faceset
    assert [r.to_row() for r in again.records] == [r.to_row() for r in facesets["dan"].records]
