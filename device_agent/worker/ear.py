"""How either side waits for the other's bell: awake for a moment, then asleep.

To wake a process on a sleeping core costs more than a small model's inference, 30 µs and more in a
virtual machine. So whoever expects to hear soon looks again and again, and lets any other process
that wants the core go first. Where that has been in vain for a while it sleeps at once: to look on
takes others the core, and the interpreter, which is dropped and taken back with each look.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time

CORES = len(os.sched_getaffinity(0))
"""That this process may use; with one, it is the other side that must run while this one waits."""

IN_VAIN = 8
"""Waits in a row that were far too long to stay awake for; then it is not tried."""

SOON = 3
"""Times ``awake_s``: whoever slept and has heard within so long had better have been awake. A wake
takes as long again as the time that one stays awake."""

LINK = 0
"""What is heard of the link, in place of a number."""


class Bell:
    """An event counter (``eventfd``) that is rung with a number over 0, and again once that was
    heard. What was written before it is rung is seen by whoever hears it."""

    def __init__(self) -> None:
        self.handle = os.eventfd(0, os.EFD_CLOEXEC)
        """-1 once it is closed: the kernel gives the number to others."""

    def ring(self, number: int) -> None:
        """Raises OSError where it is closed."""
        if self.handle < 0:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        os.eventfd_write(self.handle, number)

    def close(self) -> None:
        """May be called twice."""
        handle, self.handle = self.handle, -1
        if handle >= 0:
            os.close(handle)


class Ear:
    """Listens to a bell, and to the link beside it.

    Args:
        bell: descriptor of a :class:`Bell`.
        link: a message on it is heard, and so is its end.
        messages: False for the link's end alone: somebody else reads it.
        awake_s: to stay awake; nothing on a single core.
    """

    def __init__(
        self, bell: int, link: socket.socket, *, messages: bool = True, awake_s: float
    ) -> None:
        self._bell = bell
        self._poll = select.poll()
        self._poll.register(bell, select.POLLIN)
        self._poll.register(link, select.POLLIN if messages else 0)
        self._awake_s = awake_s if CORES > 1 else 0.0
        self._in_vain = 0

    def hears(self, timeout_s: float | None) -> int | None:
        """Wait for the bell or the link.

        Args:
            timeout_s: to wait; None for ever.

        Returns:
            The number that was rung, else :data:`LINK`; None where the time is over.
        """
        poll, now = self._poll.poll, time.monotonic
        begin = now()
        if self._in_vain < IN_VAIN:
            awake_s = self._awake_s if timeout_s is None else min(timeout_s, self._awake_s)
            until = begin + awake_s
            while now() < until:
                if found := poll(0):
                    self._in_vain = 0
                    return self._which(found)
                os.sched_yield()
        left_ms = None if timeout_s is None else max(0.0, (begin + timeout_s - now()) * 1000)
        found = poll(left_ms)
        soon = now() - begin < SOON * self._awake_s
        self._in_vain = 0 if soon else min(self._in_vain + 1, IN_VAIN)
        return self._which(found) if found else None

    def _which(self, found: list[tuple[int, int]]) -> int:
        # What was rung before the link ended counts.
        if any(handle == self._bell for handle, _ in found):
            return os.eventfd_read(self._bell)
        return LINK
