"""Where the app finds itself: at home for one person, or on a host for strangers."""

import os
from collections.abc import Mapping
from pathlib import Path

from fslab.webapp.launch import Where
from fslab.webapp.settings import AppSettings

PUBLIC_VARIABLE = "FSLAB_PUBLIC"  # 1: serve strangers, with the preset made for them
SPACE_VARIABLE = "SPACE_ID"  # set by Hugging Face on every Space
PACKAGED = "packaged"  # folder beside app.py with a finished run
PORT = 7860


def choose_hosting(folder: Path, environ: Mapping[str, str] = os.environ) -> tuple[AppSettings, Where]:
    """Return the limits and the address that fit the place where the app is started.

    On a Space, or where ``FSLAB_PUBLIC`` is 1, that is the preset for strangers at all addresses, or at those that
    ``GRADIO_SERVER_NAME`` and ``GRADIO_SERVER_PORT`` name; elsewhere one's own machine.

    Args:
        folder: where app.py lies; a run in its folder ``packaged`` is offered to everybody.
        environ: the environment variables.

    Raises:
        ValueError: if the port is not a number.
    """
    run = Path(folder).resolve() / PACKAGED
    packaged = {"packaged_run": run} if (run / "config.json").is_file() else {}
    on_space = SPACE_VARIABLE in environ
    if not on_space and environ.get(PUBLIC_VARIABLE) != "1":
        return AppSettings(**packaged), Where()
    host, port = environ.get("GRADIO_SERVER_NAME", "0.0.0.0"), environ.get("GRADIO_SERVER_PORT", str(PORT))
    return AppSettings.for_public(trust_proxy=on_space, **packaged), Where(host=host, port=int(port))
