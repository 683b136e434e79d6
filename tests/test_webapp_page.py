"""The page's words, controls and what its steps do on disk; nothing here serves or trains."""

import ast
import json
import re
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("gradio")

from fslab.consent import Consent
from fslab.errors import ConsentError, FslabError
from fslab.metrics import METRICS
from fslab.samples import sample_path
from fslab.swap import SwapConfig
from fslab.webapp import controls, evaluate, extract, page, store, swap, train, verify, words
from fslab.webapp.folders import new_visitor
from fslab.webapp.settings import AppSettings

PACKAGE = Path(words.__file__).parents[1]


def asking(accept="", **cookies):
    return SimpleNamespace(headers={"accept-language": accept}, cookies=cookies)


@pytest.fixture
def visitor(tmp_path):
    return new_visitor(AppSettings(home=tmp_path))


def test_every_word_is_there_in_both_languages_with_the_same_places():
    for key, english in words.WORDS["en"].items():
        chinese = words.WORDS["zh"][key]
        assert english.strip(), key
        assert chinese.strip(), key
        assert sorted(_places(english)) == sorted(_places(chinese)), key


def _places(sentence):
    from string import Formatter

    return [name for _, name, _, _ in Formatter().parse(sentence) if name]


def test_every_chinese_tag_gets_chinese_and_every_field_is_named():
    told = page.build_i18n().translations
    assert {told[tag]["fslab_swap"] for tag in words.ZH_TAGS} == {"换脸"}
    for control in [*extract.CONTROLS, *train.CONTROLS, *swap.CONTROLS]:
        assert control.help, control.name
        assert told["zh"][f"fslab_help_{control.name}"] != told["en"][f"fslab_help_{control.name}"]


@pytest.mark.parametrize(
    ("accept", "cookies", "wanted"),
    [
        ("zh-CN,zh;q=0.9", {}, "zh"),
        ("de-DE,zh;q=0.8,en;q=0.7", {}, "zh"),
        ("de", {}, "en"),
        ("zh-TW", {words.COOKIE: "en"}, "en"),
        ("en", {words.COOKIE: "zh"}, "zh"),
        ("en", {words.COOKIE: "<script>"}, "en"),
    ],
)
def test_language_of_a_request(accept, cookies, wanted):
    assert words.language_of(asking(accept, **cookies)) == wanted


def test_errors_are_sentences_in_both_languages():
    error = FslabError("a video of at most 20 s", "one of 31 s", "cut it shorter")
    assert words.say(error, asking("en")) == "Expected a video of at most 20 s, found one of 31 s. Cut it shorter."
    assert words.say(error, asking("zh-CN")) == "需要不超过 20 秒的视频，但得到31 秒的视频。请剪短一些。"
    assert "no such" in words.say(FslabError("no such", "x", "y"), asking("zh"))


FOR_WHO_STARTS_IT = ("launch.py", "watching.py")  # said on the server's own terminal, before there is a page
SAID = [
    *sorted(PACKAGE.glob("webapp/*.py")), *sorted(PACKAGE.glob("media/*.py")), *sorted(PACKAGE.glob("provenance/*.py")),
    *(PACKAGE / f"{n}.py" for n in ("consent", "storage", "faces", "faceset", "extract", "run", "swap", "video")),
    *(PACKAGE / f"{n}.py" for n in ("train", "resume", "devices", "evaluate", "labels")),
]  # fmt: skip


def sentences(path):
    """Return the parts of the errors a file raises, and the remarks of the marks it reads; 7 for what is put in."""
    for function in [
        n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.FunctionDef)
    ]:
        named = {}
        for node in ast.walk(function):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                named.setdefault(node.targets[0].id, []).append(node.value)
        for call in [n for n in ast.walk(function) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]:
            if call.func.id == "Layer" or (call.func.id.endswith("Error") and call.func.id != "ValueError"):
                for argument in call.args[2:] if call.func.id == "Layer" else call.args:
                    yield from spelled(argument, named)


def spelled(node, named):
    if isinstance(node, ast.Constant):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(v.value if isinstance(v, ast.Constant) else "7" for v in node.values)
    elif isinstance(node, ast.IfExp):
        yield from spelled(node.body, named)
        yield from spelled(node.orelse, named)
    elif isinstance(node, ast.Name):
        for value in named.get(node.id, ()):
            yield from spelled(value, {})


@pytest.mark.parametrize("path", [p for p in SAID if p.name not in FOR_WHO_STARTS_IT], ids=lambda p: p.stem)
def test_whatever_a_visitor_may_be_told_has_chinese_words(path):
    plain = re.compile(r"(MB|[\W\d_])*")  # a name or a number alone
    missing = {s for s in sentences(path) if words.phrase(s, "zh") == s and not plain.fullmatch(s)}
    assert not missing - {"a 7, '7'"}


def test_every_metric_has_a_chinese_name():
    for metric in METRICS.values():
        for english in (metric.title, metric.unit, metric.better):
            assert english in ("", "dB", "ΔE", "%") or words.phrase(english, "zh") != english


def test_what_is_put_into_a_phrase_is_put_into_chinese_too():
    error = FslabError("consent of 'eve' to swapping", "consent to training only", "ask 'eve' for a wider consent")
    told = words.say(error, asking("zh"))
    assert told == "需要“eve”对“换脸”的同意，但得到只同意了 训练。请让“eve”扩大同意范围。"
    assert words.say(error, asking("en")).startswith("Expected consent of 'eve' to swapping")


def test_a_word_that_is_not_there_is_a_bug():
    with pytest.raises(KeyError):
        words.word("nonsense")


def test_controls_say_only_what_was_changed():
    made = controls.read_controls(SwapConfig(), ["mask", "colour", "feather"])
    assert made[0].choices == ("both", "outline", "decoder")
    assert controls.flags(made, ["both", 1, None]) == []
    assert controls.flags(made, ["outline", 0.5, ""]) == ["--mask", "outline", "--colour", "0.5"]
    with pytest.raises(ValueError, match="fields of SwapConfig"):
        controls.read_controls(SwapConfig(), ["nonsense"])


def test_a_choice_that_still_stands_is_not_set_anew():
    """An answer that was asked for before the visitor chose another must not undo that."""
    assert "value" not in page.offer(["ada", "dan"], "dan")
    assert "value" not in page.offer(["ada", "dan"], ["dan", "ada"])
    assert page.offer(["ada", "dan"], None)["value"] == page.offer(["ada", "dan"], "eve")["value"] == "ada"
    assert page.offer(["ada", "dan", "eve"], ["dan"])["value"] == ["dan", "ada"]
    assert "value" not in page.offer([("ada + dan", "tiny-1")], "tiny-1")
    assert page.offer([], "ada")["value"] is None


def test_a_value_out_of_range_is_refused_before_work():
    values = [c.default for c in swap.CONTROLS]
    values[[c.name for c in swap.CONTROLS].index("colour")] = 3.0
    with pytest.raises(ValueError, match="colour must lie in"):
        swap.read_config(values)


def test_people_are_kept_with_their_consent(visitor):
    added = store.add_packaged(visitor)
    assert [p.name for p in added] == ["ada", "dan"] == [p.name for p in store.people(visitor)]
    record = Consent("../<b>eve</b>".replace("/", ""), "in person", date.today().isoformat())
    eve = store.add_person(visitor, sample_path("ada.mp4"), record)
    assert eve.folder.parent == visitor.people
    assert Consent.load(eve.consent_path) == record
    from fslab.webapp.people import show_people

    assert "<b>eve" not in show_people(store.people(visitor), "en")
    with pytest.raises(FslabError, match="a person of yours"):
        store.find_person(visitor, "nobody")


def test_training_needs_two_extracted_people(visitor):
    store.add_packaged(visitor)
    with pytest.raises(FslabError, match="two or more"):
        train.train_argv(visitor, ["ada"], "tiny", "", "1m")
    with pytest.raises(FslabError, match="extracted faces of ada"):
        train.train_argv(visitor, ["ada", "dan"], "tiny", "", "1m")


def test_runs_and_results_that_are_not_there(visitor, tmp_path):
    with pytest.raises(FslabError, match="a trained run"):
        store.find_run(visitor, AppSettings(home=tmp_path), "../../etc")
    with pytest.raises(FslabError, match="a swapped video"):
        evaluate.evaluate_argv(visitor, "../x")
    assert store.results(visitor) == []


def test_a_curve_is_thinned_and_leaves_gaps_out():
    rows = [{"seconds": i, "loss": 1 / (i + 1)} | ({"score": 0.5} if i % 10 == 0 else {}) for i in range(1000)]
    assert len(train.curve(rows, "loss")) <= 2 * train.POINTS
    assert len(train.curve(rows, "score")) == 100
    assert train.curve([], "loss").empty
    split = train.curve([{"seconds": 1.0, "loss": {"ada": 0.5, "dan": 0.25}}, {"event": "saved"}], "loss")
    assert split.to_dict("list") == {"seconds": [1.0, 1.0], "loss": [0.5, 0.25], "person": ["ada", "dan"]}


def test_marks_are_shown_in_words():
    from fslab.provenance import verify as verify_file

    shown = verify.show_report(verify_file(sample_path("ada_target.mp4")), "zh")
    assert 'role="status"' in shown
    json.dumps(shown)


def test_consent_must_be_a_record():
    with pytest.raises(ConsentError):
        Consent("", "", date.today().isoformat())
