"""Counts of consecutive stretches of rows, of any number of rows, in a fixed amount of memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MOST = 128
"""Stretches that are kept: when all are full, each two neighbours become one of twice the length.
So there are 64 to 128 of them from 128 rows on."""

Cells = NDArray[np.int64]


class Stretches:
    """Counts rows as they come.

    Args:
        cells: of the grid.
    """

    def __init__(self, cells: int) -> None:
        self._table = np.zeros((MOST, cells), dtype=np.int64)
        self._length = 1
        self.rows = 0

    def add(self, cells: Cells) -> None:
        """Count the next rows: int64 [rows], the cell of each."""
        while self.rows + len(cells) > MOST * self._length:
            half = self._table[::2] + self._table[1::2]
            self._table[: MOST // 2], self._table[MOST // 2 :] = half, 0
            self._length *= 2
        width = self._table.shape[1]
        stretch = (self.rows + np.arange(len(cells))) // self._length
        flat = np.bincount(stretch * width + cells, minlength=self._table.size)
        self._table += flat.reshape(self._table.shape)
        self.rows += len(cells)

    @property
    def total(self) -> Cells:
        """Counts of all rows, int64 [cells]."""
        return self._table.sum(axis=0)

    @property
    def complete(self) -> Cells:
        """Counts of the stretches that are full, int64 [k, cells]; all of one length."""
        return self._table[: self.rows // self._length]
