"""Which request runs, which waits and which is refused. Pure; time comes in, on a monotonic clock.

A deadline is enforced before the work starts: a request is taken in only if what is running, what
waits before it and its own 99th percentile end in time. Of a camera only the newest frame waits.
Each request that was offered ends exactly once: served, late, shed or failed.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import Literal, NamedTuple

from edgeml.device_agent.serving.latency import Latency

Outcome = Literal["served", "late", "shed", "failed"]
OUTCOMES: tuple[Outcome, ...] = ("served", "late", "shed", "failed")


class Request(NamedTuple):
    """A request as admission sees it."""

    key: int
    deadline: float
    """Monotonic seconds; an answer after it is of no use."""
    stream: str
    """Names a camera, of which only the newest frame counts; empty for a request of its own."""


class Shed(NamedTuple):
    """A request that will not run, and why."""

    key: int
    reason: str


class Admission:
    """The queue of one model.

    Args:
        capacity: requests that may wait.
        latency: of this model; fed here with the service time of what was served.
        probe_s: after this long without one admitted, an idle model takes a request whatever the
            prediction says; otherwise one bad spell would be believed for ever.
    """

    def __init__(self, *, capacity: int, latency: Latency, probe_s: float) -> None:
        self._capacity = capacity
        self._latency = latency
        self._probe_s = probe_s
        self._queue: deque[Request] = deque()
        self._running: Request | None = None
        self._started = 0.0
        self._last_admitted = float("-inf")
        self._probe = -1
        self._closed = ""
        self.outcomes: Counter[Outcome] = Counter()
        """Requests that have ended, since the start."""

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._queue)

    @property
    def idle(self) -> bool:
        """Nothing runs and nothing waits."""
        return self._running is None and not self._queue

    def offer(self, request: Request, *, now: float) -> list[Shed]:
        """Take a request in, or not.

        Returns:
            Requests that this sheds: the offered one itself, or an older frame of its stream.
        """
        if self._closed:
            return self._shed([request], self._closed)
        reason = self._refusal(request, now)
        if reason:
            return self._shed([request], reason)
        older = [r for r in self._queue if request.stream and r.stream == request.stream]
        for frame in older:
            self._queue.remove(frame)
        self._queue.append(request)
        self._last_admitted = now
        return self._shed(older, "a newer frame came")

    def take(self, *, now: float) -> tuple[Request | None, list[Shed]]:
        """Begin the next request that can still end in time; nothing else may be running.

        Returns:
            The request to run now, and those that were shed on the way to it.
        """
        hopeless: list[Request] = []
        while self._queue:
            request = self._queue.popleft()
            needed = 0.0 if request.key == self._probe else self._latency.p99
            if now < request.deadline and now + needed <= request.deadline:
                self._running = request
                self._started = now
                return request, self._shed(hopeless, "its deadline cannot be met any more")
            hopeless.append(request)
        return None, self._shed(hopeless, "its deadline cannot be met any more")

    def finish(self, outcome: Outcome, *, now: float) -> None:
        """The running request has ended."""
        assert self._running is not None
        self._running = None
        self.outcomes[outcome] += 1
        if outcome == "served":  # a killed one says nothing of how long it would have taken
            self._latency.add(now - self._started)

    def close(self, reason: str) -> None:
        """Refuse what is offered from now on."""
        self._closed = reason

    def open(self) -> None:
        """Take requests in again."""
        self._closed = ""

    def clear(self, reason: str) -> list[Shed]:
        """Shed everything that waits."""
        waiting = list(self._queue)
        self._queue.clear()
        return self._shed(waiting, reason)

    def _refusal(self, request: Request, now: float) -> str:
        ahead = [r for r in self._queue if not request.stream or r.stream != request.stream]
        if len(ahead) >= self._capacity:
            return f"{len(ahead)} requests wait already"
        begin = now
        if self._running is not None:
            begin = max(now, self._started + self._latency.p50)
        end = begin + len(ahead) * self._latency.p50 + self._latency.p99
        if end <= request.deadline:
            return ""
        probe = self.idle and now - self._last_admitted >= self._probe_s
        if probe and now < request.deadline:
            self._probe = request.key
            return ""
        return (
            f"it would end {(end - now) * 1000:.1f} ms from now, "
            f"its deadline is in {(request.deadline - now) * 1000:.1f} ms"
        )

    def _shed(self, requests: list[Request], reason: str) -> list[Shed]:
        self.outcomes["shed"] += len(requests)
        return [Shed(request.key, reason) for request in requests]
