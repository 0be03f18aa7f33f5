"""One window against its baseline in a few signed numbers that can be compared between devices:
what peers have in common is a median of these, and how far a statistic moved is said in them.

Unlike the scores that evidence is built on, they are not thinned to equal rows: the mean and the
spread do not move with the number of rows, and the distance has its excess taken off.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeml.collector.drift.effects import baseline_scale, excess_js, standard_mean
from edgeml.collector.drift.peers import Scores
from edgeml.statistics import Grid

Cells = NDArray[np.int64]

DISTANCE, MEAN, SPREAD = range(3)

_BITS_OF_A_SHIFT = 1 / (8 * np.log(2))
"""JS of a normal variable shifted by δ standard deviations is about this times δ², in bits."""


def moments(grid: Grid, cells: Cells, baseline: Cells) -> Scores:
    """Where a window [cells] stands against its baseline [cells].

    Returns:
        The distance (excess JS divergence, bits), and of values on a line also the shift of the
        mean in standard deviations of the baseline and the natural logarithm of the ratio of the
        standard deviations.
    """
    distance = float(excess_js(cells, baseline))
    if not grid.ordered.size:
        return (distance,)
    return (distance, standard_mean(grid, cells, baseline), log_spread(grid, cells, baseline))


def log_spread(grid: Grid, cells: Cells, baseline: Cells) -> float:
    """Logarithm of the ratio of the standard deviations; each at least as a bin is wide, so that a
    constant is finitely far from anything. 0 where no value was valid."""
    if not cells[grid.ordered].any():
        return 0.0
    return float(np.log(baseline_scale(grid, cells)[1] / baseline_scale(grid, baseline)[1]))


def least_moments(ordered: bool, min_effect: float) -> Scores:
    """How far each of :func:`moments` has to move to be worth ``min_effect`` bits: to first order
    JS is δ²/(8 ln 2) for a shift of a normal variable by δ, and 2ρ²/(8 ln 2) for a logarithm of its
    spread that changes by ρ (half the Fisher information, a quarter: Lin, 1991)."""
    if not ordered:
        return (min_effect,)
    shift = float(np.sqrt(min_effect / _BITS_OF_A_SHIFT))
    return (min_effect, shift, shift / float(np.sqrt(2)))
