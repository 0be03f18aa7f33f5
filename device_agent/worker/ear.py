"""How either side waits for the other's doorbell: awake for a moment, then asleep.

To wake a process on a sleeping core costs more than a small model's inference, 30 µs and more in a
virtual machine. So whoever expects to hear soon looks again and again, and lets any other process
that wants the core go first.
"""

from __future__ import annotations

import os
import select
import socket
import time

CORES = len(os.sched_getaffinity(0))
"""That this process may use; with one, it is the other side that must run while this one waits."""


class Ear:
    """Listens to a socket.

    Args:
        link: to listen to.
        awake_s: to stay awake; nothing on a single core.
    """

    def __init__(self, link: socket.socket, *, awake_s: float) -> None:
        self._poll = select.poll()
        self._poll.register(link, select.POLLIN)
        self._awake_s = awake_s if CORES > 1 else 0.0

    def hears(self, timeout_s: float | None) -> bool:
        """Wait for a message, or the end of the link.

        Args:
            timeout_s: to wait; None for ever.

        Returns:
            Whether there is one.
        """
        poll, now = self._poll.poll, time.monotonic
        begin = now()
        awake_s = self._awake_s if timeout_s is None else min(timeout_s, self._awake_s)
        until = begin + awake_s
        while now() < until:
            if poll(0):
                return True
            os.sched_yield()
        if timeout_s is None:
            return bool(poll())
        return bool(poll(max(0.0, (begin + timeout_s - now()) * 1000)))
