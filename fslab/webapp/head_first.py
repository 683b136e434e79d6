"""The page's own scripts at the beginning of its head: Gradio adds a head of one's own only once it has started.

By then it has asked the browser for its language, and the one that the visitor chose would come too late.
"""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class HeadFirst:
    """ASGI middleware that puts a piece of HTML at the beginning of the page's head."""

    def __init__(self, app: ASGIApp, head: str):
        """Put ``head`` there."""
        self.app, self.head = app, head.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http" or scope["method"] != "GET":
            await self.app(scope, receive, send)
            return
        start: Message | None = None

        async def send_page(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if headers.get("content-type", "").startswith("text/html") and "content-encoding" not in headers:
                    start = message  # kept until the body's length is known
                    return
            elif start is not None:
                body = message.get("body", b"").replace(b"<head>", b"<head>" + self.head, 1)
                if not message.get("more_body"):
                    MutableHeaders(scope=start)["content-length"] = str(len(body))
                elif "content-length" in MutableHeaders(scope=start):
                    del MutableHeaders(scope=start)["content-length"]
                await send(start)
                start, message = None, {**message, "body": body}
            await send(message)

        await self.app(scope, receive, send_page)
