"""Which processes a process has below it, and in which scheduling classes.

Asked of psutil, which goes by parents: the kernel's lists of a thread's children vanish with the
thread, in the middle of a walk over them.
"""

from __future__ import annotations

import contextlib
import os
import resource
from pathlib import Path

import psutil


def children(pid: int) -> list[int]:
    """Ids of those that it started and that are still there."""
    return [child.pid for child in psutil.Process(pid).children()]


def descendants(pid: int) -> list[int]:
    """Likewise, with the children's children and so on."""
    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


def classes(pid: int) -> set[int]:
    """Scheduling classes of a process's threads."""
    return {os.sched_getscheduler(int(task.name)) for task in Path(f"/proc/{pid}/task").iterdir()}


def carrying(value: str) -> list[int]:
    """Ids of all processes whose environment they began with holds a text, wherever they stand."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # it has gone meanwhile, or is another user's
                if value.encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
    return found


def cpu_seconds() -> float:
    """Processor time of this process and of the children that it has waited for."""
    used = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)
