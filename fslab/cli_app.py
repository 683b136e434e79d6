"""``fslab app``: the whole lab in a browser."""

import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from typing_extensions import Doc
from tyro.conf import OmitArgPrefixes

from fslab import console
from fslab.errors import FslabError
from fslab.webapp.settings import AppSettings


@dataclass(frozen=True)
class App:
    """Serve the lab to a browser: on this machine alone, unless told otherwise."""

    settings: OmitArgPrefixes[AppSettings] = field(default_factory=AppSettings)
    host: Annotated[str, Doc("address to listen at; others than 127.0.0.1 need --auth-file or --public")] = "127.0.0.1"
    port: Annotated[int | None, Doc("port to listen at; the first free one from 7860 if left out")] = None
    share: Annotated[bool, Doc("a public address for a week, through Gradio's servers")] = False
    auth_file: Annotated[Path | None, Doc("file with a line name:password for each who may enter")] = None

    def run(self) -> int:
        """Run the command."""
        if importlib.util.find_spec("gradio") is None:
            raise FslabError("Gradio", "none installed", "install it with `pip install -e '.[app]'`")
        from fslab.webapp.launch import check_exposure, launch, prepare, wait

        auth = read_passwords(self.auth_file) if self.auth_file else None
        check_exposure(self.host, self.share, bool(auth), self.settings)
        prepare(self.settings)
        from fslab.webapp.page import build_page

        page = build_page(self.settings)
        url = launch(page, self.settings, host=self.host, port=self.port, share=self.share, auth=auth, block=False)
        console.say(f"fslab is open at {url}; Ctrl-C closes it")
        wait(page)
        return 0


def read_passwords(path: Path) -> list[tuple[str, str]]:
    """Read (name, password) pairs; empty lines and those that begin with # are passed over.

    Raises:
        FslabError: if the file cannot be read, or a line is not ``name:password``.
    """
    fix = "write a line name:password for each who may enter"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise FslabError("a readable file of passwords", f"none at '{path}'", fix) from None
    pairs = [line.strip().partition(":") for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not pairs or not all(name and password for name, _, password in pairs):
        raise FslabError("lines name:password", f"others, or none, in '{path}'", fix)
    return [(name, password) for name, _, password in pairs]
