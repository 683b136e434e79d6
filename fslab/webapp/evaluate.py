"""Step 5: how good a swapped clip is, where it is worst, and the figures to take away."""

from collections.abc import Sequence
from pathlib import Path

import gradio as gr
import pandas as pd

from fslab.errors import FslabError
from fslab.evaluate import METRICS, EvalReport
from fslab.report import REPORT_FILE
from fslab.samples import sample_path
from fslab.storage import read_json
from fslab.webapp.folders import Visitor
from fslab.webapp.lab import Lab, command_of, told
from fslab.webapp.store import find_person, people, results
from fslab.webapp.swap import SAMPLE
from fslab.webapp.words import Language, language_of, phrase, text, word

TRUTH = "ada_as_dan_truth.mp4"
N_WORST = 4


def clip_results(visitor: Visitor) -> list[tuple[str, str]]:
    """Return the swapped clips as (what is shown, id)."""
    clips = [r for r in results(visitor) if r["output"].endswith(".mp4")]
    return [(f"{r['replaced']} → {r['identity']} · {r['id'][:4]}", r["id"]) for r in clips]


def evaluate_argv(visitor: Visitor, result_id: str | None) -> list[object]:
    """Return the command that measures a result, with all that is known: the truth of the packaged clip, the source."""
    about = next((r for r in results(visitor) if r["id"] == result_id), None)
    if about is None:
        raise FslabError("a swapped video", "none", "swap one first")
    output = Path(about["output"])
    argv = ["evaluate", output, "--target", about["target"], "--out", output.parent / "report", "--overwrite"]
    if about["identity"] in [p.name for p in people(visitor) if p.is_extracted]:
        argv += ["--source", find_person(visitor, about["identity"]).faces]
    sample = (about["replaced"], about["identity"]) == ("ada", "dan")
    if sample and Path(about["target"]) == sample_path(SAMPLE):
        argv += ["--truth", sample_path(TRUTH)]
    return argv


def read_report(folder: Path) -> EvalReport:
    """Return the figures of a report folder; raises FslabError if they are damaged."""
    try:
        return EvalReport.from_dict(read_json(folder / REPORT_FILE, "a report", FslabError))
    except ValueError as reason:
        raise FslabError("a report of this version", "another", "evaluate again") from reason


def figures(report: EvalReport, language: Language) -> pd.DataFrame:
    """Return the metrics that could be taken, one a row, headed in the visitor's language."""
    known = {METRICS[n]: v for n, v in report.metrics.items() if v is not None and n in METRICS}
    rows = [
        (phrase(m.title, language), f"{m.text(v)} {phrase(m.unit, language)}".strip(), phrase(m.better, language))
        for m, v in known.items()
    ]
    return pd.DataFrame(rows, columns=[text(k, language) for k in ("metric", "value", "better")])


def frame_curve(values: Sequence[float | None]) -> pd.DataFrame:
    """Return a value a frame for a plot, without the frames where none was taken."""
    known = [(i, float(v)) for i, v in enumerate(values) if v is not None]
    return pd.DataFrame(known, columns=["frame", "value"]).astype(float)


def worst_pictures(folder: Path, report: EvalReport) -> list[tuple[Path, str]]:
    """Return the swapped faces that the report kept, those with the largest pose error first, with their captions."""
    errors = report.per_frame.get("pose_error", [])
    found = []
    for path in (folder / "pictures").glob("*_face_swap.jpg"):
        frame = int(path.name.split("_", 1)[0])
        error = errors[frame] if frame < len(errors) else None
        found.append((error or 0.0, path, f"{frame}: {error or 0:.1f}°"))
    found.sort(key=lambda item: (-item[0], item[1].name))
    return [(path, caption) for _, path, caption in found[:N_WORST]]


def build_evaluate(lab: Lab, visitor: gr.Textbox, news: gr.Textbox) -> tuple[gr.Dropdown, list]:
    """Lay the step out; returns the choice of a result and the events that start a job; ``news`` changes with a job."""
    start, poll = _handlers(lab)
    gr.Markdown(word("evaluate_lead"))
    with gr.Row(equal_height=True):
        result = gr.Dropdown([], label=word("result"), allow_custom_value=True, elem_id="result", scale=3)
        go = gr.Button(word("evaluate"), variant="primary", elem_id="evaluate", scale=1)
    table = gr.Dataframe(label=word("metrics"), interactive=False, elem_id="figures", wrap=True)
    plot = gr.LinePlot(x="frame", y="value", label=word("per_frame"), height=280, x_title=word("frame"), y_title="°")
    worst = gr.Gallery(
        label=word("worst"), columns=4, fit_columns=False, height=260, interactive=False, elem_id="worst"
    )
    get = gr.DownloadButton(word("report"))
    seen = gr.State("")
    shown = [seen, table, plot, worst, get]
    news.change(poll, [visitor, seen], shown, show_progress="hidden", api_visibility="private")
    return result, [go.click(start, [visitor, result], None, api_name="evaluate")]


def _handlers(lab: Lab) -> tuple:
    @told
    def start(name, result, request: gr.Request):
        who = lab.worker(name, request)
        lab.book.submit(who, "evaluate", "swap", evaluate_argv(who, result))

    @told
    def poll(name, seen, request: gr.Request):
        who = lab.visitor(name)
        job, now = lab.change(who, "evaluate", seen)
        if not (job and job.state == "done"):
            return [now, *[gr.skip()] * 4]
        folder = Path(command_of(job)[command_of(job).index("--out") + 1])
        report = read_report(folder)
        worst = [(str(p), caption) for p, caption in worst_pictures(folder, report)]
        curve = frame_curve(report.per_frame.get("pose_error", []))
        return now, figures(report, language_of(request)), curve, worst, str(folder / REPORT_FILE)

    return start, poll
