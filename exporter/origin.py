"""Children that begin as copies of a process which has imported a framework already.

An export of a torch model needs torch in two processes that never meet, one for the user's code and
one for the converters, and its import takes two seconds of a core; so does TensorFlow's. So it is
done once, in an :class:`Origin`, which runs nothing else: whoever needs the framework is forked
from it, as torch's own data loaders are from their program. TensorFlow starts its threads at its
first use, not at its import. An origin is a child like any other, whose loop knows how to fork
(:func:`edgeml.exporter.child.main`).

Only on Linux: elsewhere frameworks do not survive a fork.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

import msgspec

from edgeml.errors import EdgemlError
from edgeml.processes import die_with_parent
from edgeml.targets.frameworks import framework

if TYPE_CHECKING:
    from edgeml.exporter.child import Child

FORK = "fork"
"""What a child is asked for a copy of itself with, in place of a function's name."""


class Ends(msgspec.Struct, frozen=True):
    """A copy's ends of its two pipes, by their names in ``/proc``."""

    calls: Path
    answers: Path


class Module(msgspec.Struct, frozen=True):
    """What a child is to import."""

    name: str
    """With a colon, a function in a module, which is called."""


class Copied(msgspec.Struct, frozen=True):
    """Whose end is asked for."""

    pid: int


def possible() -> bool:
    """Whether children can be copies here."""
    return sys.platform == "linux" and hasattr(os, "pidfd_open")


class Origin:
    """A process that imports a framework at once, and is copied once it has. Thread-safe.

    Args:
        child: which has imported nothing yet, and is nobody else's.
        modules: what it imports. One that is not there is passed over: it fails again in the copy,
            where it is told.
    """

    def __init__(self, child: Child, modules: Sequence[str]) -> None:
        self._child = child
        self._modules = modules
        self._lock = threading.Lock()
        self._importing = threading.Thread(target=self._import, daemon=True)
        child.start()  # here: it lives no longer than the thread that starts it
        self._importing.start()

    def _import(self) -> None:
        with self._lock:
            for module in self._modules:
                with contextlib.suppress(EdgemlError):
                    self._child.call(f"{__name__}:prepare", Module(module), str, step="An import")

    def close(self) -> None:
        """End it, and with it every copy that is left."""
        self._child.kill()
        self._importing.join()
        with self._lock:
            self._child.close()

    def copy(self) -> Copy | None:
        """A new process; None where none can be made, for whatever reason."""
        self._importing.join()
        calls, answers = os.pipe(), os.pipe()
        mine, theirs = (calls[1], answers[0]), (calls[0], answers[1])
        own = Path(f"/proc/{os.getpid()}/fd")
        try:
            with self._lock:
                ends = Ends(calls=own / f"{theirs[0]}", answers=own / f"{theirs[1]}")
                pid = self._child.call(FORK, ends, int, step="A copy")
            return Copy(self, pid, *mine)
        except (EdgemlError, OSError):
            for descriptor in mine:
                os.close(descriptor)
            return None
        finally:
            for descriptor in theirs:
                os.close(descriptor)

    def status(self, pid: int) -> int:
        """How a copy ended, as a ``Popen.returncode``."""
        with self._lock:
            return self._child.call(f"{__name__}:status", Copied(pid), int, step="A copy's end")


class Copy:
    """A copy of an origin, with what a :class:`subprocess.Popen` has that a child needs."""

    def __init__(self, origin: Origin, pid: int, calls: int, answers: int) -> None:
        self._handle = os.pidfd_open(pid)
        self._origin = origin
        self._code: int | None = None
        self.pid = pid
        self.stdin: IO[bytes] = os.fdopen(calls, "wb")
        self.answers = answers
        """Where its answers come from. The caller's to close."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end.

        Raises:
            subprocess.TimeoutExpired: it lives on.
        """
        if self._code is not None:
            return self._code
        poll = select.poll()
        poll.register(self._handle, select.POLLIN)
        if not poll.poll(None if timeout is None else timeout * 1000):
            raise subprocess.TimeoutExpired("a copy", timeout or 0)
        os.close(self._handle)
        try:
            self._code = self._origin.status(self.pid)
        except EdgemlError:
            self._code = -signal.SIGKILL  # the origin has died, and all its copies with it
        return self._code


def prepare(module: Module) -> str:
    """In the child: import what the next calls will need."""
    name, _, function = module.name.partition(":")
    found = framework(name)
    if function:
        getattr(found, function)()
    return name


def status(copied: Copied) -> int:
    """In the origin."""
    return os.waitstatus_to_exitcode(os.waitpid(copied.pid, 0)[1])


def fork(ends: Ends) -> tuple[int, tuple[IO[bytes], IO[bytes]] | None]:
    """In the origin: make a copy.

    Returns:
        In the origin, the copy's process id and None; in the copy 0, and its calls and answers.

    Raises:
        OSError: the system does not allow it.
    """
    origin = os.getpid()
    with ends.calls.open("rb") as calls, ends.answers.open("wb", buffering=0) as answers:
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid:
            _lead_a_group(pid)
            return pid, None
        _lead_a_group(0)
        die_with_parent(origin)
        return 0, (
            os.fdopen(os.dup(calls.fileno()), "rb"),
            os.fdopen(os.dup(answers.fileno()), "wb", buffering=0),
        )


def _lead_a_group(pid: int) -> None:
    """Both say it, so that it holds for both from here on."""
    with contextlib.suppress(OSError):
        os.setpgid(pid, 0)
