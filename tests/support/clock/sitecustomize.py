"""Gives every Python process that has this folder on its PYTHONPATH a wall clock that a test sets.

The file that :data:`AHEAD` names holds the seconds by which it is ahead of the true one.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

AHEAD = "CLOCK_AHEAD"


def _set_clock(ahead: Path) -> None:
    true_ns = time.time_ns

    def time_ns() -> int:
        return true_ns() + int(ahead.read_text()) * 10**9

    time.time_ns = time_ns
    time.time = lambda: time_ns() / 1e9


if os.environ.get(AHEAD):
    _set_clock(Path(os.environ[AHEAD]))
