"""Windows of embeddings as numbers that can be ranked: a kernel distance, and a shift of the mean.

The counts are sums of random Fourier features (:mod:`edgeml.statistics.vector`), whose squared
distance of means is the square of a maximum mean discrepancy, MMD (Gretton and others, "A kernel
two-sample test", 2012). Sums cannot be thinned to equal rows; so the distance is the unbiased one,
which does not move with the number of rows, only its scatter does.

At the median bandwidth the kernel is nearly linear: most of an MMD, and of its noise, is how far
the mean moved, which random features know worse than the sum of the vectors that is sent beside
them. So the distance that is watched takes that part from the mean, and counts what is beyond it
more: it finds a shift of the mean as the exact MMD on the rows does, and correlations sooner
(docs/benchmarks.md).

A window is one vector of integers here, its cells and behind them its sums.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeml.statistics import Counts, Grid
from edgeml.statistics.grid import PROJECTIONS
from edgeml.statistics.vector import UNITY, projection

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

DISTANCE, MEAN = range(2)
DIRECTIONS = ((DISTANCE, 1), (MEAN, 1))

SCALE = 5.0
"""Effects are so many MMD², to be judged by the same minimum as bits of JS divergence: .05 is a
shift by .18 standard deviations along every axis, or a common cause that makes the axes correlate
by .33 (measured on normal vectors of 8 to 512 dimensions)."""

BEYOND = 1.5
"""What is beyond the mean counts so many times. Simulated on normal vectors of 32 dimensions, 300
and 1,000 of them: at 1, 1.5, 2 and 3 a mean that moved is found at 1.00, .99, .98 and .93 of the
rate at 1, and neighbours that correlate by .3 at 1.0, 1.6, 2.3 and 3.4 of it."""


class VectorScorer:
    """Scores windows of vectors against the training data.

    Args:
        grid: a vector grid.
        baseline: of the training data.
    """

    def __init__(self, grid: Grid, baseline: Counts) -> None:
        self._grid = grid
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

        The first is the signed root of :func:`distance_squared`, the second the distance of the
        means in ranges of a component, over the root of the dimensions.
        """
        if window[0] < 2:
            return np.full(2, np.nan)
        squared = distance_squared(self._grid, window, self._baseline)
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


def distance_squared(grid: Grid, window: Integers, reference: Integers) -> float:
    """The unbiased MMD², with the linear part of its kernel from the mean vectors and what is
    beyond that counted :data:`BEYOND` times.

    For a small step s of the mean the characteristic function φ(w) of the vectors turns by w·s,
    that is by φ(w)·w·s at right angles to it. That is taken out of the features, and in its place
    comes φ²·|s|²/bandwidth², φ² averaged: what its square is over all w, without the scatter of 128
    of them.

    What of it is noise follows from |cos + i·sin| = 1, and for the linear part from
    −2·log|φ(w)| being the variance of w·x where projections are normal, which those of many
    dimensions nearly are (Diaconis, Freedman, 1984). Elsewhere a small bias over n is left.

    Args:
        grid: a vector grid.
        window: cells and sums.
        reference: cells and sums; the phases are taken about its mean.
    """
    drawn = projection(grid.bins, grid.bandwidth, grid.seed)
    n, m = (max(int(side[0]), 2) for side in (window, reference))
    (f, mean), (g, middle) = (_means(grid, side) for side in (window, reference))
    step = mean - middle
    gap = (f - g) * np.exp(-1j * (middle @ drawn))
    size = np.clip(np.abs(n * f + m * g) / (n + m), 1e-6, 1.0)
    beyond = np.abs(gap - 1j * size * (step @ drawn)) ** 2
    power, variance = size**2, -2 * np.log(size)
    linear = power.mean() * (step @ step) / grid.bandwidth**2
    noise = power.mean() * variance.mean() + BEYOND * (1 - power - power * variance).mean()
    return float(linear + BEYOND * beyond.mean() - noise * (1 / (n - 1) + 1 / (m - 1)))


def _means(grid: Grid, side: Integers) -> tuple[NDArray[np.complex128], Floats]:
    """Mean exp(i·w·x) of each projection [128], and mean vector [dimensions]."""
    mean = side[grid.cells :] / (max(int(side[0]), 1) * UNITY)
    cosine, sine, vector = np.split(mean, [PROJECTIONS, 2 * PROJECTIONS])
    return cosine + 1j * sine, grid.low + vector * (grid.high - grid.low)


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
