"""Clips, portrait sheets and labelled faces of synthetic people, rendered small."""

import json
import shutil
from dataclasses import asdict, replace

import av
import numpy as np
import pytest

from fslab.consent import Consent
from fslab.errors import MediaError, OutputError
from fslab.geometry import align_matrix, crop_template
from fslab.labels import ClipLabels
from fslab.media import decode_image, read_frames, read_image
from fslab.mesh import five_points
from fslab.synth.assets import UNITS
from fslab.synth.clip import ClipConfig, ClipFiles, content_hash, person_name, render_clip, synthetic_consent
from fslab.synth.faces import FacesConfig, frame_face, render_face, render_faces, render_person
from fslab.synth.head import Head
from fslab.synth.identity import draw_identity
from fslab.synth.portrait import ROWS, PortraitConfig, portrait_sheet
from fslab.synth.ranges import RANGES, motion_range
from fslab.synth.scene import Attributes
from fslab.synth.takes import Take, load_frames, load_labels, render_take, start_work

CONFIG = ClipConfig(1007, seconds=0.16, size=64, motion_seed=3)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return render_clip(CONFIG, tmp_path_factory.mktemp("clip") / "a.mp4")


def test_a_clip_has_frames_a_voice_labels_a_description_and_a_consent_beside_it(clip):
    frames = [frame.rgb() for frame in read_frames(clip.video)]
    assert len(frames) == 4
    assert {f.shape for f in frames} == {(64, 64, 3)}
    with av.open(str(clip.video)) as container:
        assert len(container.streams.audio) == 1
        assert float(container.streams.video[0].average_rate) == 25
    labels = ClipLabels.load(clip.labels)
    assert len(labels) == 4
    assert labels.size == (64, 64)
    assert tuple(labels.units) == tuple(UNITS)
    about = json.loads(clip.about.read_text())
    assert about["config"] == asdict(CONFIG)
    assert about["identity"] == draw_identity(1007).to_dict()
    assert [Attributes.from_dict(a) for a in about["attributes"]] == list(CONFIG.take().track)
    consent = Consent.load(clip.consent)
    assert consent.synthetic
    assert consent.person == person_name(1007)
    assert not clip.work.exists()


def test_the_labels_say_what_the_attributes_said_and_lie_where_the_face_is(clip):
    labels, track = ClipLabels.load(clip.labels), CONFIG.take().track
    assert labels.pose == pytest.approx(np.array([(a.yaw, a.pitch, a.roll) for a in track], np.float32))
    assert labels.gaze == pytest.approx(np.array([a.gaze for a in track], np.float32))
    i = list(UNITS).index("jawOpen")
    assert labels.expression[:, i] == pytest.approx([a.expression.get("jawOpen", 0) for a in track])
    for t in range(4):
        x, y = labels.landmarks[t, 17:].round().astype(int).T  # brows, nose, eyes, mouth
        assert (labels.face[t, y, x] > 100).mean() > 0.9
    assert np.isfinite(labels.flow.astype(float)).any(axis=(1, 2, 3)).all()


def test_the_video_is_nearly_the_frames_and_the_hash_is_that_of_the_frames(clip, tmp_path):
    take = CONFIG.take()
    render_take(take, tmp_path / "work")
    frames = list(load_frames(tmp_path / "work", take))
    assert json.loads(clip.about.read_text())["hash"] == content_hash(frames)  # a second render, byte for byte
    shown = np.stack([frame.rgb() for frame in read_frames(clip.video)]).astype(float)
    error = np.sqrt(((shown - np.stack(frames)) ** 2).mean())
    assert error < 4  # the colours of 4:2:0 at 64 pixels; 36 dB


def test_an_interrupted_render_resumes_and_gives_the_same_frames_and_labels(clip, tmp_path):
    take = CONFIG.take()

    def stop_after(n, calls):
        calls.append(1)
        if len(calls) == n:
            raise KeyboardInterrupt

    calls = []
    with pytest.raises(KeyboardInterrupt):
        render_take(take, tmp_path / "w", lambda: stop_after(2, calls))
    done = sorted(p.name for p in (tmp_path / "w").glob("*.png"))
    assert done == ["000000.png", "000001.png"]
    before = (tmp_path / "w" / "000001.png").stat().st_mtime_ns
    render_take(take, tmp_path / "w")
    assert (tmp_path / "w" / "000001.png").stat().st_mtime_ns == before
    assert content_hash(load_frames(tmp_path / "w", take)) == json.loads(clip.about.read_text())["hash"]
    again, first = load_labels(tmp_path / "w", take), ClipLabels.load(clip.labels)
    for name in ("parts", "face", "mesh"):
        assert (getattr(again, name) == getattr(first, name)).all()
    assert np.array_equal(again.flow, first.flow, equal_nan=True)


def test_another_configuration_starts_over_and_other_files_are_never_touched(tmp_path):
    start_work(tmp_path / "w", {"size": 64})
    (tmp_path / "w" / "000000.png").write_bytes(b"old")
    start_work(tmp_path / "w", {"size": 64})
    assert (tmp_path / "w" / "000000.png").exists()
    start_work(tmp_path / "w", {"size": 96})
    assert not (tmp_path / "w" / "000000.png").exists()
    (tmp_path / "w" / "take.json").write_text("{")  # cut off while it was written
    start_work(tmp_path / "w", {"size": 96})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="other files"):
        start_work(tmp_path / "mine", {"size": 64})
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "mine"


def test_a_work_folder_knows_its_people_so_that_those_drawn_anew_start_over():
    take = Take(1007, (Attributes(),), 64, face=1010, fits=1010)
    assert take.to_dict()["people"] == [draw_identity(seed).to_dict() for seed in (1007, 1010, 1010)]


def test_a_damaged_frame_of_a_work_folder_is_named(tmp_path):
    take = Take(1007, (Attributes(),), 64)
    start_work(tmp_path / "w", take.to_dict())
    (tmp_path / "w" / "000000.png").write_bytes(b"no picture")
    with pytest.raises(MediaError, match=r"000000\.png"):
        list(load_frames(tmp_path / "w", take))
    with pytest.raises(MediaError, match=r"000000\.npz"):
        load_labels(tmp_path / "w", take)


def test_what_stands_at_the_output_is_kept_unless_overwrite_is_asked_for(clip, tmp_path):
    for path in clip.all():
        shutil.copy(path, tmp_path / path.name)
    (tmp_path / "a.labels.npz").unlink()
    with pytest.raises(OutputError, match="--overwrite"):
        render_clip(CONFIG, tmp_path / "a.mp4")
    assert (tmp_path / "a.mp4").read_bytes() == clip.video.read_bytes()
    with pytest.raises(MediaError, match=r"\.mp4 or \.mov"):
        render_clip(CONFIG, tmp_path / "a.avi")


def test_a_clip_that_was_stopped_before_its_video_stood_goes_on(clip, tmp_path):
    files = ClipFiles(tmp_path / "a.mp4")
    for path in clip.all()[:-1]:
        shutil.copy(path, tmp_path / path.name)
    with pytest.raises(OutputError, match="--overwrite"):
        render_clip(CONFIG, files.video)  # nothing says that these are its own
    render_take(CONFIG.take(), files.work)
    render_clip(CONFIG, files.video)
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in clip.all()}
    assert json.loads(files.about.read_text()) == json.loads(clip.about.read_text())


def test_a_folder_that_cannot_be_written_is_told_in_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="expected"):
        render_clip(CONFIG, tmp_path / "file" / "a.mp4")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"person": 700}, "a person's seed must be one of"),
        ({"seconds": 0}, "seconds must be above 0"),
        ({"seconds": float("inf")}, "seconds must be above 0 and finite"),
        ({"seconds": float("nan")}, "seconds must be above 0"),
        ({"size": 62}, "even and 64 pixels or more"),
        ({"size": 97}, "even and 64 pixels or more"),
        ({"size": 2050}, "at most 2048, got 2050"),
        ({"fps": 0}, "fps 1 to 120"),
        ({"motion_seed": -1}, "motion_seed 0 or more"),
        ({"motion": "wild"}, "a range must be one of full, never-left"),
        ({"occluder": "mask"}, "occluder must be one of none, glasses, hand"),
        ({"degrade": "fog"}, "degrade must be one of none, noise"),
    ],
)
def test_a_clip_that_cannot_be_is_refused_in_one_sentence(values, message):
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **values)


def test_the_files_of_a_clip_are_named_after_it(tmp_path):
    names = [path.name for path in ClipFiles(tmp_path / "b.c.mp4").all()]
    assert names == ["b.c.labels.npz", "b.c.json", "b.c.consent.json", "b.c.mp4"]


def test_a_synthetic_consent_covers_everything_and_says_that_nobody_is_real():
    consent = synthetic_consent(7)
    assert consent.synthetic
    assert consent.scope == ("training", "swapping", "publishing")


def test_a_voice_lasts_as_long_as_the_frames(clip):
    with av.open(str(clip.video)) as container:
        sound = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)
        assert container.streams.audio[0].rate == 16000
    assert 0.16 * 16000 <= sound.shape[1] < 0.16 * 16000 + 4 * 1024  # AAC pads to whole blocks


# Ranges


def test_ranges_leave_out_what_their_names_say():
    assert motion_range("full").yaw[0] < -20
    assert motion_range("never-left").yaw[0] > -10
    assert motion_range("mouth-shut").mouth == 0
    assert RANGES["narrow"].yaw[1] < 10


# Portrait


def test_a_portrait_sheet_shows_every_picture_and_says_that_nobody_is_real():
    n = sum(map(len, ROWS.values()))
    hero, cells = np.full((300, 300, 3), 200, np.uint8), [np.full((96, 96, 3), 90, np.uint8)] * n
    sheet = portrait_sheet(hero, cells, 7)
    assert (sheet == 200).all(axis=2).sum() >= 300 * 300
    assert (sheet == 90).all(axis=2).sum() > 0.7 * n * 96 * 96
    assert PortraitConfig(7).size % 2 == 0


# Faces


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    config = FacesConfig(people=2, each=2, size=64, sharing=0)
    return config, render_faces(config, tmp_path_factory.mktemp("faces") / "faces")


def test_faces_are_aligned_labelled_and_counted(faces):
    config, folder = faces
    index = json.loads((folder / "index.json").read_text())
    assert (index["images"], index["people"], len(index["hash"])) == (4, 2, 64)
    rows = [json.loads(line) for line in (folder / "images.jsonl").read_text().splitlines()]
    people = [json.loads(line) for line in (folder / "people.jsonl").read_text().splitlines()]
    assert people == [draw_identity(seed).to_dict() for seed in (1000, 1001)]
    with np.load(folder / "labels.npz") as data:
        labels = dict(data)
    template = crop_template(64, config.coverage)
    for i, row in enumerate(rows):
        assert read_image(folder / row["file"]).shape == (64, 64, 3)
        stem = folder / row["file"].removesuffix(".jpg")
        face = decode_image(stem.with_suffix(".face.png").read_bytes())[..., 0]
        parts = decode_image(stem.with_suffix(".parts.png").read_bytes())[..., 0]
        assert face[16:48, 16:48].mean() > 128  # the crop is filled with the face
        assert parts.max() < 10
        assert np.abs(labels["five"][i] - template).max() < 6
        assert np.allclose(align_matrix(labels["five"][i], 64, config.coverage), [[1, 0, 0], [0, 1, 0]], atol=0.02)
    assert (labels["seed"] == [1000, 1000, 1001, 1001]).all()
    assert labels["expression"].shape == (4, 52)


def test_faces_that_were_stopped_go_on_with_what_is_missing(faces, tmp_path):
    config, folder = faces
    for part in ("faces", "done"):
        (tmp_path / part / "1000").mkdir(parents=True)
    kept, lost = (tmp_path / "faces" / "1000" / name for name in ("00.jpg", "01.jpg"))
    for name in ("00", "01"):
        (tmp_path / "done" / "1000" / f"{name}.json").write_text("{}")
    kept.write_bytes(b"kept")
    assert render_person(config, 1000, tmp_path) == 2
    assert kept.read_bytes() == b"kept"
    assert lost.read_bytes() == (folder / "faces" / "1000" / "01.jpg").read_bytes()


def test_with_same_attributes_everybody_shows_the_same(faces):
    _, folder = faces
    with np.load(folder / "labels.npz") as data:
        for name in ("pose", "gaze", "expression", "light"):
            assert (data[name][:2] == data[name][2:]).all()
    other = FacesConfig(people=2, each=2)
    assert other.attributes(1000, 0) != other.attributes(1001, 0)


def test_a_face_fills_its_crop_whatever_the_pose():
    head = Head(draw_identity(1002))
    for yaw, roll in ((0, 0), (30, 15), (-35, -10)):
        parts = head.parts(Attributes(yaw=yaw, roll=roll))
        camera, side = frame_face(parts, Attributes(yaw=yaw, roll=roll), 64, 0.64)
        assert 64 <= side <= 64 * 1.42
        assert 2 < camera.fov < 13


def test_the_exact_points_of_a_face_are_in_its_crop():
    face = render_face(Head(draw_identity(1003)), Attributes(yaw=20, roll=8), 64, 0.64)
    assert np.abs(align_matrix(five_points(face.mesh), 64, 0.64) - [[1, 0, 0], [0, 1, 0]]).max() < 0.02
    assert face.crop.shape == (64, 64, 3)
    assert face.masks["face"][32, 32] > 200


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"first": 7}, "people for training have seeds 1000 to 2999"),
        ({"people": 3000}, "people for training have seeds 1000 to 2999"),
        ({"people": 0}, "people for training"),
        ({"size": 32}, "size must be 64 to 2048"),
        ({"coverage": 0}, "coverage 0.2 to 1"),
        ({"each": 0}, "each must be 1 to 10000"),
        ({"motion": "wild"}, "a range must be one of"),
    ],
)
def test_faces_that_cannot_be_are_refused_in_one_sentence(values, message):
    with pytest.raises(ValueError, match=message):
        FacesConfig(**values)
