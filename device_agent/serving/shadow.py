"""A version that serves nobody: it answers copies of real inputs, and its answers are compared.

Only in idle time: a copy is taken while nothing waits and run while nothing runs, one at a time,
and its worker has the scheduler's idle priority, so that a request that comes meanwhile does not
have to share the processor with it. What comes while a copy is on its way is left out.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from edgeml.device_agent import logs
from edgeml.device_agent.serving.pairs import Disagreement, Pairs
from edgeml.device_agent.serving.runner import Runner
from edgeml.device_agent.serving.tickets import Ticket
from edgeml.device_agent.worker.layout import Array
from edgeml.device_agent.worker.parent import RequestFailedError, WorkerError

IDLE_WAIT_S = 1.0
"""A copy for which the device was not idle within this is left out."""

FIRST_REPORT = 64
"""Pairs after which the disagreement is reported, and again whenever they have doubled."""


class Shadow:
    """A :class:`~edgeml.device_agent.serving.guest.Guest`.

    Args:
        runner: of the version, proved.
        waiting: requests that wait.
        until_idle: waits at most so many seconds for nothing to run or wait; whether it came.
        timeout_s: for one inference, at idle priority on a busy machine.
        lost: called with the error when the worker is gone.
        report: called with the disagreement now and then.
    """

    def __init__(
        self,
        runner: Runner,
        *,
        waiting: Callable[[], int],
        until_idle: Callable[[float], bool],
        timeout_s: float,
        lost: Callable[[WorkerError], object],
        report: Callable[[Disagreement], None],
    ) -> None:
        parity = runner.variant.artifact.parity
        tolerance = parity.tolerance.cosine if parity is not None else 1.0
        self._runner = runner
        self._pairs = Pairs(runner.variant.bundle, tolerance=tolerance)
        self._waiting = waiting
        self._until_idle = until_idle
        self._timeout_s = timeout_s
        self._lost = lost
        self._report = report
        self._due = FIRST_REPORT
        self._changed = threading.Condition()
        self._copy: tuple[dict[str, Array], Mapping[str, Array]] | None = None
        self._busy = False
        self._closed = False
        self.share = 0.0
        """Of the requests that it serves."""
        self.skipped = 0
        """Requests of which no copy was run."""
        idle_priority(runner.worker.pid)
        self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)
        self._thread.start()

    @property
    def runner(self) -> Runner:
        """Its worker."""
        return self._runner

    @property
    def disagreement(self) -> Disagreement | None:
        """With the active version, so far."""
        return self._pairs.result

    def takes(self, ticket: Ticket) -> bool:  # noqa: ARG002
        """Never."""
        return False

    def saw(self, ticket: Ticket, outputs: Mapping[str, Array]) -> None:
        """The active version answered this: take a copy, if there is time for it."""
        with self._changed:
            if self._busy or self._waiting():
                self.skipped += 1
                return
            self._busy = True
            # The arrays are the caller's, and may be its own memory.
            self._copy = {name: array.copy() for name, array in ticket.inputs.items()}, outputs
            self._changed.notify()

    def close(self) -> None:
        """End its thread, whatever it runs; its worker is then nobody's."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._runner.worker.kill()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._copy is not None)
                if self._closed or self._copy is None:
                    return
                (inputs, outputs), self._copy = self._copy, None
            try:
                self._pair(inputs, outputs)
            except WorkerError as error:
                if not self._closed:
                    self._lost(error)
                return
            finally:
                self._busy = False

    def _pair(self, inputs: dict[str, Array], outputs: Mapping[str, Array]) -> None:
        if not self._until_idle(IDLE_WAIT_S):
            self.skipped += 1
            return
        try:
            answer = self._runner.worker.run(inputs, timeout_s=self._timeout_s)
        except RequestFailedError as error:
            variant = self._runner.variant
            name, artifact = variant.bundle.manifest.name, variant.artifact.id
            logs.warn("shadow failed", model=name, artifact=artifact, reason=error)
            self.skipped += 1
            return
        self._pairs.add(outputs, answer)
        result = self._pairs.result
        if result.pairs >= self._due:
            self._due *= 2
            self._report(result)


def idle_priority(pid: int) -> None:
    """Have every thread of a process run only while no other wants to (sched(7), SCHED_IDLE)."""
    for task in Path(f"/proc/{pid}/task").glob("*"):
        with contextlib.suppress(OSError):
            os.sched_setscheduler(int(task.name), os.SCHED_IDLE, os.sched_param(0))
