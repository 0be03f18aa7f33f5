"""Real collectors for tests: processes on free ports."""

from __future__ import annotations

import contextlib
import functools
import io
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import httpx
import pytest

from edgeml.cli import main
from support.stem import Run, Stem

TOKEN = "0123456789abcdef-the-token"
READY = re.compile(r"ready page=(?P<page>\S+)/ broker=(?P<host>[^:\s]+):(?P<port>\d+)")


@functools.cache
def stem() -> Stem:
    """The collector, imported."""
    return Stem("edgeml.cli.frame", "edgeml.cli.collector", "edgeml.collector.service")


def begin(*arguments: str, crash: str) -> Run | subprocess.Popen[str]:
    """``edgeml ARGUMENTS…``: on Linux a copy of the stem, unless it is to be killed."""
    program = ("-m", "edgeml")
    if crash:
        program = (str(Path(__file__).with_name("crashing_collector.py")), crash)
    elif sys.platform == "linux":
        return stem().run(arguments)
    return subprocess.Popen(
        [sys.executable, *program, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


class CollectorProcess:
    """A running ``edgeml collector run``."""

    def __init__(self, *arguments: str, log: Path, crash: str = "") -> None:
        self.log = log
        self._process = begin(
            *("collector", "run", "--http", "127.0.0.1:0", *arguments), crash=crash
        )
        self._lines: Queue[str | None] = Queue()
        self._seen: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        with self.log.open("a") as log:
            for line in self._process.stderr:
                log.write(line)
                log.flush()
                self._lines.put(line)
        self._lines.put(None)

    def wait_for(self, pattern: str | re.Pattern[str], *, timeout_s: float = 60) -> re.Match[str]:
        """Wait for a line of its log, or find it among those that came before."""
        for line in self._seen:
            if match := re.search(pattern, line):
                return match
        end = time.monotonic() + timeout_s
        while True:
            try:
                line = self._lines.get(timeout=max(end - time.monotonic(), 0.01))
            except Empty:
                pytest.fail(f"no {pattern!r} in {self.log.read_text()}", pytrace=False)
            if line is None:
                pytest.fail(f"it ended without {pattern!r}: {self.log.read_text()}", pytrace=False)
            self._seen.append(line)
            if match := re.search(pattern, line):
                return match

    def wait_ready(self) -> CollectorProcess:
        """Wait until it serves; ``page``, ``host`` and ``port`` are known then."""
        match = self.wait_for(READY)
        self.page, self.host, self.port = match["page"], match["host"], int(match["port"])
        return self

    def get(self, path: str, **parameters: Any) -> dict[str, Any]:
        """What the API answers."""
        return httpx.get(f"{self.page}/api/v1/{path}", params=parameters, timeout=30).json()

    def wait_until(self, path: str, true: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Ask until the answer is as wanted."""
        end = time.monotonic() + 60
        while True:
            answer = self.get(path)
            if true(answer):
                return answer
            assert time.monotonic() < end, answer
            time.sleep(0.05)  # between two questions, not instead of one

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit status."""
        self._process.send_signal(number)
        return self._process.wait(30)

    def wait(self) -> int:
        """Wait for it to end by itself."""
        return self._process.wait(60)

    @property
    def pid(self) -> int:
        return self._process.pid

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()


Start = Callable[..., CollectorProcess]


def token_file(folder: Path, text: str = TOKEN) -> Path:
    """A file with the token, its owner's alone."""
    path = folder / "token"
    path.write_text(text + "\n")
    path.chmod(0o600)
    return path


def fleet(*arguments: str) -> subprocess.CompletedProcess[str]:
    """``edgeml fleet …`` within this process: a new one takes longer to load than to ask."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(["fleet", *arguments])
    return subprocess.CompletedProcess(arguments, status, out.getvalue(), err.getvalue())
