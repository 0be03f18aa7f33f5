"""Packed counts for tests that care for cells only."""

from __future__ import annotations

from collections.abc import Sequence

from edgeml.statistics import Baseline, Counts, Grid, pack, unpack
from edgeml.telemetry import Window


def packed(cells: Sequence[int]) -> bytes:
    """Counts with these cells, three at least."""
    counts = Counts.zeros(_grid(len(cells)))
    counts.cells[:] = cells
    return pack(counts)


def cells_of(statistics: bytes, cells: int) -> list[int]:
    """What :func:`packed` was given."""
    return unpack(statistics, _grid(cells)).cells.tolist()


def counts_of(window: Window, baseline: Baseline) -> dict[str, Counts]:
    """A window's counts by stream."""
    assert window.baseline == baseline.hash
    streams = baseline.streams
    return {
        name: unpack(statistics, stream.grid)
        for statistics, (name, stream) in zip(window.statistics, streams.items(), strict=True)
    }


def _grid(cells: int) -> Grid:
    return Grid(kind="categorical", bins=cells - 2)
