"""Where the agent's Unix socket is, and how to get there whatever the length of its path."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable, Generator
from pathlib import Path

VARIABLE = "EDGEML_SOCKET"
"""Names the socket for programs that do not."""

SYSTEM = Path("/run/edgeml/agent.sock")
"""Where the service that ``edgeml agent install`` writes has it."""

NAME = "agent.sock"


def candidates() -> list[Path]:
    """Sockets that may be meant where a program names none: the variable's alone, or else the
    service's and those of agents that this user runs."""
    named = os.environ.get(VARIABLE)
    if named:
        return [Path(named)]
    import platformdirs  # an agent asks for none

    folder = platformdirs.user_state_path("edgeml") / "agent"
    found = [SYSTEM, *sorted(folder.glob(f"*/{NAME}"))]
    return [path for path in found if path.is_socket()]


def connected(path: Path, timeout_s: float | None) -> socket.socket:
    """A connection to it.

    Raises:
        OSError: nobody listens there, or this user may not.
    """
    return _at(path, lambda near, at: near.connect(at), timeout_s)


def listening(path: Path, mode: int) -> socket.socket:
    """Listen there; a socket that nobody listens on any more is replaced.

    Args:
        path: of the socket.
        mode: its permissions, from the first moment on.

    Raises:
        OSError: another process listens there, or the folder cannot be written to.
    """
    try:
        connected(path, 1.0).close()
    except OSError:
        path.unlink(missing_ok=True)
    else:
        raise FileExistsError(errno.EEXIST, "another process listens there")

    def bind(near: socket.socket, at: str) -> None:
        # The kernel gives a new socket the permissions of its descriptor, less the umask: at no
        # moment may more users connect than those who are meant.
        os.fchmod(near.fileno(), mode)
        near.bind(at)
        Path(at).chmod(mode)

    near = _at(path, bind, None)
    near.listen(16)
    return near


def _at(
    path: Path, do: Callable[[socket.socket, str], None], timeout_s: float | None
) -> socket.socket:
    near = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        near.settimeout(timeout_s)
        with _folder(path.parent) as handle:
            do(near, f"/proc/self/fd/{handle}/{path.name}")
    except BaseException:
        near.close()
        raise
    return near


@contextlib.contextmanager
def _folder(path: Path) -> Generator[int]:
    """A descriptor of a folder: a socket's address may have 107 bytes, and a path may be longer."""
    handle = os.open(path, os.O_PATH | os.O_DIRECTORY)
    try:
        yield handle
    finally:
        os.close(handle)
