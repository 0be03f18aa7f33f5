"""One thread that looks after all workers: their resident set, and that they live.

The weakest of the memory limits, and the one that needs no privilege: a worker may exceed its limit
for as long as a poll takes. Reported as ``poll``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from edgeml.device_agent.worker.parent import Worker


class Watched:
    """A worker under watch."""

    def __init__(self, worker: Worker, limit_bytes: int | None, gone: Callable[[], None]) -> None:
        self.worker = worker
        self.limit_bytes = limit_bytes
        self.exceeded_bytes = 0
        """The resident set for which it was killed; 0 where it was not."""
        self.dead = False
        """It was killed here, or had ended."""
        self.gone = gone
        """Called once, after that, from the watching thread."""


class Watch:
    """Polls ``/proc/PID/statm`` of every worker.

    Args:
        interval_s: between two looks.
    """

    def __init__(self, interval_s: float) -> None:
        self._interval = interval_s
        self._lock = threading.Lock()
        self._watched: list[Watched] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def add(self, worker: Worker, *, limit_bytes: int | None, gone: Callable[[], None]) -> Watched:
        """Look after a worker."""
        watched = Watched(worker, limit_bytes, gone)
        with self._lock:
            self._watched.append(watched)
        return watched

    def remove(self, watched: Watched) -> None:
        """Stop looking after a worker."""
        with self._lock:
            if watched in self._watched:
                self._watched.remove(watched)

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            with self._lock:
                watched = list(self._watched)
            for entry in watched:
                resident = entry.worker.resident_bytes()
                if resident is not None:
                    if entry.limit_bytes is None or resident <= entry.limit_bytes:
                        continue
                    entry.exceeded_bytes = resident
                    entry.worker.kill()
                self.remove(entry)
                entry.dead = True
                entry.gone()
