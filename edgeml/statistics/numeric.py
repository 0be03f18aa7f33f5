"""Counting numbers as they come: all numeric streams of a tensor together.

Rows gather until they fill a buffer [rows, streams]. It is counted in about fifteen passes of
NumPy, whatever the number of streams; where values fall is in :mod:`edgeml.statistics.places`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from edgeml.statistics.counts import NOTHING, Counts
from edgeml.statistics.grid import Grid
from edgeml.statistics.places import FIRST, Cells, Integers, Matrix, Places, strange

BLOCK = 32768
"""Numbers in the buffer of a group, 256 KiB: few enough for a processor's caches, and so many that
calling NumPy costs little beside its work."""

STREAMS = 32
"""In a group: with more, a group's buffer would hold few rows, and each batch would fill it."""

WIDTH = 1024
"""Numbers, or a little fewer, that NumPy is given as one line: long enough for its inner loops."""


class NumericTally:
    """Counts the numeric streams of a tensor, as they come. Not thread-safe.

    Args:
        grids: one a stream.
    """

    def __init__(self, grids: Sequence[Grid]) -> None:
        workspace = _Workspace()
        self._columns = [slice(n, n + STREAMS) for n in range(0, len(grids), STREAMS)]
        self._groups = [_Group(grids[columns], workspace) for columns in self._columns]
        self._room = min((group.room for group in self._groups), default=BLOCK)
        """Rows in the buffer."""
        self._rows = np.empty((self._room, len(grids)))
        self._waiting: list[Matrix] = []
        self._filled = 0

    def add(self, matrix: Matrix) -> None:
        """Take in float64 [n, streams], in the order of time. It is kept until it is counted, and
        must not be written to."""
        self._waiting.append(matrix)
        self._filled += len(matrix)
        while self._filled >= self._room:
            over = self._filled - self._room
            last = self._waiting.pop()
            self._waiting.append(last[: len(last) - over])
            self._filled = self._room
            self._count()
            self._waiting.append(last[len(last) - over :])
            self._filled = over

    def take(self) -> list[Counts]:
        """The counts since the last call, and start anew; but a run of one value goes on."""
        self._count()
        return [counts for group in self._groups for counts in group.take()]

    def _count(self) -> None:
        if not self._filled:
            return
        # One call for all of them: to copy each as it comes costs as much as to count it.
        rows = np.concatenate(self._waiting, out=self._rows[: self._filled])
        self._waiting = []
        self._filled = 0
        for group, columns in zip(self._groups, self._columns, strict=True):
            group.count(np.ascontiguousarray(rows[:, columns]))


class _Workspace:
    """The memory that counting takes, for one group after another. New memory would cost more than
    the arithmetic."""

    def __init__(self) -> None:
        self._units = np.empty(BLOCK)
        self._cells = np.empty(BLOCK, dtype=np.int32)

    def shaped(self, shape: tuple[int, int]) -> tuple[Matrix, Cells]:
        """Units and cells for so many values, contiguous."""
        size = shape[0] * shape[1]
        return self._units[:size].reshape(shape), self._cells[:size].reshape(shape)


class _Group:
    def __init__(self, grids: Sequence[Grid], workspace: _Workspace) -> None:
        self._grids = grids
        self._workspace = workspace
        self._streams = len(grids)
        self._abreast = max(1, WIDTH // self._streams)
        self._width = self._abreast * self._streams
        self._places = Places(grids, abreast=self._abreast)
        self.room = BLOCK // self._width * self._abreast
        """Rows to count at a time, whole lines of them."""
        self._last = np.full(self._streams, np.nan)
        self._once = np.ones(self._streams, dtype=np.int64)
        self._run = self._once
        """How often each stream has had its last value in a row."""
        self._odd = False
        """Whether the last buffer held what is not finite, or far out: then the next one may."""
        self._clear()

    def _clear(self) -> None:
        # Along a line; what belongs to one stream comes together when it is taken.
        self._table = np.zeros(self._places.shape, dtype=np.int64)
        self._sums = np.zeros(self._width, dtype=np.int64)
        self._squares = np.zeros(self._width, dtype=np.int64)
        self._smallest = np.full(self._width, NOTHING)
        self._largest = np.full(self._width, -NOTHING)
        self._longest = np.zeros(self._streams, dtype=np.int64)

    def take(self) -> list[Counts]:
        streams = self._streams
        sums = np.stack([self._sums, self._squares]).reshape(2, -1, streams).sum(axis=1)
        smallest = self._smallest.reshape(-1, streams).min(axis=0)
        largest = self._largest.reshape(-1, streams).max(axis=0)
        extremes = np.stack([smallest, largest, self._longest], axis=1)
        cells = np.zeros(self._places.cells[-1].stop, dtype=np.int64)
        np.add.at(cells, self._places.fold, self._table)
        taken = [
            Counts.checked(grid.hash, cells[its].copy(), sums[:, stream], extremes[stream])
            for stream, (grid, its) in enumerate(zip(self._grids, self._places.cells, strict=True))
        ]
        self._clear()
        return taken

    def count(self, rows: Matrix) -> None:
        """Of float64 [n, streams], contiguous, the rows after those of the last call."""
        whole = len(rows) // self._abreast * self._abreast
        with np.errstate(over="ignore", invalid="ignore"):
            if whole:
                self._count_lines(rows[:whole].reshape(-1, self._width))
            if whole < len(rows):
                self._count_lines(rows[whole:])
        self._add_runs(rows)

    def _count_lines(self, values: Matrix) -> None:
        """Of lines [m, width], or [m, streams]."""
        places, width = self._places, values.shape[1]
        units, cells = self._workspace.shaped(values.shape)
        odd = strange(values) if self._odd else None
        places.place(values, units, cells, strange=odd)
        squares: Matrix = np.einsum("ij,ij->j", units, units)
        smallest, largest = np.minimum.reduce(cells, axis=0), np.maximum.reduce(cells, axis=0)
        # A NaN shows in the squares. What is infinite, or so far out that its unit does not say
        # where, is clipped.
        clipped = bool(smallest.min() <= FIRST or (largest >= places.last(width)).any())
        if odd is None and (clipped or not math.isfinite(squares.sum())):
            odd = strange(values)
            places.place(values, units, cells, strange=odd)
            squares = np.einsum("ij,ij->j", units, units)
        self._odd = odd is not None and (clipped or odd.size > 0)
        if odd is not None:
            smallest, largest = self._ends(values, odd, room=units)
        np.minimum(self._smallest[:width], smallest, out=self._smallest[:width])
        np.maximum(self._largest[:width], largest, out=self._largest[:width])
        # Exact in any order: integers below 2³¹ and 2⁵³ all along.
        self._sums[:width] += np.add.reduce(cells, axis=0, dtype=np.int32)
        self._squares[:width] += squares.astype(np.int64)
        places.name(values, cells, strange=odd)
        found = np.bincount(cells.ravel(), minlength=self._table.size)
        self._table += found.reshape(self._table.shape)

    def _ends(self, values: Matrix, odd: Integers, *, room: Matrix) -> tuple[Integers, Integers]:
        """The smallest and the largest place along a line, of what is finite, however far out."""
        least = np.minimum.reduce(_replaced(values, odd, np.inf, out=room), axis=0)
        most = np.maximum.reduce(_replaced(values, odd, -np.inf, out=room), axis=0)
        least, most = (end.reshape(-1, self._streams) for end in (least, most))
        ends = self._places.ends(least.min(axis=0), most.max(axis=0))
        smallest, largest = (np.tile(end, len(least)) for end in ends)
        return smallest, largest

    def _add_runs(self, rows: Matrix) -> None:
        """Lengthen the runs of one value. A NaN is equal to nothing, and so ends a run."""
        same = np.empty(rows.shape, dtype=bool)
        flat, streams = rows.ravel(), self._streams
        np.equal(flat[streams:], flat[:-streams], out=same.ravel()[streams:])
        np.equal(rows[0], self._last, out=same[0])
        self._last = rows[-1].copy()
        np.maximum(self._longest, 1, out=self._longest)
        if not same.any():
            self._run = self._once
            return
        before, self._run = self._run, self._once.copy()
        # Stream by stream, where a value is that of the row before: next to each other in a run.
        n = len(rows)
        at = np.flatnonzero(same.T)
        stream, row = np.divmod(at, n)
        first = np.flatnonzero((np.diff(at, prepend=-2) != 1) | (row == 0))
        steps = np.diff(first, append=len(at))
        whose, begin = stream[first], row[first]
        lengths = steps + np.where(begin == 0, before[whose], 1)
        np.maximum.at(self._longest, whose, lengths)
        lasts = begin + steps == n
        self._run[whose[lasts]] = lengths[lasts]


def _replaced(values: Matrix, where: Integers, by: float, *, out: Matrix) -> Matrix:
    np.copyto(out, values)
    out.ravel()[where] = by
    return out
