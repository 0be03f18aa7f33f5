"""Processes that have imported a converter's frameworks, of which children of exports are copies.

A small model's export spends most of its time on imports: torch, litert-torch, TensorFlow. So they
are done once for all exports of the tests. Each list of modules that a child is to begin with is
imported in that order in a process that does nothing else, which is itself a copy of the one with
all but the last of them. A child copied from there is what it would be after the same calls of
:func:`edgeml.exporter.origin.prepare`, and nothing that one export does meets another.

As a program, this file is the nursery: ``nursery.py FOLDER READY``. It ends with its last client.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

from edgeml.exporter import child
from edgeml.exporter.origin import Module, prepare

MESSAGE = 1 << 20
VARIABLE = "EDGEML_TEST_NURSERY"
"""Names the nursery's folder to the exports of the tests."""

ALONE_S = 60.0
"""How long it waits for its first client, should whoever began it be killed just then."""

Names = tuple[str, ...]


def begun(folder: Path) -> socket.socket:
    """A connection to the folder's nursery, which whoever comes first begins: it lives as long as
    any connection does."""
    with _locked(folder):
        with contextlib.suppress(OSError):
            return connection(folder)
        ready, theirs = os.pipe()
        with (folder / "nursery.log").open("ab") as log:
            subprocess.Popen(
                [sys.executable, "-P", __file__, str(folder), str(theirs)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(theirs,),
                env={**os.environ, **child.ENVIRONMENT},
                start_new_session=True,
            )
        os.close(theirs)
        with os.fdopen(ready, "rb") as stream:
            assert stream.read(1), (folder / "nursery.log").read_text()
        return connection(folder)


def connection(folder: Path) -> socket.socket:
    """A connection to the folder's nursery.

    Raises:
        OSError: it has none.
    """
    found = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with _short(folder) as path:
            found.connect(path)
    except OSError:
        found.close()
        raise
    return found


def ask(to: socket.socket, question: Mapping[str, Any], *descriptors: int) -> int:
    """Ask for a number: the process id of a child, with ``modules``, its ``environment`` and
    ``folder``, and where its calls come from, its answers and its output go; or how one ``ended``,
    as a ``Popen.returncode``."""
    socket.send_fds(to, [json.dumps(question).encode()], descriptors)
    answer = to.recv(MESSAGE)
    assert answer, "the nursery has ended"
    return int(answer)


@contextlib.contextmanager
def _locked(folder: Path) -> Generator[None]:
    with (folder / "nursery.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _short(folder: Path) -> Generator[str]:
    """The socket's path: a socket's has at most 107 bytes."""
    handle = os.open(folder, os.O_PATH)
    try:
        yield f"/proc/self/fd/{handle}/nursery"
    finally:
        os.close(handle)


class Nursery:
    """Passes questions on to the processes that can answer them, which it has made as needed."""

    def __init__(self, root: socket.socket) -> None:
        self._lock = threading.Lock()
        self._branches: dict[Names, tuple[socket.socket, threading.Lock]] = {
            (): (root, threading.Lock())
        }
        self._of: dict[int, Names] = {}

    def answer(self, client: socket.socket) -> None:
        """Answer a client until it goes."""
        while True:
            message, descriptors, _, _ = socket.recv_fds(client, MESSAGE, 3)
            if not message:
                return
            asked = json.loads(message)
            born = "modules" in asked
            names = tuple(asked["modules"]) if born else self._of.pop(asked["ended"])
            branch, lock = self._branch(names)
            with lock:
                number = ask(branch, asked, *descriptors)
            for each in descriptors:
                os.close(each)
            if born:
                self._of[number] = names
            client.send(str(number).encode())

    def _branch(self, names: Names) -> tuple[socket.socket, threading.Lock]:
        with self._lock:
            for count in range(1, len(names) + 1):
                if names[:count] not in self._branches:
                    parent, lock = self._branches[names[: count - 1]]
                    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                    with theirs, lock:
                        ask(parent, {"module": names[count - 1]}, theirs.fileno())
                    self._branches[names[:count]] = ours, threading.Lock()
            return self._branches[names]


def grow(asker: socket.socket) -> int:
    """A process of the nursery: copies itself whenever it is asked to.

    Returns:
        In a child of an export, where its answers go; else never.
    """
    while True:
        message, descriptors, _, _ = socket.recv_fds(asker, MESSAGE, 3)
        if not message:
            os._exit(0)
        asked = json.loads(message)
        if "ended" in asked:
            number = os.waitstatus_to_exitcode(os.waitpid(asked["ended"], 0)[1])
        elif number := os.fork():
            with contextlib.suppress(OSError):
                os.setpgid(number, number)
        elif "module" in asked:
            asker.close()
            asker = socket.socket(fileno=descriptors[0])
            with contextlib.suppress(Exception):  # it fails again in the export, where it is told
                prepare(Module(asked["module"]))
            continue
        else:
            asker.close()
            return _born(asked, *descriptors)
        for each in descriptors:
            os.close(each)
        asker.send(str(number).encode())


def _born(asked: Mapping[str, Any], calls: int, answers: int, output: int) -> int:
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)
    for given, place in ((calls, 0), (output, 1), (output, 2)):
        os.dup2(given, place)
    os.close(calls)
    os.close(output)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"], EDGEML_PARENT=str(os.getppid()))
    tempfile.tempdir = None
    return answers


def main(folder: Path, ready: int) -> None:
    """The nursery itself, in a process that makes no copies: it has threads."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if not os.fork():
        ours.close()
        os.close(ready)
        child.main(grow(theirs))
        return
    theirs.close()
    nursery = Nursery(ours)
    clients: set[socket.socket] = set()
    changing = threading.Lock()
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    (folder / "nursery").unlink(missing_ok=True)
    with _short(folder) as path:
        listening.bind(path)
    listening.listen()
    os.write(ready, b"!")
    os.close(ready)

    def serve(client: socket.socket) -> None:
        try:
            with client, contextlib.suppress(OSError):
                nursery.answer(client)
        finally:
            with changing:
                clients.remove(client)
            end_if_alone()

    def end_if_alone() -> None:
        with _locked(folder), changing:  # nobody begins another one meanwhile
            if not clients and not select.select([listening], [], [], 0)[0]:
                (folder / "nursery").unlink()
                os._exit(0)

    while True:
        if not select.select([listening], [], [], ALONE_S)[0]:
            end_if_alone()
            continue
        with changing:
            client, _ = listening.accept()
            clients.add(client)
        threading.Thread(target=serve, args=(client,), daemon=True).start()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
