"""Step 4: one person's face on another's, in a picture, a clip, or live."""

import filecmp
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import gradio as gr

from fslab.errors import FslabError
from fslab.media import read_frames, write_image
from fslab.provenance import save_marked_image
from fslab.samples import sample_path
from fslab.storage import read_json
from fslab.swap import SwapConfig, Swapper, choose_replaced, swap_manifest
from fslab.webapp.controls import build_controls, changed_values, flags, read_controls
from fslab.webapp.folders import Visitor
from fslab.webapp.lab import Lab, command_of, given, told
from fslab.webapp.store import ABOUT, find_run, run_people
from fslab.webapp.swapping import (
    AppSwapper,
    LiveSwap,
    load_run,
    make_variants,
    new_result,
    swap_picture,
)
from fslab.webapp.uploads import accept
from fslab.webapp.words import word

CONTROLS = read_controls(
    SwapConfig(),
    ["mask", "forehead", "keep_in_front", "erode", "feather", "colour", "colour_memory", "sharpen", "same_person"],
)
SAMPLE = "ada_target.mp4"
SAMPLE_FRAME = 12  # of it, the packaged picture
Choice = tuple[str, str, str]  # run, whose face is put in, who is replaced


def read_config(values: Sequence[object]) -> SwapConfig:
    """Return what the controls say; raises ValueError where a value does not fit."""
    return replace(SwapConfig(), **changed_values(CONTROLS, values))


def open_swapper(lab: Lab, who: Visitor, choice: Choice, values: Sequence[object]) -> tuple[Swapper, str]:
    """Return the swapper that the page's choice names, and who is replaced."""
    run = load_run(find_run(who, lab.settings, choice[0]))
    return AppSwapper(run, choice[1], read_config(values)), choose_replaced(run, choice[1], choice[2] or None)


def take_clip(lab: Lab, who: Visitor, path: str | None) -> Path:
    """Return the clip to change: a visitor's, checked and kept, or the packaged one where it lies: its truth is known.

    Raises:
        FslabError: if none was chosen, or it cannot be taken.
    """
    chosen, sample = given(path), sample_path(SAMPLE)
    if filecmp.cmp(chosen, sample, shallow=False):
        return sample
    return accept(who, chosen, lab.settings, kinds=("video",)).path


def clip_argv(lab: Lab, who: Visitor, choice: Choice, target: Path, values: Sequence[object]) -> list[object]:
    """Make a result's folder and return the command that swaps a clip into it."""
    folder = find_run(who, lab.settings, choice[0])
    if choice[1] not in run_people(folder) or choice[2] not in run_people(folder) or choice[1] == choice[2]:
        found = f"{choice[1]}, {choice[2]}"
        raise FslabError(f"two different people of {', '.join(run_people(folder))}", found, "choose one of them")
    read_config(values)
    output = new_result(who, target, choice[1], choice[2], "swap.mp4")
    argv = ["swap", folder, target, output, "--identity", choice[1], "--replace", choice[2]]
    return argv + flags(CONTROLS, values)


def build_swap(lab: Lab, visitor: gr.Textbox, news: gr.Textbox) -> tuple[list[gr.Dropdown], list]:
    """Lay the step out; returns the choices of run and people, and the events that start a job.

    ``news`` changes with a job.
    """
    gr.Markdown(word("swap_lead"))
    with gr.Row():
        run = gr.Dropdown([], label=word("run"), allow_custom_value=True, elem_id="swap-run")
        identity = gr.Dropdown([], label=word("identity"), allow_custom_value=True, elem_id="swap-identity")
        replaced = gr.Dropdown([], label=word("replaced"), allow_custom_value=True, elem_id="swap-replaced")
    with gr.Accordion(word("more_options"), open=False):
        options = build_controls(CONTROLS)
    said = [visitor, run, identity, replaced]
    run.change(_people(lab), [visitor, run], [identity, replaced], show_progress="hidden", api_visibility="private")
    with gr.Tabs():
        with gr.Tab(word("picture")):
            _build_picture(lab, said, options)
        with gr.Tab(word("video")):
            event = _build_video(lab, said, options, news)
        with gr.Tab(word("live")):
            _build_live(lab, said, options)
    return [run, identity, replaced], [event]


def _people(lab: Lab) -> Callable:
    @told
    def offer(name, run, request: gr.Request):
        known = run_people(find_run(lab.visitor(name), lab.settings, run)) if run else []
        first, last = (known[0], known[-1]) if known else (None, None)
        return gr.update(choices=known, value=last), gr.update(choices=known, value=first)

    return offer


def _build_picture(lab: Lab, said: list, options: list) -> None:
    @told
    def swap(name, run, identity, replaced, target, request: gr.Request, *values):
        who = lab.worker(name, request)
        source = accept(who, given(target), lab.settings, kinds=("image",)).path
        swapper, person = open_swapper(lab, who, (run, identity, replaced), values)
        output = new_result(who, source, identity, person, "swap.png")
        done = str(swap_picture(swapper, source, output, person))
        return (str(source), done), done

    @told
    def take_sample(name, request: gr.Request):
        copy = lab.visitor(name).uploads / "sample.png"
        write_image(copy, next(islice(read_frames(sample_path(SAMPLE)), SAMPLE_FRAME, None)).rgb())
        return str(copy)

    with gr.Row(equal_height=False):
        with gr.Column():
            target = gr.Image(
                label=word("target_picture"), type="filepath", sources=["upload", "webcam", "clipboard"],
                elem_id="target-picture",
            )  # fmt: skip
            sample = gr.Button(word("use_sample_picture"), size="sm", elem_id="use-sample-picture")
            go = gr.Button(word("swap"), variant="primary", elem_id="swap-picture")
        with gr.Column():
            both = gr.ImageSlider(
                label=word("before_after"), type="filepath", interactive=False, elem_id="before-after"
            )
            get = gr.DownloadButton(word("download"), elem_id="get-picture")
    sample.click(take_sample, said[0], target, api_visibility="private")
    go.click(swap, [*said, target, *options], [both, get], api_name="swap_image", concurrency_id="swap")


def _build_video(lab: Lab, said: list, options: list, news: gr.Textbox) -> object:
    with gr.Row(equal_height=False):
        with gr.Column():
            target = gr.Video(label=word("target_video"), sources=["upload", "webcam"], elem_id="target-video")
            sample = gr.Button(word("use_sample"), size="sm", elem_id="use-sample")
            go = gr.Button(word("swap"), variant="primary", elem_id="swap-video")
            compare = gr.Button(word("variants"), elem_id="variants")
        with gr.Column():
            result = gr.Video(label=word("result_video"), interactive=False, elem_id="result-video")
            get = gr.DownloadButton(word("download"))
    sheet = gr.Image(label=word("sheet"), type="filepath", interactive=False, elem_id="sheet", visible=False)
    seen = gr.State("")
    start, variants, poll, take_sample = _video_handlers(lab)
    sample.click(take_sample, said[0], target, api_visibility="private")
    compare.click(variants, [*said, target, *options], sheet, api_visibility="private", concurrency_id="swap")
    news.change(poll, [said[0], seen], [seen, result, get], show_progress="hidden", api_visibility="private")
    return go.click(start, [*said, target, *options], None, api_name="swap_video")


def _video_handlers(lab: Lab) -> tuple:
    @told
    def start(name, run, identity, replaced, target, request: gr.Request, *values):
        who = lab.worker(name, request)
        find_run(who, lab.settings, run)
        clip = take_clip(lab, who, target)
        argv = clip_argv(lab, who, (run, identity, replaced), clip, values)
        lab.book.submit(who, "swap", f"{replaced} → {identity}", argv)

    @told
    def variants(name, run, identity, replaced, target, request: gr.Request, *values):
        who = lab.worker(name, request)
        clip = take_clip(lab, who, target)
        swapper, person = open_swapper(lab, who, (run, identity, replaced), values)
        picture = make_variants(swapper.run, identity, person, clip, swapper.config)
        path = who.results / "variants.png"
        save_marked_image(path, picture, swap_manifest(swapper, person, clip))
        return gr.update(value=str(path), visible=True)

    @told
    def poll(name, seen, request: gr.Request):
        who = lab.visitor(name)
        job, now = lab.change(who, "swap", seen)
        if not (job and job.state == "done"):
            return now, gr.skip(), gr.skip()
        about = read_json(Path(command_of(job)[3]).parent / ABOUT, "a result", FslabError)
        done = str(Path(about["output"]))
        return now, done, done

    @told
    def take_sample(name, request: gr.Request):
        copy = lab.visitor(name).uploads / SAMPLE
        shutil.copyfile(sample_path(SAMPLE), copy)
        return str(copy)

    return start, variants, poll, take_sample


def _build_live(lab: Lab, said: list, options: list) -> None:
    @told
    def stream(name, frame, live, request: gr.Request, *choice):
        if not frame:
            return gr.skip(), live
        who = lab.visitor(name)
        if live is None or live.key != choice:
            swapper, person = open_swapper(lab, who, choice[:3], choice[3:])
            live = LiveSwap(swapper, person, who.results, choice)
        return str(live.swap(Path(frame))), live

    with gr.Row():
        camera = gr.Image(label=word("camera"), type="filepath", sources=["webcam"], streaming=True, elem_id="camera")
        shown = gr.Image(label=word("live_result"), type="filepath", interactive=False, streaming=True)
    live = gr.State(None)
    camera.stream(
        stream, [said[0], camera, live, *said[1:], *options], [shown, live], time_limit=60, stream_every=0.2,
        concurrency_limit=1, show_progress="hidden", api_visibility="private",
    )  # fmt: skip
