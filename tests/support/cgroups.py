"""A control group of the tests' own, for agents to make their workers' groups in.

At the top of version 1's memory hierarchy, so that nothing of whoever runs the tests is touched;
that takes root. Elsewhere agents use what they find.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Generator
from functools import cache
from pathlib import Path

import pytest

MEMORY = Path("/sys/fs/cgroup/memory")
_PREFIX = "edgeml-tests-"


@cache
def test_group() -> Path | None:
    """Made once a process; :func:`remove_test_group` at its end. None where it cannot be made."""
    if not (MEMORY / "memory.limit_in_bytes").exists() or not os.access(MEMORY, os.W_OK):
        return None
    for stale in MEMORY.glob(f"{_PREFIX}*"):
        if not Path("/proc", stale.name.removeprefix(_PREFIX)).exists():
            remove_group(stale)
    path = MEMORY / f"{_PREFIX}{os.getpid()}"
    try:
        path.mkdir(exist_ok=True)
    except OSError:
        return None
    return path


def remove_test_group() -> None:
    """End what :func:`test_group` made in this process."""
    remove_group(MEMORY / f"{_PREFIX}{os.getpid()}")


def joining(command: list[str]) -> list[str]:
    """The same command, run as a member of the tests' group where there is one."""
    group = test_group()
    if group is None:
        return command
    return ["/bin/sh", "-c", 'echo 0 > "$0" && exec "$@"', str(group / "cgroup.procs"), *command]


@contextlib.contextmanager
def limited_group(name: str, limit_bytes: int) -> Generator[Path]:
    """One in the tests' group with a limit of its own, as a container's is; where none can be made
    the test is skipped."""
    parent = test_group()
    if parent is None:
        pytest.skip("needs root and version 1's memory controller, to make a group with a limit")
    made = parent / name
    made.mkdir()
    (made / "memory.limit_in_bytes").write_text(str(limit_bytes))
    try:
        yield made
    finally:
        remove_group(made)


def remove_group(path: Path) -> None:
    """End a group of a test's, and those below it."""
    if not path.exists():
        return
    for _ in range(100):  # a group stays busy for a moment after its last process
        with contextlib.suppress(OSError):
            for child in path.iterdir():
                if child.is_dir():
                    child.rmdir()
            path.rmdir()
            return
        time.sleep(0.01)
