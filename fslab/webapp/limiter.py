"""How often one client may ask for work."""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from fslab.errors import FslabError

WINDOW = 60.0  # seconds
MAX_CLIENTS = 10_000  # remembered; the one longest silent is forgotten first


class Limiter:
    """Counts each client's calls of the last minute; safe to call from many threads."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic):
        """Begin without any calls.

        Args:
            per_minute: calls that one client may make in any minute.
            clock: seconds, rising.
        """
        self.per_minute, self._clock = per_minute, clock
        self._lock, self._calls = threading.Lock(), dict[str, deque[float]]()

    def check(self, client: str) -> None:
        """Count a call.

        Args:
            client: who calls, see `client_of`.

        Raises:
            FslabError: if the client made too many; the call that is refused does not count.
        """
        with self._lock:
            now = self._clock()
            calls = self._calls.pop(client, None) or deque()
            self._calls[client] = calls  # last in order: the most recent
            while calls and calls[0] <= now - WINDOW:
                calls.popleft()
            if len(self._calls) > MAX_CLIENTS:
                del self._calls[next(iter(self._calls))]
            if len(calls) >= self.per_minute:
                wait = calls[0] + WINDOW - now
                raise FslabError(f"at most {self.per_minute} requests a minute", "more", f"wait {wait:.0f} seconds")
            calls.append(now)


def client_of(request: Any, trust_proxy: bool) -> str:
    """Return whom to count a call as: the address it came from.

    Args:
        request: a ``gr.Request``, or None for a call from the same process.
        trust_proxy: take the last address of X-Forwarded-For, the one that the nearest proxy wrote.
    """
    if request is None:
        return "here"
    return address_of(str(getattr(request.client, "host", "unknown")), request.headers or {}, trust_proxy)


def address_of(host: str, headers: Mapping[str, str], trust_proxy: bool) -> str:
    """Return ``host``, or the address that the nearest proxy wrote where proxies are trusted."""
    forwarded = str(headers.get("x-forwarded-for", "")).rsplit(",", 1)[-1].strip()
    return forwarded if trust_proxy and forwarded else host
