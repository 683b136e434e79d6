"""The named endpoints, from Python, over HTTP: two packaged people to a marked picture and a verdict on it."""

import shutil
import time
from itertools import islice
from pathlib import Path

import httpx
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from fslab.media import read_frames, write_image
from fslab.provenance import verify
from fslab.samples import sample_path
from fslab.webapp.folders import Visitor
from fslab.webapp.launch import launch, prepare
from fslab.webapp.news import HEADER, ROUTE
from fslab.webapp.page import build_page
from fslab.webapp.settings import AppSettings

PATIENCE = 90.0  # seconds
README = Path(__file__).parents[1] / "README.md"


@pytest.fixture(scope="module")
def settings(tmp_path_factory, tiny_run):
    home = tmp_path_factory.mktemp("app")
    return AppSettings(home=home, min_free_mb=0, packaged_run=tiny_run.folder, max_seconds=20)


@pytest.fixture(scope="module")
def url(settings):
    prepare(settings)
    page = build_page(settings)
    yield launch(page, settings, block=False)
    page.close(verbose=False)


@pytest.fixture
def client(url, tmp_path):
    return Client(url, verbose=False, download_files=str(tmp_path / "got"))


@pytest.fixture
def picture(tmp_path):
    frame = next(islice(read_frames(sample_path("ada_target.mp4")), 3, None))
    write_image(tmp_path / "ada.png", frame.rgb())
    return tmp_path / "ada.png"


def enter(client):
    who = client.predict("", api_name="/enter")
    return who[-1] if isinstance(who, tuple | list) else who


def test_a_picture_is_swapped_with_the_packaged_run_and_keeps_its_marks(client, picture):
    who = enter(client)
    *_, got = client.predict(who, "packaged", "dan", "ada", handle_file(picture), api_name="/swap_image")
    assert verify(Path(got)).state == "marked"
    assert "fs-marked" in client.predict(who, handle_file(got), api_name="/verify")
    assert "fs-unmarked" in client.predict(who, handle_file(picture), api_name="/verify")


def test_people_extract_train_job_stop(client, settings, facesets):
    who = enter(client)
    visitor = Visitor(who, settings.visitors / who)
    cards = client.predict(who, api_name="/people")
    assert "ada" in cards
    assert "dan" in cards
    client.predict(who, "ada", api_name="/extract")
    assert "fs-job" in str(client.predict(who, api_name="/job"))
    client.predict(who, api_name="/stop")
    for folder in visitor.people.iterdir():  # the extraction itself is tested elsewhere
        name = next(n for n in facesets if f'"{n}"' in (folder / "consent.json").read_text())
        shutil.copytree(facesets[name].folder, folder / "faces", dirs_exist_ok=True)
    client.predict(who, ["ada", "dan"], "tiny", "", "1m", api_name="/train")
    deadline = time.monotonic() + PATIENCE
    while not list(visitor.runs.glob("*/log.jsonl")):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    client.predict(who, api_name="/stop")
    assert "fs-stopped" in str(client.predict(who, api_name="/job"))


def test_the_pages_own_scripts_come_before_gradios(url):
    page = httpx.get(url)
    assert int(page.headers["content-length"]) == len(page.content)
    assert page.text.index("fslab_language") < page.text.index("gradio_config"), "or the language is chosen too late"
    assert page.text.index(ROUTE) < page.text.index("gradio_config")
    assert page.text.count("<head>") == 1


def test_a_page_asks_for_news_without_gradios_queue(client, url):
    who = enter(client)
    told = httpx.get(f"{url}{ROUTE}", headers={HEADER: who, "Accept-Language": "zh-CN"})
    assert told.json() == {"line": '<div class="fs-job" role="status">就绪</div>', "seen": "", "learnt": ""}
    assert told.headers["cache-control"] == "no-store"
    for name in ("", "f" * 32, "../" + who):
        refused = httpx.get(f"{url}{ROUTE}", headers={HEADER: name})
        assert (refused.status_code, refused.json()) == (404, {})
    assert httpx.get(f"{url}fslab/news/more").status_code == 404


def test_the_example_in_the_readme_runs(url, picture, monkeypatch, capsys):
    parts = README.read_text(encoding="utf-8").split("```python\n")
    code = next(p.partition("```")[0] for p in parts if "gradio_client" in p[:200])
    assert "http://127.0.0.1:7860" in code
    monkeypatch.chdir(picture.parent)
    exec(code.replace("http://127.0.0.1:7860", url), {})
    assert "fs-marked" in capsys.readouterr().out


def test_errors_are_sentences_and_the_server_lives(client, url, picture, tmp_path):
    who = enter(client)
    (tmp_path / "page.mp4").write_text("<html>")
    for call, args in (
        ("/swap_image", (who, "packaged", "dan", "ada", handle_file(tmp_path / "page.mp4"))),
        ("/swap_image", (who, "nobody's", "dan", "ada", handle_file(picture))),
        ("/swap_video", (who, "packaged", "dan", "ada", {"video": handle_file(picture)})),
        ("/extract", (who, "../../ada")),
        ("/verify", (who, handle_file(tmp_path / "page.mp4"))),
        ("/people", ("f" * 32,)),
    ):
        with pytest.raises((AppError, ValueError)) as caught:
            client.predict(*args, api_name=call)
        assert "Traceback" not in str(caught.value)
        assert str(tmp_path) not in str(caught.value)
    assert enter(Client(url, verbose=False)) != who
