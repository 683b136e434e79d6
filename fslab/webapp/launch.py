"""From settings to a running server: loopback unless told otherwise; nothing measured, nothing kept unasked."""

import ipaddress
import os
import signal
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict, Unpack

from fslab.errors import FslabError
from fslab.storage import explained
from fslab.webapp.settings import AppSettings

if TYPE_CHECKING:
    import gradio as gr

CACHE_SECONDS = (600, 3600)  # how often the served copies are looked through, and how old they may get
MAX_WAITING = 256  # calls in Gradio's own queue; beyond, a clear error
MAX_THREADS = 40


class Where(TypedDict, total=False):
    """Where a server listens.

    ``port`` None is the first free one from 7860; ``share`` asks for a public address through Gradio's tunnel; ``auth``
    holds (name, password) of each who may enter.
    """

    host: str
    port: int | None
    share: bool
    auth: list[tuple[str, str]] | None


@dataclass(frozen=True)
class _Place:
    host: str = "127.0.0.1"
    port: int | None = None
    share: bool = False
    auth: list[tuple[str, str]] | None = None


def prepare(settings: AppSettings) -> None:
    """Set what Gradio reads from the environment; to be called before a page is built.

    Raises:
        OutputError: if the cache cannot be made.
    """
    for name in ("GRADIO_VIBE_MODE", "GRADIO_SHARE", "GRADIO_ALLOWED_PATHS", "GRADIO_MCP_SERVER", "GRADIO_SSR_MODE"):
        os.environ.pop(name, None)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["GRADIO_TEMP_DIR"] = str(settings.cache)
    with explained(settings.cache):
        settings.cache.mkdir(parents=True, exist_ok=True, mode=0o700)


def launch(page: "gr.Blocks", settings: AppSettings, *, block: bool = True, **where: Unpack[Where]) -> str:
    """Serve a page.

    Args:
        page: built after `prepare`; what its attribute ``look``, a dict, holds (theme, css_paths, i18n, head) is used;
            its ``lab`` answers what pages ask once a second; its ``head_first`` opens the page's head.
        settings: the limits.
        block: wait until the server is stopped, by Ctrl-C or SIGTERM.
        where: see `Where`.

    Returns:
        The address, the public one if it is shared.

    Raises:
        FslabError: if strangers could reach it without ``auth`` or the public preset, the port is taken, or no tunnel
            could be opened.
    """
    from starlette.middleware import Middleware

    from fslab.webapp.guard import Guard
    from fslab.webapp.head_first import HeadFirst
    from fslab.webapp.news import News

    place = _Place(**where)
    check_exposure(place.host, place.share, bool(place.auth), settings)
    prepare(settings)
    page.delete_cache, page.analytics_enabled = CACHE_SECONDS, False
    page.queue(max_size=MAX_WAITING, default_concurrency_limit=4, api_open=False)
    middleware = [Middleware(Guard, settings=settings)]
    if lab := getattr(page, "lab", None):
        middleware.append(Middleware(News, lab=lab))
    if head := getattr(page, "head_first", None):
        middleware.append(Middleware(HeadFirst, head=head))
    try:
        _, local, public = page.launch(
            server_name=place.host, server_port=place.port, share=place.share, auth=place.auth,
            prevent_thread_lock=True, quiet=True, show_error=False, ssr_mode=False, run_history=False,
            enable_monitoring=False, strict_cors=True, mcp_server=False, pwa=False,
            max_file_size=f"{settings.max_upload_mb}mb", max_threads=MAX_THREADS,
            allowed_paths=[str(settings.visitors)], blocked_paths=[str(settings.home / "secret")],
            footer_links=["api", "settings"], app_kwargs={"middleware": middleware},
            **getattr(page, "look", {}),
        )  # fmt: skip
    except OSError as reason:
        fix = "stop what uses it, or choose another --port"
        raise FslabError(f"a free port {place.port or 'from 7860 on'}", str(reason).splitlines()[0], fix) from reason
    if place.share and not public:
        page.close(verbose=False)
        raise FslabError("a tunnel to Gradio's servers", "none", "check the network, or leave --share out")
    if block:
        wait(page)
    return public or local


def check_exposure(host: str, share: bool, has_auth: bool, settings: AppSettings) -> None:
    """Refuse to stand open to strangers without a lock or the preset that is made for them.

    Raises:
        FslabError: then.
    """
    if (share or not _is_loopback(host)) and not has_auth and not settings.public:
        found = "neither, with --share" if share else f"neither, on {host}"
        raise FslabError(
            "passwords or the public preset where strangers can come in", found, "pass --auth-file FILE or --public"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def wait(page: "gr.Blocks") -> None:
    """Wait for Ctrl-C or SIGTERM, then close the page."""
    stop = threading.Event()
    old = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        while not stop.wait(1.0):
            pass
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
        page.close(verbose=False)
