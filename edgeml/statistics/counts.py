"""Counts on a grid: they add, they subtract, and nothing else is ever sent of the data.

All of it is integers, so that merging devices, sliding a window and taking back a broken device's
share are exact in any order. In three parts:

- ``cells``, how many values fell where, never negative;
- ``sums``, signed sums of fixed-point numbers, or hashed counters;
- ``extremes``, the minimum, the maximum and the longest run of one value. These merge, and cannot
  be taken back: after a subtraction they are what they were, bounds of what they would be.
  ``labels``, names of new categories, likewise.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgeml.errors import StatisticsError
from edgeml.statistics.grid import Grid

Integers = NDArray[np.int64]

NOTHING = 1 << 62
"""The minimum of no value; the maximum is its negative, the longest run 0."""


class Counts:
    """What a stream's values came to on the grid with hash ``grid``.

    Args:
        grid: :attr:`edgeml.statistics.grid.Grid.hash`.
        cells: non-negative integers, one a cell.
        sums: integers.
        extremes: minimum and maximum in fixed-point units, longest run; or none of them.
        labels: names of categories that the grid does not know.

    Raises:
        StatisticsError: a count is negative.
    """

    __slots__ = ("cells", "extremes", "grid", "labels", "sums")

    def __init__(
        self,
        grid: str,
        cells: Sequence[int] | Integers,
        sums: Sequence[int] | Integers = (),
        extremes: Sequence[int] | Integers = (),
        labels: Iterable[str] = (),
    ) -> None:
        self.grid = grid
        self.cells: Integers = np.asarray(cells, dtype=np.int64)
        self.sums: Integers = np.asarray(sums, dtype=np.int64)
        self.extremes: Integers = np.asarray(extremes, dtype=np.int64)
        self.labels = frozenset(labels)
        if self.cells.ndim != 1 or (self.cells < 0).any():
            raise StatisticsError(
                f"counts on grid {grid} of shape {self.cells.shape}, smallest "
                f"{self.cells.min(initial=0)}",
                expected="one non-negative integer a cell",
                remedy="Something was subtracted that had not been added.",
            )

    @classmethod
    def checked(cls, grid: str, cells: Integers, sums: Integers, extremes: Integers) -> Counts:
        """Of int64 arrays that are known to be counts: a tenth of what the checks take, which at
        the end of a window are made for every stream."""
        made = cls.__new__(cls)
        made.grid, made.cells, made.sums, made.extremes = grid, cells, sums, extremes
        made.labels = frozenset[str]()
        return made

    @classmethod
    def zeros(cls, grid: Grid) -> Counts:
        """The identity of addition on this grid."""
        return cls(
            grid.hash,
            np.zeros(grid.cells, dtype=np.int64),
            np.zeros(grid.sums, dtype=np.int64),
            [NOTHING, -NOTHING, 0] if grid.extremes else (),
        )

    @classmethod
    def of(cls, grid: Grid, values: ArrayLike) -> Counts:
        """Count values, as :meth:`Grid.locate` takes them."""
        from edgeml.statistics.tally import count

        return count(grid, values)

    @property
    def total(self) -> int:
        """How many values were counted."""
        return int(self.cells.sum())

    def _on_same_grid(self, other: Counts) -> None:
        if self.grid != other.grid or self.shape != other.shape:
            raise StatisticsError(
                f"counts on grid {other.grid} with {' + '.join(map(str, other.shape))} numbers",
                expected=f"grid {self.grid} with {' + '.join(map(str, self.shape))}",
                remedy="Counts of two model versions do not merge: keep them apart.",
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """How many cells, sums and extremes there are."""
        return self.cells.size, self.sums.size, self.extremes.size

    def __add__(self, other: Counts) -> Counts:
        self._on_same_grid(other)
        extremes = self.extremes
        if extremes.size:
            extremes = np.maximum(extremes, other.extremes)
            extremes[0] = min(self.extremes[0], other.extremes[0])
        labels = self.labels
        if labels != other.labels:
            from edgeml.statistics.categorical import bounded

            labels = bounded(labels | other.labels)
        return Counts(self.grid, self.cells + other.cells, self.sums + other.sums, extremes, labels)

    def __sub__(self, other: Counts) -> Counts:
        self._on_same_grid(other)
        return Counts(
            self.grid,
            self.cells - other.cells,
            self.sums - other.sums,
            self.extremes,
            self.labels,
        )

    def adds_as(self, other: Counts) -> bool:
        """Whether all that adds and subtracts, cells and sums, is equal; extremes aside."""
        return (
            self.grid == other.grid
            and np.array_equal(self.cells, other.cells)
            and np.array_equal(self.sums, other.sums)
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Counts):
            return NotImplemented
        merged = np.array_equal(self.extremes, other.extremes) and self.labels == other.labels
        return merged and self.adds_as(other)

    __hash__ = None  # type: ignore[assignment]  # mutable inside

    def __repr__(self) -> str:
        parts = (self.cells.tolist(), self.sums.tolist(), self.extremes.tolist())
        return f"Counts({self.grid!r}, {', '.join(map(str, parts))})"
