import errno
import json
import os
from pathlib import Path

import pytest

from fslab import storage
from fslab.errors import OutputError, RunError


def test_a_write_that_fails_leaves_the_old_file_and_no_rest(tmp_path):
    path = tmp_path / "a.json"
    storage.write_json(path, {"old": 1})
    with pytest.raises(RuntimeError), storage.atomic_path(path) as part:
        part.write_text("half")
        raise RuntimeError
    assert json.loads(path.read_text()) == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_full_disk_is_one_sentence_and_loses_nothing(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(OutputError, match="the disk is full"), storage.atomic_path(path) as part:
        part.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert path.read_text() == "old"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_real_full_device_is_explained():
    with (
        pytest.raises(OutputError, match="disk is full"),
        storage.explained("/dev/full"),
        open("/dev/full", "w") as file,
    ):
        file.write("x" * 10**6)
        file.flush()


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "set"
    with storage.atomic_dir(folder) as part:
        (part / "one").write_text("1")
    with pytest.raises(KeyError), storage.atomic_dir(folder) as part:
        (part / "two").write_text("2")
        raise KeyError
    assert [p.name for p in folder.iterdir()] == ["one"]
    with storage.atomic_dir(folder) as part:
        (part / "three").write_text("3")
    assert [p.name for p in folder.iterdir()] == ["three"]
    assert [p.name for p in tmp_path.iterdir()] == ["set"]


def test_an_existing_output_is_refused_unless_asked(tmp_path):
    path = tmp_path / "out.mp4"
    path.write_text("mine")
    with pytest.raises(OutputError, match=r"exists; choose another name or pass --overwrite\.$"):
        storage.prepare_output(path, overwrite=False)
    assert storage.prepare_output(path, overwrite=True) == path
    assert storage.prepare_output(tmp_path / "new" / "x.mp4", overwrite=False).parent.is_dir()


def test_a_file_in_the_place_of_a_folder_is_explained(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="writable path"):
        storage.prepare_output(tmp_path / "file" / "out.mp4", overwrite=False)


def test_json_that_is_missing_or_damaged_names_the_file(tmp_path):
    with pytest.raises(RunError, match=r"expected a run, found no file"):
        storage.read_json(tmp_path / "none.json", "a run", RunError)
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(RunError, match="is not JSON"):
        storage.read_json(tmp_path / "bad.json", "a run", RunError)
    (tmp_path / "bad.jsonl").write_text('{"a": 1}\n{"a"')
    with pytest.raises(RunError, match="is damaged"):
        storage.read_json_lines(tmp_path / "bad.jsonl", "a run", RunError)


def test_json_lines_round_trip(tmp_path):
    rows = [{"name": "ada 三"}, {"name": "dan", "x": [1.5, None]}]
    storage.write_json_lines(tmp_path / "a.jsonl", rows)
    assert storage.read_json_lines(tmp_path / "a.jsonl", "rows", RunError) == rows


def test_hash_has_a_known_answer(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert storage.sha256_file(tmp_path / "a").startswith("ba7816bf")


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_a_folder_can_be_read_by_whoever_may_read_its_neighbours(tmp_path):
    (tmp_path / "plain").mkdir()
    with storage.atomic_dir(tmp_path / "set"):
        pass
    assert (tmp_path / "set").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_only_a_folder_of_the_same_kind_is_replaced(tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    assert storage.prepare_folder(mine, True, "faceset.json") == mine  # empty
    (mine / "photo.jpg").write_text("x")
    with pytest.raises(OutputError, match="with other files"):
        storage.prepare_folder(mine, True, "faceset.json")
    (mine / "faceset.json").write_text("{}")
    assert storage.prepare_folder(mine, True, "faceset.json") == mine
    with pytest.raises(OutputError, match="--overwrite"):
        storage.prepare_folder(mine, False, "faceset.json")


def test_a_leftover_of_a_killed_process_is_no_obstacle(tmp_path):
    for _ in range(2):
        with storage.atomic_dir(tmp_path / "set"), storage.atomic_dir(tmp_path / "set"):
            pass
    assert [p.name for p in tmp_path.iterdir()] == ["set"]
