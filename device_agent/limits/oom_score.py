"""Whom the kernel ends first where memory does: a worker before the agent and before the device's
other programs, and of two workers the one that serves nobody.

It ends the process with the highest score, which is the memory it has, in thousandths of all that
may be had, plus ``oom_score_adj`` (proc(5)). To raise that takes no privilege, nor to take it back
to what the process began with. A worker is the cheapest to lose: another one takes its place, and
every request to it is accounted for.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

SERVING = 500
"""A program that has half of the memory more than the worker goes before it: then to end the worker
would not help for long."""

SPARE = 800
"""Nobody misses it: it loads, proves itself, stands by, or is a shadow."""

_HIGHEST = 1000


def set_score(pid: int, raised: int, *, proc: Path = Path("/proc")) -> None:
    """Have the kernel end this process the earlier; nothing where it may not be told.

    Args:
        pid: of a child of this process.
        raised: above this process's own value, or above 0 where that is lower: an agent that is
            protected does not protect its workers with itself.
        proc: where the kernel shows processes.
    """
    with contextlib.suppress(OSError):
        own = int((proc / "self/oom_score_adj").read_text())
        score = min(max(own, 0) + raised, _HIGHEST)
        (proc / str(pid) / "oom_score_adj").write_text(str(score))
