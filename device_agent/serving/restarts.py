"""When a dead worker is started again, and when no more. Pure; time comes in.

A worker that was killed now and then for one slow frame is back almost at once; one that cannot
stand up is given up, so that a device does not spend its life starting it.
"""

from __future__ import annotations

from collections import deque


class RestartPolicy:
    """Back-off that grows with the restarts within a span, and an end to them.

    Args:
        limit: restarts within ``span_s`` that are still made; the next one gives up.
        span_s: how long a restart counts.
        base_s: delay before the second one within the span; the first one is immediate.
        cap_s: longest delay.
    """

    def __init__(self, *, limit: int, span_s: float, base_s: float, cap_s: float) -> None:
        self._limit = limit
        self._span = span_s
        self._base = base_s
        self._cap = cap_s
        self._times: deque[float] = deque()

    def died(self, now: float) -> float | None:
        """A worker is gone: seconds to wait before the next one, or None to give up."""
        while self._times and now - self._times[0] >= self._span:
            self._times.popleft()
        if len(self._times) >= self._limit:
            return None
        self._times.append(now)
        earlier = len(self._times) - 1
        return min(self._cap, self._base * 2.0 ** (earlier - 1)) if earlier else 0.0

    @property
    def recent(self) -> int:
        """Restarts that count now."""
        return len(self._times)
