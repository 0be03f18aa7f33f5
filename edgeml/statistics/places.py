"""Where numbers fall on their grids, and what is summed of them: of all numeric streams of a tensor
in one go.

Each stream has its own stretch of one long vector of cells, so that a single ``bincount`` counts
them all. Rows stay as they come, the streams side by side, and NumPy is handed many rows as one
long line: what a grid brings to it (its scale, its first cell) is repeated along that line once and
for all. So nothing is transposed, and no inner loop is as short as there are streams.

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

from edgeml.statistics.counts import NOTHING
from edgeml.statistics.grid import UNITS, Grid, logarithm

Matrix = NDArray[np.float64]
Integers = NDArray[np.int64]
Cells = NDArray[np.int32]

MARGIN = 32
"""Bins beyond either end of the grid that sums still tell apart."""

FIRST = -MARGIN * UNITS
"""The smallest unit."""

FARTHEST = (1 << 27) - 1
"""Units from ``low`` at which extremes are clipped: a million bins, four bytes on the wire."""

MISSING: float = float(np.array([0x7FF80000000007A2], dtype=np.int64).view(np.float64)[0])
"""A NaN that says "no value", where another one says "a value that is no number". The payload is
that of R's NA. It outlives copies, and no arithmetic."""

_BITS = UNITS.bit_length() - 1


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
    """The grids of several streams, each with a stretch of one long vector of cells.

    A stretch holds ``MARGIN`` cells for the underflow, the bins, ``MARGIN`` for the overflow, NaN,
    -Inf, +Inf, missing. The vector is as long once more for each atom that a grid has at most:
    where a value equals its grid's first atom, its place lies one length further on, and so forth.
    Adding that is several times as fast as to write over the places of some values in no order.

    Args:
        grids: one a stream.
        abreast: rows [streams] that a line of values may hold, one behind the other.
    """

    def __init__(self, grids: Sequence[Grid], *, abreast: int = 1) -> None:
        starts = np.cumsum([0] + [2 * MARGIN + grid.bins + 4 for grid in grids])
        atoms = _atoms(grids)
        self.shape = (1 + len(atoms), int(starts[-1]))
        """Of the vector, by how-manieth atom."""
        firsts = np.cumsum([0] + [grid.cells for grid in grids]).tolist()
        self.fold = np.concatenate(
            [first + _fold(grid, len(atoms)) for first, grid in zip(firsts, grids, strict=False)],
            axis=1,
        )
        """For each place on the vector the cell of its grid, among the cells of all grids."""
        self.cells = [slice(*ends) for ends in itertools.pairwise(firsts)]
        """The cells of each grid, among those of all."""
        self.streams = len(grids)
        scale, shift = np.array([_line(grid) for grid in grids]).T
        self._scale, self._shift = np.tile(scale, abreast), np.tile(shift, abreast)
        ends = np.array([(grid.bins + MARGIN) * UNITS - 1.0 for grid in grids])
        # One bound for all, of no dimension, is twice as fast as one each.
        self._last = np.array(ends[0]) if (ends == ends[0]).all() else np.tile(ends, abreast)
        self._low = np.tile(starts[:-1] + MARGIN, abreast).astype(np.int32)
        self._special = (starts[1:] - 4).astype(np.int32)
        logarithmic = np.array([grid.log for grid in grids])
        self._logarithmic = np.tile(logarithmic, abreast) if logarithmic.any() else None
        self._atoms = [np.tile(each, abreast) for each in atoms]

    def place(
        self, values: Matrix, units: Matrix, cells: Cells, *, strange: Integers | None
    ) -> None:
        """Fill in where values fall. The caller has NumPy silent about overflow and NaN.

        Args:
            values: the numbers, [m, ``streams``] or [m, ``streams`` · ``abreast``], contiguous.
            units: gets their place in units from ``low``, rounded down and clipped; what is not
                finite gets 0, which adds nothing to a sum.
            cells: gets the same as integers; :meth:`name` makes cells of them.
            strange: where values are not finite, as indices of the flattened; None where all are,
                or where that is still to be seen (a NaN stays one among the units).
        """
        width = values.shape[1]
        np.multiply(self._on_line(values, units, width), self._scale[:width], out=units)
        np.add(units, self._shift[:width], out=units)
        np.clip(units, FIRST, self.last(width), out=units)
        if strange is not None:
            units.ravel()[strange] = 0.0
        np.floor(units, out=units)
        np.copyto(cells, units, casting="unsafe")

    def name(self, values: Matrix, cells: Cells, *, strange: Integers | None) -> None:
        """Make of whole units, as :meth:`place` gives them, places on the flattened vector."""
        width = values.shape[1]
        np.right_shift(cells, _BITS, out=cells)
        np.add(cells, self._low[:width], out=cells)
        for number, atoms in enumerate(self._atoms, start=1):
            cells += (values == atoms[:width]) * np.int32(number * self.shape[1])
        if strange is not None:
            special = self._special[strange % self.streams] + _kind(values.ravel()[strange])
            cells.ravel()[strange] = special

    def last(self, width: int) -> Matrix:
        """The largest unit of each of a line's numbers, or of all of them; the smallest is
        :data:`FIRST`."""
        return self._last[:width] if self._last.ndim else self._last

    def _on_line(self, values: Matrix, room: Matrix, width: int) -> Matrix:
        """Values on the lines of their grids, where bins are equal."""
        if self._logarithmic is None:
            return values
        np.copyto(room, values)
        np.copyto(room, logarithm(values), where=self._logarithmic[:width])
        return room

    def ends(self, smallest: Matrix, largest: Matrix) -> tuple[Integers, Integers]:
        """Where the smallest and the largest finite value of each stream lie, in units, no matter
        how far out; :data:`~edgeml.statistics.counts.NOTHING` and its negative of no value."""
        both = np.stack([smallest, largest])
        line = self._on_line(both, np.empty(both.shape), self.streams)
        units = np.floor(line * self._scale[: self.streams] + self._shift[: self.streams])
        low, high = np.clip(units, -FARTHEST, FARTHEST).astype(np.int64)
        none = smallest > largest
        return np.where(none, NOTHING, low), np.where(none, -NOTHING, high)


def _line(grid: Grid) -> tuple[float, float]:
    """Scale and shift of a grid: value · scale + shift is in units from ``low``."""
    ends = np.array([grid.low, grid.high])
    low, high = logarithm(ends) if grid.log else ends
    scale = grid.bins * UNITS / (high - low)
    return scale, -low * scale


def _fold(grid: Grid, atoms: int) -> Integers:
    """[1 + atoms, length of its stretch]."""
    under, over = np.zeros(MARGIN, dtype=np.int64), np.full(MARGIN, grid.bins + 1, dtype=np.int64)
    bins, rest = np.arange(1, grid.bins + 1), np.arange(grid.nan, grid.cells)
    fold = np.empty((1 + atoms, 2 * MARGIN + grid.bins + len(rest)), dtype=np.int64)
    fold[:] = np.concatenate([under, bins, over, rest])
    first = grid.bins + 2
    for number in range(len(grid.atoms)):
        fold[1 + number] = first + number
    return fold


def _atoms(grids: Sequence[Grid]) -> Matrix:
    """[most, streams]: the first atom of each grid, then the second, and so on; NaN, which is equal
    to nothing, where a grid has no more."""
    atoms = np.full((max(len(grid.atoms) for grid in grids), len(grids)), np.nan)
    for stream, grid in enumerate(grids):
        atoms[: len(grid.atoms), stream] = grid.atoms
    return atoms


def _kind(values: Matrix) -> Cells:
    """Of values that are not finite: 0 NaN, 1 -Inf, 2 +Inf, 3 missing."""
    found = np.where(values > 0, 2, 1).astype(np.int32)
    found[np.isnan(values)] = 0
    missing = np.array([MISSING]).view(np.int64)
    found[values.view(np.int64) == missing] = 3
    return found


def strange(values: Matrix) -> Integers:
    """Indices of what is not finite among the flattened values."""
    return np.flatnonzero(~np.isfinite(values))


def locate(grid: Grid, values: ArrayLike) -> Integers:
    """Cell of each number, flattened: int64 in 0 … ``grid.cells`` − 1."""
    column = np.ascontiguousarray(as_numbers(values).reshape(-1, 1))
    places = Places([grid])
    cells = np.empty(column.shape, dtype=np.int32)
    with np.errstate(over="ignore", invalid="ignore"):
        places.place(column, np.empty(column.shape), cells, strange=strange(column))
        places.name(column, cells, strange=strange(column))
    return places.fold.ravel()[cells[:, 0]]
