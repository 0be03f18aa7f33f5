"""Sees to it that somebody serves: brings the first worker up, and puts another in its place.

Every reason to replace a worker ends in the same change: prepare another runner, then
:meth:`Lineup.put <edgeml.device_agent.serving.lineup.Lineup.put>` it between two requests. A thread
of its own does it, so that requests go on meanwhile.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from edgeml.device_agent import config as bounds
from edgeml.device_agent import logs
from edgeml.device_agent.serving.intake import Intake
from edgeml.device_agent.serving.lineup import Lineup
from edgeml.device_agent.serving.restarts import RestartPolicy
from edgeml.device_agent.serving.runner import Runner, Starter
from edgeml.device_agent.worker.parent import WorkerDiedError, WorkerError, WorkerLateError
from edgeml.errors import AgentError

Details = dict[str, str | int | float]
Tell = Callable[[str, str, Details], None]
"""Kind of event, sentence, details."""


class Keeper:
    """Args:
    name: of the model, for the log.
    intake: of the model.
    lineup: of the model.
    starter: of its workers.
    restarts: workers replaced within :data:`~edgeml.device_agent.config.RESTART_SPAN_S` before
        the model is given up.
    tell: of what happened.
    given_up: called when the model is.
    """

    def __init__(
        self,
        name: Callable[[], str],
        *,
        intake: Intake,
        lineup: Lineup,
        starter: Starter,
        restarts: int,
        tell: Tell,
        given_up: Callable[[Exception], None],
    ) -> None:
        self._name = name
        self._intake = intake
        self._lineup = lineup
        self._starter = starter
        self._limit = restarts
        self._policy = self._new_policy()
        self._tell = tell
        self._given_up = given_up
        self._bell = threading.Event()
        self._ending = False
        self._lost: tuple[Runner, WorkerError] | None = None
        self.changing = threading.RLock()
        """Held by whoever replaces what serves."""
        self.restarts = 0
        """Workers that were lost and replaced, since the start."""

    def wake(self) -> None:
        """There may be something to do. From any thread."""
        self._bell.set()

    def end(self) -> None:
        """Make no more changes."""
        self._ending = True
        self._bell.set()

    def lost(self, runner: Runner, error: WorkerError) -> None:
        """The worker in place is gone, said by who was using it."""
        ready_in_s = runner.variant.start_ms / 1000
        if self._intake.unload(runner, _REPLACED, ready_in_s=ready_in_s):
            self._lost = (runner, error)
            self._bell.set()

    def run(self) -> None:
        """Keep the model serving until :meth:`end`."""
        while not self._ending:
            self._bell.wait()
            self._bell.clear()
            with self.changing:
                self._look()

    def reset(self) -> None:
        """Another version serves: what its predecessor did to its workers does not count."""
        self._policy = self._new_policy()
        self._lost = None

    def restore(self, runner: Runner) -> None:
        """Serve again what served before, after an attempt at something else. Holds the lock.

        Args:
            runner: unloaded.
        """
        self._replace(runner, "its successor did not come up")

    def _look(self) -> None:
        runner = self._intake.runner
        if runner is not None and runner.watched.dead:
            self.lost(runner, WorkerDiedError("The worker died while it had nothing to do"))
        if self._lost is None or self._ending:
            return
        (runner, error), self._lost = self._lost, None
        self._starter.stop(runner)
        kind, message = _breach(error, runner)
        logs.warn(kind, model=self._name(), reason=message)
        self._tell(kind, message, {"recent": self._policy.recent + 1})
        self._replace(runner, message)

    def _replace(self, former: Runner, message: str) -> None:
        """Start another worker of the same variant, unless the end comes meanwhile."""
        variant = former.variant
        while True:
            delay = self._policy.died(time.monotonic())
            if delay is None:
                self._given_up(
                    AgentError(
                        f"{self._limit + 1} workers of {self._name()} were lost within "
                        f"{bounds.RESTART_SPAN_S:g} s, the last: {message.rstrip('.')}",
                        remedy="Check its budgets against `edgeml bench`, then start the agent "
                        "again.",
                    )
                )
                return
            self._intake.suspend(_REPLACED, ready_in_s=delay + variant.start_ms / 1000)
            if self._pause(delay):
                return
            try:
                runner = self._starter.start(variant)
            except WorkerError as error:
                message = str(error)
                logs.warn("restart failed", model=self._name(), reason=message)
                continue
            self._lineup.put(runner)
            self.restarts += 1
            details: dict[str, Any] = {"start_ms": round(runner.start_ms, 1)}
            logs.info("replaced", model=self._name(), pid=runner.worker.pid, **details)
            self._tell("replaced", f"A worker of {variant.artifact.id} took over", details)
            return

    def _pause(self, seconds: float) -> bool:
        """Wait, at most until the end begins; returns whether it did."""
        until = time.monotonic() + seconds
        while not self._ending and (left := until - time.monotonic()) > 0:
            self._bell.wait(left)
            self._bell.clear()
        return self._ending

    def _new_policy(self) -> RestartPolicy:
        return RestartPolicy(
            limit=self._limit,
            span_s=bounds.RESTART_SPAN_S,
            base_s=bounds.RESTART_BASE_S,
            cap_s=bounds.RESTART_CAP_S,
        )


_REPLACED = "the worker is being replaced"


def _breach(lost: WorkerError, runner: Runner) -> tuple[str, str]:
    """Kind of event and sentence for a worker that is gone."""
    memory = runner.watched.memory_breach()
    if memory:
        return "memory-exceeded", memory
    if isinstance(lost, WorkerLateError):
        return "deadline-missed", str(lost)
    return "worker-died", str(lost)
