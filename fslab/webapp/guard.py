"""A layer before Gradio: what is too large, leads elsewhere or cannot be read never reaches it."""

import json
import logging
import re
import shutil
from pathlib import Path
from urllib.parse import unquote

from gradio.route_utils import FnIndexInferError
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fslab.errors import FslabError
from fslab.webapp.limiter import Limiter, address_of
from fslab.webapp.settings import MEGABYTE, AppSettings

log = logging.getLogger(__name__)

MAX_BODY = 8 * MEGABYTE  # bytes of a request that is not an upload
MAX_PATH = 4096  # characters
MAX_DEPTH = 64  # of nested lists and objects in a body
# Parts of Gradio that the page does not use: recordings handed to ffmpeg, code edited by a model, other servers asked.
UNUSED = re.compile(
    r"process_recording|vibe|undo-vibe|dev/|proxy=|component_server|custom_component|run-history|runs|monitoring|mcp|"
    r"profiling|api/|run/"
)
_FILE = re.compile(r"/file[=/]")
# What Gradio's routes raise on a request that does not fit, such as the number of a function that is not there.
MALFORMED = (
    LookupError, ValueError, TypeError, AttributeError, AssertionError, OSError, RuntimeError, FnIndexInferError,
)  # fmt: skip
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "frame-ancestors 'self' https://huggingface.co",
}


class Guard:
    """ASGI middleware; refusals are JSON with the status that HTTP has for them."""

    def __init__(self, app: ASGIApp, settings: AppSettings):
        """Guard ``app`` by the limits of ``settings``."""
        self.app, self.settings = app, settings
        self._uploads = Limiter(settings.requests_per_minute)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            self._check_request(scope)
            receive = await self._checked_body(scope, receive)
        except Refused as refusal:
            log.warning("refused %s %.80s: %s", scope["method"], ascii(scope["path"]), refusal.text)
            await JSONResponse({"detail": refusal.text}, refusal.status)(scope, receive, send)
            return

        started = False

        async def send_guarded(message: Message) -> None:
            nonlocal started
            started = True
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self.app(scope, receive, send_guarded)
        except MALFORMED as reason:  # a visitor's call never raises here: Gradio's queue keeps what handlers raise
            log.warning("refused %s %.80s: %r", scope["method"], ascii(scope["path"]), reason)
            if started:  # a stream of news for a session that is not there: it ends in order
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                return
            await JSONResponse({"detail": "the request does not fit"}, 400)(scope, receive, send_guarded)

    def _check_request(self, scope: Scope) -> None:
        path, settings = scope["path"], self.settings
        if len(path) > MAX_PATH or any(c < " " or "\ud800" <= c <= "\udfff" for c in unquote(path)):
            raise Refused(400, "this address cannot be")
        if UNUSED.match(path.removeprefix("/gradio_api").lstrip("/")):
            raise Refused(404, "there is nothing here")
        asked = _FILE.split(path, maxsplit=1)
        if len(asked) > 1 and not _is_served(asked[1], settings.cache):
            raise Refused(403, "this file is not handed out")
        if _is_upload(scope):
            if shutil.disk_usage(settings.home).free < settings.min_free_mb * MEGABYTE:
                raise Refused(507, "the disk is full")
            host = (scope.get("client") or ("unknown",))[0]
            try:
                self._uploads.check(address_of(host, Headers(scope=scope), settings.trust_proxy))
            except FslabError as error:
                raise Refused(429, str(error)) from error

    async def _checked_body(self, scope: Scope, receive: Receive) -> Receive:
        """Read the body of a request that is not an upload, check it, and return a way to read it again."""
        if scope["method"] not in ("POST", "PUT", "PATCH") or _is_upload(scope):
            return receive
        parts, size, more = [], 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Refused(400, "the request was cut off")
            parts.append(message.get("body", b""))
            size, more = size + len(parts[-1]), message.get("more_body", False)
            if size > MAX_BODY:
                raise Refused(413, f"a request may have {MAX_BODY // MEGABYTE} MB")
        body = b"".join(parts)
        kind = Headers(scope=scope).get("content-type", "")
        if "form" not in kind:
            _check_json(body)
        told = False

        async def receive_again() -> Message:
            nonlocal told
            if told:
                return await receive()
            told = True
            return {"type": "http.request", "body": body, "more_body": False}

        return receive_again


class Refused(Exception):
    """A request that is not passed on, with the HTTP status and a sentence."""

    def __init__(self, status: int, text: str):
        """Refuse with ``status``."""
        super().__init__(status, text)
        self.status, self.text = status, text


def _is_upload(scope: Scope) -> bool:
    return scope["method"] == "POST" and scope["path"].rstrip("/").endswith("/upload")


def _is_served(name: str, cache: Path) -> bool:
    """Say whether a path lies in the cache, whatever dots, links or further encoding it is dressed in."""
    try:
        return Path(unquote(name)).resolve().is_relative_to(cache.resolve())
    except (OSError, ValueError, RuntimeError):
        return False


def _check_json(body: bytes) -> None:
    try:
        value = json.loads(body) if body.strip() else {}
    except (ValueError, RecursionError) as reason:
        raise Refused(400, "the request is not JSON") from reason
    if not isinstance(value, dict):
        raise Refused(422, "the request is not a JSON object")
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [v for x in level for v in (x.values() if isinstance(x, dict) else x) if isinstance(v, dict | list)]
        if not level:
            return
    raise Refused(422, "the request is nested too deep")
