import json
from dataclasses import replace

import numpy as np
import pytest
from drawn_people import drawn_faceset

from fslab.cli import main
from fslab.coverage import face_light, look_over
from fslab.data_doctor import advise, examine, pose_words, unseen_poses
from fslab.faceset import FaceSet
from fslab.mesh import OUTLINE
from fslab.viz import doctor_card

N = 120
WAVE = np.sin(np.arange(N) / 5)
USUAL = {"mouth_open": 0.02, "smile": 0.5, "eye_left_open": 0.3, "eye_right_open": 0.3}


def person(name="ada", n=N, folder=None, **changes):
    """Return a face set that turns by 20 degrees, talks and blinks; ``changes`` are arrays of yaw, pitch, mouth, ..."""
    wave = np.resize(WAVE, n)
    shows = {
        "yaw": 20 * wave, "pitch": 5 * np.cos(np.arange(n) / 7), "mouth": 0.1 + 0.1 * np.cos(np.arange(n) / 3),
        "smile": np.full(n, 0.5), "eyes": np.where(np.arange(n) % 12, 0.3, 0.15), "sharpness": np.full(n, 100.0),
        "eye_distance": np.full(n, 60.0), "odd": np.zeros(n),
    } | changes  # fmt: skip
    records = []
    for i, base in enumerate(RECORDS[name][:n]):
        landmarks = np.array([[0, 0], [shows["eye_distance"][i], 0], [1, 1], [1, 2], [2, 2]], np.float32)
        look = {"mouth_open": shows["mouth"][i], "smile": shows["smile"][i], "eye_left_open": shows["eyes"][i]}
        embedding = np.eye(128, dtype=np.float32)[0] + shows["odd"][i] * np.eye(128, dtype=np.float32)[1]
        records.append(
            replace(
                base, pose=(shows["yaw"][i], shows["pitch"][i], 0.0), landmarks=landmarks, embedding=embedding,
                expression=look | {"eye_right_open": shows["eyes"][i]}, sharpness=float(shows["sharpness"][i]),
            )
        )  # fmt: skip
    return replace(SETS[name], records=tuple(records))


RECORDS, SETS = {}, {}


@pytest.fixture(scope="module", autouse=True)
def _people(tmp_path_factory):
    for name in ("ada", "dan"):
        SETS[name] = drawn_faceset(tmp_path_factory.mktemp("people") / name, name, n=N)
        RECORDS[name] = SETS[name].records


def findings(ada, dan):
    return examine([ada, dan], pixels=False).findings


def test_two_people_who_show_the_same_lack_nothing():
    assert findings(person("ada"), person("dan")) == ()
    assert advise([person("ada"), person("dan")]) == []


def test_a_pose_that_only_the_target_takes_is_named_with_what_to_film():
    """A fifth of ada looks up; dan never does, mirrored or not."""
    up = np.where(np.arange(N) < 24, 30.0, 0.0)
    found = findings(person("ada", pitch=up, yaw=np.zeros(N)), person("dan", pitch=np.zeros(N), yaw=np.zeros(N)))
    assert [(f.kind, f.person, f.film) for f in found] == [("pose", "dan", "footage of dan looking up")]
    assert found[0].importance == pytest.approx(0.2)
    assert "24 of 120 faces and dan never does" in found[0].text


def test_a_pose_that_is_there_mirrored_matters_less():
    """Both are turned half of the time, ada to the left and dan to the right: training mirrors faces."""
    turned = np.where(np.arange(N) < 60, 40.0, 0.0)
    found = findings(person("ada", yaw=-turned), person("dan", yaw=turned))
    assert {f.film for f in found} >= {"footage of dan looking far left", "footage of ada looking far right"}
    assert all(f.importance <= 0.5 * 0.4 + 1e-9 for f in found if f.kind == "pose")
    never = findings(person("ada", yaw=-turned), person("dan", yaw=0 * turned))
    assert never[0].importance == pytest.approx(0.5)


def test_unseen_poses_need_three_near_faces():
    ada, dan = look_over(person("ada", yaw=np.zeros(N), pitch=np.zeros(N)), False), person("dan", n=8)

    def turned(k):
        """Return dan with k faces at 5 degrees and the rest far away."""
        poses = [(5.0 if i < k else 60.0, 0.0, 0.0) for i in range(8)]
        return look_over(replace(dan, records=tuple(map(lambda r, p: replace(r, pose=p), dan.records, poses))), False)

    two, three = turned(2), turned(3)
    assert unseen_poses(ada, two, mirrored=False).all()
    assert not unseen_poses(ada, two, mirrored=True).any(), "5 and -5 degrees make four"
    assert not unseen_poses(ada, three, mirrored=False).any()


@pytest.mark.parametrize(
    ("yaw", "pitch", "words"),
    [(0, 0, "ahead"), (-15, 0, "left"), (35, 0, "far right"), (0, 12, "up"), (-40, -9, "far left and down")],
)
def test_poses_in_words(yaw, pitch, words):
    assert pose_words(yaw, pitch) == words


@pytest.mark.parametrize(
    ("change", "kind", "film"),
    [
        ({"mouth": np.linspace(0, 0.1, N)}, "mouth", "footage of dan with the mouth open"),
        ({"eyes": np.full(N, 0.3)}, "eyes", "footage of dan with the eyes shut"),
        ({"smile": np.full(N, 0.5)}, "smile", "footage of dan smiling"),
    ],
)
def test_expressions_that_only_the_target_shows(change, kind, film):
    smiling = np.where(np.arange(N) < 20, 0.6, 0.5)
    found = findings(person("ada", smile=smiling), person("dan", **({"smile": smiling} | change)))
    assert [(f.kind, f.film) for f in found] == [(kind, film)]
    assert "dan never" in found[0].text


def test_the_most_important_comes_first():
    up, open_wide = np.where(np.arange(N) < 60, 30.0, 0.0), np.linspace(0, 0.13, N)
    ahead = {"yaw": 0 * up}
    ada, dan = (
        person("ada", pitch=up, mouth=open_wide, **ahead), person("dan", pitch=0 * up, mouth=open_wide * 0.8, **ahead)
    )  # fmt: skip
    found = findings(ada, dan)
    assert [f.kind for f in found] == ["pose", "mouth"]
    assert found[0].importance > found[1].importance
    assert advise([ada, dan]) == ["footage of dan looking up", "footage of dan with the mouth open"]


def test_few_small_soft_and_still_faces():
    found = findings(
        person("ada", n=30),
        person("dan", eye_distance=np.full(N, 20.0), sharpness=np.full(N, 25.0), mouth=np.full(N, 0.08)),
    )
    kinds = {f.kind: f for f in found}
    assert kinds["count"].person == "ada"
    assert "30 usable faces" in kinds["count"].text
    assert {kinds[k].person for k in ("size", "sharpness", "motion")} == {"dan"}
    assert "4.0 times softer" in kinds["sharpness"].text


def test_faces_that_look_like_somebody_else_are_to_be_dropped_by_name():
    odd = np.where(np.arange(N) == 7, 0.9, 0.0)
    found = findings(person("ada", odd=odd), person("dan"))
    assert [(f.kind, f.crops, f.film) for f in found] == [("drop", ("000007.jpg",), "")]


def test_people_without_faces_or_alone_are_no_reason_to_fail():
    none = replace(person("dan"), records=())
    found = examine([person("ada"), none]).findings
    assert [(f.kind, f.person, f.importance) for f in found] == [("count", "dan", 1.0)]
    assert examine([person("ada")], pixels=False).findings == ()
    doctor_card(examine([person("ada"), none]))


def test_light_is_read_from_the_face_and_left_is_the_pictures():
    face = np.full((64, 64, 3), 100, np.uint8)
    mesh = RECORDS["ada"][0].mesh.copy()
    mesh[:] = mesh[list(OUTLINE)].mean(axis=0)
    angle = np.linspace(0, 2 * np.pi, len(OUTLINE), endpoint=False)
    mesh[list(OUTLINE)] = 31.5 + 20 * np.stack([np.cos(angle), np.sin(angle)], 1)
    level, side, clipped = face_light(face, mesh)
    assert (level, side, clipped) == (pytest.approx(100), pytest.approx(0, abs=1e-6), 0)
    bright = face.copy()
    bright[:, 32:] = 200
    assert face_light(bright, mesh)[1] == pytest.approx(1 / 3, abs=0.04)
    assert face_light(bright[:, ::-1], mesh)[1] == pytest.approx(-1 / 3, abs=0.04)
    bright[:, 32:] = 255
    assert face_light(bright, mesh)[2] == pytest.approx(0.5, abs=0.05)


def test_a_profile_reads_pixels_of_real_faces(facesets):
    profile = look_over(facesets["ada"])
    assert len(profile) == len(facesets["ada"].kept)
    for name in ("yaw", "mouth", "smile", "eyes", "level", "side", "clipped", "sharpness"):
        assert np.isfinite(getattr(profile, name)).all(), name
    assert np.median(profile.level) == pytest.approx(0, abs=0.01)
    assert np.median(profile.smile) == pytest.approx(1)
    assert np.abs(profile.side).max() < 0.5
    assert np.nanmean(profile.gaze) == pytest.approx(0, abs=0.5)
    assert np.isnan(look_over(facesets["ada"], pixels=False).level).all()


def test_the_command_prints_sentences_and_writes_a_picture_and_json(capsys, tmp_path, facesets):
    folders, out = [str(facesets[n].folder) for n in ("ada", "dan")], tmp_path / "out"
    assert main(["dataset", *folders, "--out", str(out)]) == 0
    text = capsys.readouterr().out
    body = json.loads((out / "dataset.json").read_text())
    assert set(body["people"]) == {"ada", "dan"}
    assert body["findings"][0]["text"][:40] in " ".join(text.split())
    importances = [f["importance"] for f in body["findings"]]
    assert importances == sorted(importances, reverse=True)
    assert (out / "dataset.png").stat().st_size > 10_000
    assert main(["dataset", *folders, "--out", str(out)]) == 2
    assert main(["dataset", *folders, "--out", str(out), "--overwrite"]) == 0
    assert main(["dataset", folders[0], folders[0], "--out", str(tmp_path / "b")]) == 2
    assert isinstance(FaceSet.load(facesets["ada"].folder), FaceSet)
