"""The queue of one model as threads see it: admission behind a lock, callers' tickets, and a wake.

Callers submit from any thread. One that finds the model idle begins its request itself; what has to
wait is for the model's thread. Either takes a request together with the runner that is in place, so
that another runner can be put there between two requests: none is dropped for it.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence

from edgeml.device_agent.serving.admission import Admission, Outcome, Request, Shed
from edgeml.device_agent.serving.door import Door
from edgeml.device_agent.serving.latency import Latency
from edgeml.device_agent.serving.runner import Runner
from edgeml.device_agent.serving.tickets import Ticket

Route = Callable[[Ticket, Runner], Runner]


class Intake:
    """Args:
    capacity: requests that may wait.
    probe_s: see :class:`~edgeml.device_agent.serving.admission.Admission`.
    missed: told of each request that is shed.
    door: shows programs what they would be told.
    allowed_s: how long a request may take from its arrival.
    """

    def __init__(
        self,
        *,
        capacity: int,
        probe_s: float,
        missed: Callable[[Shed], None],
        door: Door,
        allowed_s: Callable[[], float],
    ) -> None:
        self._admission = Admission(capacity=capacity, latency=Latency(), probe_s=probe_s)
        self._admission.close("the model is not ready yet")
        self._missed = missed
        self._lock = threading.Lock()  # never held while anything runs
        self._changing = _Changing(self._lock, self._show)
        self._door = door
        self._allowed_s = allowed_s
        self._wake = threading.Condition(self._lock)
        """Something is to be run: for the model's thread."""
        self._rest = threading.Condition(self._lock)
        """Something has ended: for whoever waits for a runner, or for all, to be at rest."""
        self._keys = itertools.count(1)
        self._tickets: dict[int, Ticket] = {}
        self._runner: Runner | None = None
        self._busy: Runner | None = None
        self._parting: Runner | None = None
        """Has its result already, and is being left: see :meth:`follow`."""
        self._left: list[Shed] = []
        self._drained_by = float("inf")
        self._handed_over: float | None = None
        """When the worker became free for what waited already."""
        self._gap_s = 0.0
        """From then until what runs now had begun."""
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

    def uses(self, runner: Runner) -> bool:
        """Whether a request is at work on ``runner``, or just being left: its end is then seen, and
        said, by who runs it."""
        with self._lock:
            return self._is_at(runner)

    @property
    def idle(self) -> bool:
        """Nothing runs and nothing waits."""
        return self._admission.idle

    # Callers.

    def submit(self, ticket: Ticket) -> None:
        """Offer a request, for the model's thread to run."""
        with self._changing:
            request = Request(next(self._keys), ticket.deadline, ticket.stream)
            self._tickets[request.key] = ticket
            self._arrived(ticket.passed)
            shed = self._admission.offer(request, now=ticket.arrived)
            self._stir()
        self._end_shed(shed)

    def enter(self, ticket: Ticket, route: Route) -> Runner | None:
        """Offer a request, and begin it at once where nothing runs and nothing waits.

        Args:
            ticket: of it.
            route: see :meth:`next`.

        Returns:
            Who is to run it, now and on this thread, up to :meth:`finish`; None where it waits for
            the model's thread, or has been shed.
        """
        request = Request(next(self._keys), ticket.deadline, ticket.stream)
        with self._changing:
            runner = self._runner
            if runner is not None and self._admission.start(request, now=ticket.arrived):
                self._arrived(ticket.passed)
                self._gap_s = 0.0
                self._busy = route(ticket, runner)
                return self._busy
        self.submit(ticket)
        return None

    def show(self, *, arrived: bool = False) -> None:
        """Show programs what they would be told: others look there than before.

        Args:
            arrived: one with a pass has, and was told to turn back.
        """
        with self._changing:
            self._arrived(arrived)

    def until_idle(self, seconds: float) -> bool:
        """Wait at most so long for nothing to run or wait; returns whether it came to that."""
        with self._lock:
            idle = self._rest.wait_for(lambda: self.ending or self._admission.idle, seconds)
            return idle and not self.ending

    # The model's thread.

    def next(self, route: Route) -> tuple[Ticket, Runner] | None:
        """Wait for a request, and for a runner to run it; it counts as running until
        :meth:`finish`. None when the end has come.

        Args:
            route: the request and the runner in place → who is to run it.
        """
        while True:
            with self._changing:
                now = time.monotonic()
                if self.ending and self._is_drained(now):
                    return None
                taken, shed = None, []
                if self._runner is None:
                    shed = self._admission.expire(now=now)
                elif not self._admission.running:  # or else a caller's thread is at it
                    taken, shed = self._begin(now, route)
                if taken is None and not shed:
                    self._wake.wait(self._patience(now))
                    continue
            self._end_shed(shed)
            if taken is not None:
                return taken

    def finish(self, outcome: Outcome, *, took_s: float | None) -> None:
        """The running request has ended, and who ran it is at rest or gone.

        Args:
            outcome: of it.
            took_s: what it took of the runner's time, where that is known.
        """
        with self._changing:
            self._finish(outcome, took_s)
            self._rest.notify_all()
            self._handed_over = None
            if self._admission.waiting or self.ending:
                self._handed_over = time.monotonic()
                self._wake.notify()

    def follow(
        self, route: Route, *, answered: float, took_s: float
    ) -> tuple[Ticket, Runner] | None:
        """The running request has its result: begin the next one before that is seen to, so that
        the runner does not wait for it. Until :meth:`parted` nobody takes the runner for at rest.

        Args:
            route: see :meth:`next`.
            answered: when the result came, monotonic seconds.
            took_s: of the runner's time.

        Returns:
            The next request and who is to run it; None where there is none.
        """
        with self._changing:
            self._parting = self._busy
            self._finish("served", took_s)
            taken = None
            if self._runner is not None and not self.ending:
                self._handed_over = answered
                taken, self._left = self._begin(time.monotonic(), route)
            if taken is None:
                self._handed_over = None
        return taken

    def parted(self) -> None:
        """The request before the one that runs now has ended."""
        with self._lock:
            self._parting = None
            self._rest.notify_all()
            left, self._left = self._left, []
        self._end_shed(left)

    # Whoever changes what runs.

    def put(self, runner: Runner, *, drop: str = "") -> Runner | None:
        """From the next request on ``runner`` runs them; requests are taken in.

        Args:
            runner: loaded and proved.
            drop: sheds what waits, with this reason; for a runner that takes other inputs.

        Returns:
            Who ran them until now; :meth:`release` says when it is at rest.
        """
        with self._changing:
            former, self._runner = self._runner, runner
            self._handed_over = None  # what it took to start belongs to no request
            shed = self._admission.clear(drop) if drop else []
            if not self.ending:
                self._admission.open(runner.variant.latency)
            self._wake.notify()
            self._rest.notify_all()
        self._end_shed(shed)
        return former

    def unload(self, runner: Runner, reason: str, *, ready_in_s: float) -> bool:
        """Nobody runs requests for the next ``ready_in_s`` or so; what can wait waits.

        Returns:
            Whether ``runner`` was in place; if not, nothing was done.
        """
        with self._changing:
            if self._runner is not runner:
                return False
            self._runner = None
        self.suspend(reason, ready_in_s=ready_in_s)
        return True

    def suspend(self, reason: str, *, ready_in_s: float) -> None:
        """Another guess of when somebody will run requests again."""
        now = time.monotonic()
        with self._changing:
            shed = self._admission.suspend(reason, ready_at=now + ready_in_s, now=now)
            self._wake.notify()
            self._rest.notify_all()
        self._end_shed(shed)

    def release(self, runner: Runner) -> None:
        """Wait until ``runner``, no longer in place, has finished what it had begun."""
        with self._lock:
            self._rest.wait_for(lambda: not self._is_at(runner))

    def refuse(self, reason: str) -> None:
        """Shed what waits, and what comes until a runner is put in place."""
        with self._changing:
            self._runner = None
            self._admission.close(reason)
            shed = self._admission.clear(reason)
            self._rest.notify_all()
        self._end_shed(shed)

    def end(self, drain_s: float) -> None:
        """Take nothing more; what waits may finish within ``drain_s``."""
        with self._changing:
            self.ending = True
            self._drained_by = time.monotonic() + drain_s
            self._admission.close("the agent is ending")
            self._wake.notify()
            self._rest.notify_all()

    def overdue(self) -> Runner | None:
        """After :meth:`end`: wait for what runs and waits, as long as it may take. Who is still at
        work then, if anybody is."""
        with self._lock:
            left_s = max(0.0, self._drained_by - time.monotonic())
            self._rest.wait_for(lambda: self._is_drained(time.monotonic()), left_s)
            return self._busy

    def _show(self) -> None:
        now, allowed_s = time.monotonic(), self._allowed_s()
        until = self._admission.refuses_until(allowed_s, now=now)
        room = self._admission.room(allowed_s, now=now, most=self._door.programs)
        self._door.show(until, room, now=now)

    def _arrived(self, passed: bool) -> None:
        if passed:
            self._door.arrived()

    def _is_at(self, runner: Runner) -> bool:
        return self._busy is runner or self._parting is runner

    def _finish(self, outcome: Outcome, took_s: float | None) -> None:
        # Whoever waits waits for the hand-over as well.
        self._admission.finish(outcome, took_s=None if took_s is None else took_s + self._gap_s)
        self._busy = None

    def _is_drained(self, now: float) -> bool:
        return self._admission.idle or self._runner is None or now >= self._drained_by

    def _patience(self, now: float) -> float | None:
        """Until the next thing that may have to be done without being woken for it."""
        due = self._drained_by if self.ending else float("inf")
        deadline = self._admission.next_deadline
        if deadline is not None and not self._admission.running:
            due = min(due, deadline)
        return None if due == float("inf") else max(0.0, due - now)

    def _stir(self) -> None:
        """Something waits: wake the model's thread, unless the end of what runs will."""
        if not self._admission.running:
            self._wake.notify()

    def _begin(self, now: float, route: Route) -> tuple[tuple[Ticket, Runner] | None, list[Shed]]:
        """Take the next request for the runner in place; what is shed on the way to it."""
        assert self._runner is not None
        request, shed = self._admission.take(now=now)
        if request is None:
            return None, shed
        self._gap_s = now - self._handed_over if self._handed_over is not None else 0.0
        ticket = self._tickets.pop(request.key)
        self._busy = route(ticket, self._runner)
        return (ticket, self._busy), shed

    def _end_shed(self, shed: Sequence[Shed]) -> None:
        for entry in shed:
            ticket = self._tickets.pop(entry.key)
            ticket.cut_off = self.ending and ticket.recurs
            ticket.end("shed", {}, entry.reason)
            if not ticket.cut_off:
                self._missed(entry)


class _Changing:
    """The lock, for whoever changes what it guards: what that means for others is shown before it
    is released. Not :func:`contextlib.contextmanager`, which takes 1 µs of each request, twice."""

    __slots__ = ("_lock", "_show")

    def __init__(self, lock: threading.Lock, show: Callable[[], None]) -> None:
        self._lock = lock
        self._show = show

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        try:
            self._show()
        finally:
            self._lock.release()
