"""Step 6: what marks any file carries."""

from html import escape

import gradio as gr

from fslab.provenance import VerifyReport, verify
from fslab.webapp.lab import Lab, given, told
from fslab.webapp.words import Language, language_of, phrase, text, word

SIGNS = {"intact": "✓", "broken": "✕", "missing": "–"}


def show_report(report: VerifyReport, language: Language) -> str:
    """Return what was found as HTML: the verdict, then a line for each kind of mark."""
    lines = []
    for layer in report.layers:
        name, state = text(f"layer_{layer.name}", language), text(f"layer_{layer.state}", language)
        note = f"<small>{escape(phrase(layer.note, language))}</small>" if layer.note else ""
        sign = f'<span aria-hidden="true">{SIGNS[layer.state]}</span>'
        lines.append(f'<li class="fs-{layer.state}">{sign}<strong>{escape(name)}</strong> {escape(state)} {note}</li>')
    verdict = text(f"state_{report.state}", language)
    head = f'<div class="fs-verdict fs-{report.state}" role="status">{verdict}</div>'
    return f'{head}<ul class="fs-layers">{"".join(lines)}</ul>'


def build_verify(lab: Lab, visitor: gr.Textbox) -> None:
    """Lay the step out."""

    @told
    def check(name, file, request: gr.Request):
        lab.worker(name, request)
        return show_report(verify(given(file)), language_of(request))  # the very bytes that came, for their marks

    gr.Markdown(word("verify_lead"))
    file = gr.File(label=word("file"), type="filepath", elem_id="verify-file")
    go = gr.Button(word("verify"), variant="primary", elem_id="verify")
    found = gr.HTML(elem_id="verify-result")
    go.click(check, [visitor, file], found, api_name="verify")
