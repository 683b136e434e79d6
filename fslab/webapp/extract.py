"""Step 2: footage to faces, who of the people found it is, and which faces are good enough."""

from collections import Counter
from dataclasses import replace

import cv2
import gradio as gr

from fslab.coverage import summarise
from fslab.extract import ExtractConfig, judge
from fslab.faceset import FaceRecord, FaceSet
from fslab.media import write_image
from fslab.storage import write_json_lines
from fslab.viz import coverage_card
from fslab.webapp.controls import build_controls, flags, read_controls
from fslab.webapp.folders import Visitor
from fslab.webapp.lab import Lab, told
from fslab.webapp.store import find_person, load_faces
from fslab.webapp.words import Language, language_of, phrase, text, word

CONTROLS = read_controls(
    ExtractConfig(), ["min_eyes", "min_sharpness", "min_difference", "max_yaw", "smooth", "embed_every"]
)
SHOWN = 60  # faces in the review grid
BY_YOU = "by you"


def review_order(records: tuple[FaceRecord, ...]) -> list[FaceRecord]:
    """Return the chosen person's faces, worst first: the blurriest, then those that rules dropped."""
    mine = [r for r in records if not r.why.startswith("another person")]
    return sorted(mine, key=lambda r: (not r.keep and r.why != BY_YOU, r.sharpness))


def save_records(faceset: FaceSet, records: list[FaceRecord]) -> FaceSet:
    """Write which faces are kept, and the coverage card that follows from it."""
    write_json_lines(faceset.folder / "faces.jsonl", [r.to_row() for r in records])
    write_image(faceset.folder / "coverage.png", coverage_card(summarise(faceset.identity, records)))
    return replace(faceset, records=tuple(records))


def toggle_face(faceset: FaceSet, crop: str) -> FaceSet:
    """Keep a face that was dropped, or drop one that was kept."""
    flip = {True: {"keep": False, "why": BY_YOU}, False: {"keep": True, "why": ""}}
    return save_records(faceset, [replace(r, **flip[r.keep]) if r.crop == crop else r for r in faceset.records])


def choose_person(faceset: FaceSet, person: int) -> FaceSet:
    """Take another of the people in the footage, and judge all faces anew by the face set's own rules."""
    crops = (faceset.crops(32, [r])[0] for r in faceset.records)
    small = [cv2.resize(crop, (32, 32), interpolation=cv2.INTER_AREA) for crop in crops]
    known = {k: v for k, v in faceset.settings.items() if k not in ("track", "example")}
    return save_records(faceset, judge(list(faceset.records), small, person, ExtractConfig(**known)))


def show_faces(lab: Lab, visitor: Visitor, faceset: FaceSet, language: Language) -> list[object]:
    """Return values for the people found, the review grid, its crops' names, and the coverage card."""
    best, counts = {}, Counter(r.person for r in faceset.records)
    for record in faceset.records:
        if record.person not in best or record.sharpness > best[record.person].sharpness:
            best[record.person] = record
    crops = faceset.folder / "crops"
    found = [
        (str(crops / best[n].crop), text("found_person", language, n=n + 1, faces=counts[n])) for n in sorted(best)
    ]
    grid = review_order(faceset.records)[:SHOWN]
    pictures = [(str(crops / r.crop), _caption(r, language)) for r in grid]
    return [found, pictures, [r.crop for r in grid], str(faceset.folder / "coverage.png")]


def _caption(record: FaceRecord, language: Language) -> str:
    if record.keep:
        return f"✓ {text('kept', language)}"
    why = text("dropped_by_you", language) if record.why == BY_YOU else phrase(record.why, language)
    return f"✕ {text('dropped', language, why=why)}"


def build_extract(lab: Lab, visitor: gr.Textbox, news: gr.Textbox) -> tuple[gr.Dropdown, list]:
    """Lay the step out; returns the choice of a person and the events that start a job; ``news`` changes with a job."""
    gr.Markdown(word("extract_lead"))
    with gr.Row(equal_height=True):
        person = gr.Dropdown([], label=word("person"), allow_custom_value=True, elem_id="extract-person", scale=3)
        go = gr.Button(word("extract"), variant="primary", elem_id="extract", scale=1)
    with gr.Accordion(word("more_options"), open=False):
        options = build_controls(CONTROLS)
    found = gr.Gallery(
        label=word("found"),
        columns=6,
        fit_columns=False,
        height=200,
        allow_preview=False,
        interactive=False,
        elem_id="found",
    )
    grid = gr.Gallery(
        label=word("review"),
        columns=8,
        fit_columns=False,
        height=420,
        allow_preview=False,
        interactive=False,
        elem_id="review",
    )
    back = gr.Button(word("undo"), elem_id="undo", size="sm")
    card = gr.Image(label=word("coverage"), type="filepath", interactive=False, elem_id="coverage")
    names, done, seen = gr.State([]), gr.State([]), gr.State("")
    shown = [found, grid, names, card]
    start, poll, show, choose, flip, undo = _handlers(lab)
    started = go.click(start, [visitor, person, *options], None, api_name="extract")
    news.change(poll, [visitor, person, seen], [seen, *shown], show_progress="hidden", api_visibility="private")
    person.change(show, [visitor, person], shown, show_progress="hidden", api_visibility="private")
    found.select(choose, [visitor, person], shown, api_visibility="private")
    grid.select(flip, [visitor, person, names, done], [done, *shown], show_progress="hidden", api_visibility="private")
    back.click(undo, [visitor, person, done], [done, *shown], api_visibility="private")
    return person, [started]


def _handlers(lab: Lab) -> tuple:
    @told
    def start(name, person, request: gr.Request, *values):
        who = lab.worker(name, request)
        p = find_person(who, person)
        argv = ["extract", p.footage, p.faces, "--identity", p.name, "--consent", p.consent_path, "--overwrite"]
        lab.book.submit(who, "extract", p.name, [*argv, *flags(CONTROLS, values)])

    def showing(who: Visitor, faceset: FaceSet, request: gr.Request) -> list[object]:
        return show_faces(lab, who, faceset, language_of(request))

    @told
    def poll(name, person, seen, request: gr.Request):
        who = lab.visitor(name)
        job, now = lab.change(who, "extract", seen)
        if not (job and job.state == "done" and job.title == person):
            return [now, *[gr.skip()] * 4]
        return [now, *showing(who, load_faces(who, person), request)]

    @told
    def show(name, person, request: gr.Request):
        who = lab.visitor(name)
        if not person or not find_person(who, person).is_extracted:
            return [[], [], [], None]
        return showing(who, load_faces(who, person), request)

    @told
    def choose(name, person, picked: gr.SelectData, request: gr.Request):
        who = lab.worker(name, request)
        faceset = load_faces(who, person)
        number = sorted({r.person for r in faceset.records})[picked.index]
        return showing(who, choose_person(faceset, number), request)

    @told
    def flip(name, person, names, done, picked: gr.SelectData, request: gr.Request):
        who = lab.visitor(name)
        crop = names[picked.index]
        return [[*done, crop], *showing(who, toggle_face(load_faces(who, person), crop), request)]

    @told
    def undo(name, person, done, request: gr.Request):
        if not done:
            return [done, *[gr.skip()] * 4]
        who = lab.visitor(name)
        return [done[:-1], *showing(who, toggle_face(load_faces(who, person), done[-1]), request)]

    return start, poll, show, choose, flip, undo
