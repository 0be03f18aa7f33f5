"""Telling of the steps of a stage that began before it was its turn to be told of."""

from __future__ import annotations

import threading
from collections.abc import Callable

from edgeml.exporter.events import Event, Progress, Stage


class Steps:
    """Counts the steps of a stage. They may be done in several threads, and before it opens.

    Args:
        emit: takes the events.
    """

    def __init__(self, emit: Callable[[Event], None]) -> None:
        self._emit = emit
        self._lock = threading.Lock()
        self._done: list[str] = []
        self._open = False

    def __call__(self, text: str) -> None:
        """One is done."""
        with self._lock:
            self._done.append(text)
            if self._open:
                self._emit(Progress(text=text, step=len(self._done)))

    def open(self, stage: Stage) -> None:
        """Tell of the stage, and of what is done already."""
        with self._lock:
            self._open = True
            self._emit(stage)
            for step, text in enumerate(self._done, start=1):
                self._emit(Progress(text=text, step=step))
