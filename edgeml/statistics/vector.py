"""Where vectors fall: sums of random Fourier features, and of the vector itself.

The mean of cos(Wx) and sin(Wx), W Gaussian (Rahimi, Recht, "Random features for large-scale kernel
machines", 2007), is linear in the data: it merges, and the squared distance of two such means is a
kernel two-sample statistic, an MMD (Gretton and others, 2012). The bandwidth is the median distance
of the calibration vectors. The mean of the vector itself goes beside it.

All are fixed-point integers. Adding is exact; the projection of one vector may differ between two
processors, or two sizes of batch, by the rounding of float64, and then a sum by one unit, about
once in 10¹² numbers.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgeml.statistics.counts import Counts
from edgeml.statistics.grid import PROJECTIONS, Grid

Matrix = NDArray[np.float64]

UNITY = 4096
"""Fixed-point units of a cosine of 1, and of the range of a vector's components."""

ROWS = 256
"""Vectors that are projected at a time."""


@lru_cache(maxsize=8)
def projection(dimensions: int, bandwidth: float, seed: int) -> Matrix:
    """W, float64 [dimensions, 128], standard normal over the bandwidth.

    From NumPy's ``RandomState``, whose numbers are frozen: a device with another NumPy draws the
    same ones.
    """
    drawn = np.random.RandomState(seed).standard_normal((dimensions, PROJECTIONS))
    return drawn / bandwidth


class VectorTally:
    """Counts a stream of vectors, as they come. Not thread-safe."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._projection = projection(grid.bins, grid.bandwidth, grid.seed)
        self._counts = Counts.zeros(grid)

    def add(self, vectors: ArrayLike) -> None:
        """Take in vectors [n, dimensions]; one that is not finite throughout is counted as such."""
        found = np.asarray(vectors, dtype=np.float64).reshape(-1, self._grid.bins)
        cells = locate(self._grid, found)
        self._counts.cells += np.bincount(cells, minlength=2)
        whole = found[cells == 0] if cells.any() else found
        for start in range(0, len(whole), ROWS):
            self._add(whole[start : start + ROWS])

    def _add(self, vectors: Matrix) -> None:
        # Huge components would make an infinite angle: the clipped ones are far out all the same.
        middle, span = (self._grid.low + self._grid.high) / 2, self._grid.high - self._grid.low
        clipped = np.clip(vectors, middle - 1.5 * span, middle + 1.5 * span)
        angles = clipped @ self._projection
        terms = (np.cos(angles), np.sin(angles), (clipped - self._grid.low) / span)
        added = [np.rint(term * UNITY).sum(axis=0).astype(np.int64) for term in terms]
        self._counts.sums += np.concatenate(added)

    def take(self) -> Counts:
        """The counts since the last call, and start anew."""
        taken, self._counts = self._counts, Counts.zeros(self._grid)
        return taken


def locate(grid: Grid, vectors: ArrayLike) -> NDArray[np.int64]:
    """0 for each vector that is finite, 1 for another one."""
    found = np.asarray(vectors, dtype=np.float64).reshape(-1, grid.bins)
    return np.where(np.isfinite(found).all(axis=1), 0, 1).astype(np.int64)


def means(grid: Grid, counts: Counts) -> tuple[Matrix, Matrix]:
    """Mean Fourier features [256] and mean vector [dimensions] of what was counted; zeros of
    nothing."""
    mean = counts.sums / (max(int(counts.cells[0]), 1) * UNITY)
    features, vector = mean[: 2 * PROJECTIONS], mean[2 * PROJECTIONS :]
    return features, grid.low + vector * (grid.high - grid.low)
