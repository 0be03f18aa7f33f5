"""What came in since the collector started, by what became of it."""

from __future__ import annotations

import threading
from collections import Counter

COUNTED = ("accepted", "duplicates", "unjudged", "status", "reported", "events")


class Counters:
    """Named numbers that only grow. Safe between threads."""

    def __init__(self, since_ms: int) -> None:
        self.since_ms = since_ms
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()

    def add(self, name: str, count: int = 1) -> None:
        """Count something that was taken in."""
        with self._lock:
            self._counts[name] += count

    def refuse(self, reason: str) -> None:
        """Count a refusal."""
        with self._lock:
            self._refused[reason] += 1

    def snapshot(self) -> dict[str, int | dict[str, int]]:
        """All numbers at one moment."""
        with self._lock:
            taken = {name: self._counts[name] for name in COUNTED}
            return {"since_ms": self.since_ms, **taken, "refused": dict(self._refused)}
