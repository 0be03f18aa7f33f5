"""Lets as many programs through the door at a time as there is room for, without asking the agent.

The door shows that one may ask; between that and the agent's having seen the request, others look
there too. So there are *passes* in a pipe, one byte each: who sees the door open takes one, which
the kernel gives to one program alone, and who finds none turns back as from a shut door. The agent
puts in as many as admission has room for, less those who are on their way with one.

A pass must not be lost for good with a program that was killed or stopped on its way. When a
program goes, and when somebody has been on the way all of :data:`LOST_S`, those who are are written
off; and where the agent has no reason to look, for hours perhaps, whoever finds no pass so long
after its last look asks without one. So the worst is that for so long fewer are let in than there
is room for. Who comes late with a pass that was written off is judged by admission as all are, and
one pass too many is in the pipe until the next look.

Each program has a description of its own of the pipe's end: no flag that it sets there makes others
wait, and it cannot put passes in. It can take all and use none, again and again, as it can ask
again and again and keep others out so.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import termios
import weakref

LOST_S = 0.25
"""On the way to the agent, in which a program needs the core once and the agent once."""

_ZERO = struct.pack("i", 0)


class Turnstile:
    """The agent's side. Not for several threads at once, but for :meth:`handle` and
    :meth:`suspect`."""

    def __init__(self) -> None:
        self._end, self._entry = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        for handle in self._end, self._entry:
            weakref.finalize(self, os.close, handle)
        self._out = 0
        """Passes in the pipe, and on the way."""
        self._somebody = False
        """Was on the way at the latest look."""
        self._since = float("-inf")
        """The moment of the first look since which each found somebody, or of the latest, which
        found nobody."""

    def handle(self) -> int:
        """An end for a program, which the caller closes.

        Raises:
            OSError: there is no ``/proc``, or no descriptor left.
        """
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
        return os.open(f"/proc/self/fd/{self._end}", flags)

    def arrived(self) -> None:
        """Somebody with a pass has."""
        self._out = max(0, self._out - 1)

    def suspect(self) -> None:
        """A program has gone, and may have had a pass: who is on the way is written off."""
        self._somebody, self._since = True, float("-inf")

    def let_in(self, room: int, *, now: float) -> float:
        """So many may be on their way from now on.

        Args:
            room: for how many.
            now: monotonic seconds.

        Returns:
            Until when whoever finds no pass is to turn back, monotonic seconds.
        """
        if self._somebody or now >= self._since + LOST_S / 2:  # not at each request
            self._look(now)
        with contextlib.suppress(BlockingIOError):  # all of them are on the way
            if self._out < room:
                self._out += os.write(self._entry, bytes(room - self._out))
            elif self._out > room:
                self._out -= len(os.read(self._end, self._out - room))
        return self._since + LOST_S

    def _look(self, now: float) -> None:
        """Write off whoever is on the way, where somebody has been all of :data:`LOST_S`.

        Passes are alike: it is to be seen how many are on the way, not which. But the last one to
        arrive brings the agent here. So where each look finds somebody, there was somebody all the
        time: one who is lost, or many in turn. If it was many, they arrive after all, and from the
        next look on what is in the pipe counts again.
        """
        (left,) = struct.unpack("i", fcntl.ioctl(self._end, termios.FIONREAD, _ZERO))
        still = self._somebody and left < self._out
        if still and now < self._since + LOST_S:
            return
        self._somebody = left < self._out and not still
        if not self._somebody:
            self._out = left
        self._since = now


class Passes:
    """A program's side.

    Args:
        handle: of :meth:`Turnstile.handle`; closed with this.
    """

    def __init__(self, handle: int) -> None:
        self._handle = handle
        weakref.finalize(self, os.close, handle)

    def take(self) -> bool:
        """Whether there was one."""
        try:
            return bool(os.read(self._handle, 1))
        except BlockingIOError:
            return False
