"""Runs requests one at a time on whichever runner is in place: on the thread of the caller where
the model is idle, else on the model's own."""

from __future__ import annotations

import time
from collections.abc import Callable

from edgeml.device_agent import logs
from edgeml.device_agent.serving.admission import Outcome
from edgeml.device_agent.serving.guests import Guests
from edgeml.device_agent.serving.intake import Intake
from edgeml.device_agent.serving.lineup import Lineup
from edgeml.device_agent.serving.recorder import Recorder
from edgeml.device_agent.serving.runner import Runner
from edgeml.device_agent.serving.tickets import Ticket
from edgeml.device_agent.worker.layout import Array
from edgeml.device_agent.worker.parent import RequestFailedError, WorkerError, WorkerLateError


class Execution:
    """Args:
    intake: requests come from it.
    lineup: counts what became of them.
    guests: may take some of them.
    lost: told of a runner whose worker is gone.
    grace_s: for a late inference to end.
    """

    def __init__(
        self,
        intake: Intake,
        lineup: Lineup,
        guests: Guests,
        *,
        lost: Callable[[Runner, WorkerError], None],
        grace_s: float,
    ) -> None:
        self._intake = intake
        self._lineup = lineup
        self._guests = guests
        self._lost = lost
        self._grace_s = grace_s

    def run(self) -> None:
        """Until the end of the intake."""
        while (taken := self._intake.next(self._guests.route)) is not None:
            self.serve(*taken)

    def call(self, ticket: Ticket) -> None:
        """Offer a request; where nothing is before it, it has ended on return. A hand-over to
        another thread costs as much as a small model's inference."""
        runner = self._intake.enter(ticket, self._guests.route)
        if runner is not None:
            self.serve(ticket, runner)

    def serve(self, ticket: Ticket, runner: Runner) -> None:
        """Run one request, and see to what it did to the worker."""
        worker = runner.worker
        outputs: dict[str, Array] = {}
        outcome: Outcome = "failed"
        message = ""
        late: WorkerLateError | None = None
        recorder: Recorder | None = None
        lost: WorkerError | None = None
        began = time.monotonic()
        try:
            outputs = worker.run(
                ticket.inputs,
                timeout_s=ticket.deadline - began,
                meanwhile=ticket.keep if ticket.borrowed else None,
            )
            outcome = "served"
        except RequestFailedError as error:
            message = str(error)
        except WorkerLateError as error:
            late = error
        except WorkerError as error:
            lost, message = error, str(error)
        except Exception as error:  # noqa: BLE001 - a fault of ours must not leave callers waiting
            logs.LOG.exception("fault", extra={"fields": {"artifact": runner.variant.artifact.id}})
            message = f"A fault of the agent: {error}"
        took_s = time.monotonic() - began
        if late is not None or (outcome == "served" and began + took_s > ticket.deadline):
            allowed_ms = (ticket.deadline - ticket.arrived) * 1000
            outcome, outputs = "late", {}
            message = f"The deadline of {allowed_ms:.0f} ms passed; the work was broken off"
        ticket.end(outcome, outputs, message)
        if outcome == "served":
            recorder = self._lineup.served(runner, ticket, outputs)
            self._guests.show(ticket, runner, outputs)
        else:
            self._lineup.missed(outcome, runner, strained=outcome == "late")
        if late is not None and not worker.settle(self._grace_s):
            lost = late
        if lost is not None and not self._guests.see_off(runner, lost):
            self._lost(runner, lost)
        known = outcome in {"served", "late"} and lost is None
        # With the answer, the counting, and the end of what was late: the next one waits for that.
        self._intake.finish(outcome, took_s=time.monotonic() - began if known else None)
        if recorder is not None:
            recorder.compute()
