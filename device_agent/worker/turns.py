"""A worker whose inferences are long interrupts nobody when it wakes, and may be interrupted.

Whoever wakes on a core where another one computes may have to wait until that one's turn is over,
some milliseconds, and the other way round. A program that is just being refused cannot afford
either; an inference that takes several turns itself hardly notices. So its worker gives up the
right to interrupt (sched(7), ``SCHED_BATCH``) and asks for long turns, which the kernel grants at
the price of waiting behind those that want short ones (EEVDF, from Linux 6.12 on; before, it is
ignored). Its share of the processor stays, and it takes no permission.
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
"""Inferences that are looked at; the first are slower than others."""
TURN_NS = 20_000_000
"""What is asked for; the kernel grants up to 100 ms."""

_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
"""Number of the system call: Python and most C libraries know it not."""


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
            if len(self._took_s) == SEEN and sorted(self._took_s)[SEEN // 2] >= LONG_S:
                _stand_back()


def _stand_back() -> None:
    for task in Path("/proc/self/task").glob("*"):
        thread = int(task.name)
        with contextlib.suppress(OSError):  # it has ended, or that is not allowed here
            # Another class is somebody's choice: a shadow's, or who started the agent's.
            if os.sched_getscheduler(thread) == os.SCHED_OTHER:
                os.sched_setscheduler(thread, os.SCHED_BATCH, os.sched_param(0))
                _take_long_turns(thread)


def _take_long_turns(thread: int) -> None:
    number = _SCHED_SETATTR.get(platform.machine())
    if number is None:
        return
    nice = os.getpriority(os.PRIO_PROCESS, thread)
    # struct sched_attr: size, policy, flags, nice, priority, runtime, deadline, period.
    wish = struct.pack("=IIQiIQQQ", 48, os.SCHED_BATCH, 0, nice, 0, TURN_NS, 0, 0)
    ctypes.CDLL(None).syscall(number, thread, wish, 0)
