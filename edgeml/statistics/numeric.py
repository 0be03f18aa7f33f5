"""Where numbers fall, and their sums: for all numeric streams of a tensor in one go.

Values gather in a buffer [streams, values]. A full one is counted in about fifteen passes of NumPy,
whatever the number of streams: each stream has its own stretch of one long vector of cells, so that
a single ``bincount`` counts them all.

Sums are of the place on the grid's line, in units of 1/128 of a bin, rounded down and clipped to
:data:`MARGIN` bins beyond either end, which on a grid of 32 bins is one range. So a single 1e300
counts as an outlier of one range and no more, a sum of squares stays below 2⁶³ for 10¹⁰ values, and
all of it is exact in float64, in any order. Of a logarithmic grid they are sums of logarithms.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgeml.statistics.counts import NOTHING, Counts
from edgeml.statistics.grid import UNITS, Grid, logarithm

Matrix = NDArray[np.float64]
Integers = NDArray[np.int64]

MARGIN = 32
"""Bins beyond either end of the grid that sums still tell apart."""

FARTHEST = (1 << 27) - 1
"""Units from ``low`` at which extremes are clipped: a million bins, four bytes on the wire."""

BLOCK = 16384
"""Numbers in the buffer of a group: small enough for a processor's second cache."""

STREAMS = 32
"""In a group: with more, sums of squares could leave the integers that float64 has."""

MISSING: float = float(np.array([0x7FF80000000007A2], dtype=np.int64).view(np.float64)[0])
"""A NaN that says "no value", where another one says "a value that is no number". The payload is
that of R's NA. It outlives copies, and no arithmetic."""


def as_numbers(values: ArrayLike) -> Matrix:
    """float64 of the same shape, with :data:`MISSING` where something is masked or None."""
    found = np.asarray(values)
    if found.dtype == object:
        flat = [MISSING if each is None else float(each) for each in found.ravel()]
        numbers = np.array(flat, dtype=np.float64).reshape(found.shape)
    else:
        numbers = found.astype(np.float64, copy=False)
    missing: NDArray[np.bool_] | None = getattr(values, "mask", None)
    return numbers if missing is None else np.where(missing, MISSING, numbers)


class Places:
    """Where the numbers of several streams fall: each grid with a stretch of one long vector.

    A stretch holds ``MARGIN`` cells for the underflow, the bins, ``MARGIN`` for the overflow, the
    atoms, NaN, -Inf, +Inf, missing.
    """

    def __init__(self, grids: Sequence[Grid]) -> None:
        lengths = [2 * MARGIN + grid.bins + len(grid.atoms) + 4 for grid in grids]
        starts = np.cumsum([0, *lengths])
        self.size = int(starts[-1])
        """Length of the long vector."""
        self.stretches = [slice(*ends) for ends in itertools.pairwise(starts.tolist())]
        self.zero: Integers = (starts[:-1] + MARGIN) * UNITS
        """Place of each grid's ``low`` on it, in units."""
        self.scale, self.shift = np.array([_line(grid) for grid in grids]).T[:, :, None]
        """(value · scale + shift): units from ``low``."""
        self._shift = self.shift + self.zero[:, None]
        bins = np.array([grid.bins for grid in grids])
        self._first = (starts[:-1] * UNITS).astype(np.float64)[:, None]
        self._last = self._first + ((bins + 2 * MARGIN) * UNITS - 1)[:, None]
        self._zero = self.zero.astype(np.float64)[:, None]
        self._logarithmic = np.flatnonzero([grid.log for grid in grids])
        self._atoms = [
            (row, value, int(starts[row]) + 2 * MARGIN + grid.bins + number)
            for row, grid in enumerate(grids)
            for number, value in enumerate(grid.atoms)
        ]
        self._special = (starts[1:] - 4)[:, None]
        self.fold = np.concatenate([_fold(grid) for grid in grids])
        """For each place on the long vector the cell of its grid."""

    def line(self, values: Matrix, *, out: Matrix | None = None) -> Matrix:
        """Values [streams, n] on the lines of their grids, where bins are equal."""
        if not self._logarithmic.size:
            return values
        line = np.empty(values.shape) if out is None else out
        np.copyto(line, values)
        line[self._logarithmic] = logarithm(values[self._logarithmic])
        return line

    def place(
        self,
        values: Matrix,
        units: Matrix,
        cells: Integers,
        *,
        scratch: Matrix,
        finite: NDArray[np.bool_] | None,
    ) -> None:
        """Fill in where values [streams, n] fall.

        Args:
            values: the numbers.
            units: gets their place in units on the long vector, rounded down and clipped; what is
                not finite lies at its grid's ``low``, where it adds nothing to a sum.
            cells: gets their place in cells.
            scratch: as large as they are; overwritten. New memory costs more than the arithmetic.
            finite: where values are; None where all are.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            np.multiply(self.line(values, out=scratch), self.scale, out=units)
            np.add(units, self._shift, out=units)
        np.maximum(units, self._first, out=units)
        np.minimum(units, self._last, out=units)
        if finite is not None:
            np.copyto(units, self._zero, where=~finite)
        np.floor(units, out=units)
        np.multiply(units, 1 / UNITS, out=scratch)
        np.copyto(cells, scratch, casting="unsafe")
        for row, value, cell in self._atoms:
            np.putmask(cells[row], values[row] == value, cell)
        if finite is not None:
            np.copyto(cells, self._special + _kind(values), where=~finite)


def _line(grid: Grid) -> tuple[float, float]:
    """Scale and shift of a grid."""
    ends = np.array([grid.low, grid.high])
    low, high = logarithm(ends) if grid.log else ends
    scale = grid.bins * UNITS / (high - low)
    return scale, -low * scale


def _fold(grid: Grid) -> Integers:
    margins = [np.zeros(MARGIN, dtype=np.int64), np.full(MARGIN, grid.bins + 1, dtype=np.int64)]
    rest = np.arange(grid.bins + 2, grid.cells)
    return np.concatenate([margins[0], np.arange(1, grid.bins + 1), margins[1], rest])


def _kind(values: Matrix) -> Integers:
    """0 NaN, 1 -Inf, 2 +Inf, 3 missing; of finite values anything."""
    found = np.where(values > 0, 2, 1)
    found[np.isnan(values)] = 0
    missing = np.array([MISSING]).view(np.int64)
    found[np.ascontiguousarray(values).view(np.int64) == missing] = 3
    return found


def locate(grid: Grid, values: ArrayLike) -> Integers:
    """Cell of each number, flattened."""
    flat = as_numbers(values).reshape(1, -1)
    places = Places([grid])
    cells = np.empty(flat.shape, dtype=np.int64)
    units, scratch = np.empty((2, *flat.shape))
    places.place(flat, units, cells, scratch=scratch, finite=np.isfinite(flat))
    return places.fold[cells[0]]


class NumericTally:
    """Counts the numeric streams of a tensor, as they come. Not thread-safe.

    Args:
        grids: one a stream.
    """

    def __init__(self, grids: Sequence[Grid]) -> None:
        self._groups = [
            _Group(grids[start : start + STREAMS]) for start in range(0, len(grids), STREAMS)
        ]

    def add(self, matrix: Matrix) -> None:
        """Take in float64 [n, streams], in the order of time."""
        if len(self._groups) == 1:
            self._groups[0].add(matrix)
            return
        for number, group in enumerate(self._groups):
            group.add(matrix[:, number * STREAMS : (number + 1) * STREAMS])

    def take(self) -> list[Counts]:
        """The counts since the last call, and start anew; but a run of one value goes on."""
        return [counts for group in self._groups for counts in group.take()]


class _Group:
    def __init__(self, grids: Sequence[Grid]) -> None:
        self._grids = grids
        self._places = Places(grids)
        streams = len(grids)
        self._rows = BLOCK // streams
        # In front of the values stands the last one of the buffer before, for the runs.
        self._buffer = np.full((streams, 1 + self._rows), np.nan)
        self._filled = 0
        self._units, self._scratch = np.empty((2, streams * self._rows))
        self._cells = np.empty(streams * self._rows, dtype=np.int64)
        self._run = np.zeros(streams, dtype=np.int64)
        self._clear()

    def _clear(self) -> None:
        streams = len(self._grids)
        self._table = np.zeros(self._places.size, dtype=np.int64)
        self._sums = np.zeros((streams, 2), dtype=np.int64)
        self._extremes = np.tile(np.array([NOTHING, -NOTHING, 0], dtype=np.int64), (streams, 1))

    def add(self, matrix: Matrix) -> None:
        start = 0
        while start < len(matrix):
            if self._filled == self._rows:
                self._count()
            taken = min(self._rows - self._filled, len(matrix) - start)
            at = 1 + self._filled
            self._buffer[:, at : at + taken] = matrix[start : start + taken].T
            self._filled += taken
            start += taken

    def take(self) -> list[Counts]:
        self._count()
        taken: list[Counts] = []
        for row, (grid, stretch) in enumerate(
            zip(self._grids, self._places.stretches, strict=True)
        ):
            cells = np.zeros(grid.cells, dtype=np.int64)
            np.add.at(cells, self._places.fold[stretch], self._table[stretch])
            taken.append(Counts(grid.hash, cells, self._sums[row], self._extremes[row]))
        self._clear()
        return taken

    def _count(self) -> None:
        n, streams = self._filled, len(self._grids)
        if not n:
            return
        values = self._buffer[:, 1 : 1 + n]
        smallest, largest = values.min(axis=1), values.max(axis=1)
        finite = None
        if not (np.isfinite(smallest).all() and np.isfinite(largest).all()):
            finite = np.isfinite(values)
            smallest = np.where(finite, values, np.inf).min(axis=1)
            largest = np.where(finite, values, -np.inf).max(axis=1)
        units = self._units[: streams * n].reshape(streams, n)
        cells = self._cells[: streams * n].reshape(streams, n)
        scratch = self._scratch[: streams * n].reshape(streams, n)
        self._places.place(values, units, cells, scratch=scratch, finite=finite)
        self._table += np.bincount(cells.ravel(), minlength=self._places.size)
        self._add_sums(units)
        self._add_extremes(smallest, largest)
        self._add_runs(n)
        self._buffer[:, 0] = self._buffer[:, n]
        self._filled = 0

    def _add_sums(self, units: Matrix) -> None:
        """Exact: integers below 2⁵³ all along. The stretch's own place is taken off again."""
        zero, n = self._places.zero, units.shape[1]
        total = units.sum(axis=1).astype(np.int64)
        squares = np.matmul(units[:, None, :], units[:, :, None])[:, 0, 0].astype(np.int64)
        self._sums[:, 0] += total - n * zero
        self._sums[:, 1] += squares - 2 * zero * total + n * zero * zero

    def _add_extremes(self, smallest: Matrix, largest: Matrix) -> None:
        ends = self._places.line(np.stack([smallest, largest], axis=1))
        with np.errstate(over="ignore", invalid="ignore"):
            units = np.floor(ends * self._places.scale + self._places.shift)
        units = np.clip(units, -FARTHEST, FARTHEST).astype(np.int64)
        some = np.isfinite(smallest)  # else there was no finite value
        found = self._extremes
        found[some, 0] = np.minimum(found[some, 0], units[some, 0])
        found[some, 1] = np.maximum(found[some, 1], units[some, 1])

    def _add_runs(self, n: int) -> None:
        """Lengthen the runs of one value. A NaN is equal to nothing, and so ends a run."""
        values = self._buffer[:, : n + 1]
        same = values[:, 1:] == values[:, :-1]
        longest = self._extremes[:, 2]
        if not same.any():
            np.maximum(longest, 1, out=longest)
            self._run[:] = 1
            return
        # Each row: a run that goes on from before, then a new one wherever a value is not the same.
        begins = np.ones(values.shape, dtype=bool)
        np.logical_not(same, out=begins[:, 1:])
        at = np.flatnonzero(begins)
        lengths = np.diff(at, append=begins.size)
        first = np.searchsorted(at, np.arange(len(values)) * (n + 1))
        goes_on = lengths[first] > 1
        lengths[first] = np.where(goes_on, lengths[first] - 1 + self._run, 0)
        np.maximum(longest, np.maximum.reduceat(lengths, first), out=longest)
        self._run = lengths[np.append(first[1:], lengths.size) - 1].copy()
