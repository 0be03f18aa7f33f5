"""A process that has imported a program, and of which runs of it are copies.

To import the collector takes 1.6 seconds of a core, and its tests start it some ninety times. So it
is imported once, in a :class:`Stem` that runs nothing. A :class:`Run` is forked from it: a process
of its own with its arguments, environment, working folder and standard error, which begins with
``edgeml.cli.main`` and ends as any interpreter ends. Nothing that one run does meets another.

As a program, this file is the stem: ``stem.py MODULE…``, with a socket as its standard input.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import IO, Any

MESSAGE = 1 << 20


class Stem:
    """Imports the modules at once, and lives until this process ends. Thread-safe."""

    def __init__(self, *modules: str) -> None:
        self._lock = threading.Lock()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            process = subprocess.Popen(
                [sys.executable, __file__, *modules],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
            )
        atexit.register(process.wait)
        atexit.register(self._socket.close)

    def run(self, arguments: Sequence[str]) -> Run:
        """Begin ``edgeml ARGUMENTS…``, in this process's folder and environment as they are now."""
        ours, theirs = os.pipe()
        try:
            asked = {
                "arguments": arguments,
                "environment": dict(os.environ),
                "folder": str(Path.cwd()),
            }
            return Run(self, self.ask(asked, theirs), os.fdopen(ours))
        finally:
            os.close(theirs)

    def ask(self, question: dict[str, Any], *descriptors: int) -> int:
        """Ask the stem; what it answers is a number."""
        with self._lock:
            socket.send_fds(self._socket, [json.dumps(question).encode()], descriptors)
            answer = self._socket.recv(MESSAGE)
        assert answer, "the process that the program was imported in has ended"
        return int(answer)


class Run:
    """A running ``edgeml``, with what of a :class:`subprocess.Popen` its tests need."""

    def __init__(self, stem: Stem, pid: int, stderr: IO[str]) -> None:
        self._stem = stem
        self._handle = os.pidfd_open(pid)
        self._status: int | None = None
        self.pid = pid
        self.stderr = stderr

    def send_signal(self, number: int) -> None:
        if self._status is None:
            signal.pidfd_send_signal(self._handle, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status, negative for a signal.

        Raises:
            subprocess.TimeoutExpired: it lives on.
        """
        if self._status is None:
            poll = select.poll()
            poll.register(self._handle, select.POLLIN)
            if not poll.poll(None if timeout is None else timeout * 1000):
                raise subprocess.TimeoutExpired("edgeml", timeout or 0)
            self._status = self._stem.ask({"ended": self.pid})
            os.close(self._handle)
        return self._status


def serve(connection: socket.socket) -> list[str] | None:
    """In the stem: make a copy whenever one is asked for, until nobody can ask any more.

    Returns:
        In a copy, the arguments that it is to run with; in the stem None, at its end.
    """
    while True:
        question, descriptors, _, _ = socket.recv_fds(connection, MESSAGE, 1)
        if not question:
            return None
        asked = json.loads(question)
        if "ended" in asked:
            status = os.waitstatus_to_exitcode(os.waitpid(asked["ended"], 0)[1])
            connection.send(str(status).encode())
            continue
        pid = os.fork()
        if pid:
            connection.send(str(pid).encode())
            for descriptor in descriptors:
                os.close(descriptor)
            continue
        (stderr,) = descriptors
        os.dup2(stderr, 2)
        os.close(stderr)
        connection.close()
        with open(os.devnull) as nothing:  # noqa: PTH123 - a descriptor is wanted
            os.dup2(nothing.fileno(), 0)
        os.environ.clear()
        os.environ.update(asked["environment"])
        os.chdir(asked["folder"])
        return asked["arguments"]


def main(*modules: str) -> int:
    for module in modules:
        import_module(module)
    gc.collect()
    gc.freeze()  # a copy shares what it does not touch
    arguments = serve(socket.socket(fileno=os.dup(0)))
    if arguments is None:
        return 0
    sys.argv[:] = ["edgeml", *arguments]
    from edgeml.cli import main as edgeml

    return edgeml(arguments)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):  # the tests are interrupted, and tell it
        sys.exit(main(*sys.argv[1:]))
