"""A warm second worker of what serves, where there is room: it takes over from one that is lost."""

from __future__ import annotations

import time

from edgeml.device_agent import config as bounds
from edgeml.device_agent import logs
from edgeml.device_agent.serving.room import Room, peak_bytes
from edgeml.device_agent.serving.runner import Runner, Starter, Variant
from edgeml.device_agent.worker.parent import WorkerError


class Standby:
    """Of one model; used in the keeper's turn.

    Args:
        starter: of its workers.
        room: for one worker more.
        wanted: whether there is to be one at all.
    """

    def __init__(self, starter: Starter, room: Room, *, wanted: bool) -> None:
        self._starter = starter
        self._room = room
        self._wanted = wanted
        self.next_try = 0.0
        """Not before this is another one called, monotonic seconds."""
        self.runner: Runner | None = None
        """The worker; it may have died by now."""

    def look(self, now: float) -> None:
        """Let go of one that has died."""
        if self.runner is not None and self.runner.watched.dead:
            self.drop()
            self.next_try = now + bounds.STANDBY_REST_S

    def is_due(self, now: float) -> bool:
        """Whether one is to be called."""
        return self._wanted and self.runner is None and now >= self.next_try

    def call(self, variant: Variant, *, name: str) -> None:
        """Have a worker of what serves stand by, where there is room.

        Args:
            variant: that serves.
            name: of the model, for the log.
        """
        self.next_try = time.monotonic() + bounds.STANDBY_REST_S
        if not self._room.fits(peak_bytes(variant)):
            return
        try:
            self.runner = self._starter.start(variant)
        except WorkerError as error:
            logs.warn("no standby", model=name, reason=error)
            return
        logs.info("standby", model=name, pid=self.runner.worker.pid)

    def take(self) -> Runner | None:
        """The worker, for whoever puts it in place or stops it; none stands by after that."""
        runner, self.runner = self.runner, None
        return runner

    def drop(self) -> None:
        """End the worker, if there is one."""
        runner = self.take()
        if runner is not None:
            self._starter.stop(runner)
