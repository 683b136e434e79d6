"""The server: what it refuses to open, what it hands out, and requests that nobody means well by."""

import socket
from types import SimpleNamespace

import gradio as gr
import httpx
import pytest

from benchmarks.hostile import attack
from fslab.cli import main
from fslab.cli_app import read_passwords
from fslab.errors import FslabError
from fslab.webapp.folders import new_visitor
from fslab.webapp.guard import MAX_BODY
from fslab.webapp.launch import check_exposure, launch, prepare
from fslab.webapp.limiter import MAX_CLIENTS, Limiter, client_of
from fslab.webapp.page import build_page
from fslab.webapp.settings import AppSettings


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The real page on a port of its own."""
    settings = AppSettings(home=tmp_path_factory.mktemp("app") / "home", min_free_mb=0, requests_per_minute=10_000)
    prepare(settings)
    page = build_page(settings)
    url = launch(page, settings, block=False)
    yield SimpleNamespace(url=url.rstrip("/"), settings=settings, page=page)
    page.close(verbose=False)


@pytest.mark.parametrize("where", [{"share": True}, {"host": "0.0.0.0"}, {"host": "::"}, {"host": "192.168.1.5"}])
def test_strangers_need_a_lock_or_the_preset(where, tmp_path):
    own, public = AppSettings(home=tmp_path), AppSettings.for_public(home=tmp_path)
    with gr.Blocks() as page:
        pass
    with pytest.raises(FslabError, match="passwords or the public preset"):
        launch(page, own, **where)
    check_exposure(where.get("host", "127.0.0.1"), "share" in where, True, own)
    check_exposure(where.get("host", "127.0.0.1"), "share" in where, False, public)
    for host in ("127.0.0.1", "localhost", "::1", "127.8.8.8"):
        check_exposure(host, False, False, own)


def test_the_command_refuses_in_a_sentence(capsys, tmp_path):
    home = ["--home", str(tmp_path / "home")]
    (tmp_path / "bad").write_text("only a name\n")
    for argv, word in (
        (["--share"], "--auth-file"), (["--host", "0.0.0.0"], "--public"), 
        (["--auth-file", str(tmp_path / "no")], "none"),
        (["--auth-file", str(tmp_path / "bad")], "name:password"),
    ):  # fmt: skip
        assert main(["app", *home, *argv]) == 2
        err = capsys.readouterr().err
        assert word in err
        assert len([line for line in err.splitlines() if line.strip()]) == 1
    with pytest.raises(SystemExit, match="2"):
        main(["app", *home, "--max-seconds", "0"])
    assert "max_seconds must be" in capsys.readouterr().err
    assert not (tmp_path / "home").exists()


def test_passwords(tmp_path):
    (tmp_path / "file").write_text("# who may enter\nada:a:b c\n\n  dan:pass\n")
    assert read_passwords(tmp_path / "file") == [("ada", "a:b c"), ("dan", "pass")]


def test_a_port_that_is_taken(tmp_path):
    with socket.socket() as held, gr.Blocks() as page:
        held.bind(("127.0.0.1", 0))
        held.listen()
        with pytest.raises(FslabError, match="a free port"):
            launch(page, AppSettings(home=tmp_path), port=held.getsockname()[1], block=False)


def test_what_the_server_says_of_itself(served):
    config = httpx.get(f"{served.url}/config").json()
    assert not config["run_history"]
    assert config["analytics_enabled"] is False
    assert served.page.delete_cache
    answer = httpx.get(served.url)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "frame-ancestors" in answer.headers["content-security-policy"]
    for path in ("monitoring/summary", "gradio_api/runs", "gradio_api/vibe-code", "gradio_api/run/predict"):
        assert httpx.get(f"{served.url}/{path}").status_code in (404, 405), path
    evil = httpx.post(f"{served.url}/gradio_api/queue/join", json={}, headers={"origin": "https://evil.example"})
    assert "access-control-allow-origin" not in evil.headers


def test_nobody_elses_files_are_handed_out(served):
    who = new_visitor(served.settings)
    (who.uploads / "private.txt").write_text("private")
    for path in (who.uploads / "private.txt", served.settings.home / "secret", "/etc/passwd"):
        for route in ("file=", "file/", "file=%2f.."):
            assert httpx.get(f"{served.url}/gradio_api/{route}{path}").status_code in (403, 404)
    named = [("files", ("../../../x.txt", b"x")), ("files", ("y.html", b"<script>"))]
    paths = httpx.post(f"{served.url}/gradio_api/upload", files=named).json()
    for path in paths:
        assert served.settings.cache in served.settings.cache.joinpath(path).parents
        answer = httpx.get(f"{served.url}/gradio_api/file={path}")
        assert answer.headers["content-disposition"].startswith("attachment") or path.endswith(".txt")
    assert not (served.settings.home.parent / "x.txt").exists()


def test_too_large_too_deep_and_no_json(served):
    join = f"{served.url}/gradio_api/queue/join"
    assert httpx.post(join, content=b" " * (MAX_BODY + 1)).status_code == 413
    assert httpx.post(join, content=b'{"data":' * 200 + b"1" + b"}" * 200).status_code == 422
    assert httpx.post(join, content=b"[1]").status_code == 422
    assert httpx.post(join, content=b"\xff").status_code == 400
    assert httpx.get(f"{served.url}/{'a' * 5000}").status_code == 400
    assert httpx.post(f"{served.url}/gradio_api/call/nothing", json={"data": [], "fn_index": 1}).status_code == 400


def test_hostile_requests_break_nothing_and_reach_nothing(served):
    who = new_visitor(served.settings)
    (who.uploads / "private.txt").write_text("only for the one whose it is")
    cache, around = served.settings.cache, served.settings.home.parent

    def files():
        return {p for p in around.rglob("*") if p.is_file() and not p.is_relative_to(cache) and p.name != ".seen"}

    before = files()
    statuses, bad = attack(served.url, 1, 200, [who.uploads / "private.txt"])
    assert not bad, bad[:10]
    assert sum(statuses.values()) == 200
    assert httpx.get(served.url).status_code == 200
    assert files() == before


def test_the_limiter_counts_each_client_alone():
    now = [0.0]
    limiter = Limiter(2, lambda: now[0])
    limiter.check("ada")
    limiter.check("ada")
    limiter.check("dan")
    with pytest.raises(FslabError, match="at most 2 requests a minute, found more; wait 60 seconds"):
        limiter.check("ada")
    now[0] = 61
    limiter.check("ada")
    for i in range(MAX_CLIENTS + 10):
        limiter.check(str(i))
    assert len(limiter._calls) <= MAX_CLIENTS + 1


def test_whom_a_call_is_counted_as():
    request = SimpleNamespace(client=SimpleNamespace(host="10.0.0.1"), headers={"x-forwarded-for": "6.6.6.6, 1.2.3.4"})
    assert client_of(request, False) == "10.0.0.1"
    assert client_of(request, True) == "1.2.3.4"
    assert client_of(None, True) == "here"
