"""One window of one stream as numbers that can be ranked among others of that stream.

Two windows are exchangeable only where they rest on equally many rows: the χ² statistic, JS and any
standardised mean move with n. So a window is first *thinned* to the same number of rows as every
other: a random subset without replacement, drawn on its counts (multivariate hypergeometric) with a
generator seeded from the window's key, so that a replay draws the same. Windows that are too small
are merged with the next ones before that. Both are in :mod:`edgeml.collector.drift.monitor`.

Two scores, since they see unlike faults: the two-sample χ² statistic over coarsened cells (any
change of shape; in simulations with real digits it separated mild faults twice as far as JS on fine
cells), and the signed mean (direction; it alone is quick on small shifts). Categories have no mean.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeml.collector.drift.chi2 import chi_square_statistic
from edgeml.collector.drift.effects import standard_mean
from edgeml.statistics import Grid

Cells = NDArray[np.int64]


class Score(msgspec.Struct, frozen=True):
    """Where a window stands."""

    distance: float
    """Two-sample χ² statistic of the thinned window against the baseline."""
    mean: float
    """Its mean less the baseline's, in standard deviations of the baseline; 0 for categories."""


def thin(cells: Cells, rows: int, seed: int) -> Cells:
    """A random subset of ``rows`` rows, without replacement, as counts.

    Raises:
        ValueError: there are fewer rows.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    return generator.multivariate_hypergeometric(cells, rows, method="marginals")


def score(grid: Grid, cells: Cells, baseline: Cells, *, rows: int, seed: int) -> Score:
    """Score ``cells`` [cells] after thinning to ``rows`` rows."""
    thinned = thin(cells, rows, seed)
    distance, _ = chi_square_statistic(grid, thinned, baseline)
    ordered = grid.kind == "numeric"
    return Score(distance, standard_mean(grid, thinned, baseline) if ordered else 0.0)


def detectors(grid: Grid) -> int:
    """How many directions of change a stream has: distance, and the mean's two."""
    return 3 if grid.kind == "numeric" else 1
