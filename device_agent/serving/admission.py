"""Which request runs, which waits and which is refused. Pure; time comes in, on a monotonic clock.

A deadline is enforced before the work starts: a request is taken in only if what is running, what
waits before it (as long as so many ever took lately) and its own 99th percentile end in time, and
if no request that was admitted becomes late for it. Of a camera only the newest frame waits.
Each request that was offered ends exactly once: served, late, shed or failed.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import Counter
from collections.abc import Sequence
from typing import Literal, NamedTuple

from edgeml.device_agent.serving.door import OPEN
from edgeml.device_agent.serving.latency import Latency

LIKELY = 0.9
"""What waits is begun if this share of inferences would end in time."""

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
    strained: bool = False
    """Whether a faster model would have taken it."""


class Admission:
    """The queue of one model, earliest deadline first.

    Args:
        capacity: requests that may wait.
        latency: of what serves; fed here with the service time of what was served.
        probe_s: after this long without one admitted, an idle model takes a request whatever the
            prediction says; otherwise one bad spell would be believed for ever.
    """

    def __init__(self, *, capacity: int, latency: Latency, probe_s: float) -> None:
        self._capacity = capacity
        self._latency = latency
        self._probe_s = probe_s
        self._queue: list[Request] = []
        self._running: Request | None = None
        self._started = 0.0
        self._last_admitted = float("-inf")
        self._probe = -1
        self._closed = ""
        self._ready_at: float | None = None
        self._why_not_ready = ""
        self.outcomes: Counter[Outcome] = Counter()
        """Requests that have ended, since the start."""

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._queue)

    @property
    def running(self) -> bool:
        """Whether a request is at work."""
        return self._running is not None

    @property
    def idle(self) -> bool:
        """Nothing runs and nothing waits."""
        return self._running is None and not self._queue

    @property
    def next_deadline(self) -> float | None:
        """Of what waits, the earliest."""
        return self._queue[0].deadline if self._queue else None

    def start(self, request: Request, *, now: float) -> bool:
        """Begin a request at once where nothing is before it and it will end in time: most of
        them, most of the time.

        Returns:
            Whether it has begun; if not, :meth:`offer` it.
        """
        if self._running is not None or self._queue or self._closed or self._ready_at is not None:
            return False
        if now + self._latency.p99 > request.deadline:
            return False
        self._running = request
        self._started = self._last_admitted = now
        return True

    def offer(self, request: Request, *, now: float) -> list[Shed]:
        """Take a request in, or not.

        Returns:
            Requests that this sheds: the offered one itself, or an older frame of its stream.
        """
        if self._closed:
            return self._shed([request], self._closed)
        older = [r for r in self._queue if r.stream == request.stream] if request.stream else []
        ahead = [r for r in self._queue if r not in older] if older else self._queue
        reason = self._refusal(request, ahead, now)
        if reason:
            return self._shed([request], reason, strained=self._ready_at is None)
        for frame in older:
            self._queue.remove(frame)
        insort(self._queue, request, key=_urgency)
        self._last_admitted = now
        return self._shed(older, "a newer frame came")

    def refuses_until(self, allowed_s: float, *, now: float) -> float:
        """Until when :meth:`offer` will refuse, for sure and unless something changes here before,
        whoever comes with ``allowed_s`` until its deadline and is of no stream.

        Args:
            allowed_s: what no request had more than. It would wait behind all the others then.
            now: nobody comes before it.

        Returns:
            Monotonic seconds, at most the deadline of what runs, or else of what is next: something
            will change by then. Or :data:`~edgeml.device_agent.serving.door.OPEN`, where one has to
            ask.
        """
        running, latency, ahead = self._running, self._latency, len(self._queue)
        if self.idle or self._asks(allowed_s, now):
            return OPEN
        until = (running or self._queue[0]).deadline
        own_s = latency.p99
        if ahead < self._capacity and latency.of_several(ahead) + own_s <= allowed_s:
            if running is None:
                return OPEN
            # What runs now gets on: from some moment on there is room behind it.
            until = min(until, self._started + latency.of_several(ahead + 1) + own_s - allowed_s)
        return until if until > now else OPEN

    def room(self, allowed_s: float, *, now: float, most: int) -> int:
        """How many of those whom :meth:`refuses_until` speaks of are taken in if they come now, one
        after another; one, where none is as yet.

        Args:
            allowed_s: likewise.
            now: likewise.
            most: what is said where it is more, or where one has to ask.
        """
        if most <= 1 or self._asks(allowed_s, now):
            return most
        several, spare_s = self._latency.of_several, allowed_s - self._latency.p99
        first, places, gone_s = len(self._queue), self._capacity, now - self._started
        idle = self._running is None and not first
        last = min(first + most, places + idle) - 1  # an idle model's first need not wait

        def begins(ahead: int) -> float:
            if self._running is None:
                return several(ahead)
            return max(several(ahead), several(ahead + 1) - gone_s)

        if last >= first and begins(last) <= spare_s:
            return last + 1 - first
        return max(1, bisect_right(range(first, last), spare_s, key=begins))

    def _asks(self, allowed_s: float, now: float) -> bool:
        """Whether what one would be told is not to be foretold, or has a reason to be told."""
        if self._closed or self._ready_at is not None:
            return True
        return bool(self._queue) and self._queue[-1].deadline > now + allowed_s

    def take(self, *, now: float) -> tuple[Request | None, list[Shed]]:
        """Begin the next request that can still end in time; nothing else may be running.

        Returns:
            The request to run now, and those that were shed on the way to it.
        """
        assert self._running is None
        hopeless: list[Request] = []
        while self._queue:
            request = self._queue.pop(0)
            # Admission reckoned with the worst; to drop what was admitted takes better reasons.
            needed = 0.0 if request.key == self._probe else self._latency.quantile(LIKELY)
            if now < request.deadline and now + needed <= request.deadline:
                self._running = request
                self._started = now
                return request, self._shed(hopeless, _TOO_LATE, strained=True)
            hopeless.append(request)
        return None, self._shed(hopeless, _TOO_LATE, strained=True)

    def finish(self, outcome: Outcome, *, took_s: float | None = None) -> None:
        """The running request has ended.

        Args:
            outcome: of it.
            took_s: what the inference took, where that is known: one that was killed says nothing.
        """
        assert self._running is not None
        if took_s is not None:
            if self._running.key == self._probe and outcome == "served":
                self._latency.clear()  # the bad spell is over
            self._latency.add(took_s)
        self._running = None
        self.outcomes[outcome] += 1

    def close(self, reason: str) -> None:
        """Refuse what is offered from now on."""
        self._closed = reason

    def open(self, latency: Latency | None = None) -> None:
        """Take requests in again, and begin them; ``latency`` is that of what serves now."""
        self._closed = ""
        self._ready_at = None
        self._latency = latency or self._latency

    def suspend(self, reason: str, *, ready_at: float, now: float) -> list[Shed]:
        """Nothing can begin before ``ready_at`` or so: what can wait for that waits.

        Returns:
            Requests that cannot.
        """
        self._ready_at = ready_at
        self._why_not_ready = reason
        return self.expire(now=now)

    def expire(self, *, now: float) -> list[Shed]:
        """While suspended: shed what cannot be served in time any more."""
        if self._ready_at is None:
            return []
        begin = max(now, self._ready_at)
        least = begin + self._latency.p99
        hopeless = [r for r in self._queue if r.deadline < least]
        self._queue = [r for r in self._queue if r.deadline >= least]
        return self._shed(hopeless, self._why_not_ready)

    def clear(self, reason: str) -> list[Shed]:
        """Shed everything that waits."""
        waiting, self._queue = self._queue, []
        return self._shed(waiting, reason)

    def _refusal(self, request: Request, waiting: Sequence[Request], now: float) -> str:
        if len(waiting) >= self._capacity:
            return f"{len(waiting)} requests wait already"
        place = bisect_right(waiting, _urgency(request), key=_urgency)
        end = self._end(place, now)
        if end > request.deadline:
            probe = self.idle and now - self._last_admitted >= self._probe_s
            if probe and self._ready_at is None and now < request.deadline:
                self._probe = request.key
                return ""
            why = self._why_not_ready + "; " if self._ready_at is not None else ""
            return (
                f"{why}it would end {(end - now) * 1000:.1f} ms from now, "
                f"its deadline is in {(request.deadline - now) * 1000:.1f} ms"
            )
        if self._harms(waiting, place, now):
            return "another one that was admitted would be late for it"
        return ""

    def _harms(self, waiting: Sequence[Request], place: int, now: float) -> bool:
        """Whether one more at ``place`` makes somebody behind it late who would not be.

        Deadlines and ends both grow along the queue, so of a stretch of it one look at either end
        mostly tells: all of it has time for one more, or is too late already. Else its halves are
        looked at: of a queue of a thousand some dozen requests, where each took 14 ms.
        """
        stretches = [(place, len(waiting))]
        while stretches:
            first, after = stretches.pop()
            if first == after or waiting[first].deadline >= self._end(after, now):
                continue
            if waiting[after - 1].deadline < self._end(first, now):
                continue
            if after - first == 1:
                return True
            middle = (first + after) // 2
            stretches += (first, middle), (middle, after)
        return False

    def _end(self, ahead: int, now: float) -> float:
        """When a request will have ended that so many wait before."""
        latency = self._latency
        begin = now + latency.of_several(ahead)
        if self._running is not None:
            begin = max(begin, self._started + latency.of_several(ahead + 1))
        if self._ready_at is not None:
            begin = max(begin, self._ready_at + latency.of_several(ahead))
        return begin + latency.p99

    def _shed(
        self, requests: Sequence[Request], reason: str, *, strained: bool = False
    ) -> list[Shed]:
        if not requests:
            return []
        self.outcomes["shed"] += len(requests)
        return [Shed(request.key, reason, strained) for request in requests]


_TOO_LATE = "its deadline cannot be met any more"


def _urgency(request: Request) -> tuple[float, int]:
    return request.deadline, request.key
