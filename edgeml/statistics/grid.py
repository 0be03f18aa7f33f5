"""What a stream's counts mean: which cells there are, and where they lie.

A grid is fitted once, from calibration data, and never changes: its hash names it, and counts on
another grid are refused. Which cell a value falls in is in :mod:`edgeml.statistics.places`,
:mod:`~edgeml.statistics.categorical` and :mod:`~edgeml.statistics.vector`, how a grid is found in
:mod:`~edgeml.statistics.fitting`.
"""

from __future__ import annotations

import struct
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgeml.errors import StatisticsError
from edgeml.statistics.naming import changed, digest

if TYPE_CHECKING:
    from edgeml.statistics.counts import Counts

Kind = Literal["numeric", "categorical", "vector"]

NUMERIC_BINS = 32
"""Fine enough for a χ² to regroup by mass, coarse enough for 64 bytes a window."""

UNITS = 128
"""Fixed-point units in a bin: sums and extremes of numbers are in them."""

MAX_BINS = 512
MAX_ATOMS = 4
MAX_VALUES = 4096
MAX_DIMENSIONS = 4096

PROJECTIONS = 128
"""Of a vector: a cosine and a sine each, 256 sums."""

SKETCH_ROWS, SKETCH_WIDTH = 2, 16
"""Hashed counters of new categories: as many cells as a count-min sketch of this depth and width
has (Cormode, Muthukrishnan, 2005). Linear, hence they add and subtract as all else does."""

_LEAST_RANGE = 1e-290
_EXPONENT = 2.0**52

FINENESS = 128
"""Where a logarithmic line lies is told in so many parts of an octave."""


class Grid(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, dict=True):
    """The cells, sums and extremes of one stream.

    ``numeric``: underflow, ``bins`` equal bins over [``low``, ``high``), overflow; then a cell for
    each exact value of ``atoms``, which is taken out of the bins; then NaN, -Inf, +Inf, missing.
    With ``log`` the bins are equal on a logarithmic line, see :func:`logarithm`. Sums: Σ and Σ² of
    the place on the line, extremes: its minimum and maximum, and the longest run of one value.

    ``categorical``: a cell for each of ``values``, or where that is empty of 0 … ``bins`` − 1; then
    other, missing. Sums: hashed counters of the others.

    ``vector``: vectors of ``bins`` dimensions, on two cells: counted, and not finite. Sums: 128
    cosines and 128 sines of a projection drawn with ``seed`` and ``bandwidth``, then the vector
    itself, as fixed-point numbers; ``low`` and ``high`` are the range of its components.

    Raises:
        StatisticsError: there is no such grid.
    """

    kind: Kind
    bins: int
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    atoms: tuple[float, ...] = ()
    """Ascending."""
    values: tuple[int | str, ...] = ()
    bandwidth: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        wrong = _wrong(self)
        if wrong:
            raise StatisticsError(
                f"a {self.kind} grid of {self.bins} bins over [{self.low}, {self.high}): {wrong}",
                expected="a grid as docs/statistics.md has it",
            )

    @property
    def cells(self) -> int:
        """Length of a vector of counts on this grid."""
        if self.kind == "numeric":
            return self.bins + 6 + len(self.atoms)
        return 2 if self.kind == "vector" else self.bins + 2

    @property
    def sums(self) -> int:
        """Length of its vector of sums."""
        if self.kind == "numeric":
            return 2
        if self.kind == "vector":
            return 2 * PROJECTIONS + self.bins
        return SKETCH_ROWS * SKETCH_WIDTH

    @property
    def extremes(self) -> int:
        """Length of its vector of extremes."""
        return 3 if self.kind == "numeric" else 0

    @cached_property
    def hash(self) -> str:
        """16 hexadecimal digits that name exactly this grid."""
        return digest(self.content)

    @property
    def content(self) -> dict[str, Any]:
        """All that tells it from other grids; the ends of its line both or neither."""
        line = ("low", "high", "bandwidth") if self.kind == "vector" else ("low", "high")
        fitted = changed(self).keys() - {"kind", "bins", "values"}
        return changed(self, besides=line if fitted else ())

    @property
    def missing(self) -> int:
        """The cell of what is missing; of a vector that is not finite, of that."""
        return self.cells - 1

    @property
    def nan(self) -> int:
        """The cell of NaN on a numeric grid; -Inf and +Inf are the next two."""
        return self.cells - 4

    @property
    def other(self) -> int:
        """The cell of all other values on a categorical grid."""
        return self.cells - 2

    @property
    def step(self) -> float:
        """Width of a bin, in the unit of :meth:`centres`."""
        low, high = self._ends
        return (high - low) / self.bins

    @cached_property
    def ordered(self) -> NDArray[np.int64]:
        """Indices of the cells that lie on a line, in the line's order; none of categories and
        vectors. All other cells are neighbours of nothing."""
        return np.argsort(self._places, kind="stable").astype(np.int64)

    @cached_property
    def unordered(self) -> NDArray[np.int64]:
        """Indices of all other cells."""
        return np.setdiff1d(np.arange(self.cells), self.ordered)

    def centres(self) -> NDArray[np.float64]:
        """A place for each of the ``ordered`` cells, ascending, for distances between
        distributions: the middles of the bins, with under- and overflow half a bin outside the
        range, and the atoms where they are. On a logarithmic grid in octaves; zero, which has no
        logarithm, lies a bin below the underflow."""
        return self._places[self.ordered]

    def value(self, place: float) -> float:
        """The number at a place in fixed-point units from ``low``, as extremes have it."""
        low, _ = self._ends
        at = low + place * self.step / UNITS
        return float(_from_octaves(at)) if self.log else at

    def moments(self, counts: Counts) -> tuple[int, float, float]:
        """How many numbers lie on the line, their mean and their variance (both 0 of none), in the
        unit of :meth:`centres`; from the sums of a numeric grid, hence finer than its bins.

        Values are rounded to a unit and clipped, see :mod:`edgeml.statistics.places`.
        """
        n = int(counts.cells[self.ordered].sum())
        if not n:
            return 0, 0.0, 0.0
        total, squares = (int(each) for each in counts.sums)
        unit, (low, _) = self.step / UNITS, self._ends
        # Python's integers, so that nothing cancels. Rounding down took half a unit off.
        variance = (n * squares - total * total) / (n * n)
        return n, low + (total / n + 0.5) * unit, variance * unit * unit

    def locate(self, values: ArrayLike) -> NDArray[np.int64]:
        """Cell of each value.

        Args:
            values: of any shape, flattened; of a vector grid [n, dimensions]. What is masked, and
                None, is missing.

        Returns:
            int64, one cell in 0 … ``cells`` − 1 for each value.
        """
        from edgeml.statistics.tally import locate

        return locate(self, values)

    @cached_property
    def octaves(self) -> tuple[int, int] | None:
        """Where a logarithmic line lies, in 1/128 octave: how far above a power of two it begins,
        and how long it is. None of any other grid."""
        if not self.log:
            return None
        # A float's exponent, with the first digits of its mantissa behind it, rounded.
        dropped = 52 - (FINENESS.bit_length() - 1)
        low, high = (
            int.from_bytes(struct.pack(">d", end), "big") + (1 << dropped - 1) >> dropped
            for end in (self.low, self.high)
        )
        return low % FINENESS, high - low

    @property
    def _ends(self) -> tuple[float, float]:
        """``low`` and ``high`` on the line."""
        if not self.log:
            return self.low, self.high
        low, high = octaves(np.array([self.low, self.high])).tolist()
        return low, high

    @cached_property
    def _places(self) -> NDArray[np.float64]:
        if self.kind != "numeric":
            return np.zeros(0)
        low, _ = self._ends
        line = low + self.step * (np.arange(-1, self.bins + 1, dtype=np.float64) + 0.5)
        atoms = np.asarray(self.atoms, dtype=np.float64)
        if self.log:
            atoms = np.where(atoms > 0, octaves(atoms), line[0] - self.step)
        return np.concatenate([line, atoms])


def logarithm(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Positive float64 on a line on which equal ratios are nearly equal steps, 2⁵² an octave.

    The bits of a float, read as an integer, are its exponent with its mantissa behind: log₂ with
    straight lines between the powers of two (the "linearly interpolated" mapping of DDSketch;
    Masson and others, 2019). As cheap as a copy, and the same on every processor, which no
    library's logarithm is. Zero and negative numbers are 0.
    """
    bits = np.ascontiguousarray(values).view(np.int64)
    return np.maximum(bits, 0).astype(np.float64)


def octaves(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """:func:`logarithm` in octaves, 0 for 1."""
    return logarithm(values) / _EXPONENT - 1023


def _from_octaves(place: float) -> float:
    bits = int(min(max((place + 1023) * _EXPONENT, 0), 0x7FEFFFFFFFFFFFFF))
    return float(np.array([bits], dtype=np.int64).view(np.float64)[0])


def _wrong(grid: Grid) -> str:
    """Why there is no such grid, or an empty string."""
    most = {"numeric": MAX_BINS, "categorical": MAX_VALUES, "vector": MAX_DIMENSIONS}[grid.kind]
    if not 1 <= grid.bins <= most:
        return f"from 1 to {most} bins are possible"
    if grid.kind == "categorical":
        return _wrong_values(grid)
    if not _LEAST_RANGE < grid.high - grid.low < np.inf:
        return "low must be less than high, and both finite"
    if grid.kind == "vector":
        possible = 0 < grid.bandwidth < np.inf and 0 <= grid.seed < 2**32
        return "" if possible else f"bandwidth {grid.bandwidth}, seed {grid.seed}"
    return "no logarithm below zero" if grid.log and grid.low <= 0 else _wrong_atoms(grid.atoms)


def _wrong_values(grid: Grid) -> str:
    if grid.values and len(grid.values) != grid.bins:
        return f"{len(grid.values)} values"
    if len({type(value) for value in grid.values}) > 1:
        return "numbers and text among its values"
    return "a value twice" if len(set(grid.values)) != len(grid.values) else ""


def _wrong_atoms(atoms: tuple[float, ...]) -> str:
    if len(atoms) > MAX_ATOMS or tuple(sorted(set(atoms))) != atoms:
        return f"at most {MAX_ATOMS} atoms are possible, ascending"
    return "" if np.isfinite(atoms).all() else "an atom that is no number"
