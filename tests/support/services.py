"""One model's service in this process, with real workers, and what it tells the agent."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from edgeml.bundle import open_bundle
from edgeml.device_agent.config import ModelConfig
from edgeml.device_agent.limits.watch import Watch
from edgeml.device_agent.serving.changeover import Adopted
from edgeml.device_agent.serving.policy import Sensors
from edgeml.device_agent.serving.room import Room
from edgeml.device_agent.serving.service import Service
from edgeml.device_agent.serving.standing import Details, Hooks
from edgeml.device_agent.serving.tickets import Ticket
from edgeml.targets import registry
from edgeml.telemetry import Window
from support.agents import PATIENCE_S, SUPPORT, frame
from support.sleeper.sitecustomize import SLEEPER as TARGET

SLEEPER = str(SUPPORT / "sleeper")


class Desk:
    """A service, and the agent's part around it."""

    service: Service

    def __init__(self) -> None:
        self.events: list[tuple[str, str, Details]] = []
        self.windows: list[Window] = []
        self._changed = threading.Condition()

    def hear(self, kind: str, message: str, model: str, details: Details) -> None:
        with self._changed:
            self.events.append((kind, message, details))
            self._changed.notify_all()

    def told(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def wait_for(self, kind: str, *, count: int = 1) -> Details:
        """Details of the ``count``-th event of a kind."""

        def found() -> list[Details]:
            return [details for name, _, details in self.events if name == kind]

        with self._changed:
            met = self._changed.wait_for(lambda: len(found()) >= count, PATIENCE_S)
        assert met, f"no {kind}: {self.events}"
        return found()[count - 1]

    def wait_until(self, condition: Callable[[], Any], what: str) -> None:
        """Until something holds that no event tells of."""
        patience = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < patience, f"no {what}: {self.events}"
            time.sleep(0.005)

    def call(self, command: float = 0.5, **options: Any) -> Ticket:
        """One frame, and what became of it."""
        ticket = self.service.submit({"image": frame(command)}, **options)
        ticket.wait()
        return ticket

    def adopt(self, path: Path) -> Adopted:
        return self.service.changes.adopt(open_bundle(path))

    def close_windows(self) -> list[Window]:
        self.windows += self.service.windows(now=1e12, wall_ms=1)
        return self.windows


@contextmanager
def knowing_the_sleeper() -> Iterator[None]:
    """This process and those that it starts have the target ``sleeper``."""
    before = os.environ.get("PYTHONPATH")
    path = os.pathsep.join((SLEEPER, before)) if before else SLEEPER
    known: Any = registry.TARGETS
    with patch.dict(os.environ, PYTHONPATH=path), patch.dict(known, sleeper=TARGET):
        yield


@contextmanager
def serving(
    bundle: Path,
    folder: Path,
    *,
    room_mb: float | None = None,
    machine: Sensors | None = None,
    **settings: Any,
) -> Iterator[Desk]:
    """A service that has come up; ended with the block.

    Args:
        bundle: to serve.
        folder: for its files.
        room_mb: of all workers together.
        machine: what the ladder goes by.
        settings: of the model's configuration.
    """
    watch = Watch(0.02)
    limit = None if room_mb is None else int(room_mb * 1e6)
    desk = Desk()
    desk.service = service = Service(
        ModelConfig(bundle=bundle, **{"statistics_share": 1.0} | settings),
        boot="boot",
        artifacts=folder / "artifacts",
        logs_folder=folder,
        profiles=folder / "profiles",
        watch=watch,
        room=Room(limit, used_bytes=watch.resident_bytes),
        hooks=Hooks(event=desk.hear, changed=desk.told),
        machine=machine,
    )
    watch.start()
    with knowing_the_sleeper():
        try:
            service.start()
            assert service.settled.wait(PATIENCE_S)
            yield desk
        finally:
            service.end(PATIENCE_S)
            service.stop()
            watch.stop()


def scores_of(ticket: Ticket) -> np.ndarray:
    """Of a ticket that was served."""
    assert ticket.outcome == "served", ticket.message
    return ticket.outputs["scores"]
