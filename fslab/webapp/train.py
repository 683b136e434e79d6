"""Step 3: training, watched while it runs and found again after a reload."""

import secrets
from pathlib import Path

import gradio as gr
import pandas as pd

from fslab.consent import require_consent
from fslab.errors import FslabError
from fslab.model import PRESETS
from fslab.verdict import judge_curve, read_log
from fslab.webapp.controls import build_controls, flags, read_controls
from fslab.webapp.folders import Visitor
from fslab.webapp.lab import Lab, command_of, told
from fslab.webapp.records import JobState
from fslab.webapp.store import find_person, load_faces
from fslab.webapp.words import language_of, text, word

CONTROLS = read_controls(PRESETS["tiny"][1], ["batch", "lr", "seed", "preview_every", "measure_every"])
ENCODERS = ("small", "fakeapp", "timm:convnext_atto", "timm:mobilenetv3_small_100", "timm:resnet18")
POINTS = 300  # of a curve


def train_argv(visitor: Visitor, names: list[str], preset: str, encoder: str, budget: str) -> list[object]:
    """Return the command that trains on these people into a new run.

    Raises:
        ConsentError: unless each of them agreed to training.
        FslabError: if fewer than two were chosen, or one is not extracted.
    """
    if len(names) < 2:
        fix = "extract two people and choose both"
        raise FslabError("two or more extracted people", f"{len(names)} chosen", fix)
    for name in names:
        require_consent(load_faces(visitor, name).consent, name, "training")
    folder = visitor.runs / f"{preset}-{secrets.token_hex(3)}"
    argv = ["train", *(find_person(visitor, n).faces for n in names), "--out", folder]
    argv += ["--preset", preset, "--budget", budget]
    own = encoder and encoder != PRESETS[preset][0].encoder
    return [*argv, "--encoder", encoder, "--base", "none"] if own else argv


def run_folder(job: JobState) -> Path:
    """Return the run that a training job makes."""
    return Path(command_of(job)[command_of(job).index("--out") + 1])


def curve(rows: list[dict], name: str) -> pd.DataFrame:
    """Return a column of a training's log against its seconds, thinned to what a plot can show.

    Args:
        rows: of ``log.jsonl``.
        name: the column; numbers, or a number for each person ("loss").

    Returns:
        A frame with the columns "seconds", ``name`` and "person", which is empty for a plain number.
    """
    known = [row for row in rows if isinstance(row.get(name), int | float | dict)]
    points = []
    for row in known[:: max(len(known) // POINTS, 1)]:
        values = row[name] if isinstance(row[name], dict) else {"": row[name]}
        points += [(row["seconds"], float(value), person) for person, value in values.items()]
    frame = pd.DataFrame(points, columns=["seconds", name, "person"])
    return frame.astype({"seconds": float, name: float})  # also when empty: a plot takes other things for names


def newest_preview(folder: Path) -> Path | None:
    """Return the newest preview of a run, or None."""
    found = sorted((folder / "previews").glob("*.jpg")) + sorted((folder / "previews").glob("*.png"))
    return max(found, key=lambda p: p.stat().st_mtime, default=None)


def news_of(lab: Lab, visitor: Visitor) -> str:
    """Return a text that changes whenever the visitor's newest training has more to show; empty without one."""
    job = lab.book.latest(visitor, "train")
    log = run_folder(job) / "log.jsonl" if job else None
    if log is None or not log.exists():
        return ""
    return f"{job.id} {log.stat().st_size} {newest_preview(log.parent)}"


def build_train(lab: Lab, visitor: gr.Textbox, learnt: gr.Textbox) -> tuple[gr.Dropdown, list]:
    """Lay the step out; returns the choice of people and the events that start or end a job.

    ``learnt`` changes when there is more to show.
    """
    gr.Markdown(word("train_lead" if lab.settings.train_allowed else "no_training"))
    people = gr.Dropdown(
        [], multiselect=True, allow_custom_value=True, label=word("train_people"), elem_id="train-people"
    )
    with gr.Row():
        preset = gr.Dropdown(list(PRESETS), value="tiny", label=word("preset"), info=word("preset_info"))
        encoders = [(word("as_preset"), ""), *ENCODERS]
        encoder = gr.Dropdown(encoders, value="", label=word("encoder"), info=word("encoder_info"))
        budgets = list(lab.settings.train_budgets)
        budget = gr.Dropdown(budgets, value=budgets[len(budgets) // 3], label=word("budget"), elem_id="budget")
    with gr.Accordion(word("more_options"), open=False):
        options = build_controls(CONTROLS)
    with gr.Row():
        go = gr.Button(word("start"), variant="primary", interactive=lab.settings.train_allowed, elem_id="train")
        asks = {n: gr.Button(word(n), elem_id=f"train-{n}") for n in ("pause", "resume", "stop")}
    verdict = gr.Markdown(word("verdict_none"), elem_id="verdict")
    with gr.Row():
        loss = gr.LinePlot(
            x="seconds", y="loss", color="person", label=word("loss"), height=300, x_title="s", elem_id="loss"
        )
        score = gr.LinePlot(x="seconds", y="score", label=word("score"), height=300, x_title="s")
    preview = gr.Image(label=word("preview"), type="filepath", interactive=False, elem_id="preview")
    start, ask, show = _handlers(lab)
    events = [go.click(start, [visitor, people, preset, encoder, budget, *options], None, api_name="train")]
    for name, button in asks.items():
        name_of = {"stop": "stop"}.get(name)
        how = {"api_name": name_of} if name_of else {"api_visibility": "private"}
        events.append(button.click(ask[name], visitor, None, concurrency_limit=None, **how))
    shown = [verdict, loss, score, preview]
    learnt.change(show, visitor, shown, show_progress="hidden", api_visibility="private")
    return people, events


def _handlers(lab: Lab) -> tuple:
    @told
    def start(name, people, preset, encoder, budget, request: gr.Request, *values):
        if not lab.settings.train_allowed:
            fix = "install fslab on your own machine"
            raise FslabError("training on this page", "one that only swaps", fix)
        if budget not in lab.settings.train_budgets or preset not in PRESETS:
            raise ValueError(f"{preset}, {budget}")
        who = lab.worker(name, request)
        argv = train_argv(who, people or [], preset, encoder, budget) + flags(CONTROLS, values)
        lab.book.submit(who, "train", " + ".join(people), argv)

    def asking(method):
        @told
        def ask(name, request: gr.Request):
            who = lab.worker(name, request)
            job = lab.book.latest(who, "train") if method != "stop" else lab.book.latest(who)
            if job is None:
                raise FslabError("a job of yours", "none of that name", "start it again")
            getattr(lab.book, method)(who, job.id)

        return ask

    @told
    def show(name, request: gr.Request):
        job = lab.book.latest(lab.visitor(name), "train")
        folder = run_folder(job) if job else None
        if folder is None or not (folder / "log.jsonl").exists():
            return [gr.skip()] * 4
        rows, picture = read_log(folder), newest_preview(folder)
        line = text(f"verdict_{judge_curve(rows).kind}", language_of(request))
        return [line, curve(rows, "loss"), curve(rows, "score"), str(picture) if picture else gr.skip()]

    return start, {n: asking(n) for n in ("pause", "resume", "stop")}, show
