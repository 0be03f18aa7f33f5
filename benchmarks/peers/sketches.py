"""What other people's profilers cost on the same numbers, in an environment that has them.

    python sketches.py FILE.npz

``FILE.npz`` holds ``values``, float64 [rows, streams], and ``window``. Prints one JSON document: by
tool, nanoseconds an element by rows a batch, and bytes of one stream's window of ``window`` rows;
or why a tool is not there. Each tool is used as its own introduction shows, batch by batch.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

BATCHES = (1, 8, 32, 256)
CALLS = 20
"""Batches that are counted for a figure, since a profiler can take milliseconds for one."""


def kll(values: np.ndarray, rows: int) -> int:
    """A KLL sketch of 200 a stream, as Apache DataSketches has it by default."""
    library = importlib.import_module("datasketches")
    sketches = [library.kll_doubles_sketch(200) for _ in range(values.shape[1])]
    for start in range(0, len(values), rows):
        for sketch, column in zip(sketches, values[start : start + rows].T, strict=True):
            sketch.update(column)
    return len(sketches[0].serialize())


def whylogs(values: np.ndarray, rows: int) -> int:
    """A dataset profile of whylogs, fed with one pandas frame a batch."""
    why = importlib.import_module("whylogs.core").DatasetProfile
    pandas = importlib.import_module("pandas")
    names = [f"f{n}" for n in range(values.shape[1])]
    profile = why()
    for start in range(0, len(values), rows):
        profile.track(pandas.DataFrame(values[start : start + rows], columns=names))
    return len(profile.view().serialize()) // values.shape[1]


TOOLS: dict[str, tuple[str, Callable[[np.ndarray, int], int]]] = {
    "datasketches KLL": ("datasketches", kll),
    "whylogs profile": ("whylogs", whylogs),
}


def measured(work: Callable[[np.ndarray, int], int], data: Any) -> dict[str, Any]:
    """Times by batch, and the bytes of a window."""
    times: dict[int, float] = {}
    for rows in BATCHES:
        part = data["values"][: CALLS * rows]
        seconds: list[float] = []
        for _ in range(3):
            begin = time.perf_counter()
            work(part, rows)
            seconds.append(time.perf_counter() - begin)
        times[rows] = min(seconds) * 1e9 / part.size
    return {"ns": times, "bytes": work(data["values"][: int(data["window"])], 256)}


def main() -> None:
    """Measure every tool that is there."""
    data = np.load(sys.argv[1])
    found: dict[str, Any] = {}
    for name, (package, work) in TOOLS.items():
        found |= result(name, package, work, data)
    print(json.dumps(found))


def result(
    name: str, package: str, work: Callable[[np.ndarray, int], int], data: Any
) -> dict[str, Any]:
    """The figures of a tool, under its name and version; one that does not run is a line too."""
    try:
        version = importlib.metadata.version(package)
        return {f"{name} {version}": measured(work, data)}
    except Exception as error:  # noqa: BLE001 - whatever is wrong there
        return {name: {"missing": f"{type(error).__name__}: {error}"}}


if __name__ == "__main__":
    main()
