"""The browser app as a file of its own, for a Space too: `python app.py`. `fslab app` is the same with flags."""

from pathlib import Path

from fslab.__main__ import set_environment
from fslab.webapp.hosting import choose_hosting
from fslab.webapp.launch import launch, prepare

if __name__ == "__main__":
    set_environment()
    settings, where = choose_hosting(Path(__file__).parent)
    prepare(settings)
    from fslab.webapp.page import build_page

    launch(build_page(settings), settings, **where)
