"""Stages in threads with bounded queues between them: decoding, networks and encoding overlap in constant memory."""

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
_END = object()


def prefetch(items: Iterable[T], depth: int) -> Iterator[T]:
    """Run an iterator in a thread of its own, at most ``depth`` items ahead of the reader.

    Order is kept. An exception of the producer is raised in the reader, in its place. When the reader stops early (an
    exception, ``close()``), the producer is told to stop, its generator is closed, and its thread is joined.

    Args:
        items: any iterable; a chain of generators becomes a pipeline by wrapping each.
        depth: items the queue may hold, >= 1.

    Yields:
        The items of ``items``.
    """
    if depth < 1:
        raise ValueError(f"depth must be >= 1, got {depth}")
    ready: queue.Queue = queue.Queue(depth)
    stop = threading.Event()

    def put(item: object) -> bool:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def produce() -> None:
        iterator = iter(items)
        try:
            for item in iterator:
                if not put((item, None)):
                    break
            else:
                put((_END, None))
        except BaseException as error:  # noqa: BLE001 - handed to the reader, who raises it
            put((_END, error))
        finally:
            if hasattr(iterator, "close"):
                iterator.close()

    thread = threading.Thread(target=produce, daemon=True, name=f"prefetch-{getattr(items, '__name__', 'items')}")
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        stop.set()
        thread.join()


def in_batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield lists of up to ``size`` consecutive items; the last one may be shorter."""
    batch: list[T] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
