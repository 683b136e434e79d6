"""The page: six steps, the line that says what is being done, the switch of languages, and what ties them together."""

from collections.abc import Callable
from importlib import resources

import gradio as gr

from fslab.webapp import evaluate, extract, people, swap, train, verify
from fslab.webapp.controls import field_words
from fslab.webapp.folders import server_secret
from fslab.webapp.jobs import JobBook
from fslab.webapp.lab import Lab, describe_job, told
from fslab.webapp.limiter import Limiter
from fslab.webapp.news import build_script
from fslab.webapp.settings import AppSettings
from fslab.webapp.store import people as people_of
from fslab.webapp.store import run_choices
from fslab.webapp.words import COOKIE, EN_TAGS, PREFIX, WORDS, ZH_TAGS, language_of, text, word

CSS = resources.files("fslab.webapp").joinpath("style.css").read_text(encoding="utf-8")
# Before Gradio reads the browser's language, put the chosen one in its place.
HEAD = f"""<meta name="viewport" content="width=device-width, initial-scale=1"><script>(() => {{
const chosen = (document.cookie.match(/(?:^|; ){COOKIE}=(en|zh)/) || [])[1];
if (chosen) {{
  const tag = chosen === "zh" ? "zh-CN" : "en";
  Object.defineProperty(navigator, "language", {{get: () => tag}});
  Object.defineProperty(navigator, "languages", {{get: () => [tag]}});
}}
document.documentElement.lang = (navigator.language || "en").startsWith("zh") ? "zh" : "en";
}})()</script>"""
SWITCH = f"""() => {{
const next = navigator.language.startsWith("zh") ? "en" : "zh";
document.cookie = `{COOKIE}=${{next}}; path=/; max-age=31536000; SameSite=Lax`;
location.reload();
}}"""


def build_i18n() -> gr.I18n:
    """Return all labels for `gr.Blocks.launch`, under every tag that a browser may name its language by."""
    controls = [*extract.CONTROLS, *train.CONTROLS, *swap.CONTROLS]
    words = {lang: WORDS[lang] | field_words(controls, lang) for lang in ("en", "zh")}
    spoken = {lang: {PREFIX + key: said for key, said in words[lang].items()} for lang in words}
    tags = {tag: spoken["en"] for tag in EN_TAGS} | {tag: spoken["zh"] for tag in ZH_TAGS}
    return gr.I18n(**tags)


def build_theme() -> gr.Theme:
    """Return the page's colours and fonts; nothing is fetched from elsewhere."""
    fonts = ["system-ui", "Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei", "sans-serif"]
    return gr.themes.Soft(primary_hue="teal", secondary_hue="teal", neutral_hue="slate", font=fonts)


def build_look() -> dict[str, object]:
    """Return the page's theme, style and words."""
    return {"theme": build_theme(), "css": CSS, "i18n": build_i18n()}


def build_page(settings: AppSettings) -> gr.Blocks:
    """Build the page for `fslab.webapp.launch.launch`; ``look``, ``lab`` and ``head_first`` are for it."""
    lab = Lab(settings, JobBook(settings), Limiter(settings.requests_per_minute))
    with gr.Blocks(title="fslab", analytics_enabled=False) as page:
        kept = gr.BrowserState("", storage_key="fslab_visitor", secret=server_secret(settings))
        visitor = gr.Textbox(visible="hidden", elem_id="visitor")
        forget = _build_top()
        line = gr.HTML(elem_id="job")
        # Filled by the page's script: the job and its state; how far a training's log and previews are.
        seen, learnt = (gr.Textbox(visible="hidden", elem_id=name) for name in ("seen", "learnt"))
        choices, cards, events, tabs = _build_steps(lab, visitor, (seen, learnt))
        look, job, enter, leave = _handlers(lab)
        news = [line, cards, *choices]
        for event in events:
            event.success(look, [visitor, *choices], news, show_progress="hidden", api_visibility="private")
        tabs.select(look, [visitor, *choices], news, show_progress="hidden", api_visibility="private")
        gr.Button(visible=False).click(job, visitor, line, concurrency_limit=None, api_name="job")  # for programs
        seen.change(look, [visitor, *choices], news, show_progress="hidden", api_visibility="private")
        forget.click(leave, visitor, [kept, visitor], api_visibility="private").success(
            None, js="() => location.reload()"
        )
        came = page.load(enter, kept, [kept, visitor], show_progress="hidden", api_name="enter")
        came.then(look, [visitor, *choices], news, show_progress="hidden", api_visibility="private")
    page.look, page.lab = build_look(), lab
    page.head_first = f"{HEAD}<script>{build_script(settings.poll_seconds)}</script>"
    return page


def _build_top() -> gr.Button:
    with gr.Row(elem_id="top"):
        with gr.Column(scale=5, min_width=200):
            gr.Markdown(word("title"), elem_id="title")
            gr.Markdown(word("lead"), elem_id="lead")
        with gr.Column(scale=3, min_width=150), gr.Row():
            switch = gr.Button(word("language"), size="sm", elem_id="language")
            forget = gr.Button(word("forget"), size="sm", variant="stop", elem_id="forget")
    switch.click(None, js=SWITCH)
    return forget


def _build_steps(
    lab: Lab, visitor: gr.Textbox, news: tuple[gr.Textbox, gr.Textbox]
) -> tuple[list, gr.HTML, list, gr.Tabs]:
    """Lay all steps out; ``news`` are the boxes that change when a job has, and when a training has learnt more.

    Returns:
        The steps' choices in the order of `offers`, the people's cards, events, and the tabs.
    """
    seen, learnt = news
    first = "swap" if lab.settings.public and lab.settings.packaged_run else "people"
    with gr.Tabs(selected=first, elem_id="steps") as tabs:
        with gr.Tab(word("step_people"), id="people"):
            cards, events = people.build_people(lab, visitor)
            events.append(_lead_to("extract", tabs))
        with gr.Tab(word("step_extract"), id="extract"):
            person, more = extract.build_extract(lab, visitor, seen)
            events += [*more, _lead_to("train", tabs)]
        with gr.Tab(word("step_train"), id="train"):
            trained, more = train.build_train(lab, visitor, learnt)
            events += [*more, _lead_to("swap", tabs)]
        with gr.Tab(word("step_swap"), id="swap"):
            (run, _, _), more = swap.build_swap(lab, visitor, seen)
            events += [*more, _lead_to("evaluate", tabs)]
        with gr.Tab(word("step_evaluate"), id="evaluate"):
            result, more = evaluate.build_evaluate(lab, visitor, seen)
            events += [*more, _lead_to("verify", tabs)]
        with gr.Tab(word("step_verify"), id="verify"):
            verify.build_verify(lab, visitor)
    return [person, trained, run, result], cards, events, tabs


def _lead_to(step: str, tabs: gr.Tabs) -> object:
    """Add the button at a step's end that opens the next one; returns its event."""
    button = gr.Button(word(f"next_{step}"), elem_id=f"next-{step}", elem_classes="fs-next")
    return button.click(lambda: gr.Tabs(selected=step), None, tabs, show_progress="hidden", api_visibility="private")


def offer(choices: list, chosen: object) -> object:
    """Return an update of a dropdown that leaves what is chosen alone while it is there, else takes the first.

    Left alone, not set anew: the visitor may have chosen another since this was asked. A list of people, which training
    wants two of, is filled up to two.
    """
    values = [c[1] if isinstance(c, tuple) else c for c in choices]
    if isinstance(chosen, list):
        kept = [c for c in chosen if c in values]
        wanted = kept + [v for v in values if v not in kept][: max(2 - len(kept), 0)]
    else:
        wanted = chosen if chosen in values else next(iter(values), None)
    return gr.update(choices=choices) if wanted == chosen else gr.update(choices=choices, value=wanted)


def _handlers(lab: Lab) -> tuple[Callable, Callable, Callable, Callable]:
    @told
    def look(name, person, trained, run, result, request: gr.Request):
        who = lab.visitor(name)
        job, known = lab.book.latest(who), people_of(who)
        return [
            describe_job(job, request), people.show_people(known, language_of(request)),
            offer([p.name for p in known], person),
            offer([p.name for p in known if p.is_extracted], trained or []),
            offer(run_choices(who, lab.settings), run), offer(evaluate.clip_results(who), result),
        ]  # fmt: skip

    @told
    def job(name, request: gr.Request):
        return describe_job(lab.book.latest(lab.visitor(name)), request)

    @told
    def enter(kept, request: gr.Request):
        name = lab.enter(kept).name
        return name, name

    @told
    def leave(name, request: gr.Request):
        lab.forget(lab.visitor(name))
        gr.Info(text("forgotten", language_of(request)))
        return "", ""

    return look, job, enter, leave
