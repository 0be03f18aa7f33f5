"""A worker whose inferences are long interrupts nobody when it wakes, and lets others interrupt it.

Whoever wakes may interrupt whoever runs on its core, which then waits until the other's turn is
over, some milliseconds. A program that is just being refused cannot afford that; an inference that
takes several turns itself hardly notices. So its worker gives up that right (sched(7),
``SCHED_BATCH``), which takes none to do, and keeps its share of the processor. So does the agent's
thread that computes statistics: nobody waits for those.

From Linux 6.12 on it also asks for turns a little longer than others have (``sched_setattr(2)``):
one that wakes and has shorter ones then goes first. Not much longer: what has used up its share
waits for the end of the turn.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import struct
import time
from pathlib import Path

LONG_S = 0.005
"""A turn of the scheduler's takes 1 to 4 ms, by its settings."""
SEEN = 8
"""Inferences that are looked at."""

TURN_NS = 4_000_000
"""Asked for. By default turns take .7 to 2.8 ms, by the number of cores."""

_SETATTR = {"x86_64": 314, "aarch64": 274}
"""Number of the system call, which Python has no name for."""
_ATTR = struct.Struct("=IIQiIQQQ")
"""``struct sched_attr``, first version: size, policy, flags, nice, priority, runtime, …"""


class Turns:
    """Around each inference of this process."""

    def __init__(self) -> None:
        self._took_s: list[float] = []
        self._began = 0.0

    def __enter__(self) -> None:
        self._began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        if len(self._took_s) < SEEN:
            self._took_s.append(time.monotonic() - self._began)
            # The quickest counts: of the others some waited for whoever else wanted the processor.
            if len(self._took_s) == SEEN and min(self._took_s) >= LONG_S:
                for task in Path("/proc/self/task").glob("*"):
                    give_way(int(task.name))


def give_way(thread: int = 0) -> None:
    """Have a thread interrupt nobody when it wakes, and be interrupted.

    Args:
        thread: its id; 0 for the one that calls.
    """
    with contextlib.suppress(OSError):  # it has ended, or that is not allowed here
        # Another class is somebody's choice: a shadow's, or who started the agent's.
        if os.sched_getscheduler(thread) == os.SCHED_OTHER:
            os.sched_setscheduler(thread, os.SCHED_BATCH, os.sched_param(0))
            _ask_for_turns(thread)


def _ask_for_turns(thread: int) -> None:
    """Older kernels look at no such wish of these classes, and change nothing."""
    number = _SETATTR.get(platform.machine())
    if number is None:
        return
    nice = os.getpriority(os.PRIO_PROCESS, thread)
    wish = _ATTR.pack(_ATTR.size, os.SCHED_BATCH, 0, nice, 0, TURN_NS, 0, 0)
    ctypes.CDLL(None).syscall(number, thread, wish, 0)
