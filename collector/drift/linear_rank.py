"""Linear rank statistics on counts: has the middle moved, has the spread changed?

Ranks of binned values are known up to ties within a cell, and ties get their mid-rank, so a rank
test of two samples needs their counts only. The scores are those of van der Waerden (1952) for
location and of Klotz (1962) for scale: Φ⁻¹ of the mid-rank and its square, made orthogonal, which
lose nothing against the tests of mean and variance where the values are Gaussian and gain elsewhere
(Chernoff, Savage, 1958).
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml.statistics import Grid

Cells = NDArray[np.int64]
Floats = NDArray[np.float64]


def normal_scores(grid: Grid, pooled: Cells) -> Floats:
    """Scores of location and scale.

    Args:
        grid: of the counts.
        pooled: both samples' counts together, int64 [cells]: the scores depend on nothing else, and
            hence not on which rows came from which side.

    Returns:
        float64 [2, cells], each with mean 0 over the pooled values that lie on the line, and 0 in
        the cells that do not. All 0 where fewer than two cells of the line are in use; the scores
        of scale, where fewer than three are.
    """
    special: Any = import_module("scipy.special")  # not scipy.stats: half a second to load
    counts = pooled[grid.ordered]
    total = max(int(counts.sum()), 1)
    rank = (np.cumsum(counts) - counts / 2) / total
    used = counts > 0
    first = np.where(used, special.ndtri(np.where(used, rank, 0.5)), 0.0)
    first = np.where(used, first - counts @ first / total, 0.0)
    second = first**2
    second = np.where(used, second - counts @ second / total, 0.0)
    power = counts @ first**2
    if power > 0:
        second -= first * (counts @ (first * second)) / power
    # What is left of the second by rounding alone is no score.
    if counts @ second**2 <= 1e-9 * total:
        second[:] = 0.0
    scores = np.zeros((2, grid.cells))
    scores[:, grid.ordered] = first, second
    return scores


def score_difference(scores: Floats, window: Cells, baseline: Cells) -> tuple[float, float]:
    """The difference of the mean scores and the variance of one row's score.

    The variance is that of a draw without replacement from both samples together, so the difference
    over √(variance·(1/n + 1/m)) is the exactly standardised rank statistic under the hypothesis of
    one distribution.

    Returns:
        (difference, variance); (0, 0) where a side has no row or the scores are all alike.
    """
    n, m = int(window.sum()), int(baseline.sum())
    if not n or not m or n + m < 3:
        return 0.0, 0.0
    pooled = window + baseline
    variance = float(pooled @ scores**2) / (n + m - 1)
    return float(window @ scores) / n - float(baseline @ scores) / m, variance
