"""Linear rank statistics on counts: has the middle moved, the spread changed, the tails grown?

Ranks of binned values are known up to ties within a cell, and ties get their mid-rank, so a rank
test of two samples needs their counts only. The scores are those of van der Waerden (1952) for
location and of Klotz (1962) for scale: Φ⁻¹ of the mid-rank and its square, made orthogonal, which
lose nothing against the tests of mean and variance where the values are Gaussian and gain elsewhere
(Chernoff, Savage, 1958). What |Φ⁻¹| has beside both tells heavier tails from a larger spread, as
Geary's ratio of the mean deviation to the standard deviation does (1935). The fourth power sees as
much, but has so long a tail itself that a hundred rows fired at .02 for a nominal .004.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml.statistics import Grid

Cells = NDArray[np.int64]
Floats = NDArray[np.float64]

LEAST = 1e-9
"""Share of a score's square that must be left of it beside the earlier ones."""


def normal_scores(grid: Grid, pooled: Cells) -> Floats:
    """Scores of location, scale and tails.

    Args:
        grid: of the counts.
        pooled: both samples' counts together, int64 [cells]: the scores depend on nothing else, and
            hence not on which rows came from which side.

    Returns:
        float64 [3, cells], each with mean 0 over the pooled values that lie on the line, and 0 in
        the cells that do not. The k-th score that is not all 0 takes k + 1 cells of the line that
        are in use.
    """
    special: Any = import_module("scipy.special")  # not scipy.stats: half a second to load
    counts = pooled[grid.ordered]
    total = max(int(counts.sum()), 1)
    rank = (np.cumsum(counts) - counts / 2) / total
    used = counts > 0
    normal = special.ndtri(np.where(used, rank, 0.5))
    directions = np.where(used, (normal, normal**2, np.abs(normal)), 0.0)
    found = np.zeros_like(directions)
    for row, direction in enumerate(directions):
        score = np.where(used, direction - counts @ direction / total, 0.0)
        for earlier in found[:row]:
            square = counts @ earlier**2
            if square > 0:
                score -= earlier * (counts @ (earlier * score) / square)
        # What is left of a direction by rounding alone is no score.
        if counts @ score**2 > LEAST * (counts @ direction**2):
            found[row] = score
    scores = np.zeros((len(directions), grid.cells))
    scores[:, grid.ordered] = found
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


def kurtosis(scores: Floats, pooled: Cells) -> float:
    """Fourth moment of one row's score over the square of its second: 3 of a normal one, 1/share of
    one that tells nothing but whether a row is in a cell of that small share. 0 where the scores
    are all alike.

    Args:
        scores: with mean 0, float64 [cells].
        pooled: of both samples, int64 [cells], 0 off the line.
    """
    square = float(pooled @ scores**2)
    return int(pooled.sum()) * float(pooled @ scores**4) / square**2 if square > 0 else 0.0
