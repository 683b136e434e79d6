"""Guards around the marks: no unmarked way to write a swap, no switch, nothing taken on trust when reading."""

import ast
import inspect
from pathlib import Path

import pytest

from fslab import label, provenance
from fslab.errors import MediaError
from fslab.provenance import Manifest, metadata, verify

ROOT = Path(__file__).parents[1]


def names_used(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)} | {
        n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)
    }


def test_nothing_but_provenance_opens_a_video_for_frames():
    files = [p.relative_to(ROOT / "fslab") for p in (ROOT / "fslab").rglob("*.py")]
    users = {p.parts[0] for p in files if "VideoWriter" in names_used(ROOT / "fslab" / p)}
    assert users - {"media"} == {"provenance"}


WAYS_TO_WRITE = {
    "VideoWriter", "write_video", "write_image", "encode_image", "movie_session",
    "VideoFrame", "add_stream", "fromarray", "imwrite", "imencode", "imsave", "savefig", "VideoWriter_fourcc",
}  # fmt: skip
UNSWAPPED = {  # what modules write that shows no swap
    "doctor": {"write_video": None},  # a grey ramp, to see that the encoder works
    "extract": {"encode_image": None},  # the crops of a face set
    "stages": {"write_image": ("coverage_card(card)", "doctor_card(diagnosis)")},
    "tune_report": {"write_image": ("to_rgb(plot_search(result))",)},  # a plot
    "bench/curves": {"savefig": None},  # a plot
    "webapp/extract": {"write_image": ("coverage_card(summarise(faceset.identity, records))",)},
    "webapp/swap": {
        "write_image": ("next(islice(read_frames(sample_path(SAMPLE)), SAMPLE_FRAME, None)).rgb()",)
    },  # footage
    "widgets/features": {"encode_image": None},  # what layers make of a picture
    "widgets/kernels": {"encode_image": None},  # what a kernel makes of a picture
    "widgets/training": {"encode_image": None},  # a curve; previews go through `save_preview`
    "widgets/warps": {"encode_image": None},  # a person's own faces, bent
    "webapp/uploads": {"write_image": ("pixels",)},  # a visitor's picture, as it came
    "report": {"write_image": ("unswapped",)},  # footage and truth
    "viz": {"fromarray": None, "savefig": None},  # to draw words on, and plots as text
}


@pytest.mark.parametrize(
    "path",
    [p for p in (ROOT / "fslab").rglob("*.py") if p.parent.name not in ("media", "provenance", "synth")],
    ids=lambda path: path.relative_to(ROOT / "fslab").as_posix(),
)
def test_the_swap_path_has_no_other_way_to_write_a_picture(path):
    allowed = UNSWAPPED.get(path.relative_to(ROOT / "fslab").with_suffix("").as_posix(), {})
    assert names_used(path) & WAYS_TO_WRITE == set(allowed), "write swaps with fslab.provenance"
    for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "write_image":
            assert ast.unparse(call.args[1]) in allowed["write_image"]


@pytest.mark.parametrize("path", sorted((ROOT / "fslab" / "synth").glob("*.py")), ids=lambda path: path.stem)
def test_what_renders_synthetic_people_can_swap_nobody_else(path):
    """Renders carry no marks, so whatever renders must be out of reach of any network that swaps, and of footage."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imports = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    reached = {name.split(".")[1] for name in imports if (name or "").startswith("fslab.")}
    assert not reached & {"swap", "video", "blend", "run", "model", "train", "decoders", "bench"}
    assert not names_used(path) & {"read_footage", "read_samples"}


def test_no_function_has_a_switch_for_the_marks():
    allowed = {
        "save_marked_image": ["path", "image", "manifest"],
        "open_marked_video": ["path", "like", "options", "manifest"],
    }
    for name, parameters in allowed.items():
        assert list(inspect.signature(getattr(provenance, name)).parameters) == parameters
    assert list(inspect.signature(label.VisibleLabel).parameters) == ["frame_size"]
    assert list(inspect.signature(label.VisibleLabel.apply).parameters) == ["self", "frame"]
    for path in [ROOT / "fslab" / "label.py", *(ROOT / "fslab" / "provenance").glob("*.py")]:
        text = path.read_text(encoding="utf-8")
        assert "environ" not in text
        for f in ast.walk(ast.parse(text)):
            if isinstance(f, ast.FunctionDef):
                assert not f.args.defaults, f"{f.name}: an option here could become a switch"
                assert not [d for d in f.args.kw_defaults if d], f.name


def test_xmp_is_read_as_attributes_too_and_entities_are_not_expanded():
    start = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><d xmlns:i="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    assert metadata.declared(f'{start} i:DigitalSourceType="u"/></x:xmpmeta>', {})["DigitalSourceType"] == ("u",)
    assert metadata.declared(f'<!DOCTYPE x [<!ENTITY a "b">]>{start}i:DigitalSourceType="&a;"/></x:xmpmeta>', {}) == {
        "DigitalSourceType": (),
        "AIGC": (),
    }
    assert metadata.declared("<broken", {}) == {"DigitalSourceType": (), "AIGC": ()}


@pytest.mark.parametrize("name", ["a.gif", "a.mkv", "a.txt", "a", "a.manifest.json"])
def test_other_kinds_of_files_are_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"GIF89a")
    with pytest.raises(MediaError, match="PNG, JPEG, WebP, MP4 or MOV"):
        verify(tmp_path / name)


@pytest.mark.parametrize("name", ["a.png", "a.mp4"])
def test_missing_and_damaged_files_are_one_sentence(tmp_path, name):
    with pytest.raises(MediaError, match="no file"):
        verify(tmp_path / name)
    (tmp_path / name).write_text("this is no picture")
    with pytest.raises(MediaError, match="found text") as error:
        verify(tmp_path / name)
    assert "\n" not in str(error.value)


def test_an_input_that_cannot_be_read_is_one_sentence(tmp_path):
    with pytest.raises(MediaError, match="No such file"):
        Manifest.new("swap", [tmp_path / "none.mp4"], {}, [], {})


@pytest.mark.parametrize("value", [float("nan"), object(), {1, 2}, b"x"])
def test_settings_that_are_no_json_are_refused(value):
    with pytest.raises(ValueError, match="settings must be"):
        Manifest.new("swap", [], {}, [], {"a": value})
