"""A runtime of the tests' classifier that hangs, spins, grows, leaks, shouts, crashes or raises
when a frame says so.

The first pixel is the command: a frame of pictures has 0..1, these are far outside.
"""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeml.targets.runtime import TensorInfo

HANG, GROW, CRASH, RAISE, NAP = 1000.0, 2000.0, 3000.0, 4000.0, 5000.0
SPIN, SHOUT, LEAK = 6000.0, 7000.0, 8000.0
LEAK_BYTES = 2 * 10**6
NAP_S = 0.3

BELL = "SLEEPER_BELL"
"""Names a FIFO that is written to when a nap begins."""


def library() -> None:
    """There is none to import."""


def open_session(entry: Path, *, threads: int, options: Mapping[str, str]) -> Sleeper:
    if options.get("load") == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if options.get("load") == "hang":
        _ring()
        time.sleep(600)
    if "gate" in options:  # an engine is built until the test opens it
        os.close(os.open(options["gate"], os.O_RDONLY))
    return Sleeper(
        entry,
        crash_at=int(options.get("crash_at", "0")),
        hang_at=int(options.get("hang_at", "0")),
        slow_s=float(options.get("slow_s", "0")),
        megabytes=int(options.get("megabytes", "0")),
    )


class Sleeper:
    inputs = (TensorInfo("image", (1, 1, 8, 8), "float32"),)
    outputs = (TensorInfo("scores", (1, 4), "float32"),)

    def __init__(
        self, entry: Path, *, crash_at: int, hang_at: int, slow_s: float, megabytes: int
    ) -> None:
        self._calls = 0
        self._crash_at = crash_at
        self._hang_at = hang_at
        self._slow_s = slow_s
        with np.load(entry) as weights:
            self._weights = weights["weights"]
            self._bias = weights["bias"]
        self._hoard: list[Any] = [np.ones(megabytes * 10**6, dtype=np.uint8)]

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        image = feeds["image"]
        self._obey(float(image.flat[0]))
        self._calls += 1
        if self._calls == self._crash_at:
            os.kill(os.getpid(), signal.SIGSEGV)
        if self._calls == self._hang_at:
            self._obey(HANG)
        time.sleep(self._slow_s)
        logits = image.reshape(1, -1) @ self._weights + self._bias
        powers = np.exp(logits - logits.max())
        return {"scores": (powers / powers.sum()).astype(np.float32)}

    def _obey(self, command: float) -> None:
        if command in {HANG, NAP}:
            _ring()
            time.sleep(600 if command == HANG else NAP_S)
        elif command == SPIN:  # in C, with the interpreter's lock held: no handler would ever run
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            deque(itertools.repeat(0), maxlen=0)
        elif command == SHOUT:
            while True:
                os.write(1, b"a" * 2**16)
        elif command == GROW:
            while True:  # ten megabytes at a time, each page touched
                self._hoard.append(np.ones(10 * 2**20, dtype=np.uint8))
                time.sleep(0.002)
        elif command == LEAK:
            self._hoard.append(np.ones(LEAK_BYTES, dtype=np.uint8))
        elif command == CRASH:
            os.write(2, b"farewell")
            os.kill(os.getpid(), signal.SIGSEGV)
        elif command == RAISE:
            raise RuntimeError("the runtime does not like this frame")

    def close(self) -> None:
        self._hoard.clear()


def _ring() -> None:
    path = os.environ.get(BELL)
    if path:
        bell = os.open(path, os.O_WRONLY)
        os.write(bell, b"x")
        os.close(bell)
