"""When the machine itself stood still: a control, beside a benchmark, of what is nobody's fault.

On each core a process of the real-time class, which nobody else's can keep from running, sleeps for
half a millisecond at a time and looks at the clock. Where it wakes far too late no program of the
machine ran on that core: the host took it away, or the kernel did something that cannot be
interrupted. Such a process takes about one or two hundredths of its core itself.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from collections.abc import Generator, Sequence
from typing import Any, NamedTuple

STEP_S = 0.0005
PAUSE_S = 0.0005
"""What a wake may be late, a wake of a sleeping core included."""


class Pause(NamedTuple):
    """Of one core, by ``time.perf_counter``."""

    core: int
    begin: float
    end: float


@contextlib.contextmanager
def watched(cores: Sequence[int]) -> Generator[list[Pause]]:
    """Of these cores; filled at the end of the block.

    Raises:
        PermissionError: the real-time class is not allowed here.
    """
    forked = multiprocessing.get_context("fork")
    # Tried here, where it can be told.
    before = os.sched_getscheduler(0)
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    os.sched_setscheduler(0, before, os.sched_param(0))
    done, found = forked.Event(), forked.SimpleQueue()
    watchers = [forked.Process(target=_watch, args=(core, done, found)) for core in cores]
    for watcher in watchers:
        watcher.start()
    pauses: list[Pause] = []
    try:
        yield pauses
    finally:
        done.set()
        pauses += [Pause(*entry) for _ in watchers for entry in found.get()]
        for watcher in watchers:
            watcher.join()


def _watch(core: int, done: Any, found: Any) -> None:
    os.sched_setaffinity(0, {core})
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))
    pauses: list[tuple[int, float, float]] = []
    due = time.perf_counter()
    while True:
        due += STEP_S
        time.sleep(max(0.0, due - time.perf_counter()))
        now = time.perf_counter()
        if now - due > PAUSE_S:
            pauses.append((core, due, now))
            due = now
            if done.is_set():
                break
        elif int(now / STEP_S) % 64 == 0 and done.is_set():  # a look takes microseconds
            break
    found.put(pauses)


def paused_s(pauses: Sequence[Pause], begin: float, end: float) -> float:
    """Of this span, the most that any one core stood still."""
    each: dict[int, float] = {}
    for pause in pauses:
        shared = min(end, pause.end) - max(begin, pause.begin)
        if shared > 0:
            each[pause.core] = each.get(pause.core, 0.0) + shared
    return max(each.values(), default=0.0)
