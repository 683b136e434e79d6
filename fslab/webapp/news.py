"""What every open page asks once a second: its job's line, and whether there is more to show.

The question has a route of its own, before Gradio: through Gradio's queue it costs some twenty milliseconds of a core,
and fifty pages would take half of the machine from a training.
"""

from pathlib import PurePosixPath

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from fslab.webapp.folders import find_visitor
from fslab.webapp.lab import Lab, describe_job
from fslab.webapp.train import news_of

ROUTE = "fslab/news"  # relative to the page's address, which a proxy may have put into a folder
HEADER = "X-Fslab-Visitor"
# Puts the line in its place, and what has changed into two hidden boxes, whose change is an event of the page.
SCRIPT = """(() => {
let last = {};
const box = (name) => document.querySelector(`#${name} textarea, #${name} input`);
const ask = async () => {
  const visitor = box("visitor");
  if (visitor && visitor.value && !document.hidden) {
    try {
      const reply = await fetch("%(route)s", {headers: {"%(header)s": visitor.value}});
      const news = reply.ok ? await reply.json() : {};
      const line = document.querySelector("#job .fs-job");
      if (line && news.line && news.line !== line.outerHTML) {
        const made = new DOMParser().parseFromString(news.line, "text/html").body.firstElementChild;
        line.className = made.className;
        line.innerHTML = made.innerHTML;
      }
      for (const name of ["seen", "learnt"]) {
        if (name in news && news[name] !== last[name] && box(name)) {
          box(name).value = news[name];
          box(name).dispatchEvent(new Event("input", {bubbles: true}));
        }
      }
      if ("seen" in news) last = news;
    } catch { /* the server is away for a moment */ }
  }
  const busy = /fs-(running|queued)/.test(last.line || "fs-running");
  setTimeout(ask, busy ? %(every)d : 2 * %(every)d);
};
ask();
})()"""


def build_script(poll_seconds: float) -> str:
    """Return the page's script that asks every so many seconds."""
    return SCRIPT % {"route": ROUTE, "header": HEADER, "every": round(1000 * poll_seconds)}


def tell_news(lab: Lab, name: str, request: Request) -> dict[str, str] | None:
    """Return a visitor's news; None for a name that is none of ours.

    Returns:
        ``line`` as HTML in the language of the request; ``seen`` and ``learnt``, texts that change when a job does, and
        when a training has more to show.
    """
    visitor = find_visitor(lab.settings, name)
    if visitor is None:
        return None
    job = lab.book.latest(visitor)
    seen = f"{job.id} {job.state} {job.stage == 'saving'}" if job else ""
    return {"line": describe_job(job, request), "seen": seen, "learnt": news_of(lab, visitor)}


class News:
    """ASGI middleware that answers `ROUTE` itself and passes everything else on."""

    def __init__(self, app: ASGIApp, lab: Lab):
        """Answer from ``lab``."""
        self.app, self.lab = app, lab

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http" or PurePosixPath(scope["path"]).parts[-2:] != PurePosixPath(ROUTE).parts:
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive)
        news = tell_news(self.lab, request.headers.get(HEADER, ""), request)  # a millisecond; a thread would cost more
        reply = JSONResponse(news or {}, 200 if news else 404, {"Cache-Control": "no-store"})
        await reply(scope, receive, send)
