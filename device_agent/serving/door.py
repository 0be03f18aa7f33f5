"""Where programs see, without asking, that a request of theirs would be refused.

A page of memory that the agent alone writes to and every program on the device may map. It says
until when requests are refused unless something changes, and whatever changes is written there at
once: a program that reads it turns back on its own, in the time that a look takes. To ask and to be
refused takes two wakes, each behind whatever has the core: a model that computes, above all. Where
more programs look there than there is room for, they need a pass as well
(:mod:`~edgeml.device_agent.serving.turnstile`).

Who turned back counts itself, in memory that it shares with the agent anyway, and the agent adds
those counts to its own whenever it says or sends them.

Each is a word of eight bytes, aligned, which every processor of 64 bits writes and reads whole.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import threading
import time
import weakref
from collections.abc import Generator

from edgeml.device_agent import logs
from edgeml.device_agent.serving.turnstile import Passes, Turnstile

OPEN = float("-inf")
"""Requests are looked at."""

WORD = 8
"""Bytes of a count."""

_SHUT, _PASSES = 0, 1
"""Words of the page."""

_FUTURE_WRITE = 0x0010
"""``F_SEAL_FUTURE_WRITE``, which Python names from 3.13 on; Linux has it since 5.1."""
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | _FUTURE_WRITE | fcntl.F_SEAL_SEAL

_FASTEST_S = 1e-6
"""Nobody turns back more often: what a program counted beyond that, it made up."""


class Door:
    """The agent's side.

    Attributes:
        handle: of the memory, for programs; None where the kernel cannot keep them from writing.
    """

    def __init__(self) -> None:
        self.handle: int | None = None
        handle = os.memfd_create("edgeml-door", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        weakref.finalize(self, os.close, handle)
        os.posix_fallocate(handle, 0, mmap.PAGESIZE)
        self._words = memoryview(mmap.mmap(handle, mmap.PAGESIZE)).cast("d")
        self._until = self._words[_SHUT] = self._words[_PASSES] = OPEN
        self._turnstile = Turnstile()
        try:
            fcntl.fcntl(handle, fcntl.F_ADD_SEALS, _SEALS)
        except OSError as error:
            logs.warn("programs have to ask", reason=f"the kernel cannot seal memory: {error}")
        else:
            self.handle = handle
        self._lock = threading.Lock()
        self._counts: set[Count] = set()

    def shut(self, until: float) -> None:
        """Until this moment, monotonic seconds, requests are refused; :data:`OPEN`: not at all."""
        if until != self._until:
            self._until = self._words[_SHUT] = until

    def show(self, until: float, room: int, *, now: float) -> None:
        """What programs see from now on.

        Args:
            until: see :meth:`shut`.
            room: for so many who come before more is shown.
            now: monotonic seconds.
        """
        if opens := until <= self._until:  # whoever sees that finds passes
            self._let_in(room, now)
        self.shut(until)
        if not opens:
            self._let_in(room, now)

    def _let_in(self, room: int, now: float) -> None:
        """Each program has one request on its way at most: where there is room for as many as there
        are programs, nobody needs a pass."""
        few = room < self.programs
        self._words[_PASSES] = self._turnstile.let_in(room, now=now) if few else OPEN

    def arrived(self) -> None:
        """A program with a pass has."""
        self._turnstile.arrived()

    def shut_for(self, now: float) -> float:
        """Seconds for which requests are still refused; none where it is not positive."""
        return self._until - now

    @contextlib.contextmanager
    def handles(self) -> Generator[list[int]]:
        """What a program is given: of the memory, and of the passes; fewer where there are fewer.
        They are open for as long as the block lasts."""
        with contextlib.ExitStack() as stack:
            handles = [] if self.handle is None else [self.handle]
            with contextlib.suppress(OSError):  # then it asks where the door is open
                handles.append(self._turnstile.handle())
                stack.callback(os.close, handles[-1])
            yield handles if self.handle is not None else []

    @property
    def programs(self) -> int:
        """How many look there."""
        return len(self._counts)

    def counts(self, count: Count) -> None:
        """A program counts itself there from now on."""
        with self._lock:
            self._counts.add(count)

    def forget(self, count: Count) -> int:
        """It does so no more; returns what was new there."""
        with self._lock:
            self._counts.discard(count)
            self._turnstile.suspect()
            new = count.new()
            count.close()
            return new

    def turned_back(self) -> int:
        """How many have, since this was last asked."""
        with self._lock:
            return sum(count.new() for count in self._counts)


class Count:
    """How often a program turned back, as the agent reads it.

    Args:
        word: where the program counts.
    """

    def __init__(self, word: memoryview) -> None:
        self._word = word.cast("Q")
        self._seen = self._word[0]
        self._at = time.monotonic()

    def new(self) -> int:
        """Since the last look."""
        count, now = self._word[0], time.monotonic()
        possible = int((now - self._at) / _FASTEST_S)
        found = min((count - self._seen) % 2**64, possible)
        self._seen, self._at = count, now
        return found

    def close(self) -> None:
        """Let go of the memory."""
        self._word.release()


class Outside:
    """A program's side.

    Args:
        handle: of the door's memory.
        word: where this program counts.
        passes: where it takes them from; None where it is given none, and asks without.
    """

    def __init__(self, handle: int, word: memoryview, passes: Passes | None = None) -> None:
        self._words = memoryview(mmap.mmap(handle, mmap.PAGESIZE, prot=mmap.PROT_READ)).cast("d")
        self._count = word.cast("Q")
        self._passes = passes

    @property
    def shut_until(self) -> float:
        """See :meth:`Door.shut`."""
        return self._words[_SHUT]

    @property
    def passes_until(self) -> float:
        """Until when whoever finds no pass turns back, monotonic seconds; :data:`OPEN`: nobody
        needs one."""
        return self._words[_PASSES] if self._passes is not None else OPEN

    def take_pass(self) -> bool:
        """Whether there was one."""
        return self._passes is not None and self._passes.take()

    def turn_back(self) -> None:
        """Count a request that was not made."""
        self._count[0] = (self._count[0] + 1) % 2**64
