"""What looks after all workers: who holds their memory
(:mod:`~edgeml.device_agent.limits.limiter`), and one thread that sees whether they live, and reads
their resident set where the kernel does not hold it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from edgeml.device_agent.limits.limiter import Hold, Kind, Limiter
from edgeml.device_agent.worker.parent import Worker


class Watched:
    """A worker under watch."""

    def __init__(self, worker: Worker, hold: Hold, gone: Callable[[], None]) -> None:
        self.worker = worker
        self.exceeded_bytes = 0
        """The resident set for which it was killed here; 0 where it was not."""
        self.dead = False
        """It was killed here, or had ended."""
        self.gone = gone
        """Called once, after that, from the watching thread."""
        self._hold = hold
        self._breach = ""

    @property
    def limit_bytes(self) -> int | None:
        """Of its memory; None for no limit."""
        return self._hold.limit_bytes

    @property
    def polled_bytes(self) -> int | None:
        """The resident set at which the watch kills it; None where that is the kernel's work."""
        return self._hold.polled_bytes

    @property
    def memory_limit(self) -> Kind:
        """Who holds the limit."""
        return self._hold.kind

    def memory_breach(self) -> str:
        """A sentence where it was killed for its memory, or nothing."""
        if self.exceeded_bytes:
            had = f"its worker had {self.exceeded_bytes / 1e6:.0f} MB resident"
            return f"{had}, {(self.limit_bytes or 0) / 1e6:.0f} MB are allowed"
        self._breach = self._breach or self._hold.breach(killed=self.worker.was_killed())
        return self._breach

    def close(self) -> None:
        """Kill it, wait for its end, and let go of what held its memory."""
        self.worker.close()
        self.memory_breach()  # what it is to be read from goes with the hold
        self._hold.close()


class Watch:
    """Polls ``/proc/PID/statm`` of every worker.

    Args:
        interval_s: between two looks.
        limiter: holds the workers' memory; a poll where it is not given.
    """

    def __init__(self, interval_s: float, limiter: Limiter | None = None) -> None:
        self._interval = interval_s
        self._limiter = limiter or Limiter(None)
        self._lock = threading.Lock()
        self._watched: list[Watched] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def hold(self, limit_bytes: int | None, *, data_limit: bool = True) -> Hold:
        """See :meth:`~edgeml.device_agent.limits.limiter.Limiter.hold`."""
        return self._limiter.hold(limit_bytes, data_limit=data_limit)

    def add(self, worker: Worker, *, hold: Hold, gone: Callable[[], None]) -> Watched:
        """Look after a worker."""
        watched = Watched(worker, hold, gone)
        with self._lock:
            self._watched.append(watched)
        return watched

    def remove(self, watched: Watched) -> None:
        """Stop looking after a worker."""
        with self._lock:
            if watched in self._watched:
                self._watched.remove(watched)

    def resident_bytes(self) -> int:
        """Of all workers together."""
        with self._lock:
            watched = list(self._watched)
        return sum(entry.worker.resident_bytes() or 0 for entry in watched)

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
                    if entry.polled_bytes is None or resident <= entry.polled_bytes:
                        continue
                    entry.exceeded_bytes = resident
                    entry.worker.kill()
                self.remove(entry)
                entry.dead = True
                entry.gone()
