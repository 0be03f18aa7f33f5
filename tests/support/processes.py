"""Which processes a process has below it, and in which scheduling classes.

Asked of psutil, which goes by parents: the kernel's lists of a thread's children vanish with the
thread, in the middle of a walk over them.
"""

from __future__ import annotations

import os
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
