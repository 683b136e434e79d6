"""A thousand requests that nobody means well by, drawn from a seed; for the test and the benchmark of the app."""

import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx

TRAVERSALS = (
    "/etc/passwd", "../../../../etc/passwd", "..%2f..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/etc/passwd",
    "....//etc/passwd",
    "http://127.0.0.1:22/", "http://169.254.169.254/latest/meta-data/", "file:///etc/passwd", "C:\\Windows\\win.ini",
    "/proc/self/environ", "\u0000", "a" * 5000, "%00", "//etc/passwd", "/dev/zero", "~root/.ssh/id_rsa",
)  # fmt: skip
ROUTES = (
    "file={}", "file/{}", "proxy={}", "theme.css?x={}", "custom_component/{}/client/component/index.js", "assets/{}",
    "static/{}", "stream/{}/1/2/playlist.m3u8", "call/job/x{}", "vibe-code/{}",
    "run-history/records/{}/1/assets/2", "dev/reload?{}",
)  # fmt: skip
# These wait for news by design.
STREAMS = ("heartbeat/{}", "call/job/{}", "queue/data?session_hash={}", "upload_progress?upload_id={}")
POSTS = (
    "queue/join", "call/{}", "call/v2/{}", "run/{}", "api/{}", "component_server", "cancel", "reset", "upload",
    "process_recording", "stream/{}", "stream/{}/close", "vibe-edit", "login",
)  # fmt: skip
ENDPOINTS = (
    "people",
    "consent",
    "extract",
    "train",
    "job",
    "stop",
    "swap_image",
    "swap_video",
    "verify",
    "nothing",
    "",
    "é",
)

PATIENCE = 1.0  # seconds for an answer; a stream that waits for news gives none


def values(rng: random.Random, secrets: list[Path]) -> object:
    """Return something that no handler expects."""
    path = str(rng.choice([*secrets, *TRAVERSALS]))
    return rng.choice([
        None, True, -1, 1e308, 2**70, "", path, "' OR 1=1 --", "<script>alert(1)</script>", "\ud83d\ude00" * 50, [], {},
        {"path": path, "meta": {"_type": "gradio.FileData"}}, {"url": path, "meta": {"_type": "gradio.FileData"}},
        {"path": path, "url": "http://127.0.0.1:1/", "orig_name": "../../x", "meta": {"_type": "gradio.FileData"}},
        [[[[path]]]], {"__type__": "update", "value": path}, "x" * 10_000, "--overwrite", "../" * 20 + "x",
    ])  # fmt: skip


def body(rng: random.Random, secrets: list[Path]) -> bytes:
    """Return the body of a POST: hardly ever what it should be."""
    data = [values(rng, secrets) for _ in range(rng.choice([0, 1, 2, 4, 8, 40]))]
    call = {
        "data": rng.choice([data, None, "x", {"0": 1}]), "fn_index": rng.choice([0, 1, 7, 99999, -1, None, "x", []]),
        "session_hash": rng.choice(["abc", "", None, 5, "../x", "a" * 3000]), "event_id": values(rng, secrets),
        "trigger_id": rng.choice([None, 3, "x"]), "event_data": values(rng, secrets),
    }  # fmt: skip
    kept = {name: value for name, value in call.items() if rng.random() < 0.8}
    whole = json.dumps(kept).encode("utf-8", "surrogatepass")
    return rng.choice(
        [whole, whole, whole, whole[: len(whole) // 2], b"", b"[]", b"null", b"[" * 5000, b"\xff\xfe{", b"NaN"]
    )


def requests(seed: int, count: int, secrets: list[Path]) -> Iterator[httpx.Request]:
    """Yield requests.

    Args:
        seed: of the draws.
        count: how many.
        secrets: files of the server's and of other visitors', which are asked for by their right path.
    """
    rng = random.Random(seed)
    for _ in range(count):
        word = quote(str(rng.choice([*secrets, *TRAVERSALS, *ENDPOINTS])), safe=rng.choice(["", "/", "/%.:"]))
        if rng.random() < 0.5:
            routes = ROUTES if rng.random() < 0.97 else STREAMS
            yield httpx.Request("GET", "http://app/gradio_api/" + rng.choice(routes).format(word))
            continue
        route = "http://app/gradio_api/" + rng.choice(POSTS).format(quote(rng.choice(ENDPOINTS)))
        if rng.random() < 0.2:
            name = rng.choice(["../../x.mp4", "x\u0000.mp4", "..\\..\\x", "a" * 300, "", ".htaccess", "/etc/x"])
            yield httpx.Request("POST", route, files={"files": (name, b"<html>", "video/mp4")})
        else:
            kind = rng.choice(["application/json"] * 4 + ["text/plain", "multipart/form-data", "x"])
            yield httpx.Request("POST", route, content=body(rng, secrets), headers={"content-type": kind})


def attack(url: str, seed: int, count: int, secrets: list[Path]) -> tuple[Counter, list[str]]:
    """Send the requests one after another.

    Returns:
        How often each status came, and what must not have: requests that were answered with 5xx, got a secret, or
        were cut off.
    """
    statuses, bad = Counter(), []
    told = [path.read_bytes() for path in secrets]
    with httpx.Client(base_url=url, timeout=httpx.Timeout(10.0, read=PATIENCE)) as client:
        for request in requests(seed, count, secrets):
            request.url = httpx.URL(url).join(request.url.raw_path.decode("ascii"))
            request.headers["host"] = request.url.netloc.decode()
            try:
                with_body = client.send(request, stream=True)
                status, start = with_body.status_code, _first_bytes(with_body)
            except httpx.ReadTimeout:  # streams that wait for news that never comes
                status, start = 0, b""
            except httpx.HTTPError as error:
                bad.append(f"{request.method} {request.url!s:.100}: {error!r}")
                continue
            statuses[status] += 1
            if (status >= 500 and status != 507) or any(secret in start for secret in told):
                bad.append(f"{request.method} {request.url!s:.100}: {status}")
    return statuses, bad


def _first_bytes(response: httpx.Response) -> bytes:
    """Return the start of an answer; a stream of events is left after its first."""
    try:
        return next(response.iter_bytes(65536), b"") if response.status_code < 400 else b""
    finally:
        response.close()
