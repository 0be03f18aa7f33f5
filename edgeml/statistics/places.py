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
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgeml.statistics.grid import UNITS, Grid, logarithm

Matrix = NDArray[np.float64]
Integers = NDArray[np.int64]
Cells = NDArray[np.int32]
Units = Cells | Matrix
Kind = Literal["no", "nan", "odd"]
"""What is odd among numbers: nothing, NaN alone, or whatever is not finite or far out."""

MARGIN = 32
"""Bins beyond either end of the grid that sums still tell apart."""

FIRST = -MARGIN * UNITS
"""The smallest unit."""

FARTHEST = (1 << 27) - 1
"""Units from ``low`` at which extremes are clipped: a million bins, four bytes on the wire."""

MISSING: float = float(np.array([0x7FF80000000007A2], dtype=np.int64).view(np.float64)[0])
"""A NaN that says "no value", where another one says "a value that is no number". The payload is
that of R's NA. It outlives copies, and no arithmetic."""

_MISSING = np.array([MISSING]).view(np.int64)

_SPECIAL = 4
"""Places of a stretch for what lies on no line: NaN, -Inf, +Inf, missing."""

_ODD_UNITS = np.array([(kind - _SPECIAL - MARGIN) * UNITS for kind in range(_SPECIAL)], np.int32)

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


class Odd(NamedTuple):
    """What is not finite among values."""

    at: Integers
    """Indices of the flattened."""
    units: Cells
    """What stands for each: units that lead to their places, and that no number has."""
    kind: Kind
    """What that is."""


class Places:
    """The grids of several streams, each with a stretch of one long vector of places.

    A stretch holds NaN, -Inf, +Inf, missing, ``MARGIN`` places for the underflow, the bins,
    ``MARGIN`` for the overflow. Atoms have none: all that equals an atom falls in the same bin, so
    that it is enough to know how often that was, and :meth:`fold` takes so many out of the bin.

    Args:
        grids: one a stream.
        abreast: rows [streams] that a line of values may hold, one behind the other.
    """

    def __init__(self, grids: Sequence[Grid], *, abreast: int = 1) -> None:
        starts = [0, *itertools.accumulate(_SPECIAL + 2 * MARGIN + grid.bins for grid in grids)]
        firsts = [0, *itertools.accumulate(grid.cells for grid in grids)]
        self.size = starts[-1]
        """Of the vector."""
        self.slices = [slice(*ends) for ends in itertools.pairwise(firsts)]
        """The cells of each grid, among those of all."""
        self._edges, self._targets = _stretches(grids, starts, firsts)
        scale, shift = np.array([_line(grid) for grid in grids]).T
        lasts = np.array([(grid.bins + MARGIN) * UNITS - 1.0 for grid in grids])
        self._least, self._most = float(FIRST), float(lasts.min())
        self._scale, self._log_scale = np.tile(scale, abreast), None
        self._shift, self._last = np.tile(shift, abreast), _along(lasts, abreast)
        log = np.array([grid.log for grid in grids])
        self.logarithmic = bool(log.any())
        """Whether any grid is."""
        self._mixed = self.logarithmic and not log.all()
        if self.logarithmic:
            # Of the two scales, of numbers and of logarithms, a stream has one: the other is 0.
            self._scale = np.tile(np.where(log, 0.0, scale), abreast)
            self._log_scale = np.tile(np.where(log, scale, 0.0), abreast)
            zero = np.where(log, np.floor(shift), -np.inf)
            infinity = np.floor(logarithm(np.array([np.inf])) * scale + shift)
            self._zero = np.tile(zero, abreast)
            self._least = max(self._least, float(zero.max()) + 1)
            self._most = min(self._most, float(infinity[log].min()) - 1)
        low = np.array(starts[:-1], dtype=np.int32) + np.int32(_SPECIAL + MARGIN)
        self._low = np.tile(low, abreast)
        self._grids, self._firsts, self._atoms = grids, np.array(firsts[:-1]), _atoms(grids)
        self.atoms = [_along(each, abreast) for each in self._atoms]
        """The first atom of each grid, then the second, and so on, along a line; NaN, which is
        equal to nothing, where a grid has no more."""

    def measure(self, values: Matrix, units: Matrix) -> None:
        """Find where values lie on the lines of their grids. The caller has NumPy silent about
        overflow and NaN.

        Args:
            values: the numbers, [m, streams] or [m, streams · ``abreast``], contiguous. Written
                over where some grids are logarithmic and some are not.
            units: float64 of the same shape, gets their place in units from ``low``, rounded down;
                the same memory where no grid is logarithmic. Of what is not finite it is not
                finite either, or not :meth:`plain`.
        """
        width = values.shape[1]
        if self._log_scale is not None:
            # A number's bits are its logarithm; see settle() for zero and what is negative.
            np.multiply(values.view(np.int64), self._log_scale[:width], out=units)
            if self._mixed:
                np.add(units, np.multiply(values, self._scale[:width], out=values), out=units)
        else:
            np.multiply(values, self._scale[:width], out=units)
        np.add(units, self._shift[:width], out=units)
        np.floor(units, out=units)

    def plain(self, smallest: Units, largest: Units) -> bool:
        """Whether units between these are what sums are of, without any :meth:`settle`: finite, not
        so far out that they are clipped, nor at the ends of a logarithmic line."""
        # Of few numbers, where the least one is takes half as long to find as what it is.
        least, most = smallest[smallest.argmin()], largest[largest.argmax()]
        return bool(least >= self._least and most <= self._most)

    @staticmethod
    def nan(values: Matrix) -> Odd:
        """What is NaN, or missing, among values."""
        at = np.flatnonzero(np.isnan(values))
        missing = values.ravel()[at].view(np.int64) == _MISSING
        return Odd(at, _ODD_UNITS[3 * missing], "nan" if at.size else "no")

    @staticmethod
    def odd(values: Matrix) -> Odd:
        """What is not finite among values; takes longer."""
        at = np.flatnonzero(~np.isfinite(values))
        found = values.ravel()[at]
        infinite = np.isinf(found)
        kinds = np.where(infinite, 1 + (found > 0), 3 * (found.view(np.int64) == _MISSING))
        kind = "odd" if infinite.any() else "nan" if at.size else "no"
        return Odd(at, _ODD_UNITS[kinds], kind)

    def settle(self, units: Matrix, odd: Odd) -> tuple[Matrix, Matrix]:
        """Make of :meth:`measure`'s units what sums are of: clip them, and give 0, which adds
        nothing, to what is not finite.

        Returns:
            The smallest and the largest unit of what is finite down each column, before it was
            clipped; ±inf of nothing.
        """
        width, flat = units.shape[1], units.ravel()
        if self.logarithmic:
            np.maximum(units, self._zero[:width], out=units)
        flat[odd.at] = np.inf
        smallest = np.minimum.reduce(units, axis=0, initial=np.inf)
        flat[odd.at] = -np.inf
        largest = np.maximum.reduce(units, axis=0, initial=-np.inf)
        flat[odd.at] = 0.0
        if not self.plain(smallest, largest):
            np.clip(units, FIRST, self._last[:width], out=units)
        return smallest, largest

    def name(self, cells: Cells, odd: Odd | None, *, out: Integers) -> None:
        """Make of units that were settled, or are plain, places on the flattened vector."""
        if odd is not None:
            cells.ravel()[odd.at] = odd.units
        np.right_shift(cells, _BITS, out=cells)
        np.add(cells, self._low[: cells.shape[1]], out=cells)
        np.copyto(out, cells)  # both at once would go through NumPy's buffer

    def find(self, values: Matrix) -> Integers:
        """All of this, of numbers [m, streams]: the place of each."""
        values, odd, units = values.copy(), self.odd(values), np.empty(values.shape)
        with np.errstate(over="ignore", invalid="ignore"):
            self.measure(values, units)
        self.settle(units, odd)
        places = np.empty(values.shape, dtype=np.int64)
        self.name(units.astype(np.int32), odd, out=places)
        return places

    @cached_property
    def cell_of(self) -> Integers:
        """The cell of each place on the vector, among those of all grids."""
        return np.repeat(self._targets, np.diff(self._edges, append=self.size))

    def fold(self, found: Integers, equal: Integers) -> Integers:
        """The cells of all grids, one behind the other.

        Args:
            found: how many values were at each place on the vector.
            equal: [most, streams], how many were equal to each atom.
        """
        cells = np.zeros(self.slices[-1].stop, dtype=np.int64)
        cells[self._targets] = np.add.reduceat(found, self._edges)
        if equal.size:
            them, bins, own = self._moves
            np.subtract.at(cells, bins, equal[them])
            cells[own] = equal[them]
        return cells

    @cached_property
    def _moves(self) -> tuple[NDArray[np.bool_], Integers, Integers]:
        """Which of all atoms there are, the cells that they fall in, and the cells of their own."""
        them = ~np.isnan(self._atoms)
        number, stream = np.nonzero(them)
        bins = np.array([grid.bins for grid in self._grids])
        own = self._firsts[stream] + bins[stream] + 2 + number
        return them, self.cell_of[self.find(self._atoms)][them], own


def _line(grid: Grid) -> tuple[float, float]:
    """Scale and shift of a grid: value · scale + shift is in units from ``low``."""
    ends = np.array([grid.low, grid.high])
    low, high = logarithm(ends) if grid.log else ends
    scale = grid.bins * UNITS / (high - low)
    return scale, -low * scale


def _stretches(
    grids: Sequence[Grid], starts: Sequence[int], firsts: Sequence[int]
) -> tuple[Integers, Integers]:
    """Where the long vector has the first place of each cell, and which cell of all."""
    edges: list[int] = []
    cells: list[int] = []
    for grid, start, first in zip(grids, starts, firsts, strict=False):
        under = start + _SPECIAL
        low, over = under + MARGIN, under + MARGIN + grid.bins
        edges += [*range(start, under + 1), *range(low, over + 1)]
        cells += [*range(first + grid.nan, first + grid.cells)]
        cells += [*range(first, first + grid.bins + 2)]
    return np.array(edges), np.array(cells)


def _atoms(grids: Sequence[Grid]) -> Matrix:
    """[most, streams]: the first atom of each grid, then the second, and so on; NaN, which is equal
    to nothing, where a grid has no more."""
    atoms = np.full((max(len(grid.atoms) for grid in grids), len(grids)), np.nan)
    for stream, grid in enumerate(grids):
        atoms[: len(grid.atoms), stream] = grid.atoms
    return atoms


def _along(each: Matrix, abreast: int) -> Matrix:
    """What the streams have, along a line; where all have the same, that alone: a half to a quarter
    of the work."""
    return each[:1] if (each == each[0]).all() else np.tile(each, abreast)


def locate(grid: Grid, values: ArrayLike) -> Integers:
    """Cell of each number, flattened: int64 in 0 … ``grid.cells`` − 1."""
    column = np.ascontiguousarray(as_numbers(values).reshape(-1, 1))
    places = Places([grid])
    cells = places.cell_of[places.find(column)[:, 0]]
    for number, atom in enumerate(grid.atoms):
        cells[column[:, 0] == atom] = grid.bins + 2 + number
    return cells
