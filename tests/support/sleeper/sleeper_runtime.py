"""A runtime of the tests' classifier that hangs, grows, crashes or raises when a frame says so.

The first pixel is the command: a frame of pictures has 0..1, these are far outside.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeml.targets.runtime import TensorInfo

HANG, GROW, CRASH, RAISE, NAP = 1000.0, 2000.0, 3000.0, 4000.0, 5000.0
NAP_S = 0.3

BELL = "SLEEPER_BELL"
"""Names a FIFO that is written to when a nap begins."""


def open_session(entry: Path, *, threads: int, options: Mapping[str, str]) -> Sleeper:
    if options.get("load") == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if options.get("load") == "hang":
        _ring()
        time.sleep(600)
    return Sleeper(entry)


class Sleeper:
    inputs = (TensorInfo("image", (1, 1, 8, 8), "float32"),)
    outputs = (TensorInfo("scores", (1, 4), "float32"),)

    def __init__(self, entry: Path) -> None:
        with np.load(entry) as weights:
            self._weights = weights["weights"]
            self._bias = weights["bias"]
        self._hoard: list[Any] = []

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        image = feeds["image"]
        command = float(image.flat[0])
        if command in {HANG, NAP}:
            _ring()
        if command == HANG:
            while True:
                time.sleep(60)
        if command == GROW:
            while True:  # ten megabytes at a time, each page touched
                self._hoard.append(np.ones(10 * 2**20, dtype=np.uint8))
                time.sleep(0.002)
        if command == CRASH:
            os.kill(os.getpid(), signal.SIGSEGV)
        if command == RAISE:
            raise RuntimeError("the runtime does not like this frame")
        if command == NAP:
            time.sleep(NAP_S)
        logits = image.reshape(1, -1) @ self._weights + self._bias
        powers = np.exp(logits - logits.max())
        return {"scores": (powers / powers.sum()).astype(np.float32)}

    def close(self) -> None:
        self._hoard.clear()


def _ring() -> None:
    path = os.environ.get(BELL)
    if path:
        bell = os.open(path, os.O_WRONLY)
        os.write(bell, b"x")
        os.close(bell)
