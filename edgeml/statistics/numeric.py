"""Counting numbers as they come: all numeric streams of a tensor together.

Rows gather until they fill a buffer [rows, streams]. It is counted in about twenty passes of NumPy,
whatever the number of streams; where values fall is in :mod:`edgeml.statistics.places`, how often
one value comes in a row in :mod:`edgeml.statistics.runs`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edgeml.statistics.counts import NOTHING, Counts
from edgeml.statistics.grid import Grid
from edgeml.statistics.places import FARTHEST, Cells, Kind, Matrix, Odd, Places
from edgeml.statistics.runs import Runs

BLOCK = 98304
"""Numbers in the buffer of a group, 768 KiB: few enough for a processor's caches, and so many that
calling NumPy costs little beside its work. With a third less, an element costs a tenth more."""

STREAMS = 32
"""In a group: with more, a group's buffer would hold few rows, and each batch would fill it."""

WIDTH = 1024
"""Numbers, or a little fewer, that NumPy is given as one line: long enough for its inner loops."""

MANY = 64
"""Arrays, so many that Python joins them as bytes in less than half the time that NumPy takes to
concatenate them; with fewer, longer ones the new memory costs more than that."""

NUMPY_BUFFER = 1024
"""Numbers in NumPy's own buffer while it counts: fewer than two lines. A larger one it fills with
copies of what is the same for every line, which takes half as long as the arithmetic with it."""

_INT32 = np.iinfo(np.int32)

_NO_INT32 = 2.0**62
"""A sum of squares below this has no number in it that no 32 bits hold."""


class NumericTally:
    """Counts the numeric streams of a tensor, as they come. Not thread-safe.

    Args:
        grids: one a stream.
    """

    def __init__(self, grids: Sequence[Grid]) -> None:
        memory = _Memory()
        self._columns = [slice(n, n + STREAMS) for n in range(0, len(grids), STREAMS)]
        self._groups = [_Group(grids[columns], memory) for columns in self._columns]
        self._room = min((group.room for group in self._groups), default=BLOCK)
        """Rows that are counted at once."""
        self._rows = np.empty((1 + self._room, len(grids)))
        self._before = np.full((1, len(grids)), np.nan)
        """The last row that was counted."""
        self._waiting: list[Matrix] = []
        self._left = self._room
        """Rows for which there is room yet."""

    def add(self, matrix: Matrix) -> None:
        """Take in float64 [n, streams], in the order of time. It is kept until it is counted, and
        must not be written to."""
        rows = len(matrix) if self._groups else 0
        while rows >= self._left:
            first = matrix[: self._left]
            matrix, rows = matrix[self._left :], rows - self._left
            self._waiting.append(first)
            self._left = 0
            self._count()
        if rows:
            self._waiting.append(matrix)
            self._left -= rows

    def take(self) -> list[Counts]:
        """The counts since the last call, and start anew; but a run of one value goes on."""
        self._count()
        return [counts for group in self._groups for counts in group.take()]

    def _count(self) -> None:
        if not self._waiting:
            return
        rows = self._gathered()
        size = np.setbufsize(NUMPY_BUFFER)
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                for group, columns in zip(self._groups, self._columns, strict=True):
                    group.count(
                        np.ascontiguousarray(rows[:, columns]),
                        lambda columns=columns: np.ascontiguousarray(self._gathered()[:, columns]),
                    )
        finally:
            np.setbufsize(size)
        self._before = self._waiting[-1][-1:].copy()
        self._waiting = []
        self._left = self._room

    def _gathered(self) -> Matrix:
        """A copy of the rows that wait, after the last one that was counted."""
        parts: list[Any] = [self._before, *self._waiting]
        rows = self._rows[: 1 + self._room - self._left]
        if len(parts) < MANY:
            return np.concatenate(parts, out=rows)
        try:
            return np.frombuffer(bytearray().join(parts)).reshape(rows.shape)
        except TypeError:  # some are not contiguous
            return np.concatenate(parts, out=rows)


class _Memory:
    """The memory that counting takes, for one group after another. New memory would cost more than
    the arithmetic."""

    def __init__(self) -> None:
        self._units = np.empty(BLOCK)
        self._cells = np.empty(BLOCK, dtype=np.int32)

    def shaped(self, values: Matrix, *, logarithmic: bool) -> tuple[Matrix, Cells]:
        """For the units of values, which without logarithms are theirs, and for their cells."""
        cells = self._cells[: values.size].reshape(values.shape)
        return (self._units[: values.size].reshape(values.shape) if logarithmic else values), cells


class _Group:
    def __init__(self, grids: Sequence[Grid], memory: _Memory) -> None:
        self._grids = grids
        self._memory = memory
        self._streams = len(grids)
        self._abreast = max(1, WIDTH // self._streams)
        self._width = self._abreast * self._streams
        self._places = Places(grids, abreast=self._abreast)
        self.room = BLOCK // self._width * self._abreast
        """Rows to count at a time, whole lines of them."""
        self._runs = Runs(self._streams, width=self._width)
        self._look: Kind = "no"
        """What the last buffer held: then the next one may, and it is looked for."""
        self._clear()

    def _clear(self) -> None:
        # Along a line; what belongs to one stream comes together when it is taken.
        self._table = np.zeros(self._places.size, dtype=np.int64)
        self._equal = np.zeros((len(self._places.atoms), self._width), dtype=np.int64)
        self._sums = np.zeros((2, self._width), dtype=np.int64)
        self._smallest = np.full(self._width, np.inf)
        self._largest = np.full(self._width, -np.inf)

    def take(self) -> list[Counts]:
        streams = self._streams
        sums = self._sums.reshape(2, -1, streams).sum(axis=1)
        smallest = self._smallest.reshape(-1, streams).min(axis=0)
        largest = self._largest.reshape(-1, streams).max(axis=0)
        extremes = np.empty((streams, 3), dtype=np.int64)
        extremes[:, 0] = np.clip(smallest, -FARTHEST, FARTHEST)
        extremes[:, 1] = np.clip(largest, -FARTHEST, FARTHEST)
        extremes[smallest > largest, :2] = NOTHING, -NOTHING
        extremes[:, 2] = self._runs.take()
        equal = self._equal.reshape(-1, self._abreast, streams).sum(axis=1)
        cells = self._places.fold(self._table, equal)
        parts = zip(self._grids, self._places.slices, sums.T, extremes, strict=True)
        taken = [
            Counts.checked(grid.hash, cells[its], its_sums, its_extremes)
            for grid, its, its_sums, its_extremes in parts
        ]
        self._clear()
        return taken

    def count(self, rows: Matrix, again: Callable[[], Matrix]) -> None:
        """Count rows.

        Args:
            rows: float64 [1 + n, streams], contiguous: the last one of the call before, and n.
                They are written over.
            again: gives them once more.
        """
        self._runs.add(rows)
        count = len(rows) - 1
        abreast = _abreast(count, self._abreast)
        whole, width = 1 + count // abreast * abreast, abreast * self._streams
        for part, shape in (slice(1, whole), (-1, width)), (slice(whole, None), (1, -1)):
            values = rows[part]
            if values.size:
                self._count_atoms(values.reshape(shape))
                if not self._count_lines(values.reshape(shape)):
                    self._look = "odd"
                    self._count_lines(again()[part].reshape(shape))

    def _count_atoms(self, values: Matrix) -> None:
        width = values.shape[1]
        for equal, atoms in zip(self._equal, self._places.atoms, strict=True):
            found = values == atoms[:width]
            # Four bytes at a time where that can be: none carries over in fewer than 256 lines.
            as_one = np.uint32 if width % 4 == 0 else np.uint8
            number = np.add.reduce(found.view(as_one), axis=0, dtype=as_one)
            equal[:width] += number.view(np.uint8)

    def _count_lines(self, values: Matrix) -> bool:
        """Of lines [m, width], or of one that is shorter. Their memory becomes that of their units
        and then of their places: what is written is what was just read, and is in the cache.

        Returns:
            Whether they were counted; if not, there is something not finite or far out that was not
            looked for.
        """
        places, width = self._places, values.shape[1]
        units, cells = self._memory.shaped(values, logarithmic=places.logarithmic)
        odd = self._odd(values)
        places.measure(values, units)
        if odd is not None:
            units.ravel()[odd.at] = 0.0
        squares = _squared(units, cells)
        ends = _ends(cells, odd)
        # A NaN or what is far out shows in the squares, whatever integer the processor makes of it:
        # x86-64 the least one, ARM the lowest 32 bits, which may be those of a number on the line.
        plain = bool(squares[squares.argmax()] < _NO_INT32) and places.plain(*ends)
        if plain:
            self._look = odd.kind if odd is not None else "no"
        elif odd is None or self._look == "nan":
            return False
        else:
            ends = places.settle(units, odd)
            squares = _squared(units, cells)
        np.minimum(self._smallest[:width], ends[0], out=self._smallest[:width])
        np.maximum(self._largest[:width], ends[1], out=self._largest[:width])
        # Exact in any order: integers below 2³¹ and 2⁵³ all along.
        self._sums[0, :width] += np.add.reduce(cells, axis=0, dtype=np.int32)
        self._sums[1, :width] += squares.astype(np.int64)
        at = units.view(np.int64)
        places.name(cells, odd, out=at)
        self._table += np.bincount(at.ravel(), minlength=self._table.size)
        return True

    def _odd(self, values: Matrix) -> Odd | None:
        match self._look:
            case "no":
                return None
            case "nan":
                return self._places.nan(values)
            case "odd":
                return self._places.odd(values)


def _abreast(rows: int, most: int) -> int:
    """Rows in a line, so that no shorter line is left if that can be: it would cost as many calls
    of NumPy as all before it. Never less than half of the most, since short lines cost too."""
    if rows % most == 0:
        return most
    return next((each for each in range(most, most // 2, -1) if rows % each == 0), most)


def _squared(units: Matrix, cells: Cells) -> Matrix:
    """The sum of the squares down each column, and in ``cells`` the units as integers."""
    np.copyto(cells, units, casting="unsafe")
    return np.einsum("ij,ij->j", units, units)


def _ends(cells: Cells, odd: Odd | None) -> tuple[Cells, Cells]:
    """The smallest and the largest integer down each column, but of what is odd, which is 0."""
    if odd is None:
        return np.minimum.reduce(cells, axis=0), np.maximum.reduce(cells, axis=0)
    flat = cells.ravel()
    flat[odd.at] = _INT32.max
    smallest = np.minimum.reduce(cells, axis=0)
    flat[odd.at] = _INT32.min
    largest = np.maximum.reduce(cells, axis=0)
    flat[odd.at] = 0
    return smallest, largest
