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

BLOCK = 32768
"""Numbers in the buffer of a group, 256 KiB: few enough for a processor's caches, and so many that
calling NumPy costs little beside its work."""

STREAMS = 32
"""In a group: with more, its buffer would have so few values of each that NumPy's loops over them
would be too short."""

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
        self.scale, self.shift = np.array([_line(grid) for grid in grids]).T[:, :, None]
        """value · scale + shift: units from ``low``."""
        self._first = -float(MARGIN * UNITS)
        ends = [(grid.bins + MARGIN) * UNITS - 1.0 for grid in grids]
        # One bound for all is twice as fast as one each.
        self._last = ends[0] if len(set(ends)) == 1 else np.array(ends)[:, None]
        self._low = (starts[:-1] + MARGIN).astype(np.float64)[:, None]
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
            units: gets their place in units from ``low``, rounded down and clipped; what is not
                finite gets 0, which adds nothing to a sum.
            cells: gets their place on the long vector.
            scratch: as large as they are; overwritten. New memory costs more than the arithmetic.
            finite: where values are; None where all are.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            np.multiply(self.line(values, out=scratch), self.scale, out=units)
            np.add(units, self.shift, out=units)
        np.clip(units, self._first, self._last, out=units)
        if finite is not None:
            np.copyto(units, 0.0, where=~finite)
        np.floor(units, out=units)
        np.multiply(units, 1 / UNITS, out=scratch)
        np.add(scratch, self._low, out=scratch)
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
        workspace = _Workspace()
        self._groups = [
            _Group(grids[start : start + STREAMS], workspace)
            for start in range(0, len(grids), STREAMS)
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


class _Workspace:
    """The memory that counting takes, for one group after another."""

    def __init__(self) -> None:
        self._numbers = np.empty((3, BLOCK))
        self._cells = np.empty(BLOCK, dtype=np.int64)

    def shaped(self, streams: int, n: int) -> tuple[Matrix, Matrix, Matrix, Integers]:
        """Values, units and scratch, float64 [streams, n], and cells, all contiguous."""
        values, units, scratch = self._numbers[:, : streams * n].reshape(3, streams, n)
        return values, units, scratch, self._cells[: streams * n].reshape(streams, n)


class _Group:
    def __init__(self, grids: Sequence[Grid], workspace: _Workspace) -> None:
        self._grids = grids
        self._workspace = workspace
        self._places = Places(grids)
        streams = len(grids)
        self._rows = BLOCK // streams
        self._waiting = np.empty((self._rows, streams))
        self._filled = 0
        self._last = np.full(streams, np.nan)
        self._run = np.zeros(streams, dtype=np.int64)
        """How often each stream has had its last value in a row."""
        self._clear()

    def _clear(self) -> None:
        streams = len(self._grids)
        self._table = np.zeros(self._places.size, dtype=np.int64)
        self._sums = np.zeros((streams, 2), dtype=np.int64)
        self._smallest, self._largest = np.full(streams, np.inf), np.full(streams, -np.inf)
        self._longest = np.zeros(streams, dtype=np.int64)

    def add(self, matrix: Matrix) -> None:
        while len(matrix) > (room := self._rows - self._filled):
            self._waiting[self._filled :] = matrix[:room]
            self._filled = self._rows
            self._count()
            matrix = matrix[room:]
        end = self._filled + len(matrix)
        self._waiting[self._filled : end] = matrix
        self._filled = end

    def take(self) -> list[Counts]:
        self._count()
        extremes = self._extremes()
        taken: list[Counts] = []
        for row, (grid, stretch) in enumerate(
            zip(self._grids, self._places.stretches, strict=True)
        ):
            cells = np.zeros(grid.cells, dtype=np.int64)
            np.add.at(cells, self._places.fold[stretch], self._table[stretch])
            taken.append(Counts(grid.hash, cells, self._sums[row], extremes[row]))
        self._clear()
        return taken

    def _count(self) -> None:
        n, streams = self._filled, len(self._grids)
        if not n:
            return
        values, units, scratch, cells = self._workspace.shaped(streams, n)
        np.copyto(values, self._waiting[:n].T)
        smallest, largest = values.min(axis=1), values.max(axis=1)
        finite = None
        if not (np.isfinite(smallest).all() and np.isfinite(largest).all()):
            finite = np.isfinite(values)
            smallest = np.where(finite, values, np.inf).min(axis=1)
            largest = np.where(finite, values, -np.inf).max(axis=1)
        self._places.place(values, units, cells, scratch=scratch, finite=finite)
        self._table += np.bincount(cells.ravel(), minlength=self._places.size)
        self._add_sums(units)
        np.minimum(self._smallest, smallest, out=self._smallest)
        np.maximum(self._largest, largest, out=self._largest)
        self._add_runs(values)
        self._filled = 0

    def _add_sums(self, units: Matrix) -> None:
        """Exact in any order: integers below 2⁵³ all along."""
        self._sums[:, 0] += units.sum(axis=1).astype(np.int64)
        squares = np.matmul(units[:, None, :], units[:, :, None])[:, 0, 0]
        self._sums[:, 1] += squares.astype(np.int64)

    def _extremes(self) -> Integers:
        """Minimum and maximum in units, and the longest run: int64 [streams, 3]."""
        ends = self._places.line(np.stack([self._smallest, self._largest], axis=1))
        with np.errstate(over="ignore", invalid="ignore"):
            units = np.floor(ends * self._places.scale + self._places.shift)
        found = np.empty((len(ends), 3), dtype=np.int64)
        found[:, :2] = np.clip(units, -FARTHEST, FARTHEST)
        found[self._smallest > self._largest, :2] = NOTHING, -NOTHING  # of no finite value
        found[:, 2] = self._longest
        return found

    def _add_runs(self, values: Matrix) -> None:
        """Lengthen the runs of one value. A NaN is equal to nothing, and so ends a run."""
        # The last column against the next row's first is nonsense, and put right below.
        flat = values.ravel()
        new = np.empty(values.shape, dtype=bool)
        np.not_equal(flat[1:], flat[:-1], out=new.ravel()[1:])
        np.not_equal(values[:, 0], self._last, out=new[:, 0])
        self._last = values[:, -1].copy()
        if new.all():
            np.maximum(self._longest, 1, out=self._longest)
            self._run[:] = 1
            return
        # In each row: a run that goes on from before, then one from each new value on.
        begins = np.pad(new, ((0, 0), (1, 0)), constant_values=True)
        at = np.flatnonzero(begins)
        lengths = np.diff(at, append=begins.size)
        first = np.searchsorted(at, np.arange(0, begins.size, len(begins[0])))
        goes_on = lengths[first] > 1
        lengths[first] = np.where(goes_on, lengths[first] - 1 + self._run, 0)
        np.maximum(self._longest, np.maximum.reduceat(lengths, first), out=self._longest)
        self._run = lengths[np.append(first[1:], lengths.size) - 1].copy()
