"""The course: every cell run, every exercise solved once with fslab's own answer, budgets, links, the same bytes."""

import ast
import os
import re
import statistics
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("jupytext")
pytest.importorskip("nbclient")

import jupytext
import nbclient

from fslab.cli import main
from fslab.cli_labs import copy_labs

LABS = Path(__file__).parents[1] / "labs"
SOURCES = sorted((LABS / "src").glob("[0-9]*.py"))
IDS = [path.stem for path in SOURCES]
SECONDS = 300  # a cell may take in a run-through on a busy machine
each = pytest.mark.parametrize("source", SOURCES, ids=IDS)


def cells(source, kind):
    return [cell.source for cell in jupytext.read(source).cells if cell.cell_type == kind]


def exercises(source):
    """Return (name, text of the answer, text of the cases) of each ``check(my_..., answer, cases...)`` of a cell."""
    found = []
    for node in ast.parse(source).body:
        call = node.value if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) else None
        if call and getattr(call.func, "id", "") == "check":
            mine, answer, *cases = (ast.get_source_segment(source, a) for a in call.args)
            found.append((mine, answer, ", ".join(cases)))
    return found


def with_answers(source):
    """Return a lab as a notebook in which each exercise is checked again with fslab's own function in its place."""
    notebook, solved = jupytext.read(source), []
    for cell in notebook.cells:
        solved.append(cell)
        if cell.cell_type == "code":
            for mine, answer, cases in exercises(cell.source):
                solved.append(
                    jupytext.reads(f"# %%\n{mine} = {answer}\ncheck({mine}, {answer}, {cases})", "py").cells[0]
                )
    notebook.cells = solved
    return notebook


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """Run all labs, two at a time, in one working folder; return what each became, or the error that ended it."""
    folder = tmp_path_factory.mktemp("labs")
    environment = os.environ | {"FSLAB_FAST": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}

    def run(source):
        notebook = with_answers(source)
        client = nbclient.NotebookClient(
            notebook, timeout=SECONDS, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
        )
        try:
            client.execute(env=environment)
        except (nbclient.exceptions.CellExecutionError, nbclient.exceptions.CellTimeoutError, RuntimeError) as error:
            return error
        return notebook

    first = run(SOURCES[0])  # it extracts the people, which the others share
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(IDS, [first, *pool.map(run, SOURCES[1:])], strict=True))


@each
def test_every_cell_runs_unsolved_and_solved(source, executed):
    notebook = executed[source.stem]
    if isinstance(notebook, Exception):
        pytest.fail(str(notebook)[-3000:])
    printed = "".join(o.get("text", "") for c in notebook.cells for o in c.get("outputs", []))
    names = {mine for text in cells(source, "code") for mine, _, _ in exercises(text)}
    for name in names:
        assert f"○ {name}: not written yet" in printed
    assert printed.count("✓") >= len(names), "an exercise solved with fslab's own function does not pass"


@each
def test_pictures_have_words_for_those_who_cannot_see_them(source, executed):
    notebook = executed[source.stem]
    assert not isinstance(notebook, Exception)
    pictures = [o for c in notebook.cells for o in c.get("outputs", []) if "image/png" in o.get("data", {})]
    shown = [o for o in pictures if "alt" in o.get("metadata", {}).get("image/png", {})]
    assert len(pictures) >= (1 if source.stem == "12_ship" else 2), "a lab is seen"
    assert all(o["metadata"]["image/png"]["alt"] for o in shown)


@each
def test_a_notebook_is_its_source_and_holds_no_output(source):
    sys.path.insert(0, str(LABS))
    try:
        from build import render
    finally:
        sys.path.remove(str(LABS))
    notebook = LABS / f"{source.stem}.ipynb"
    assert notebook.read_bytes() == render(source), "run `python labs/build.py`"
    assert b'"outputs": []' in notebook.read_bytes()
    assert not re.search(rb'"outputs": \[\s*\{', notebook.read_bytes())


@each
def test_budgets_hold(source):
    code, prose = cells(source, "code"), "\n".join(cells(source, "markdown"))
    lines = [len(text.splitlines()) for text in code]
    assert max(lines) <= 25, f"a cell of {max(lines)} lines"
    assert statistics.median(lines) <= 10
    words = len(re.findall(r"[A-Za-z][A-Za-z'’-]+", prose))
    assert (250 if source.stem.startswith("00") else 400) <= words <= 1500, f"{words} words"
    assert prose.count("**Predict.**") >= 3
    assert sum(len(exercises(text)) for text in code) >= 2
    assert "failure" in prose.lower()
    for heading in ("## Summary · 小结", "## Questions · 思考题", "## Further reading · 延伸阅读"):
        assert heading in prose, heading
    after = prose.split("## Summary · 小结")[1]
    english, chinese = after.split("**中文小结**")
    chinese, questions = chinese.split("## Questions · 思考题")
    assert len(re.findall(r"^\d\. ", english, re.MULTILINE)) == len(re.findall(r"^\d\. ", chinese, re.MULTILINE)) == 5
    assert len(re.findall(r"^\d\. ", questions.split("## Further")[0], re.MULTILINE)) == 3
    for heading in re.findall(r"^##? (.+)$", prose, re.MULTILINE):
        assert re.search(r"[\u4e00-\u9fff]", heading), f"'{heading}' has no Chinese"


@each
def test_a_lab_defines_nothing_but_what_is_the_learners(source):
    for text in cells(source, "code"):
        for node in ast.parse(text).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                assert node.name.startswith("my_"), f"move {node.name} to the package"


def test_links_between_the_labs_resolve():
    for path in (*LABS.glob("*.md"), *SOURCES):
        for target in re.findall(r"\]\((?!https?:)([^)#\s]+)\)", path.read_text(encoding="utf-8")):
            assert (LABS / target).exists(), f"{path.name}: {target}"


def test_check_says_what_is_wrong(capsys):
    from fslab.labs import check

    check(abs, abs, (1,), (-2,))
    assert "agrees with fslab in 2 cases" in capsys.readouterr().out
    with pytest.raises(AssertionError, match="case 2"):
        check(lambda x: x, abs, (1,), (-2,))
    with pytest.raises(AssertionError, match="shape"):
        check(lambda x: [x, x], abs, (1,))


def test_a_copy_is_the_learners_own(tmp_path, capsys):
    copied = copy_labs(tmp_path / "mine")
    assert {p.name for p in copied} >= {f"{s}.ipynb" for s in IDS} | {"README.md", "glossary.md"}
    answer = tmp_path / "mine" / "00_tour.ipynb"
    answer.write_text("my answers")
    assert main(["labs", "--folder", str(tmp_path / "mine"), "--copy-only"]) == 0
    assert answer.read_text() == "my answers"
    assert "0 files copied" in capsys.readouterr().out
