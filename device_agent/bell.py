"""Wakes the main thread, from a signal handler or any thread.

A pipe, because a handler may run in the middle of anything, and ``threading.Event.set`` takes a
lock that the interrupted code may hold.
"""

from __future__ import annotations

import contextlib
import os
import select


class Bell:
    """Rung from anywhere, heard by one thread."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.ended = False
        """Whether the agent was told to end."""

    def ring(self) -> None:
        """Wake the main thread."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._writer, b"\0")

    def end(self) -> None:
        """Tell the agent to end."""
        self.ended = True
        self.ring()

    def wait(self, timeout_s: float | None) -> None:
        """Return when it was rung, or after this long."""
        select.select([self._reader], [], [], timeout_s)
        with contextlib.suppress(BlockingIOError):
            os.read(self._reader, 4096)
