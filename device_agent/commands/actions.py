"""What can be asked of a device, and how each is done."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from edgeml.device_agent import logs
from edgeml.device_agent.commands.executor import Action, Answer
from edgeml.device_agent.local.status import AgentStatus
from edgeml.errors import AgentError
from edgeml.telemetry import Command, Window

if TYPE_CHECKING:
    from edgeml.device_agent.serving.service import Service

LINES = 100
"""Of the log, where a command does not say how many."""


class Captures:
    """Who waits for the next windows of a model."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[_Capture] = []

    def add(self, command: Command, answer: Answer) -> None:
        """Answer with each of the next windows, ``command.count`` of them."""
        with self._lock:
            self._waiting.append(_Capture(command.model, max(1, command.count), answer))

    def closed(self, window: Window) -> None:
        """A window was closed."""
        with self._lock:
            meant = [c for c in self._waiting if c.model in {"", window.model}]
            for capture in meant:
                capture.seen += 1
            self._waiting = [c for c in self._waiting if c.seen < c.parts]
        document: dict[str, Any] = msgspec.to_builtins(window)
        for capture in meant:
            capture.answer.done(document, part=capture.seen, parts=capture.parts)

    def end(self) -> None:
        """There will be no more windows."""
        with self._lock:
            left, self._waiting = self._waiting, []
        for capture in left:
            capture.answer.failed(
                f"The agent ended after {capture.seen} of {capture.parts} windows"
            )


class _Capture:
    def __init__(self, model: str, parts: int, answer: Answer) -> None:
        self.model = model
        self.parts = parts
        self.answer = answer
        self.seen = 0


def actions(
    *,
    services: Callable[[], Mapping[str, Service]],
    status: Callable[[], AgentStatus],
    captures: Captures,
    restart: Callable[[], None],
) -> dict[str, Action]:
    """All of them, by kind.

    Args:
        services: the models by name.
        status: the whole agent's.
        captures: who waits for windows.
        restart: has the agent end in order, and start anew.
    """

    def the_model(command: Command) -> Service:
        found = services()
        if command.model not in found:
            raise AgentError(
                f"There is no model '{command.model}'", expected=f"one of {', '.join(found)}"
            )
        return found[command.model]

    def tell_status(_command: Command, answer: Answer) -> None:
        answer.done(msgspec.to_builtins(status()))

    def tell_logs(command: Command, answer: Answer) -> None:
        answer.done({"lines": logs.recent_lines(command.count or LINES)})

    def restart_it(command: Command, answer: Answer) -> None:
        if command.model:
            answer.done(msgspec.to_builtins(the_model(command).changes.renew()))
        else:
            answer.done({})
            restart()

    def profile(command: Command, answer: Answer) -> None:
        service = the_model(command)
        service.changes.renew()
        answer.done(msgspec.to_builtins(service.snapshot().profile))

    def capture(command: Command, answer: Answer) -> None:
        if command.model:
            the_model(command)
        captures.add(command, answer)

    return {
        "status": tell_status,
        "logs": tell_logs,
        "restart": restart_it,
        "profile": profile,
        "capture": capture,
    }
