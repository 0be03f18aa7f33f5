"""One pass over a table: its rows counted on the statistics' grids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeml.drift_report.statistic import Statistic
from edgeml.drift_report.stretches import Stretches
from edgeml.drift_report.values import times
from edgeml.errors import SourceError, UsageError
from edgeml.statistics.frequent import Frequent

MOST_WINDOWS = 5_000
NO_TIME = int(np.iinfo(np.int64).min)

Cells = NDArray[np.int64]


class Clock(NamedTuple):
    """Windows of time to count in as well."""

    column: str
    window_ms: int


class Tally:
    """The counts of one statistic.

    Args:
        cells: of its grid.
    """

    def __init__(self, cells: int) -> None:
        self.stretches = Stretches(cells)
        self.windows: dict[int, Cells] = {}
        """Counts by the window's number, which is its start over its length."""
        self.missing = 0
        self.broken = 0
        self.new = Frequent()
        """Categories that the baseline does not have."""

    def add(self, cells: Cells, groups: tuple[Cells, Cells] | None = None) -> None:
        """Count rows.

        Args:
            cells: the cell of each row.
            groups: window numbers, and for each row the index of its own among them.
        """
        self.stretches.add(cells)
        if groups is None:
            return
        numbers, own = groups
        width = self.stretches.total.size
        table = np.bincount(own * width + cells, minlength=numbers.size * width)
        for number, counts in zip(numbers.tolist(), table.reshape(-1, width), strict=True):
            if number in self.windows:
                self.windows[number] += counts
            elif number != NO_TIME:
                self.windows[number] = counts


class Count(NamedTuple):
    """Of a table."""

    rows: int
    tallies: list[Tally]
    """One a statistic."""
    in_order: bool
    """False where the clock's times go back."""


def count(
    batches: Iterator[Mapping[str, Any]],
    statistics: Sequence[Statistic],
    *,
    clock: Clock | None = None,
) -> Count:
    """Count all rows.

    Args:
        batches: Arrow arrays by column; every statistic's column is among them, and the clock's.
        statistics: what to count.
        clock: windows of time to count in as well.

    Raises:
        SourceError: the clock's column holds no times.
        UsageError: there are more than :data:`MOST_WINDOWS` windows.
    """
    tallies = [Tally(statistic.grid.cells) for statistic in statistics]
    rows, last, in_order, seen = 0, NO_TIME, True, set[int]()
    for batch in batches:
        rows += len(next(iter(batch.values())))
        groups = None
        if clock is not None:
            moments = _moments(batch[clock.column], clock)
            known = moments[moments != NO_TIME]
            if known.size:
                in_order &= bool(known[0] >= last and (np.diff(known) >= 0).all())
                last = int(known[-1])
            windows = np.where(moments == NO_TIME, NO_TIME, moments // clock.window_ms)
            numbers, own = np.unique(windows, return_inverse=True)
            groups = numbers, own.astype(np.int64)
            seen.update(numbers.tolist())
            if len(seen) > MOST_WINDOWS:
                raise UsageError(
                    f"{clock.column!r} spans more than {MOST_WINDOWS:,} windows of this length",
                    remedy="Give a longer one with --window.",
                )
        for statistic, tally in zip(statistics, tallies, strict=True):
            found = statistic.locate(batch[statistic.column])
            tally.add(found.cells, groups)
            tally.missing += found.missing
            tally.broken += found.broken
            tally.new.add(found.new)
    return Count(rows, tallies, in_order)


def _moments(column: Any, clock: Clock) -> Cells:
    found = times(column)
    if found is None:
        raise SourceError(
            f"{clock.column!r} holds values that are no times",
            expected="ISO 8601 (2026-05-01 12:00:00), timestamps, or seconds since 1970",
        )
    return found
