"""What counting costs: nanoseconds a number and bytes a window, beside other people's profilers.

    python benchmarks/drift_cost.py [--peers PYTHON] [--write]

``PYTHON`` is an interpreter with numpy, datasketches and whylogs, each as far as it installs there:

    python -m venv peers
    peers/bin/pip install numpy datasketches
    peers/bin/pip install whylogs

All figures come from one run, on 20 streams of numbers. Ours are cells, Σ, Σ², minimum, maximum and
longest run; NumPy's histogram has cells only, and is called once a batch and stream.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from page import setting, table, write_section

from edgeml.statistics import Counts, fit_grid, pack
from edgeml.statistics.numeric import NumericTally

Matrix = NDArray[np.float64]

BATCHES = (1, 8, 32, 256)
STREAMS = 20
ROWS = 20_480
WINDOW_ROWS = 1000
ROUNDS = 20
"""Each figure is the least of so many, taken in turn: a virtual machine is slow for seconds at a
time, and should not be so for one line only."""
PEERS = Path(__file__).parent / "peers" / "sketches.py"

DATA: dict[str, Callable[[np.random.Generator, tuple[int, int]], Matrix]] = {
    "normal": lambda random, shape: random.normal(size=shape),
    "30 % zeros": lambda random, shape: np.where(
        random.random(shape) < 0.3, 0.0, random.normal(size=shape)
    ),
    "lognormal": lambda random, shape: random.lognormal(size=shape),
    "1 % NaN": lambda random, shape: np.where(
        random.random(shape) < 0.01, np.nan, random.normal(size=shape)
    ),
}


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the table."""

    what: str
    ns: dict[int, float] = {}
    """An element, by rows a batch."""
    bytes: int | None = None
    """Of one stream's window of :data:`WINDOW_ROWS` rows; of ours the largest of all streams."""
    missing: str = ""
    """Why there are no figures."""


Subject = tuple[Row, Callable[[int], float]]
"""A line without its figures, and the seconds that counting all values takes in batches of so many
rows."""


def rows(peers: str = "", *, seed: int = 0) -> list[Row]:
    """Measure everything.

    Args:
        peers: an interpreter that has the other tools; empty: they are left out.
        seed: of the numbers.
    """
    random = np.random.default_rng(seed)
    subjects = [_ours(name, make, random) for name, make in DATA.items()]
    values = DATA["normal"](random, (ROWS, STREAMS))
    subjects.append(_histogram(values))
    least = [dict.fromkeys(BATCHES, float("inf")) for _ in subjects]
    for _ in range(ROUNDS):
        for (_, count), ns in zip(subjects, least, strict=True):
            for batch in BATCHES:
                ns[batch] = min(ns[batch], count(batch) * 1e9 / values.size)
    found = [
        msgspec.structs.replace(row, ns=ns) for (row, _), ns in zip(subjects, least, strict=True)
    ]
    return found + (_peers(peers, values) if peers else [])


def render(measured: list[Row]) -> str:
    """The table as Markdown."""
    columns = (
        "",
        *(f"ns an element, batches of {n}" for n in BATCHES),
        "bytes a stream and window",
    )
    lines = [
        (each.what, *(_figure(each, n) for n in BATCHES), each.bytes or None) for each in measured
    ]
    return f"{setting('numpy')}\n\n{table(columns, lines)}"


def _figure(row: Row, batch: int) -> str | None:
    if row.missing:
        return row.missing if batch == BATCHES[0] else None
    return f"{row.ns[batch]:,.1f}"


def _ours(
    name: str,
    make: Callable[[np.random.Generator, tuple[int, int]], Matrix],
    random: np.random.Generator,
) -> Subject:
    grids = [fit_grid(column) for column in make(random, (5000, STREAMS)).T]
    values = make(random, (ROWS, STREAMS))
    # One for all windows, as an agent has it: its memory is touched for the first time only once.
    tally = NumericTally(grids)

    def count(rows: int) -> float:
        parts = [values[start : start + rows] for start in range(0, len(values), rows)]
        begin = time.perf_counter()
        for part in parts:
            tally.add(part)
        tally.take()
        return time.perf_counter() - begin

    windows = np.split(values[: ROWS // WINDOW_ROWS * WINDOW_ROWS], ROWS // WINDOW_ROWS)
    size = max(
        len(pack(Counts.of(grid, column)))
        for window in windows
        for grid, column in zip(grids, window.T, strict=True)
    )
    return Row(what=f"edgeml, {name}", bytes=size), count


def _histogram(values: Matrix) -> Subject:
    def count(rows: int) -> float:
        part = values[: max(2000, rows)]
        begin = time.perf_counter()
        for start in range(0, len(part), rows):
            for column in part[start : start + rows].T:
                np.histogram(column, bins=32, range=(-4.0, 4.0))
        return (time.perf_counter() - begin) * values.size / part.size

    return Row(what="numpy.histogram, normal", bytes=32 * 8), count


def _peers(python: str, values: Matrix) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "values.npz"
        np.savez(file, values=values, window=WINDOW_ROWS)
        done = subprocess.run(
            [python, str(PEERS), str(file)], check=True, capture_output=True, text=True
        )
    found = json.loads(done.stdout.splitlines()[-1])
    return [
        Row(what=f"{name}, normal", missing=each["missing"])
        if "missing" in each
        else Row(
            what=f"{name}, normal",
            ns={int(rows): ns for rows, ns in each["ns"].items()},
            bytes=each["bytes"],
        )
        for name, each in found.items()
    ]


def main() -> None:
    """Measure, print, and write where that is wanted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--peers", default="", help="an interpreter with datasketches and whylogs")
    parser.add_argument("--write", action="store_true", help="to docs/benchmarks.md, too")
    options = parser.parse_args()
    text = render(rows(options.peers))
    print(text)
    if options.write:
        write_section("drift cost", text)


if __name__ == "__main__":
    main()
