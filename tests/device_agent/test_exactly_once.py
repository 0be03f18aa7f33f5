"""Whatever workers do and whoever replaces them, each request ends exactly once, and none is served
late. The service's own code, with a clock and a worker that hypothesis plays."""

from __future__ import annotations

import types
from collections import Counter
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edgeml.device_agent.config import ModelConfig
from edgeml.device_agent.limits.watch import Watch
from edgeml.device_agent.serving import execution, intake, lineup, service
from edgeml.device_agent.serving.latency import Latency
from edgeml.device_agent.serving.room import Room
from edgeml.device_agent.serving.runner import Runner
from edgeml.device_agent.serving.service import Service
from edgeml.device_agent.serving.standing import Hooks
from edgeml.device_agent.serving.tickets import Ticket
from edgeml.device_agent.worker.parent import (
    RequestFailedError,
    WorkerDiedError,
    WorkerLateError,
)


class WouldWaitError(Exception):
    """The model's thread has nothing to do."""


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Play:
    """A worker: takes as long as it is told to, and ends as it is told to."""

    def __init__(self, clock: Clock, machine: Machine) -> None:
        self.clock = clock
        self.machine = machine
        self.at_work = False

    def begin(self, feeds: dict[str, Any]) -> dict[str, Any]:
        assert not self.at_work, "the request before it has no result yet"
        self.at_work = True
        return feeds

    def result(self, *, timeout_s: float) -> dict[str, Any]:
        self.at_work = False
        takes, ends = self.machine.script
        if takes > timeout_s and ends != "slow answer":
            self.clock.now += max(0.0, timeout_s)
            raise WorkerLateError("late")
        self.clock.now += takes
        if ends == "dies":
            raise WorkerDiedError("died")
        if ends == "refuses":
            raise RequestFailedError("refused")
        if ends == "fault":
            raise ZeroDivisionError
        return {"scores": np.zeros((1, 4))}

    def settle(self, grace_s: float) -> bool:
        self.clock.now += grace_s
        return self.machine.survives


class Machine(RuleBasedStateMachine):
    """Callers, the model's thread, and a keeper's changes, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.patch = pytest.MonkeyPatch()
        fake = types.SimpleNamespace(monotonic=self.clock.monotonic, time_ns=lambda: 0)
        for module in (intake, lineup, execution, service):
            self.patch.setattr(module, "time", fake)
        watch = Watch(1.0)
        self.service = Service(
            ModelConfig(bundle=Path("m.edgeml"), deadline_ms=100, queue=3),
            boot="boot",
            artifacts=Path(),
            logs_folder=Path(),
            profiles=Path(),
            watch=watch,
            room=Room(None, used_bytes=lambda: 0),
            hooks=Hooks(event=lambda *_: None, changed=lambda: None),
        )
        self.intake = self.service._intake
        self.patch.setattr(self.intake._wake, "wait", self._would_wait)
        self.script = (0.0, "answers")
        self.survives = True
        self.tickets: list[Ticket] = []
        self.ended: Counter[int] = Counter()
        self.served_late = 0

    def teardown(self) -> None:
        self.intake.refuse("the end")
        assert all(ticket.outcome is not None for ticket in self.tickets)
        assert set(self.ended.values()) <= {1}
        assert len(self.ended) == len(self.tickets)
        outcomes = Counter(ticket.outcome for ticket in self.tickets)
        assert {k: v for k, v in self.service._lineup.outcomes.items() if v} == outcomes
        self.patch.undo()

    @initialize()
    def come_up(self) -> None:
        self.replace(0.01)

    @rule(takes=st.sampled_from([0.001, 0.01, 0.05, 0.2]))
    def replace(self, takes: float) -> None:
        """A worker is put in place, whoever was there before."""
        latency = Latency()
        latency.add(takes)
        variant = types.SimpleNamespace(
            latency=latency,
            recorder=None,
            start_ms=300.0,
            artifact=types.SimpleNamespace(id="fp32"),
            bundle=types.SimpleNamespace(manifest=types.SimpleNamespace(name="tiny")),
        )
        worker = Play(self.clock, self)
        runner = types.SimpleNamespace(variant=variant, worker=worker)
        self.intake.put(cast("Runner", runner))

    @precondition(lambda self: self.intake.runner is not None and len(self.tickets) % 4 == 3)
    @rule(seconds=st.floats(0, 0.5))
    def unload(self, seconds: float) -> None:
        runner = self.intake.runner
        assert runner is not None
        self.intake.unload(runner, "another version is being loaded", ready_in_s=seconds)

    @rule(
        deadline_s=st.sampled_from([0.0, 0.02, 0.1, 0.1, 0.1]),
        stream=st.sampled_from(["", "", "north", "south"]),
    )
    def submit(self, deadline_s: float, stream: str) -> None:
        number = len(self.tickets)

        def done(ticket: Ticket) -> None:
            self.ended[number] += 1
            if ticket.outcome == "served" and self.clock.now > ticket.deadline:
                self.served_late += 1
            assert bool(ticket.outputs) == (ticket.outcome == "served")
            assert bool(ticket.message) == (ticket.outcome != "served")

        self.tickets.append(
            self.service.submit({}, deadline_s=deadline_s, stream=stream, done=done)
        )

    @rule(
        takes=st.sampled_from([0.001, 0.01, 0.05, 0.2]),
        ends=st.sampled_from(["answers", "answers", "slow answer", "dies", "refuses", "fault"]),
        survives=st.booleans(),
        stream=st.sampled_from(["", "north"]),
    )
    def call(self, takes: float, ends: str, survives: bool, stream: str) -> None:
        """A caller whose own thread runs its request, where nothing is before it."""
        number = len(self.tickets)
        self.script, self.survives = (takes, ends), survives
        free = self.intake.idle and self.intake.runner is not None

        def done(ticket: Ticket) -> None:
            self.ended[number] += 1
            if ticket.outcome == "served" and self.clock.now > ticket.deadline:
                self.served_late += 1

        ticket = self.service.call({}, stream=stream, done=done)
        self.tickets.append(ticket)
        if free and ticket.outcome is None:
            assert self.intake.waiting  # it may not end in time: a probe is the model's thread's
        assert not self.intake.running

    @rule(
        takes=st.sampled_from([0.001, 0.01, 0.05, 0.2]),
        ends=st.sampled_from(
            ["answers", "answers", "answers", "slow answer", "dies", "refuses", "fault"]
        ),
        survives=st.booleans(),
        stream=st.sampled_from(["", "north"]),
    )
    def work(self, takes: float, ends: str, survives: bool, stream: str) -> None:
        """One request comes, and the model's thread takes the next, if there is one, and those
        that can follow it."""
        self.submit(0.1, stream)
        self.script, self.survives = (takes, ends), survives
        try:
            taken = self.intake.next(self.service._guests.route)
        except WouldWaitError:
            return
        assert taken is not None
        ticket, runner = taken
        assert self.clock.now < ticket.deadline  # nothing is begun that is late already
        self.service._execution.work(ticket, runner)
        if ends == "dies" and takes <= ticket.deadline - ticket.arrived:
            assert self.intake.runner is not runner

    @rule(seconds=st.sampled_from([0.001, 0.05, 0.3, 2.0]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @precondition(lambda self: len(self.tickets) % 8 == 7)  # seldom: little happens after it
    @rule()
    def give_up(self) -> None:
        self.intake.refuse("given up")

    @invariant()
    def nothing_is_served_late(self) -> None:
        assert not self.served_late

    @invariant()
    def nothing_is_lost(self) -> None:
        assert sum(self.ended.values()) + self.intake.waiting == len(self.tickets)

    def _would_wait(self, timeout: float | None = None) -> bool:
        raise WouldWaitError


TestExactlyOnce = Machine.TestCase
TestExactlyOnce.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
