import getpass
import json
import shutil
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from xml.etree import ElementTree

import av
import numpy as np
import pytest
from clips import Clip, make_clip

from fslab import label
from fslab.consent import Consent
from fslab.errors import MediaError, OutputError
from fslab.media import VideoOptions, read_frames, read_image, read_marks, write_image, write_video
from fslab.provenance import Manifest, metadata, open_marked_video, save_marked_image, sidecar_path, verify, writing
from fslab.storage import sha256_file

ROOT = Path(__file__).parents[1]
SAMPLES = ROOT / "samples"
SUFFIXES = [".png", ".jpg", ".jpeg", ".webp"]
LAYERS = ["visible label", "metadata", "manifest", "file hash"]


@dataclass(frozen=True)
class Options:
    feather: float = 0.1
    weights: Path = Path("/Users/somebody/weights/ada.safetensors")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Twelve frames of ada at 160 x 160, with sound."""
    path = tmp_path_factory.mktemp("clip") / "ada's <clip> & 王.mp4"
    frames = (f.rgb()[112:272, 112:272] for f in islice(read_frames(SAMPLES / "ada_target.mp4"), 12))
    write_video(path, frames, Fraction(25), (np.zeros((21120, 2), np.int16), 44000 + 100))
    return path


@pytest.fixture(scope="module")
def manifest(clip):
    consents = [Consent.load(SAMPLES / "consents" / f"{name}.json") for name in ("ada", "dan")]
    run = {"id": "ada-dan", "sha256": "0" * 64, "identities": ["ada", "dan"]}
    settings = {"swap": Options(), "identity": "dan", "scale": np.float32(0.5), "out": "C:\\Users\\bob\\out.mp4"}
    return Manifest.new("swap", [clip], run, consents, settings)


@pytest.fixture(scope="module")
def image():
    return next(read_frames(SAMPLES / "ada_target.mp4")).rgb()


def save_clip(path, clip, manifest):
    with open_marked_video(path, clip, VideoOptions(crf=23), manifest) as video:
        n_frames = 0
        for frame in read_frames(clip):
            video.write(frame)
            n_frames += 1
        video.manifest = video.manifest.with_frames(n_frames, n_frames - 1)
    return path


@pytest.fixture(scope="module")
def marked(tmp_path_factory, clip, image, manifest):
    """A marked file of each kind, by suffix; copy before you change."""
    folder = tmp_path_factory.mktemp("marked")
    files = {suffix: save_clip(folder / f"out{suffix}", clip, manifest) for suffix in (".mp4", ".mov")}
    for suffix in SUFFIXES:
        files[suffix] = folder / f"out{suffix}"
        save_marked_image(files[suffix], image, manifest)
    return files


def copied(path, folder):
    shutil.copy(path, folder / path.name)
    shutil.copy(sidecar_path(path), folder)
    return folder / path.name


def states(report):
    return {layer.name: layer.state for layer in report.layers}


def note(report, name):
    return next(layer.note for layer in report.layers if layer.name == name)


def relabelled(path, xmp=..., **tags):
    """Write an image again with other marks around the same pixels."""
    marks = read_marks(path)
    kept = {k: v for k, v in (marks["tags"] | tags).items() if v is not None}
    write_image(path, read_image(path), xmp=marks["xmp"] if xmp is ... else xmp, text=kept)
    sidecar_path(path).unlink(missing_ok=True)


# Known answers


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".mp4", ".mov"])
def test_a_marked_file_carries_every_layer(marked, suffix):
    report = verify(marked[suffix])
    assert [layer.name for layer in report.layers] == LAYERS
    assert set(states(report).values()) == {"intact"}, report
    assert report.state == "marked"
    assert report.manifest.inputs[0]["name"] == "ada's <clip> & 王.mp4"


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".mp4"])
def test_the_metadata_says_composite_with_a_trained_model(marked, suffix):
    marks = read_marks(marked[suffix])
    root = ElementTree.fromstring(marks["xmp"].split("?>", 1)[1].rsplit("<?", 1)[0])
    text = {element.tag.split("}")[1]: element.text for element in root.iter()}
    uri = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
    assert text["DigitalSourceType"] == marks["tags"]["DigitalSourceType"] == uri
    assert json.loads(text["AIGC"]) == json.loads(marks["tags"]["AIGC"])
    assert list(json.loads(text["AIGC"])) == [
        "Label", "ContentProducer", "ProduceID", "ReservedCode1", "ContentPropagator", "PropagateID", "ReservedCode2",
    ]  # fmt: skip
    assert json.loads(text["AIGC"])["Label"] == "1"
    assert json.loads(marks["tags"]["fslab"])["action"] == "swap"


def test_the_sidecar_holds_the_manifest_the_hash_and_the_frame_counts(marked):
    path = marked[".mp4"]
    sidecar = json.loads(sidecar_path(path).read_text(encoding="utf-8"))
    assert sidecar_path(path).name == "out.mp4.manifest.json"
    assert sidecar["file"] == {"name": "out.mp4", "sha256": sha256_file(path)}
    assert (sidecar["manifest"]["frames"], sidecar["manifest"]["swapped_frames"]) == (12, 11)
    assert "11 of 12 frames swapped" in note(verify(path), "manifest")


def test_every_frame_of_a_clip_is_labelled_and_its_sound_is_kept(marked):
    scores = [label.VisibleLabel((160, 160)).found_in(f.rgb()) for f in read_frames(marked[".mp4"])]
    assert len(scores) == 12
    assert min(scores) >= 0.8
    with av.open(str(marked[".mp4"])) as container:
        assert len(container.streams.audio) == 1


def test_the_manifest_names_no_folder_and_no_user(manifest, marked):
    for text in (json.dumps(manifest.to_dict()), sidecar_path(marked[".mp4"]).read_text(encoding="utf-8")):
        for secret in ("somebody", "Users", "bob", str(ROOT), f"/{getpass.getuser()}/"):
            assert secret not in text
    assert manifest.settings["swap"]["weights"] == "ada.safetensors"
    assert manifest.settings["out"] == "out.mp4"
    assert "confirmed_by" not in manifest.consents[0]


def test_the_manifest_holds_hashes_of_all_that_went_in(manifest, clip, image, tmp_path):
    assert manifest.inputs == ({"name": clip.name, "sha256": sha256_file(clip)},)
    assert [(c["person"], c["synthetic"], len(c["sha256"])) for c in manifest.consents] == [
        ("ada", True, 64),
        ("dan", True, 64),
    ]
    assert manifest.run["identities"] == ["ada", "dan"]
    assert manifest.created.endswith("Z")
    assert len(manifest.created) == len("2026-11-22T12:00:00Z")
    save_marked_image(tmp_path / "a.png", image, manifest)
    assert verify(tmp_path / "a.png").manifest.label == {
        "text": label.TEXT,
        "box": [int(v) for v in label.VisibleLabel(image.shape[:2]).box],
    }


# Properties


def test_the_image_passed_in_is_not_changed(image, manifest, tmp_path):
    before = image.copy()
    save_marked_image(tmp_path / "a.png", image, manifest)
    assert (image == before).all()
    assert (read_image(tmp_path / "a.png") != before).any()


def test_the_label_and_metadata_survive_a_jpeg_at_quality_75(marked, tmp_path):
    from PIL import Image

    path = tmp_path / "shared.jpg"
    with Image.open(marked[".jpg"]) as picture:
        picture.save(path, quality=75, exif=picture.getexif(), xmp=picture.info["xmp"])
    report = verify(path)
    assert report.state == "marked"
    assert states(report) == dict(zip(LAYERS, ["intact", "intact", "intact", "missing"]))


# What is lost or changed


def test_footage_that_was_never_marked_is_unmarked(tmp_path, image):
    assert verify(SAMPLES / "ada.mp4").state == "unmarked"
    write_image(tmp_path / "a.jpg", image)
    report = verify(tmp_path / "a.jpg")
    assert report.state == "unmarked"
    assert set(states(report).values()) == {"missing"}


def test_a_file_without_its_sidecar_is_still_marked_and_the_note_says_so(marked, tmp_path):
    path = copied(marked[".mp4"], tmp_path)
    sidecar_path(path).unlink()
    report = verify(path)
    assert report.state == "marked"
    assert states(report)["file hash"] == "missing"
    assert "out.mp4.manifest.json" in note(report, "file hash")


def test_a_renamed_pair_is_marked(marked, tmp_path):
    shutil.copy(marked[".png"], tmp_path / "new name.png")
    shutil.copy(sidecar_path(marked[".png"]), sidecar_path(tmp_path / "new name.png"))
    assert verify(tmp_path / "new name.png").state == "marked"


def test_one_byte_more_breaks_the_hash(marked, tmp_path):
    path = copied(marked[".png"], tmp_path)
    path.write_bytes(path.read_bytes() + b"\0")
    report = verify(path)
    assert report.state == "broken"
    assert states(report) == dict(zip(LAYERS, ["intact", "intact", "intact", "broken"]))


def test_a_cropped_picture_is_broken(marked, tmp_path):
    path = copied(marked[".png"], tmp_path)
    marks = read_marks(path)
    write_image(path, read_image(path)[:320], xmp=marks["xmp"], text=marks["tags"])
    assert states(verify(path))["visible label"] == "missing"
    assert verify(path).state == "broken"


def test_a_painted_over_label_is_broken(marked, tmp_path):
    path = copied(marked[".png"], tmp_path)
    marks, pixels = read_marks(path), read_image(path)
    x0, y0, x1, y1 = label.VisibleLabel(pixels.shape[:2]).box
    pixels[y0:y1, (x0 + x1) // 2 : x1] = 30
    write_image(path, pixels, xmp=marks["xmp"], text=marks["tags"])
    assert states(verify(path))["visible label"] == "broken"
    assert verify(path).state == "broken"


@pytest.mark.parametrize("ticks", [(0, 512, 1024, 1536, 2048, 17920), (0, 12800), (6400,)])
def test_a_clip_whose_last_frame_is_shown_long_is_marked(manifest, tmp_path, ticks):
    source = make_clip(tmp_path / "clip.mp4", Clip(ticks=ticks, last=128000))
    report = verify(save_clip(tmp_path / "out.mp4", source, manifest))
    assert report.state == "marked"
    assert f"in {min(len(ticks), 5)} picture(s)" in note(report, "visible label")


def test_a_clip_whose_last_frame_is_unlabelled_is_broken(clip, manifest, tmp_path):
    path, frames = tmp_path / "out.mp4", list(read_frames(clip))
    with open_marked_video(path, clip, VideoOptions(), manifest) as video:
        for frame in frames[:-1]:
            video.write(frame)
        video._writer.write(frames[-1])
    report = verify(path)
    assert states(report)["visible label"] == "broken"
    assert note(report, "visible label").startswith("whole in 4 of 5")


def test_a_clip_labelled_only_in_its_first_half_is_broken(clip, manifest, tmp_path):
    path = tmp_path / "half.mp4"
    drawn = label.VisibleLabel((160, 160))
    with writing.VideoWriter(path, clip, VideoOptions(), metadata.tags(manifest), metadata.xmp(manifest)) as writer:
        for frame in read_frames(clip):
            if frame.index < 6:
                drawn.apply(frame)
            writer.write(frame)
    report = verify(path)
    assert states(report)["visible label"] == "broken"
    assert "whole in 2 of 5" in note(report, "visible label")
    assert report.state == "broken"


def test_a_picture_whose_metadata_was_stripped_is_broken(marked, tmp_path):
    path = copied(marked[".png"], tmp_path)
    relabelled(path, xmp=None, AIGC=None, DigitalSourceType=None, fslab=None)
    report = verify(path)
    assert states(report) == dict(zip(LAYERS, ["intact", "missing", "missing", "missing"]))
    assert report.state == "broken"


def test_a_clip_remuxed_by_another_tool_is_broken(marked, tmp_path):
    path = tmp_path / "out.mp4"
    with av.open(str(marked[".mp4"])) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    report = verify(path)
    assert states(report) == dict(zip(LAYERS, ["intact", "missing", "missing", "missing"]))
    assert report.state == "broken"


@pytest.mark.parametrize(
    ("tags", "layer"),
    [
        ({"DigitalSourceType": "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture"}, "metadata"),
        ({"AIGC": '{"Label": "3"}'}, "metadata"),
        ({"AIGC": "[" * 99999}, "metadata"),
        ({"fslab": "{"}, "manifest"),
        ({"fslab": "[" * 99999}, "manifest"),
        ({"fslab": '{"schema": 1}'}, "manifest"),
    ],
)
def test_changed_metadata_is_broken(marked, tmp_path, tags, layer):
    path = copied(marked[".png"], tmp_path)
    relabelled(path, **tags)
    report = verify(path)
    assert states(report)[layer] == "broken"
    assert report.state == "broken"


def test_another_files_manifest_is_found_out(marked, manifest, tmp_path):
    path = copied(marked[".png"], tmp_path)
    other = metadata.tags(replace(manifest, action="another"))
    relabelled(path, fslab=other["fslab"])
    assert note(verify(path), "metadata") == "AIGC names another manifest"
    path = copied(marked[".jpg"], tmp_path)
    sidecar = json.loads(sidecar_path(path).read_text(encoding="utf-8"))
    sidecar["manifest"]["settings"] = {}
    sidecar_path(path).write_text(json.dumps(sidecar))
    assert states(verify(path)) == dict(zip(LAYERS, ["intact", "intact", "broken", "intact"]))


@pytest.mark.parametrize("content", [b"", b"null", b"[]", b"7", b'{"file": 1, "manifest": 2}', b"\xff", b"[" * 99999])
def test_a_damaged_sidecar_is_broken(marked, tmp_path, content):
    path = copied(marked[".png"], tmp_path)
    sidecar_path(path).write_bytes(content)
    report = verify(path)
    assert states(report) == dict(zip(LAYERS, ["intact", "intact", "broken", "broken"]))
    assert report.state == "broken"


def test_marks_of_other_tools_are_named_but_are_not_ours(image, tmp_path):
    path = tmp_path / "a.png"
    uri = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
    write_image(path, image, text={"DigitalSourceType": f"{uri}\x1b[31m"})
    report = verify(path)
    assert report.state == "unmarked"
    assert note(report, "metadata") == f"another tool says {uri}[31m"


# Writing


def test_a_clip_that_fails_leaves_what_was_there(clip, manifest, marked, tmp_path):
    path = copied(marked[".mp4"], tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(KeyError), open_marked_video(path, clip, VideoOptions(), manifest) as video:
        video.write(next(read_frames(clip)))
        raise KeyError
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_sidecar_that_cannot_be_written_leaves_a_whole_marked_file(image, manifest, tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    save_marked_image(path, image[:200], manifest)

    def full(*_):
        raise OutputError("enough free disk space", "the disk is full", "free some space")

    monkeypatch.setattr(writing, "write_json", full)
    with pytest.raises(OutputError, match="disk is full"):
        save_marked_image(path, image, manifest)
    assert read_image(path).shape == image.shape
    assert verify(path).state == "marked", "an old sidecar must not accuse the new file"


def test_a_second_result_replaces_the_first_with_its_sidecar(image, manifest, tmp_path):
    for pixels in (image, image[:200, :300]):
        save_marked_image(tmp_path / "a.webp", pixels, manifest)
    assert verify(tmp_path / "a.webp").state == "marked"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.webp", "a.webp.manifest.json"]


def test_the_same_image_and_manifest_make_the_same_file(image, manifest, tmp_path):
    for name in ("a.png", "b.png"):
        save_marked_image(tmp_path / name, image, manifest)
    assert sha256_file(tmp_path / "a.png") == sha256_file(tmp_path / "b.png")


# Refusals


def test_an_image_too_small_for_a_label_is_not_written(manifest, tmp_path):
    with pytest.raises(MediaError, match="48 x 48"):
        save_marked_image(tmp_path / "a.png", np.zeros((16, 16, 3), np.uint8), manifest)
    assert not list(tmp_path.iterdir())
