"""The labs' controls in a real JupyterLab: a kernel changed, a warp turned up, a training watched and stopped.

Needs Chromium, as `test_webapp_browser` does; without it these tests are skipped.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import jupytext
import nbformat
import pytest

pytest.importorskip("jupyterlab")
pytest.importorskip("playwright")

from playwright.sync_api import TimeoutError, expect, sync_playwright

CHROMIUM = os.environ.get("FSLAB_CHROMIUM") or shutil.which("chromium")
QUIET = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
TOKEN = "a-token-of-this-test"
SHORT, PATIENCE = 20_000, 120_000  # milliseconds
NOTEBOOK = """
# %%
from pathlib import Path
from fslab.dataset import FaceDataset
from fslab.faceset import FaceSet
from fslab.model import ModelConfig
from fslab.schedule import TrainConfig
from fslab.widgets import TrainingPanel, kernel_editor, warp_explorer
people = [FaceSet.load(Path(p)) for p in {folders}]
data = FaceDataset.from_faceset(people[0], 64)

# %%
kernel_editor(people[0].crops(128)[0])

# %%
warp_explorer(data)

# %%
shape = ModelConfig(size=64, width=16, latent_channels=32, blocks=0, encoder_blocks=0)
panel = TrainingPanel(people, Path("run"), shape, TrainConfig(budget="5m", batch=4, preview_every=2, measure_every=1e9))
panel.start()
"""

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium: install Debian's `chromium` to run this")


@pytest.fixture
def url(tmp_path, facesets):
    """A JupyterLab that serves a notebook with the controls."""
    source = NOTEBOOK.format(folders=[str(f.folder) for f in facesets.values()])
    notebook = jupytext.reads(source, "py:percent")
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    nbformat.write(notebook, tmp_path / "controls.ipynb")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    options = {
        "ServerApp.port": port, "ServerApp.root_dir": tmp_path, "IdentityProvider.token": TOKEN,
        "LabApp.expose_app_in_browser": True, "LabApp.news_url": None,
        "LabApp.check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
    }  # fmt: skip
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += [f"--{name}={value}" for name, value in options.items()]
    environment = os.environ | {
        "JUPYTER_CONFIG_DIR": str(tmp_path / "config"),
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "run-time"),
    }
    with open(tmp_path / "lab.log", "wb") as log:
        server = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log)
    try:
        wait_for(f"http://127.0.0.1:{port}/api", server, tmp_path / "lab.log")
        yield f"http://127.0.0.1:{port}/lab/tree/controls.ipynb?token={TOKEN}"
    finally:
        server.terminate()
        server.wait(30)


def wait_for(address, server, log, seconds=90):
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.poll() is None:
        try:
            return urllib.request.urlopen(address, timeout=10).read()
        except OSError:
            time.sleep(0.3)
    return pytest.fail(log.read_text(errors="replace")[-2000:])


def test_the_controls_work_in_jupyterlab(url, tmp_path):
    shots = Path(os.environ.get("FSLAB_SCREENSHOTS") or tmp_path)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        page = browser.new_page(viewport={"width": 1280, "height": 2400})
        page.goto(url)
        page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=PATIENCE)
        page.wait_for_selector(
            ".jp-NotebookPanel .jp-Notebook-ExecutionIndicator[data-status='idle']", timeout=PATIENCE
        )
        kernels = page.locator(".fslab-kernels")
        made = kernels.locator("img").last
        for _ in range(3):  # a command that comes before the kernel is ready is lost
            page.wait_for_timeout(3000)
            page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
            try:
                kernels.wait_for(timeout=60_000)
                break
            except TimeoutError:
                continue
        expect(made).to_be_visible(timeout=PATIENCE)
        before = made.get_attribute("src")
        kernels.locator("select").select_option("outline")
        expect(made).not_to_have_attribute("src", before, timeout=SHORT)
        assert kernels.locator("input[type=number]").nth(4).input_value() == "4"

        warps = page.locator(".fslab-warps")
        sheet = warps.locator("img")
        expect(sheet).to_be_visible(timeout=SHORT)
        before = sheet.get_attribute("src")
        seed = warps.locator("input[type=number]").last
        seed.fill("7")
        seed.press("Enter")
        expect(sheet).not_to_have_attribute("src", before, timeout=SHORT)

        panel = page.locator(".fslab-train")
        expect(panel).to_contain_text("step", timeout=PATIENCE)
        expect(panel.locator("img").first).to_be_visible(timeout=SHORT)
        page.screenshot(path=shots / "jupyterlab.png")
        panel.get_by_role("button", name="Stop").click()
        expect(panel).to_contain_text("stopped after", timeout=PATIENCE)
        browser.close()
    assert (tmp_path / "run" / "config.json").exists(), "what was learnt is saved"
