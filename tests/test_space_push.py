"""Pushing a Space, where the app finds itself, and the one place that borrows a GPU."""

import re
import sys
from dataclasses import replace

import huggingface_hub
import pytest
from huggingface_hub.errors import HfHubHTTPError

from fslab import space
from fslab.cli import main
from fslab.errors import FslabError
from fslab.samples import sample_path
from fslab.space import plan_push, push_space
from fslab.webapp.hosting import choose_hosting


@pytest.mark.usefixtures("no_network")
def test_without_a_token_one_sentence(capsys, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    assert main(["space", "push", "ada/face-swap-lab"]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert re.fullmatch(r"fslab: expected a Hugging Face token, found none; .+`hf auth login`\.\n", err)


@pytest.mark.parametrize("name", ["lab", "a/b/c", "../x", "a/..", "a b/c", "https://x/y"])
def test_a_wrong_name_is_refused(capsys, name):
    assert main(["space", "push", name, "--dry-run"]) == 2
    _, err = capsys.readouterr()
    assert err.startswith("fslab: expected a Space's name USER/NAME, found ")
    assert err.count("\n") == 1


class FakeHub:
    """Takes what `HfApi` is asked to do."""

    def __init__(self, error=None):
        self.error, self.calls, self.files = error, [], set()

    def create_repo(self, repo, **named):
        self.calls.append((repo, named))
        return f"https://huggingface.co/spaces/{repo}"

    def upload_folder(self, **named):
        self.files = {
            p.relative_to(named["folder_path"]).as_posix() for p in named["folder_path"].rglob("*") if p.is_file()
        }
        self.calls.append((named["repo_id"], named))
        if self.error:
            raise self.error


@pytest.fixture
def hub(monkeypatch):
    def put(error=None):
        fake = FakeHub(error)
        monkeypatch.setattr(huggingface_hub, "get_token", lambda: "a token")
        monkeypatch.setattr(huggingface_hub, "HfApi", lambda: fake)
        return fake

    return put


@pytest.mark.usefixtures("no_network")
def test_push_uploads_what_is_staged_and_new_spaces_are_private(hub):
    fake = hub()
    assert push_space("ada/lab") == "https://huggingface.co/spaces/ada/lab"
    (_, made), (_, sent) = fake.calls
    assert made["private"] is True
    assert (made["repo_type"], made["space_sdk"], made["space_hardware"]) == ("space", "gradio", "cpu-basic")
    assert (sent["repo_type"], sent["delete_patterns"]) == ("space", "*")
    assert fake.files == {f.name for f in plan_push()}
    push_space("ada/lab", config=replace(space.PushConfig(), public=True))
    assert fake.calls[2][1]["private"] is False


def test_what_the_hub_refuses_is_one_sentence(hub):
    client = sys.modules[HfHubHTTPError.__bases__[0].__module__.partition(".")[0]]
    request = client.Request("POST", "https://huggingface.co/api/repos/create")
    for error in (
        HfHubHTTPError("402 Payment Required\nmore", response=client.Response(402, request=request)),
        client.ConnectError("connection refused", request=request),
    ):
        hub(error)
        with pytest.raises(FslabError, match=r"to take the Space 'ada/lab', found .+; check the network") as caught:
            push_space("ada/lab")
        assert "\n" not in str(caught.value)


def test_hosting(tmp_path):
    settings, where = choose_hosting(tmp_path, {})
    assert not settings.public
    assert not where, "one's own machine: launch's defaults, loopback"
    settings, where = choose_hosting(tmp_path, {"SPACE_ID": "ada/lab"})
    assert settings.public
    assert settings.trust_proxy
    assert settings.packaged_run == sample_path("run")
    assert (where["host"], where["port"]) == ("0.0.0.0", 7860)
    (tmp_path / "packaged").mkdir()
    (tmp_path / "packaged" / "config.json").touch()
    environ = {"FSLAB_PUBLIC": "1", "GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_SERVER_PORT": "80"}
    settings, where = choose_hosting(tmp_path, environ)
    assert (settings.public, settings.trust_proxy) == (True, False)
    assert settings.packaged_run == tmp_path.resolve() / "packaged"
    assert (where["host"], where["port"]) == ("127.0.0.1", 80)


def test_without_spaces_the_seam_is_the_function_itself(monkeypatch):
    from fslab.webapp import gpu

    monkeypatch.setattr(gpu, "spaces", None)
    assert gpu.on_gpu(len, lambda crops: 5) is len
