"""Windows of embeddings as numbers that can be ranked: a kernel distance, and a shift of the mean.

The counts are sums of random Fourier features (:mod:`edgeml.statistics.vector`), whose squared
distance of means is the square of a maximum mean discrepancy, MMD (Gretton and others, "A kernel
two-sample test", 2012). Sums cannot be thinned to equal rows; so the distance is the unbiased one,
which does not move with the number of rows, only its scatter does.

A window is one vector of integers here, its cells and behind them its sums.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeml.statistics import Counts, Grid
from edgeml.statistics.grid import PROJECTIONS
from edgeml.statistics.vector import UNITY

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

DISTANCE, MEAN = range(2)
DIRECTIONS = ((DISTANCE, 1), (MEAN, 1))

SCALE = 5.0
"""Effects are so many MMD², to be judged by the same minimum as bits of JS divergence: .05 is a
shift by .18 standard deviations along every axis, or a common cause that makes the axes correlate
by .33 (measured on normal vectors of 8 to 512 dimensions)."""


class VectorScorer:
    """Scores windows of vectors against the training data.

    Args:
        grid: a vector grid.
        baseline: of the training data.
    """

    def __init__(self, grid: Grid, baseline: Counts) -> None:
        self._cells = grid.cells
        self._baseline = np.concatenate([baseline.cells, baseline.sums])

    @property
    def directions(self) -> tuple[tuple[int, int], ...]:
        """In which directions these scores may drift."""
        return DIRECTIONS

    def thin(self, window: Integers, rows: int, seed: int) -> Integers:  # noqa: ARG002
        """The window as it is: see above."""
        return window

    def scores(self, window: Integers) -> Floats:
        """Kernel distance and distance of the mean vectors; NaN where no vector was finite.

        The first is the signed root of the unbiased MMD², the second the distance of the means in
        ranges of a component, over the root of the dimensions.
        """
        if window[0] < 2:
            return np.full(2, np.nan)
        squared = mmd_squared(window, self._baseline, cells=self._cells)
        gap = self._mean(window) - self._mean(self._baseline)
        mean = float(np.sqrt(gap @ gap / max(gap.size, 1)))
        return np.array([np.sign(squared) * np.sqrt(abs(squared)), mean])

    def effect(self, window: Integers, reference: Integers) -> float:
        """The unbiased MMD² times :data:`SCALE`, at least 0."""
        return SCALE * max(mmd_squared(window, reference, cells=self._cells), 0.0)

    def least(self, min_effect: float) -> tuple[float, ...]:
        """How far each score has to move to be worth ``min_effect``."""
        moved = float(np.sqrt(min_effect / SCALE))
        return (moved, moved)

    def merged(self, several: Floats) -> Floats:
        """What windows with these scores [windows, scores] would score if they were merged: an
        unbiased square averages."""
        result = several.mean(axis=0)
        squared = float((np.sign(several[:, DISTANCE]) * several[:, DISTANCE] ** 2).mean())
        result[DISTANCE] = np.sign(squared) * np.sqrt(abs(squared))
        return result

    def _mean(self, window: Integers) -> Floats:
        sums = window[self._cells + 2 * PROJECTIONS :]
        return sums / (max(int(window[0]), 1) * UNITY)


def mmd_squared(a: Integers, b: Integers, *, cells: int) -> float:
    """The unbiased estimate of the squared MMD of two windows, by their Fourier features.

    A sample's features, 128 cosines and as many sines over √128, have norm 1; hence the square of a
    mean over n of them is too large by (1 − its own square)/(n − 1) on average.
    """
    features = slice(cells, cells + 2 * PROJECTIONS)
    n, m = max(int(a[0]), 2), max(int(b[0]), 2)
    one, two = (w[features] / (r * UNITY * np.sqrt(PROJECTIONS)) for w, r in ((a, n), (b, m)))
    gap = one - two
    excess = (1 - one @ one) / (n - 1) + (1 - two @ two) / (m - 1)
    return float(gap @ gap - excess)
