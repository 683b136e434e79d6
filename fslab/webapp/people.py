"""Step 1: who it is about, and that they agreed."""

from datetime import date
from html import escape

import gradio as gr

from fslab.consent import SCOPES, Consent
from fslab.errors import ConsentError
from fslab.faceset import FaceSet
from fslab.webapp.lab import Lab, given, told
from fslab.webapp.store import Person, add_packaged, add_person, people
from fslab.webapp.uploads import accept
from fslab.webapp.words import Language, language_of, text, word


def show_people(found: list[Person], language: Language) -> str:
    """Return the people as cards, HTML."""
    if not found:
        return f'<p class="fs-empty">{text("nobody", language)}</p>'
    return '<ul class="fs-people">' + "".join(_card(p, language) for p in found) + "</ul>"


def _card(person: Person, language: Language) -> str:
    scope = ", ".join(text(f"scope_{s}", language) for s in person.consent.scope)
    told_of = [text("agreed_to", language, scope=scope)]
    if person.consent.expires:
        told_of.append(text("until", language, date=person.consent.expires))
    if person.is_extracted:
        told_of.append(text("extracted", language, kept=len(FaceSet.load(person.faces).kept)))
    else:
        told_of.append(text("not_extracted", language))
    lines = "".join(f"<span>{escape(line)}</span>" for line in told_of)
    return f"<li><strong>{escape(person.name)}</strong>{lines}</li>"


def build_people(lab: Lab, visitor: gr.Textbox) -> tuple[gr.HTML, list]:
    """Lay the step out.

    Returns:
        The cards, and the events after which other steps have new people to offer.
    """

    @told
    def packaged(name: str, request: gr.Request) -> str:
        who = lab.worker(name, request)
        add_packaged(who)
        return show_people(people(who), language_of(request))

    @told
    def add(name, request: gr.Request, *form):
        footage, person, by, scope, expires, synthetic, agreed = form
        who = lab.worker(name, request)
        if not agreed:
            raise ConsentError(
                f"the consent of {person or '…'}", "no consent ticked", "tick it, or ask the person first"
            )
        record = Consent(
            (person or "").strip(), by or "", date.today().isoformat(), tuple(scope), expires or None, bool(synthetic)
        )
        add_person(who, accept(who, given(footage), lab.settings).path, record)
        return show_people(people(who), language_of(request))

    gr.Markdown(word("people_lead"))
    with gr.Row(equal_height=False):
        with gr.Column(scale=2):
            pick = gr.Button(word("use_packaged"), variant="primary", elem_id="use-packaged")
            cards = gr.HTML(elem_id="people")
        with gr.Column(scale=3), gr.Accordion(word("add_own"), open=False, elem_id="add-own"):
            form = _form()
            confirm = gr.Button(word("add"), variant="primary", elem_id="add-person")
    events = [
        pick.click(packaged, visitor, cards, api_name="people"),
        confirm.click(add, [visitor, *form], cards, api_name="consent"),
    ]
    return cards, events


def _form() -> list[gr.components.Component]:
    footage = gr.Video(label=word("footage"), sources=["upload", "webcam"], elem_id="footage")
    name = gr.Textbox(label=word("name"), info=word("name_info"), max_length=60, elem_id="person-name")
    gr.Markdown(word("consent"), elem_classes="fs-heading")
    by = gr.Textbox(label=word("confirmed_by"), info=word("confirmed_by_info"), max_length=300, elem_id="confirmed-by")
    choices = [(word(f"scope_{s}"), s) for s in SCOPES]
    scope = gr.CheckboxGroup(choices, value=list(SCOPES), label=word("scope"))
    expires = gr.Textbox(label=word("expires"), max_length=10)
    synthetic = gr.Checkbox(label=word("synthetic"))
    agreed = gr.Checkbox(label=word("agree"), elem_id="agree")
    return [footage, name, by, scope, expires, synthetic, agreed]
