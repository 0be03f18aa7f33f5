"""Programs that the demo starts, watches and stops again: collector and agents."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import threading
from collections.abc import Generator
from pathlib import Path
from queue import Empty, Queue

from edgeml.errors import EdgemlError
from edgeml.processes import describe_exit, dying_with, ending_with_us

TAIL_LINES = 8
"""How much of a dead program's log an error shows."""


class Program:
    """A running ``edgeml`` command. Its standard error goes to ``log`` and is watched for lines."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.log = log
        self._process = process
        self._lines: Queue[str | None] = Queue()
        self._reader = threading.Thread(target=self._read, name=f"log of {name}", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        with self.log.open("ab", buffering=0) as log:
            for line in self._process.stderr:
                log.write(line)
                self._lines.put(line.decode(errors="replace"))
        self._lines.put(None)

    def wait_for(self, pattern: str, *, timeout_s: float) -> re.Match[str]:
        """Return the match of ``pattern`` in the first line that has one.

        Raises:
            EdgemlError: the program ended, or said no such thing within ``timeout_s`` (each line
                gets that long).
        """
        while True:
            try:
                line = self._lines.get(timeout=timeout_s)
                if line is None:  # it closed its standard error, so it is ending
                    self._lines.put(None)
                    self._process.wait(timeout_s)
                    self.check()
                    continue
            except (Empty, subprocess.TimeoutExpired):
                raise EdgemlError(
                    f"the {self.name} was not ready within {timeout_s:g} s. {self._last_words()}",
                    remedy=f"Its whole log is {self.log}",
                ) from None
            if match := re.search(pattern, line):
                return match

    def check(self) -> None:
        """Raise an EdgemlError if the program has ended."""
        status = self._process.poll()
        if status is not None:
            raise EdgemlError(
                f"the {self.name} ended with {describe_exit(status)}. {self._last_words()}",
                expected="it to run until the demo stops it",
                remedy=f"Its whole log is {self.log}",
            )

    def stop(self, *, timeout_s: float = 15.0) -> None:
        """End the program in order, with SIGTERM.

        Raises:
            EdgemlError: it did not end, or not with status 0.
        """
        self._process.terminate()
        try:
            status = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise EdgemlError(
                f"the {self.name} still runs {timeout_s:.0f} s after SIGTERM",
                remedy=f"It is killed now; its log is {self.log}",
            ) from None
        if status != 0:
            raise EdgemlError(
                f"the {self.name} ended with {describe_exit(status)}. {self._last_words()}",
                expected="exit status 0 after SIGTERM",
                remedy=f"Its whole log is {self.log}",
            )

    def _last_words(self) -> str:
        self._reader.join(timeout=1)
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "It said last: " + " / ".join(lines[-TAIL_LINES:]) if lines else "It said nothing"


@contextlib.contextmanager
def running(name: str, *arguments: str, folder: Path) -> Generator[Program]:
    """Start ``edgeml ARGUMENTS`` and leave no process of it behind, however the block ends."""
    import os

    process = subprocess.Popen(
        [sys.executable, "-m", "edgeml", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=dying_with(os.getpid()),
    )
    with ending_with_us(process):
        yield Program(name, process, folder / f"{name}.log".replace(" ", "-"))
