"""What lies between the broker's thread and the database's: a bounded queue of
messages to settle."""

from __future__ import annotations

from collections.abc import Callable
from queue import Empty, Full, Queue

import msgspec

from edgeml.collector.ingest.validate import Received

QUEUED = 10_000
"""Messages in memory at most: at a window of 2 kB, 20 MB."""


class Item(msgspec.Struct, frozen=True):
    """A message, and how to tell the broker that it is settled."""

    received: Received
    acknowledge: Callable[[], None]


class Inbox:
    """A bounded queue that hands out batches. What is in it is not yet acknowledged."""

    def __init__(self, size: int = QUEUED) -> None:
        self._queue: Queue[Item] = Queue(size)

    def put(self, item: Item, *, timeout_s: float) -> bool:
        """Queue a message; False where there was no room for ``timeout_s``."""
        try:
            self._queue.put(item, timeout=timeout_s)
        except Full:
            return False
        return True

    def take(self, *, limit: int, timeout_s: float) -> list[Item]:
        """Up to ``limit`` messages in their order; none after ``timeout_s`` without any."""
        try:
            batch = [self._queue.get(timeout=timeout_s)]
        except Empty:
            return []
        while len(batch) < limit:
            try:
                batch.append(self._queue.get_nowait())
            except Empty:  # noqa: PERF203
                break
        return batch

    def __len__(self) -> int:
        return self._queue.qsize()
