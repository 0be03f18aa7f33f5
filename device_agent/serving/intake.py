"""The queue of one model as threads see it: admission behind a lock, callers' tickets, and a wake.

Callers submit from any thread; the model's own thread takes, finishes, closes and opens.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from enum import Enum

from edgeml.device_agent.serving.admission import Admission, Outcome, Request, Shed
from edgeml.device_agent.serving.latency import Latency
from edgeml.device_agent.serving.tickets import Ticket
from edgeml.device_agent.worker.layout import Array


class Signal(Enum):
    """What the model's thread may find instead of a request."""

    LOST = "the worker is gone"
    END = "the model is to end"


class Intake:
    """Args:
    capacity: requests that may wait.
    latency: of the model's inferences.
    probe_s: see :class:`~edgeml.device_agent.serving.admission.Admission`.
    missed: told of each request that is shed.
    """

    def __init__(
        self,
        *,
        capacity: int,
        latency: Latency,
        probe_s: float,
        missed: Callable[[Outcome], None],
    ) -> None:
        self._admission = Admission(capacity=capacity, latency=latency, probe_s=probe_s)
        self._admission.close("the model is not ready yet")
        self._missed = missed
        self._wake = threading.Condition()
        self._keys = itertools.count(1)
        self._tickets: dict[int, Ticket] = {}
        self._drained_by = float("inf")
        self.ending = False
        """Whether :meth:`end` was called."""

    def submit(
        self,
        inputs: Mapping[str, Array],
        *,
        deadline_s: float,
        stream: str,
        done: Callable[[Ticket], None] | None,
    ) -> Ticket:
        """Offer a request that must be answered within ``deadline_s``."""
        now = time.monotonic()
        ticket = Ticket(inputs, now + deadline_s, done)
        with self._wake:
            key = next(self._keys)
            self._tickets[key] = ticket
            shed = self._admission.offer(Request(key, ticket.deadline, stream), now=now)
            self._wake.notify_all()
        self._end_shed(shed)
        return ticket

    def next(self, lost: Callable[[], bool]) -> Ticket | Signal:
        """Wait for a request to run now; it counts as running until :meth:`finish`.

        Args:
            lost: whether the worker is gone; looked at on every wake.
        """
        while True:
            with self._wake:
                now = time.monotonic()
                if self.ending and (self._admission.idle or now >= self._drained_by):
                    return Signal.END
                if lost():
                    return Signal.LOST
                request, shed = self._admission.take(now=now)
                if request is None and not shed:
                    self._wake.wait()
                    continue
            self._end_shed(shed)
            if request is not None:
                return self._tickets.pop(request.key)

    def finish(self, outcome: Outcome) -> None:
        """The running request has ended."""
        with self._wake:
            self._admission.finish(outcome, now=time.monotonic())

    def open(self) -> None:
        """Take requests in, unless the end has begun."""
        with self._wake:
            if not self.ending:
                self._admission.open()

    def refuse(self, reason: str) -> None:
        """Shed what waits, and what comes until :meth:`open`."""
        with self._wake:
            self._admission.close(reason)
            shed = self._admission.clear(reason)
        self._end_shed(shed)

    def end(self, drain_s: float) -> None:
        """Take nothing more; what waits may finish within ``drain_s``."""
        with self._wake:
            self.ending = True
            self._drained_by = time.monotonic() + drain_s
            self._admission.close("the agent is ending")
            self._wake.notify_all()

    def pause(self, seconds: float) -> bool:
        """Wait, at most until the end begins; returns whether it did."""
        with self._wake:
            return self._wake.wait_for(lambda: self.ending, timeout=seconds)

    def notify(self) -> None:
        """Have :meth:`next` look again."""
        with self._wake:
            self._wake.notify_all()

    def _end_shed(self, shed: Sequence[Shed]) -> None:
        for entry in shed:
            self._tickets.pop(entry.key).end("shed", {}, entry.reason)
            self._missed("shed")
