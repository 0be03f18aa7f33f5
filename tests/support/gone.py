"""Waiting for processes that are no children of the test's own."""

from __future__ import annotations

import os
import select


def wait_gone(pid: int, *, timeout_s: float = 30) -> None:
    """Return when a process is dead; fail if it outlives ``timeout_s``."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([handle], [], [], timeout_s)[0], f"process {pid} is still there"
    finally:
        os.close(handle)
