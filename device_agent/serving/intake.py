"""The queue of one model as threads see it: admission behind a lock, callers' tickets, and a wake.

Callers submit from any thread. The model's thread takes a request together with the runner that is
in place, so that another runner can be put there between two requests: none is dropped for it.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from edgeml.device_agent.serving.admission import Admission, Outcome, Request, Shed
from edgeml.device_agent.serving.latency import Latency
from edgeml.device_agent.serving.runner import Runner
from edgeml.device_agent.serving.tickets import Ticket
from edgeml.device_agent.worker.layout import Array


class Intake:
    """Args:
    capacity: requests that may wait.
    probe_s: see :class:`~edgeml.device_agent.serving.admission.Admission`.
    missed: told of each request that is shed.
    """

    def __init__(self, *, capacity: int, probe_s: float, missed: Callable[[Shed], None]) -> None:
        self._admission = Admission(capacity=capacity, latency=Latency(), probe_s=probe_s)
        self._admission.close("the model is not ready yet")
        self._missed = missed
        self._wake = threading.Condition()
        self._keys = itertools.count(1)
        self._tickets: dict[int, Ticket] = {}
        self._runner: Runner | None = None
        self._busy: Runner | None = None
        self._drained_by = float("inf")
        self.ending = False
        """Whether :meth:`end` was called."""

    @property
    def runner(self) -> Runner | None:
        """Who runs the next request."""
        return self._runner

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return self._admission.waiting

    @property
    def running(self) -> bool:
        """Whether a request is at work."""
        return self._admission.running

    @property
    def idle(self) -> bool:
        """Nothing runs and nothing waits."""
        return self._admission.idle

    # Callers.

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
        ticket = Ticket(inputs, arrived=now, deadline=now + deadline_s, stream=stream, done=done)
        with self._wake:
            key = next(self._keys)
            self._tickets[key] = ticket
            shed = self._admission.offer(Request(key, ticket.deadline, stream), now=now)
            self._wake.notify_all()
        self._end_shed(shed)
        return ticket

    def until_idle(self, seconds: float) -> bool:
        """Wait at most so long for nothing to run or wait; returns whether it came to that."""
        with self._wake:
            idle = self._wake.wait_for(lambda: self.ending or self._admission.idle, seconds)
            return idle and not self.ending

    # The model's thread.

    def next(self, route: Callable[[Ticket, Runner], Runner]) -> tuple[Ticket, Runner] | None:
        """Wait for a request, and for a runner to run it; it counts as running until
        :meth:`finish`. None when the end has come.

        Args:
            route: the request and the runner in place → who is to run it.
        """
        while True:
            with self._wake:
                now = time.monotonic()
                runner = self._runner
                if self.ending and self._is_drained(now):
                    return None
                request = None
                if runner is None:
                    shed = self._admission.expire(now=now)
                else:
                    request, shed = self._admission.take(now=now)
                if request is None and not shed:
                    self._wake.wait(self._patience(now))
                    continue
                taken = None
                if request is not None and runner is not None:
                    ticket = self._tickets.pop(request.key)
                    self._busy = route(ticket, runner)
                    taken = ticket, self._busy
            self._end_shed(shed)
            if taken is not None:
                return taken

    def finish(self, outcome: Outcome, *, took_s: float | None) -> None:
        """The running request has ended, and who ran it is at rest or gone.

        Args:
            outcome: of it.
            took_s: what the inference took, where that is known.
        """
        with self._wake:
            self._admission.finish(outcome, took_s=took_s)
            self._busy = None
            self._wake.notify_all()

    # Whoever changes what runs.

    def put(self, runner: Runner, *, drop: str = "") -> Runner | None:
        """From the next request on ``runner`` runs them; requests are taken in.

        Args:
            runner: loaded and proved.
            drop: sheds what waits, with this reason; for a runner that takes other inputs.

        Returns:
            Who ran them until now; :meth:`release` says when it is at rest.
        """
        with self._wake:
            former, self._runner = self._runner, runner
            shed = self._admission.clear(drop) if drop else []
            if not self.ending:
                self._admission.open(runner.variant.latency)
            self._wake.notify_all()
        self._end_shed(shed)
        return former

    def unload(self, runner: Runner, reason: str, *, ready_in_s: float) -> bool:
        """Nobody runs requests for the next ``ready_in_s`` or so; what can wait waits.

        Returns:
            Whether ``runner`` was in place; if not, nothing was done.
        """
        with self._wake:
            if self._runner is not runner:
                return False
            self._runner = None
        self.suspend(reason, ready_in_s=ready_in_s)
        return True

    def suspend(self, reason: str, *, ready_in_s: float) -> None:
        """Another guess of when somebody will run requests again."""
        now = time.monotonic()
        with self._wake:
            shed = self._admission.suspend(reason, ready_at=now + ready_in_s, now=now)
            self._wake.notify_all()
        self._end_shed(shed)

    def release(self, runner: Runner) -> None:
        """Wait until ``runner``, no longer in place, has finished what it had begun."""
        with self._wake:
            self._wake.wait_for(lambda: self._busy is not runner)

    def refuse(self, reason: str) -> None:
        """Shed what waits, and what comes until a runner is put in place."""
        with self._wake:
            self._runner = None
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

    def _is_drained(self, now: float) -> bool:
        return self._admission.idle or self._runner is None or now >= self._drained_by

    def _patience(self, now: float) -> float | None:
        """Until the next thing that may have to be done without being woken for it."""
        deadline = self._admission.next_deadline
        return None if deadline is None else max(0.0, deadline - now)

    def _end_shed(self, shed: Sequence[Shed]) -> None:
        for entry in shed:
            self._tickets.pop(entry.key).end("shed", {}, entry.reason)
            self._missed(entry)
