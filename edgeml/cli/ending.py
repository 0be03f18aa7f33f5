"""How a command ends on SIGTERM: in order, as on Ctrl-C."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Generator


class Terminated(BaseException):
    """A SIGTERM, where :func:`unwinding` made it one: like a Ctrl-C, no error."""


@contextlib.contextmanager
def unwinding() -> Generator[None]:
    """Have a SIGTERM end the block as a Ctrl-C does: what it holds is given back in order.

    By default the signal ends this process on the spot, and what it started is killed with it. Only
    the main thread can ask for that; in another one nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(*_: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
