"""Child processes that end when whoever started them does, and what they have used. The one place
that asks Linux for it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path

_PR_SET_PDEATHSIG = 1
"""prctl(2): the signal that this process gets when its parent dies."""

GRACE_S = 5.0
"""How long a group of processes may take to end after SIGTERM before it is killed."""


def die_with_parent(parent: int | None = None) -> None:
    """Have the kernel kill this process when its parent dies, whatever the parent dies of.

    Call it early in a child. Elsewhere than on Linux it does nothing: there :func:`ending_with_us`
    covers everything but a SIGKILL of the parent.

    Args:
        parent: the process id that the caller knows to be its parent; if that is already gone, the
            child leaves at once.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent is not None and os.getppid() != parent:
        os._exit(1)


def dying_with(parent: int) -> Callable[[], None]:
    """What to give as ``preexec_fn`` of a child of ``parent``, this process."""
    if sys.platform != "linux":
        return lambda: None
    prctl = ctypes.CDLL(None).prctl  # loaded here: little is safe between fork and exec

    def before_exec() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return before_exec


@contextlib.contextmanager
def ending_with_us(process: subprocess.Popen[bytes]) -> Generator[subprocess.Popen[bytes]]:
    """Leave no process of this child's group behind, however the block ends.

    The child must lead a group of its own (``start_new_session=True``): then a Ctrl-C reaches this
    process alone, which ends the rest in order.
    """
    try:
        yield process
    finally:
        _signal_group(process, signal.SIGTERM)
        try:
            process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            pass
        finally:
            # Also those in the group that outlived their leader.
            _signal_group(process, signal.SIGKILL)
            process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


def describe_exit(status: int) -> str:
    """Say how a process ended, from a ``Popen.returncode``."""
    if status >= 0:
        return f"exit status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = str(-status)
    hint = " (out of memory, perhaps)" if -status == signal.SIGKILL else ""
    return f"signal {name}{hint}"


def group_cpu(group: int) -> int:
    """Processor time in clock ticks that a process group has used so far."""
    total = 0
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = Path(entry.path, "stat").read_text().rpartition(")")[2].split()
            if int(fields[2]) == group:
                total += sum(int(ticks) for ticks in fields[11:15])
    return total


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    # The group's id is the leader's. While any member lives it is not given to anyone else.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
