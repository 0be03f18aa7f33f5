"""Runs requests one at a time on whichever runner is in place: on the thread of the caller where
the model is idle, else on the model's own.

While requests wait, the worker is given the next one as soon as it has answered, and only then the
answer goes to its caller and is counted: the worker does not wait for either.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from edgeml.device_agent import logs
from edgeml.device_agent.serving.admission import Outcome
from edgeml.device_agent.serving.guests import Guests
from edgeml.device_agent.serving.intake import Intake
from edgeml.device_agent.serving.lineup import Lineup
from edgeml.device_agent.serving.runner import Runner
from edgeml.device_agent.serving.tickets import Ticket
from edgeml.device_agent.worker.layout import Array
from edgeml.device_agent.worker.parent import RequestFailedError, WorkerError, WorkerLateError


class _AtWork(NamedTuple):
    """A request that a worker has begun, or has failed to."""

    ticket: Ticket
    runner: Runner
    began: float
    inputs: Mapping[str, Array]
    """As the worker has them."""
    keep: bool
    """Whether somebody will look at them afterwards."""
    fault: Exception | None

    @property
    def model(self) -> str:
        """For the log."""
        return self.runner.variant.bundle.manifest.name

    def outputs(self) -> dict[str, Array]:
        """Wait for them; raises what beginning has raised, or the worker."""
        if self.fault is not None:
            raise self.fault
        if self.keep and self.ticket.borrowed:
            self.ticket.keep(self.inputs)
        left_s = self.ticket.deadline - time.monotonic()
        return self.runner.worker.result(timeout_s=left_s)


class _Result(NamedTuple):
    """What a worker made of it."""

    outcome: Outcome
    outputs: dict[str, Array] = {}  # noqa: RUF012 - never written to
    message: str = ""
    lost: WorkerError | None = None
    """Why the worker is gone, where it is."""


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
            self.work(*taken)

    def call(self, ticket: Ticket) -> None:
        """Offer a request; where nothing is before it, it has ended on return. A hand-over to
        another thread costs as much as a small model's inference."""
        runner = self._intake.enter(ticket, self._guests.route)
        if runner is not None:
            self._end(self._begin(ticket, runner), follow=False)

    def work(self, ticket: Ticket, runner: Runner) -> None:
        """Run a request, and what waits behind it for as long as the next one can begin at once."""
        at_work: _AtWork | None = self._begin(ticket, runner)
        while at_work is not None:
            at_work = self._end(at_work, follow=True)

    def _begin(self, ticket: Ticket, runner: Runner) -> _AtWork:
        began = time.monotonic()
        keep = self._guests.present or self._lineup.looks(runner)
        inputs: Mapping[str, Array] = {}
        fault: Exception | None = None
        try:
            inputs = runner.worker.begin(ticket.inputs)
        except Exception as error:  # noqa: BLE001 - it is this request's, and seen to in its turn
            fault = error
        return _AtWork(ticket, runner, began, inputs, keep, fault)

    def _end(self, at_work: _AtWork, *, follow: bool) -> _AtWork | None:
        """Wait for a result, and see to what it did to the worker.

        Args:
            at_work: what was begun.
            follow: have the worker begin what waits before the result is seen to.

        Returns:
            What was begun so; None where nothing was.
        """
        ticket, runner = at_work.ticket, at_work.runner
        result = _result(at_work)
        outcome, outputs, message = result.outcome, result.outputs, result.message
        answered = time.monotonic()
        in_time = answered <= ticket.deadline
        behind = self._lineup.behind(runner)
        follow &= outcome == "served" and in_time and behind is None and self._intake.waiting > 0
        following: _AtWork | None = None
        if follow:
            following = self._follow(answered=answered, took_s=answered - at_work.began)
            in_time = time.monotonic() <= ticket.deadline
        if outcome == "late" or (outcome == "served" and not in_time):
            allowed_ms = (ticket.deadline - ticket.arrived) * 1000
            outcome, outputs = "late", {}
            message = f"The deadline of {allowed_ms:.0f} ms passed; the work was broken off"
        ticket.cut_off = outcome != "served" and ticket.recurs and self._intake.ending
        self._tell(at_work, outcome, outputs, message)
        if outcome == "served":
            self._lineup.served(runner, ticket, outputs, kept=at_work.keep)
            if at_work.keep:
                self._guests.show(ticket, runner, outputs)
        elif not ticket.cut_off:
            self._lineup.missed(outcome, runner, strained=outcome == "late")
        if follow:
            self._intake.parted()
            self._guests.look()
            return following
        lost = result.lost
        if result.outcome == "late" and not runner.worker.settle(self._grace_s):
            lost = WorkerLateError(result.message)
        if lost is not None and not self._guests.see_off(runner, lost):
            self._lost(runner, lost)
        known = outcome in {"served", "late"} and lost is None
        # With the answer, the counting, and the end of what was late: the next one waits for that.
        took_s = time.monotonic() - at_work.began
        self._intake.finish(outcome, took_s=took_s if known else None)
        self._guests.look()  # it may have died with its answer given
        if behind is not None:
            behind.compute()
        return None

    def _follow(self, *, answered: float, took_s: float) -> _AtWork | None:
        taken = self._intake.follow(self._guests.route, answered=answered, took_s=took_s)
        return self._begin(*taken) if taken is not None else None

    def _tell(
        self, at_work: _AtWork, outcome: Outcome, outputs: dict[str, Array], message: str
    ) -> None:
        """What a caller does with its answer must not end whom others wait for."""
        try:
            at_work.ticket.end(outcome, outputs, message)
        except Exception:  # noqa: BLE001 - likewise
            logs.fault("fault", model=at_work.model, outcome=outcome)


def _result(at_work: _AtWork) -> _Result:
    """Wait for it."""
    try:
        return _Result("served", at_work.outputs())
    except RequestFailedError as error:
        return _Result("failed", message=str(error))
    except WorkerLateError as error:
        return _Result("late", message=str(error))
    except WorkerError as error:
        return _Result("failed", message=str(error), lost=error)
    except Exception as error:  # noqa: BLE001 - a fault of ours must not leave callers waiting
        artifact = at_work.runner.variant.artifact.id
        logs.fault("fault", model=at_work.model, artifact=artifact)
        return _Result("failed", message=f"A fault of the agent: {error}")
