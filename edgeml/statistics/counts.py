"""Counts on a grid: they add, they subtract, and nothing else is ever sent of the data.

Integers, so that merging devices, sliding a window and taking back a broken device's share are
exact in any order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgeml.errors import StatisticsError
from edgeml.statistics.grid import Grid


class Counts:
    """How many values fell in each cell of the grid with hash ``grid``.

    Args:
        grid: :attr:`edgeml.statistics.grid.Grid.hash`.
        cells: non-negative integers, one a cell.

    Raises:
        StatisticsError: a count is negative.
    """

    __slots__ = ("cells", "grid")

    def __init__(self, grid: str, cells: Sequence[int] | NDArray[np.int64]) -> None:
        self.grid = grid
        self.cells: NDArray[np.int64] = np.asarray(cells, dtype=np.int64)
        if self.cells.ndim != 1 or (self.cells < 0).any():
            raise StatisticsError(
                f"counts on grid {grid} of shape {self.cells.shape}, smallest "
                f"{self.cells.min(initial=0)}",
                expected="one non-negative integer a cell",
                remedy="Something was subtracted that had not been added.",
            )

    @classmethod
    def zeros(cls, grid: Grid) -> Counts:
        """The identity of addition on this grid."""
        return cls(grid.hash, np.zeros(grid.cells, dtype=np.int64))

    @classmethod
    def of(cls, grid: Grid, values: ArrayLike) -> Counts:
        """Count values of any shape."""
        return cls(grid.hash, np.bincount(grid.locate(values), minlength=grid.cells))

    @property
    def total(self) -> int:
        """How many values were counted."""
        return int(self.cells.sum())

    def _on_same_grid(self, other: Counts) -> None:
        if self.grid != other.grid or self.cells.shape != other.cells.shape:
            raise StatisticsError(
                f"counts on grid {other.grid} with {other.cells.size} cells",
                expected=f"grid {self.grid} with {self.cells.size} cells",
                remedy="Counts of two model versions do not merge: keep them apart.",
            )

    def __add__(self, other: Counts) -> Counts:
        self._on_same_grid(other)
        return Counts(self.grid, self.cells + other.cells)

    def __sub__(self, other: Counts) -> Counts:
        self._on_same_grid(other)
        return Counts(self.grid, self.cells - other.cells)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Counts):
            return NotImplemented
        return self.grid == other.grid and np.array_equal(self.cells, other.cells)

    __hash__ = None  # type: ignore[assignment]  # mutable inside

    def __repr__(self) -> str:
        return f"Counts({self.grid!r}, {self.cells.tolist()})"
