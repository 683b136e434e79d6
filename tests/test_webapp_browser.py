"""A walk through the page in a real browser, People to Verify, in English and in Chinese.

Needs Chromium (Debian's package ``chromium``, or one that FSLAB_CHROMIUM names); without it these tests are skipped.
Where FSLAB_SCREENSHOTS names a folder, the pictures taken on the way are kept there, to be looked at.
"""

import os
import re
import shutil
from pathlib import Path

import pytest

pytest.importorskip("gradio")
pytest.importorskip("playwright")

from playwright.sync_api import expect, sync_playwright

from fslab.media import probe
from fslab.provenance import verify
from fslab.samples import sample_path
from fslab.webapp.launch import launch, prepare
from fslab.webapp.page import build_page
from fslab.webapp.settings import AppSettings
from fslab.webapp.words import WORDS

CHROMIUM = os.environ.get("FSLAB_CHROMIUM") or shutil.which("chromium")
QUIET = [
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync",
    "--disable-component-update",
]  # fmt: skip
TAGS = {"en": "en-US", "zh": "zh-CN"}
PATIENCE = 120_000  # milliseconds
SHORT = 20_000
WIDER = """() => [...document.querySelectorAll("*")].filter(e => e.getBoundingClientRect().right > 391)
  .map(e => [e.tagName, e.id, String(e.className).slice(0, 40), Math.round(e.getBoundingClientRect().right)])"""

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium: install Debian's `chromium` to run this")


class Walker:
    """A visitor with a browser."""

    def __init__(self, page, language, shots):
        self.page, self.language, self.shots = page, language, shots

    def say(self, key, **values):
        return WORDS[self.language][key].format(**values)

    def open(self, step):
        """Open a step by its tab, which a narrow page keeps in a menu."""
        name = self.say(f"step_{step}")
        tab = self.page.get_by_role("tab", name=name, exact=True)
        if not tab.first.is_visible():
            self.page.locator(".overflow-menu > button").first.click()
            self.page.locator(".overflow-dropdown button", has_text=name).first.click()
            return
        tab.first.click()

    def click(self, name):
        self.page.locator(f"#{name}").click()

    def start(self, name):
        """Press a button that starts a job, and wait for the line to say so."""
        before = self.page.locator("#job .fs-job").get_attribute("class")
        self.click(name)
        if "fs-running" not in before:
            expect(self.page.locator("#job .fs-running, #job .fs-queued")).to_be_visible(timeout=SHORT)

    def wait_for_job(self, kind, state="job_done"):
        line = self.say(state, kind=self.say(f"step_{kind}").split(" ", 1)[1])
        expect(self.page.locator("#job")).to_contain_text(line, timeout=PATIENCE)

    def choose(self, name, value):
        self.page.locator(f"#{name} input").click()
        self.page.get_by_role("option", name=value).first.click()

    def send(self, name, path):
        self.page.locator(f"#{name} input[type=file]").first.set_input_files(path)

    def expect_sentence(self, words):
        toast = self.page.locator(".toast-body", has_text=words)
        expect(toast.first).to_be_visible(timeout=SHORT)
        self.page.locator(".toast-close").last.click()

    def look(self, name):
        self.page.screenshot(path=self.shots / f"{self.language}-{name}.png", full_page=True)


@pytest.fixture(scope="module")
def settings(tmp_path_factory, tiny_run):
    return AppSettings(home=tmp_path_factory.mktemp("app"), min_free_mb=0, packaged_run=tiny_run.folder)


@pytest.fixture(scope="module")
def url(settings):
    prepare(settings)
    page = build_page(settings)
    yield launch(page, settings, block=False)
    page.close(verbose=False)


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    """Where the first visit leaves what the browser keeps, so that the second is the same visitor."""
    return tmp_path_factory.mktemp("browser") / "state.json"


@pytest.fixture
def visit(browser, url, state, tmp_path):
    """Return a function that opens the page in a language and a width, again as the same visitor."""
    shots = Path(os.environ.get("FSLAB_SCREENSHOTS") or tmp_path)
    shots.mkdir(exist_ok=True)
    contexts = []

    def enter(language, width=1180):
        kept = {"storage_state": state} if state.exists() else {}
        contexts.append(browser.new_context(locale=TAGS[language], viewport={"width": width, "height": 900}, **kept))
        page = contexts[-1].new_page()
        page.goto(url)
        walker = Walker(page, language, shots)
        expect(page.locator("#job .fs-job")).to_be_visible(timeout=SHORT)
        return walker

    yield enter
    for context in contexts:
        context.storage_state(path=state)
        context.close()


def test_from_two_people_to_a_verified_clip_in_english(visit, settings):
    walk = visit("en")
    page = walk.page
    walk.click("use-packaged")
    expect(page.locator("#people")).to_contain_text("dan", timeout=SHORT)
    walk.look("people")

    walk.click("next-extract")
    for person in ("ada", "dan"):
        walk.choose("extract-person", person)
        walk.start("extract")
        walk.wait_for_job("extract")
        expect(page.locator("#review img").first).to_be_visible(timeout=SHORT)
        expect(page.locator("#job")).not_to_contain_text("%")
    captions = page.locator("#review .caption-label")
    before = captions.first.inner_text()
    page.locator("#review button.thumbnail-item").first.click()
    expect(captions.first).not_to_have_text(before, timeout=SHORT)
    walk.click("undo")
    expect(captions.first).to_have_text(before, timeout=SHORT)
    walk.look("extract")

    walk.click("next-train")
    walk.choose("budget", "1m")
    walk.start("train")
    expect(page.locator("#job")).to_contain_text(re.compile(r"\d+%.*step"), timeout=PATIENCE)
    page.reload()
    expect(page.locator("#job")).to_contain_text(re.compile(r"\d+%.*step"), timeout=SHORT)
    walk.open("train")
    expect(page.locator("#preview img")).to_be_visible(timeout=PATIENCE)
    expect(page.locator("#loss canvas, #loss svg").first).to_be_visible(timeout=SHORT)
    walk.look("train")
    walk.click("train-stop")
    walk.wait_for_job("train", "job_stopped")

    walk.click("next-swap")
    page.get_by_role("tab", name=walk.say("video"), exact=True).click()
    walk.click("use-sample")
    expect(page.locator("#target-video video")).to_be_visible(timeout=SHORT)
    walk.start("swap-video")
    walk.wait_for_job("swap")
    clip = page.locator("#result-video video")
    expect(clip).to_be_visible(timeout=SHORT)
    page.wait_for_function("document.querySelector('#result-video video').readyState >= 2", timeout=SHORT)
    walk.look("swap")

    walk.click("next-evaluate")
    walk.start("evaluate")
    walk.wait_for_job("evaluate")
    expect(page.locator("#figures")).to_contain_text("Closure", timeout=SHORT)
    walk.look("evaluate")

    result = next(settings.visitors.glob("*/results/*/swap.mp4"))
    assert verify(result).state == "marked"
    assert probe(result).size == probe(sample_path("ada_target.mp4")).size
    walk.click("next-verify")
    walk.send("verify-file", result)
    walk.click("verify")
    expect(page.locator("#verify-result")).to_contain_text(walk.say("state_marked"), timeout=SHORT)
    walk.look("verify")


def test_the_same_visitor_in_chinese_finds_it_all_and_cancels(visit, tmp_path):
    walk = visit("zh")
    page = walk.page
    assert page.evaluate("document.documentElement.lang").startswith("zh")
    expect(page.locator("#people")).to_contain_text("张人脸", timeout=SHORT)

    walk.open("extract")
    expect(page.locator("#review .caption-label").first).to_contain_text("保留", timeout=SHORT)
    walk.look("extract")

    walk.open("train")
    walk.start("train")
    expect(page.locator("#job")).to_contain_text(re.compile(r"\d+%.*第 \d+ 步"), timeout=PATIENCE)
    walk.click("train-stop")
    walk.wait_for_job("train", "job_stopped")
    walk.look("train")

    walk.open("swap")
    walk.click("use-sample-picture")
    expect(page.locator("#target-picture img").first).to_be_visible(timeout=SHORT)
    walk.click("swap-picture")
    expect(page.locator("#before-after img").first).to_be_visible(timeout=PATIENCE)
    walk.look("picture")

    walk.open("evaluate")
    walk.start("evaluate")
    walk.wait_for_job("evaluate")
    expect(page.locator("#figures")).to_contain_text("还原度", timeout=SHORT)
    walk.look("evaluate")

    walk.open("verify")
    walk.send("verify-file", sample_path("ada_target.mp4"))
    walk.click("verify")
    expect(page.locator("#verify-result")).to_contain_text(walk.say("state_unmarked"), timeout=SHORT)

    (tmp_path / "page.png").write_text("<html>")
    page.locator("#verify-file button[aria-label*='lear'], #verify-file .icon-button").first.click()
    walk.send("verify-file", tmp_path / "page.png")
    walk.click("verify")
    walk.expect_sentence("需要")


def test_bad_files_are_refused_in_a_sentence_and_the_page_goes_on(visit, tmp_path):
    walk = visit("en")
    walk.page.locator("#add-own button").first.click()
    (tmp_path / "page.mp4").write_text("<html>")
    walk.send("footage", tmp_path / "page.mp4")
    expect(walk.page.locator("#footage video, #footage .file-preview").first).to_be_attached(timeout=SHORT)
    walk.page.locator("#person-name textarea, #person-name input").fill("eve")
    walk.page.locator("#confirmed-by textarea, #confirmed-by input").fill("Eve, in person")
    walk.click("add-person")
    walk.expect_sentence("no consent ticked")
    walk.page.locator("#agree input").check()
    walk.click("add-person")
    walk.expect_sentence("Expected a video")
    expect(walk.page.locator("#people")).not_to_contain_text("eve")


def test_a_phone_shows_every_step_and_the_switch_turns_the_page_into_chinese(visit):
    walk = visit("en", width=390)
    page = walk.page
    for step in ("people", "extract", "train", "swap", "evaluate", "verify"):
        walk.open(step)
        page.wait_for_timeout(400)
        wide = page.evaluate("document.documentElement.scrollWidth")
        wider = page.evaluate(WIDER) if wide > 390 else []
        assert wide <= 390, f"{step} is {wide} px wide: {wider}"
        walk.look(f"phone-{step}")
    walk.click("language")
    expect(page.locator("#lead")).to_contain_text(WORDS["zh"]["lead"], timeout=SHORT)
