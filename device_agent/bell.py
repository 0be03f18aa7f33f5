"""Wakes the main thread, by a signal or from any thread.

A pipe, because a handler may run in the middle of anything, and ``threading.Event.set`` takes a
lock that the interrupted code may hold. The interpreter itself writes to it when a signal comes
(:func:`signal.set_wakeup_fd`): a handler in Python runs only once the main thread is back in the
interpreter, and that thread may wait in ``select`` for good, having just begun to when the signal
came, or because the kernel gave the signal to another thread.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal


class Bell:
    """Rung from anywhere, heard by one thread."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.ended = False
        """Whether the agent was told to end."""

    def end_on(self, *numbers: signal.Signals) -> None:
        """Have these signals end the agent. From the main thread only."""
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in numbers:
            signal.signal(number, lambda _number, _frame: self.end())

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
