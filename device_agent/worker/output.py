"""What a worker writes to its standard output and error: a file of bounded length.

A runtime that complains at every call would fill the disk, and one that writes without end would
wear out a card. So the worker writes into a pipe, and a thread here reads it no faster than
:data:`MAX_RATE`: a worker that writes more waits, and its deadline does the rest.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path

MAX_BYTES = 256 * 1024
"""Of a worker's output that the file keeps: what a runtime says while it loads."""

MAX_RATE = 1024 * 1024
"""Bytes a second that are read, in chunks of :data:`_CHUNK`."""

LAST_WORDS = 300
"""Characters of a dead worker's output that are quoted in an error."""

_CHUNK = 16 * 1024
_ENOUGH = b"\n(the worker wrote more, which is not kept)\n"


class Output:
    """The reading end, and the file.

    Args:
        path: of the file; emptied first.

    Raises:
        OSError: there is no file to be had, or no pipe.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb", buffering=0)
        self._room = MAX_BYTES
        self._tail = b""
        self._reader, self.writer = os.pipe2(os.O_CLOEXEC)
        """``writer`` is for the child; closed by :meth:`started`."""
        self._thread = threading.Thread(target=self._read, name="output", daemon=True)

    def started(self) -> None:
        """The child has its end, or will never have it: begin to read.

        Raises:
            RuntimeError: there is no thread to be had.
        """
        os.close(self.writer)
        try:
            self._thread.start()
        except RuntimeError:
            os.close(self._reader)
            self._file.close()
            raise

    def last_words(self) -> str:
        """What the worker wrote last, on one line. Call it when the worker is gone."""
        self._thread.join(1.0)  # a child of the worker's may still hold the pipe
        return " ".join(self._tail.decode(errors="replace").split())[-LAST_WORDS:]

    def _read(self) -> None:
        while chunk := os.read(self._reader, _CHUNK):
            self._tail = (self._tail + chunk)[-4 * LAST_WORDS :]
            self._keep(chunk)
            if len(chunk) == _CHUNK:
                time.sleep(_CHUNK / MAX_RATE)
        os.close(self._reader)
        self._file.close()

    def _keep(self, chunk: bytes) -> None:
        if not self._room:
            return
        kept = chunk[: self._room]
        self._room -= len(kept)
        with contextlib.suppress(OSError):  # a full disk is no reason to let the worker wait
            self._file.write(kept if self._room else kept + _ENOUGH)
