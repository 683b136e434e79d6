"""Every command end to end, and every bad input: exit code 2 and one line that says expected, found and what to do."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import is_dataclass
from pathlib import Path
from typing import Annotated, get_args, get_origin, get_type_hints

import av
import numpy as np
import pytest
from typing_extensions import Doc

from fslab import cli
from fslab.cli import main
from fslab.consent import Consent
from fslab.media import read_image, write_image, write_video
from fslab.samples import sample_path

ADA_CONSENT = str(sample_path("consents/ada.json"))


def run(capsys, *args):
    code = main([str(a) for a in args])
    out, err = capsys.readouterr()
    return code, out, err


def complaint(capsys, *args):
    """Run a command that must fail politely; return its one line."""
    code, _, err = run(capsys, *args)
    lines = [line for line in err.splitlines() if line.strip()]
    assert code == 2, (code, err)
    assert len(lines) == 1, err
    assert re.match(r"fslab: expected .+, found .+; .+\.$", lines[0]), lines[0]
    return lines[0]


def extract(capsys, footage, out):
    return complaint(capsys, "extract", footage, out, "--identity", "ada", "--consent", ADA_CONSENT)


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    """A folder of inputs that cannot be used."""
    folder = tmp_path_factory.mktemp("bad")
    good = sample_path("ada.mp4").read_bytes()
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("<html>not a video</html>")
    (folder / "truncated.mp4").write_bytes(good[: len(good) // 3])
    write_image(folder / "dot.png", np.zeros((1, 1, 3), np.uint8))
    write_video(folder / "wall.mp4", (np.full((96, 128, 3), 80, np.uint8) for _ in range(5)), 25)
    with av.open(str(folder / "sound.mp4"), "w") as file:
        stream = file.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 44100), np.float32), format="fltp", layout="mono")
        frame.rate = 44100
        for packet in [*stream.encode(frame), *stream.encode()]:
            file.mux(packet)
    return folder


@pytest.mark.parametrize("name", ["missing.mp4", "empty.mp4", "text.mp4", "wall.mp4", "dot.png", "sound.mp4"])
def test_footage_that_cannot_be_used(capsys, bad, tmp_path, name):
    line = extract(capsys, bad / name, tmp_path / "faces")
    assert name in line
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["missing.mp4", "empty.mp4", "text.mp4", "truncated.mp4", "wall.mp4", "sound.mp4"])
def test_a_target_that_cannot_be_used(capsys, bad, tmp_path, tiny_run, name):
    line = complaint(capsys, "swap", tiny_run.folder, bad / name, tmp_path / "out.mp4", "--identity", "dan")
    assert name in line
    assert "image" not in line
    complaint(capsys, "evaluate", bad / name, "--target", sample_path("ada_target.mp4"), "--out", tmp_path / "report")
    assert not any(tmp_path.iterdir())


def test_other_peoples_folders_are_never_replaced(capsys, tmp_path, short_clips):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.txt").write_text("mine")
    args = ("--identity", "ada", "--consent", ADA_CONSENT, "--overwrite")
    complaint(capsys, "extract", short_clips["ada"], tmp_path / "photos", *args)
    complaint(capsys, "extract", short_clips["ada"], short_clips["ada"].parent, *args)
    complaint(capsys, "demo", "--out", tmp_path / "photos", "--overwrite")
    assert (tmp_path / "photos" / "a.txt").read_text() == "mine"


@pytest.mark.parametrize("encoder", ["timm:vit_base_patch16_224", "timm:no_such_net"])
def test_an_encoder_that_does_not_fit(capsys, tmp_path, facesets, encoder):
    folders = [facesets[n].folder for n in ("ada", "dan")]
    assert "timm" in complaint(capsys, "train", *folders, "--out", tmp_path / "run", "--encoder", encoder)
    assert not (tmp_path / "run").exists()


def test_a_truncated_video(capsys, bad, tmp_path):
    extract(capsys, bad / "truncated.mp4", tmp_path / "faces")
    assert not any(tmp_path.iterdir())


def test_an_8k_picture_is_footage_like_any_other(capsys, tmp_path, tiny_run, short_clips):
    from fslab.media import read_frames

    face = next(iter(read_frames(short_clips["ada"]))).rgb()
    big = np.full((4320, 7680, 3), 70, np.uint8)
    big[1500 : 1500 + 384 * 4, 3000 : 3000 + 384 * 4] = face.repeat(4, 0).repeat(4, 1)
    write_image(tmp_path / "8k.jpg", big)
    code, _, err = run(capsys, "swap", tiny_run.folder, tmp_path / "8k.jpg", tmp_path / "out.jpg", "--identity", "dan")
    assert code == 0, err
    assert read_image(tmp_path / "out.jpg").shape == big.shape
    assert run(capsys, "verify", tmp_path / "out.jpg")[0] == 0


def test_no_consent_no_extraction(capsys, tmp_path, short_clips):
    line = complaint(
        capsys, "extract", short_clips["ada"], tmp_path / "x", "--identity", "ada", "--consent", tmp_path / "none.json"
    )
    assert "none.json" in line
    other = complaint(
        capsys, "extract", short_clips["ada"], tmp_path / "x", "--identity", "eve", "--consent", ADA_CONSENT
    )
    assert "eve" in other
    assert not any(tmp_path.iterdir())


def test_a_place_without_permission(capsys, tmp_path, short_clips):
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    tmp_path.chmod(0o500)
    assert "permission" in extract(capsys, short_clips["ada"], tmp_path / "x")


def test_a_path_below_a_file(capsys, tmp_path, short_clips):
    (tmp_path / "file").write_text("mine")
    extract(capsys, short_clips["ada"], tmp_path / "file" / "x")
    assert (tmp_path / "file").read_text() == "mine"


def test_an_existing_output_is_kept(capsys, tmp_path, tiny_run, short_clips):
    out = tmp_path / "out.mp4"
    out.write_text("mine")
    line = complaint(capsys, "swap", tiny_run.folder, short_clips["ada"], out, "--identity", "dan")
    assert "--overwrite" in line
    assert out.read_text() == "mine"


def test_an_output_of_another_kind(capsys, tmp_path, tiny_run, short_clips):
    complaint(capsys, "swap", tiny_run.folder, short_clips["ada"], tmp_path / "out.avi", "--identity", "dan")
    assert not any(tmp_path.iterdir())


def test_face_sets_of_other_settings_do_not_train_together(capsys, tmp_path, facesets):
    other = tmp_path / "dan"
    shutil.copytree(facesets["dan"].folder, other)
    head = json.loads((other / "faceset.json").read_text())
    (other / "faceset.json").write_text(json.dumps(head | {"coverage": 0.7}))
    line = complaint(capsys, "train", facesets["ada"].folder, other, "--out", tmp_path / "run")
    assert "coverage" in line
    assert not (tmp_path / "run").exists()
    complaint(capsys, "train", facesets["ada"].folder, "--out", tmp_path / "run")
    complaint(capsys, "train", facesets["ada"].folder, tmp_path, "--out", tmp_path / "run")


def test_a_damaged_checkpoint_is_never_trained_over(capsys, tmp_path, tiny_run, facesets, short_clips):
    broken = tmp_path / "run"
    shutil.copytree(tiny_run.folder, broken)
    for name in ("best.safetensors", "model.safetensors", "state.safetensors", "state.prev.safetensors"):
        if (broken / name).exists():
            (broken / name).write_bytes((broken / name).read_bytes()[:1000])
    before = {p.name: p.read_bytes() for p in broken.iterdir() if p.is_file()}
    complaint(capsys, "train", facesets["ada"].folder, facesets["dan"].folder, "--out", broken, "--steps", "20")
    complaint(capsys, "swap", broken, short_clips["ada"], tmp_path / "out.mp4", "--identity", "dan")
    assert {p.name: p.read_bytes() for p in broken.iterdir() if p.is_file()} == before


def test_a_run_goes_on_with_its_own_split_and_state_only(capsys, tmp_path, tiny_run, facesets):
    run_dir, folders = tmp_path / "run", [facesets[n].folder for n in ("ada", "dan")]
    shutil.copytree(tiny_run.folder, run_dir)
    line = complaint(capsys, "train", *folders, "--out", run_dir, "--steps", "14", "--held-out", "0.3")
    assert "held_out 0.1" in line
    shutil.copy(run_dir / "model.safetensors", run_dir / "state.safetensors")
    before = (run_dir / "model.safetensors").read_bytes()
    complaint(capsys, "train", *folders, "--out", run_dir, "--steps", "14")
    assert (run_dir / "model.safetensors").read_bytes() == before


def test_a_run_folder_that_is_not_one(capsys, tmp_path, short_clips, facesets):
    (tmp_path / "notes.txt").write_text("mine")
    assert "run folder" in complaint(
        capsys, "swap", tmp_path, short_clips["ada"], tmp_path / "o.mp4", "--identity", "dan"
    )
    complaint(capsys, "train", facesets["ada"].folder, facesets["dan"].folder, "--out", tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    "args", [["--batch", "0"], ["--lr", "-1"], ["--budget", "soon"], ["--size", "33"], ["--device", "banana"]]
)
def test_a_setting_that_makes_no_sense_is_refused(capsys, tmp_path, facesets, args):
    code = None
    try:
        code, _, err = run(
            capsys, "train", facesets["ada"].folder, facesets["dan"].folder, "--out", tmp_path / "run", *args
        )
    except SystemExit as stop:  # the parser's own refusal
        code, err = stop.code, capsys.readouterr().err
    assert code == 2
    assert err
    assert not (tmp_path / "run").exists()


def test_a_gpu_that_is_not_there_is_not_replaced_silently(capsys, tmp_path, facesets):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is one")
    line = complaint(
        capsys, "train", facesets["ada"].folder, facesets["dan"].folder, "--out", tmp_path / "run", "--device", "cuda"
    )
    assert "fslab doctor" in line


def test_ten_audio_channels(capsys, tmp_path, tiny_run):
    source = tmp_path / "ten.mov"
    with av.open(str(sample_path("ada_target.mp4"))) as given, av.open(str(source), "w") as made:
        video = made.add_stream_from_template(given.streams.video[0])
        sound = made.add_stream("pcm_s16le", rate=48000, layout="5.1.4")
        for packet in given.demux(video=0):
            if packet.dts is not None:
                packet.stream = video
                made.mux(packet)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 10 * 48000 * 3), np.int16), format="s16", layout="5.1.4")
        frame.rate = 48000
        for packet in [*sound.encode(frame), *sound.encode()]:
            made.mux(packet)
    code, _, err = run(capsys, "swap", tiny_run.folder, source, tmp_path / "out.mp4", "--identity", "dan")
    assert code == 0, err
    with av.open(str(tmp_path / "out.mp4")) as out:
        assert out.streams.audio


def test_verify_tells_marked_from_broken_from_unmarked(capsys, tmp_path, tiny_run):
    out = tmp_path / "out.mp4"
    code, text, err = run(capsys, "swap", tiny_run.folder, sample_path("ada_target.mp4"), out, "--identity", "dan")
    assert code == 0, err
    assert "75 of 75 frames" in text
    assert run(capsys, "verify", out)[0] == 0
    assert run(capsys, "verify", sample_path("ada_target.mp4"))[0] == 3
    data = bytearray(out.read_bytes())
    data[len(data) // 2] ^= 0xFF
    out.write_bytes(data)
    assert run(capsys, "verify", out)[0] == 1


def test_evaluate_writes_a_report(capsys, tmp_path, tiny_run, facesets):
    out, target = tmp_path / "out.mp4", sample_path("ada_target.mp4")
    assert run(capsys, "swap", tiny_run.folder, target, out, "--identity", "dan")[0] == 0
    report = tmp_path / "report"
    code, text, err = run(
        capsys, "evaluate", out, "--target", target, "--truth", sample_path("ada_as_dan_truth.mp4"),
        "--source", facesets["dan"].folder, "--out", report,
    )  # fmt: skip
    assert code == 0, err
    assert "losure" in text
    assert (report / "index.html").exists()
    assert (report / "report.json").exists()
    complaint(capsys, "evaluate", out, "--target", sample_path("dan.mp4"), "--out", tmp_path / "other")
    complaint(capsys, "evaluate", out, "--target", target, "--out", report)


def test_consent_records_are_made_and_checked(capsys, tmp_path):
    path = tmp_path / "consents" / "eve.json"
    args = (
        "consent",
        "new",
        "eve",
        "--out",
        path,
        "--confirmed-by",
        "Eve, in person",
        "--scope",
        "training",
        "--synthetic",
    )
    assert run(capsys, *args)[0] == 0
    record = Consent.load(path)
    assert (record.person, record.scope, record.synthetic) == ("eve", ("training",), True)
    code, text, _ = run(capsys, "consent", "show", path)
    assert code == 0
    assert "Eve, in person" in text
    complaint(capsys, *args)
    path.write_text("{")
    complaint(capsys, "consent", "show", path)


def test_doctor_finds_this_machine_ready(capsys):
    code, text, _ = run(capsys, "doctor")
    assert code == 0, text
    assert "one real pass" in text


COMMANDS = (
    cli.Demo,
    cli.Extract,
    cli.Train,
    cli.Swap,
    cli.Evaluate,
    cli.Verify,
    cli.ConsentNew,
    cli.ConsentShow,
    cli.Doctor,
)


def options(config):
    """Return (name, annotation) of every option of a command, those of nested configurations too."""
    for name, hint in get_type_hints(config, include_extras=True).items():
        kind = get_args(hint)[0] if get_origin(hint) is Annotated else hint
        if is_dataclass(kind):
            yield from options(kind)
        else:
            yield name, hint


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c.__name__)
def test_every_option_has_a_name_of_its_own_and_says_what_it_does(command):
    found = list(options(command))
    names = [name for name, _ in found]
    assert len(set(names)) == len(names), [n for n in names if names.count(n) > 1]
    for name, hint in found:
        docs = [d.documentation for d in getattr(hint, "__metadata__", ()) if isinstance(d, Doc)]
        assert docs, f"{command.__name__}.{name} has no help"
        assert docs[0].strip(), f"{command.__name__}.{name} has no help"


@pytest.mark.parametrize("command", ["demo", "extract", "train", "swap", "evaluate", "verify", "consent", "doctor"])
def test_help_is_shown(capsys, command):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert command in capsys.readouterr().out


@pytest.mark.parametrize("preset", ["tiny", "small", "full", "fakeapp"])
def test_a_preset_sets_the_defaults_of_every_other_option(capsys, preset):
    from fslab.model import PRESETS

    with pytest.raises(SystemExit):
        main(["train", "--preset", preset, "--help"])
    shown = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert f"(default: {PRESETS[preset][0].size})" in shown
    assert f"(default: {PRESETS[preset][1].budget})" in shown


def test_ctrl_c_saves_the_training_and_exits_cleanly(tmp_path, facesets):
    out = tmp_path / "run"
    command = [
        sys.executable, "-m", "fslab", "train", str(facesets["ada"].folder), str(facesets["dan"].folder),
        "--out", str(out), "--budget", "10m",
    ]  # fmt: skip
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    log = out / "log.jsonl"
    while not (log.exists() and log.read_text().count("\n") >= 2):
        assert child.poll() is None, child.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.2)
    child.send_signal(signal.SIGINT)
    assert child.wait(60) == 0, child.stderr.read()
    head = json.loads((out / "config.json").read_text())
    assert head["step"] > 0
    assert not head["finished"]
    assert not list(Path(out).glob(".*part*"))
