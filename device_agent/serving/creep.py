"""When a worker's memory creeps up to its limit. Pure.

A runtime that leaks a little with each request ends in a kill, and a request with it. So the worker
is replaced before, between two requests. What it had when it began to serve is not creep, however
near to the limit that is.
"""

from __future__ import annotations

SHARE = 0.7
"""Of the room between where a worker began and its limit, what it may fill. The rest is for its
peaks, and for the time that its successor takes to load."""

PRESSING_SHARE = 0.85
"""Likewise, where there is no room for its successor beside it: until then it may wait for a pause
in which nobody asks; what cannot wait is refused rather than lost with a worker that is killed."""

LEAST_BYTES = 4 * 10**6
"""What it must have grown by at least: allocators take memory in pieces of some megabytes."""


class Creep:
    """One worker's memory.

    Args:
        limit_bytes: of it; None for no limit.
        base_bytes: what it had when it began to serve.
        now: monotonic seconds.
        rest_s: a worker that serves for less than this is not replaced: it grows too fast for
            that, and is for the limit to stop.
    """

    def __init__(
        self, limit_bytes: int | None, base_bytes: int, *, now: float, rest_s: float
    ) -> None:
        self._limit = limit_bytes
        self._base = base_bytes
        self._from = now + rest_s

    def is_due(self, resident_bytes: int, *, now: float) -> bool:
        """Whether to replace it now."""
        return now >= self._from and self._has_filled(SHARE, resident_bytes)

    def is_pressing(self, resident_bytes: int) -> bool:
        """Whether one that is due cannot wait for a pause any more."""
        return self._has_filled(PRESSING_SHARE, resident_bytes)

    def _has_filled(self, share: float, resident_bytes: int) -> bool:
        if self._limit is None:
            return False
        grown = resident_bytes - self._base
        return grown >= max(LEAST_BYTES, share * (self._limit - self._base))
