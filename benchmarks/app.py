"""The app: how fast it starts, answers and swaps, what 50 open pages cost a training, and 1,000 hostile requests.

    python -m benchmarks.app [start] [packaged] [polling] [hostile]

Without names, all four; with some, the others keep what was measured before. The polling arms alternate (alone,
watched, alone, ...), each a training of its own, ``STEPS`` steps on the packaged people; what is compared is the wall
time that training itself counted. In the watched arm 50 visitors ask for news once a second, as their pages do while a
job of theirs is under way.
"""

import asyncio
import json
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from fractions import Fraction
from itertools import islice
from pathlib import Path

import httpx
from gradio_client import Client, handle_file

from benchmarks.common import RESULTS, save
from benchmarks.hostile import attack
from fslab.media import read_frames, write_image, write_video
from fslab.samples import sample_path
from fslab.webapp.folders import Visitor, new_visitor
from fslab.webapp.news import HEADER, ROUTE
from fslab.webapp.settings import AppSettings
from fslab.webapp.swapping import first_frame

VISITORS = 50
STEPS = 60
ROUNDS = 3
N_HOSTILE = 1000
PORT = 7959


class Server:
    """`fslab app` as a child process, for the time of a ``with`` block; ``seconds`` is how long it took to answer."""

    def __init__(self, home: Path):
        """Serve from ``home``."""
        self.home, self.url = home, f"http://127.0.0.1:{PORT}"

    def __enter__(self) -> "Server":
        started = time.perf_counter()
        command = [sys.executable, "-m", "fslab", "app", "--home", str(self.home), "--port", str(PORT)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        while True:
            try:
                httpx.get(self.url, timeout=60).raise_for_status()
                break
            except httpx.HTTPError:
                if self.process.poll() is not None:
                    raise RuntimeError(self.process.stderr.read()[-2000:]) from None
                time.sleep(0.02)
        self.seconds = time.perf_counter() - started
        return self

    def __exit__(self, *_) -> None:
        self.process.terminate()
        self.process.wait()


def measure_start(home: Path) -> dict:
    starts, views = [], []
    for _ in range(ROUNDS):
        with Server(home) as server:
            starts.append(server.seconds)
            began = time.perf_counter()
            httpx.get(server.url).raise_for_status()
            httpx.get(f"{server.url}/config").raise_for_status()
            views.append(time.perf_counter() - began)
    return {"start_s": statistics.median(starts), "page_and_config_s": statistics.median(views)}


def measure_polling(home: Path) -> dict:
    settings = AppSettings(home=home)
    with Server(home) as server:
        name = enter(Client(server.url, verbose=False))
        visitor = Visitor(name, settings.visitors / name)
        names = [new_visitor(settings).name for _ in range(VISITORS)]
    faces = [home / "faces" / person for person in ("ada", "dan")]
    for person, folder in zip(("ada", "dan"), faces, strict=True):
        argv = ["extract", sample_path(f"{person}.mp4"), folder, "--identity", person]
        run_fslab([*argv, "--consent", sample_path(f"consents/{person}.json"), "--overwrite"])
    seconds: dict[str, list[float]] = {"alone": [], "watched": []}
    errors, latencies = [], []
    with Server(home) as server:
        for turn in range(2 * ROUNDS):
            arm, stop = list(seconds)[turn % 2], threading.Event()
            asking = threading.Thread(target=asyncio.run, args=(ask(server.url, names, stop, errors, latencies),))
            if arm == "watched":
                asking.start()
            out = visitor.runs / f"run{turn}"
            run_fslab(["train", *faces, "--out", out, "--steps", STEPS])
            stop.set()
            if arm == "watched":
                asking.join()
            rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
            seconds[arm].append(max(row["seconds"] for row in rows))
    alone, watched = (statistics.median(seconds[arm]) for arm in seconds)
    return {
        "steps": STEPS, "seconds": seconds, "slower": watched / alone - 1, "errors": errors[:5],
        "polls": len(latencies),
        "poll_p50_s": statistics.median(latencies), "poll_p99_s": statistics.quantiles(latencies, n=100)[-1],
    }  # fmt: skip


def run_fslab(argv: list) -> None:
    subprocess.run([sys.executable, "-m", "fslab", *map(str, argv)], check=True, stdout=subprocess.DEVNULL)


async def ask(url: str, names: list[str], stop: threading.Event, errors: list, latencies: list) -> None:
    """Ask for news once a second for each visitor, as an open page does.

    Over plain sockets: a full HTTP client would cost the machine more than the server it asks.
    """
    host, port = url.removeprefix("http://").split(":")

    async def poll(name: str, delay: float) -> None:
        await asyncio.sleep(delay)
        reader, writer = await asyncio.open_connection(host, int(port))
        request = f"GET /{ROUTE} HTTP/1.1\r\nHost: {host}:{port}\r\n{HEADER}: {name}\r\n\r\n".encode()
        while not stop.is_set():
            began = time.perf_counter()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
            await reader.readexactly(int(length[1]))
            latencies.append(time.perf_counter() - began)
            if not head.startswith(b"HTTP/1.1 200"):
                errors.append(head.decode(errors="replace"))
            await asyncio.sleep(max(1.0 - (time.perf_counter() - began), 0))
        writer.close()

    await asyncio.gather(*(poll(name, i / len(names)) for i, name in enumerate(names)))


def enter(client: Client) -> str:
    """Return the name of a new visitor's folder."""
    who = client.predict("", api_name="/enter")
    return who[-1] if isinstance(who, tuple | list) else who


def measure_packaged(home: Path) -> dict:
    """Time a picture and the packaged clip, swapped with the packaged run, from the call to the file."""
    pictures, clips = [], []
    frame = home.parent / "ada.png"
    write_image(frame, first_frame(sample_path("ada_target.mp4")))
    with Server(home) as server:
        client = Client(server.url, verbose=False, download_files=str(home.parent / "got"))
        for _ in range(ROUNDS):
            who = enter(client)
            began = time.perf_counter()
            client.predict(who, "packaged", "dan", "ada", handle_file(frame), api_name="/swap_image")
            pictures.append(time.perf_counter() - began)
        for _ in range(ROUNDS):
            who = enter(client)
            began = time.perf_counter()
            clip = handle_file(long_clip(home.parent))
            client.predict(who, "packaged", "dan", "ada", clip, api_name="/swap_video")
            while not list((home / "visitors" / who / "results").glob("*/swap.mp4")):
                time.sleep(0.05)
            clips.append(time.perf_counter() - began)
    return {
        "picture_first_s": pictures[0],
        "picture_s": statistics.median(pictures[1:]),
        "clip_s": statistics.median(clips),
    }


def long_clip(folder: Path) -> Path:
    """Return the packaged footage of ada cut to 5 s (125 frames) of 384 px."""
    path = folder / "five.mp4"
    if not path.exists():
        frames = islice(read_frames(sample_path("ada.mp4")), 125)
        write_video(path, (f.rgb() for f in frames), Fraction(25))
    return path


def measure_hostile(home: Path) -> dict:
    settings = AppSettings(home=home)
    other = new_visitor(settings)
    (other.uploads / "private.txt").write_text("only for the one whose it is")
    secrets = [other.uploads / "private.txt"]
    with Server(home) as server:
        before = outside(home)
        began = time.perf_counter()
        statuses, bad = attack(server.url, 0, N_HOSTILE, secrets)
        seconds = time.perf_counter() - began
        alive = httpx.get(server.url).status_code == 200
    return {
        "requests": N_HOSTILE, "seconds": seconds, "statuses": {str(k): n for k, n in sorted(statuses.items())},
        "bad": bad, "alive": alive, "new_files_outside_the_cache": sorted(outside(home) - before),
    }  # fmt: skip


def outside(home: Path) -> set[str]:
    """Return the files under ``home`` and beside it that are not in the served cache."""
    return {str(p) for p in home.parent.rglob("*") if p.is_file() and not p.is_relative_to(home / "cache")}


def main() -> None:
    wanted = sys.argv[1:] or ["start", "packaged", "polling", "hostile"]
    arms = {
        "start": measure_start, "packaged": measure_packaged, "polling": measure_polling, "hostile": measure_hostile
    }  # fmt: skip
    known = RESULTS / "app.json"
    result = {k: v for k, v in json.loads(known.read_text()).items() if k in arms} if known.exists() else {}
    for name in wanted:
        with tempfile.TemporaryDirectory() as folder:
            result[name] = arms[name](Path(folder) / "home")
        save("app", result)


if __name__ == "__main__":
    main()
