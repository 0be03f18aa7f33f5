"""One window of one stream as numbers that can be ranked among others of that stream.

Two windows are exchangeable only where they rest on equally many rows: the χ² statistic, JS and any
standardised mean move with n. So a window is first *thinned* to the same number of rows as every
other: a random subset without replacement, drawn on its counts (multivariate hypergeometric) with a
generator seeded from the window's key, so that a replay draws the same. Windows that are too small
are merged with the next ones before that. Both are in :mod:`edgeml.collector.drift.monitor`.

Three scores, since they see unlike faults. The *distance* is the two-sample χ² statistic against
the training data over groups of near-equal mass: any change of shape. *Mean* and *spread* have a
sign: they alone are quick on small shifts, and on a sensor that grows noisier or falls asleep.
Categories have a distance only.
"""

from __future__ import annotations

from typing import Protocol
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from edgeml.collector.drift.chi2 import MAX_GROUPS, ROWS_A_GROUP, group_edges
from edgeml.collector.drift.effects import baseline_scale, excess_js
from edgeml.collector.drift.vectors import DIRECTIONS as VECTOR_DIRECTIONS
from edgeml.collector.drift.vectors import VectorScorer
from edgeml.statistics import Counts, Grid

Cells = NDArray[np.int64]
Floats = NDArray[np.float64]

DISTANCE, MEAN, SPREAD = range(3)
INEXHAUSTIBLE = 1_000_000_000
"""Rows, so many that it is the same whether those that were drawn are put back; and more than NumPy
draws without."""
NARROWEST = 1e-9
"""Of a bin, in deviations: two of denormal numbers may lie nowhere apart."""
SQUARABLE = 1e100
"""Deviations of the training data beyond it, or below its inverse, are taken as the unit."""
NUMERIC_DIRECTIONS = ((DISTANCE, 1), (MEAN, 1), (MEAN, -1), (SPREAD, 1), (SPREAD, -1))
"""Which score, and which way it may move, each a direction that evidence is gathered for."""
CATEGORICAL_DIRECTIONS = ((DISTANCE, 1),)
DIRECTIONS = {
    len({which for which, _ in directions}): directions
    for directions in (CATEGORICAL_DIRECTIONS, VECTOR_DIRECTIONS, NUMERIC_DIRECTIONS)
}
"""By how many scores a window has: a stream's kind shows in it."""


class Scorer(Protocol):
    """Scores windows of one kind of stream, each a vector of integers, against the training
    data."""

    @property
    def directions(self) -> tuple[tuple[int, int], ...]:
        """In which directions these scores may drift."""
        ...

    def thin(self, window: Cells, rows: int, seed: int) -> Cells:
        """The window as if it had ``rows`` rows, where counts can do that."""
        ...

    def scores(self, window: Cells) -> Floats:
        """Where the window stands."""
        ...

    def effect(self, window: Cells, reference: Cells) -> float:
        """How far two windows are apart, whatever their rows: what a minimum effect is of."""
        ...

    def least(self, min_effect: float) -> tuple[float, ...]:
        """How far each score has to move to be worth ``min_effect``."""
        ...

    def merged(self, several: Floats) -> Floats:
        """What windows with these scores [windows, scores] would score if they were merged, going
        by their expectation."""
        ...


def scorer(grid: Grid, baseline: Counts, rows: int) -> Scorer:
    """The scorer of a grid's kind, for windows of ``rows`` rows."""
    if grid.kind == "vector":
        return VectorScorer(grid, baseline)
    return CellScorer(grid, baseline.cells, rows)


class Scorers:
    """The scorers of one statistic by the rows of a window, each made once for all devices whose
    windows have as many.

    Args:
        grid: of the stream.
        baseline: of the training data.
    """

    def __init__(self, grid: Grid, baseline: Counts) -> None:
        self._grid = grid
        self._baseline = baseline
        self._made: WeakValueDictionary[int, Scorer] = WeakValueDictionary()

    def of(self, rows: int) -> Scorer:
        """For windows of ``rows`` rows."""
        found = self._made.get(rows)
        if found is None:
            found = self._made[rows] = scorer(self._grid, self._baseline, rows)
        return found


def numbers(grid: Grid, counts: Counts) -> Cells:
    """A window as the vector of integers that its scorer takes: its cells, and of vectors its sums
    behind them."""
    return np.concatenate([counts.cells, counts.sums]) if grid.kind == "vector" else counts.cells


def rows_of(grid: Grid, window: Cells) -> int:
    """Rows of a window."""
    return int(window[: grid.cells].sum())


class CellScorer:
    """Scores windows of ``rows`` rows against the training data.

    Args:
        grid: of the stream.
        baseline: int64 [cells], of the training data.
        rows: of every window that will be scored.
    """

    def __init__(self, grid: Grid, baseline: Cells, rows: int) -> None:
        self._rows = rows
        self._ordered = grid.ordered
        self._centres = grid.centres()
        self._order = np.concatenate([grid.ordered, grid.unordered])
        if not grid.ordered.size:  # categories: the common ones first
            self._order = np.argsort(-baseline, kind="stable")
        groups = min(max(rows // ROWS_A_GROUP, 2), MAX_GROUPS)
        on_line = baseline[self._order[: grid.ordered.size or None]]
        apart = np.arange(on_line.size, baseline.size)
        # A cell that training left empty weighs a little: a group can be made of such cells.
        self._edges = np.append(group_edges(2 * on_line + 1, groups), apart)
        self._baseline = self._grouped(baseline)
        self._total = int(baseline.sum())
        self.degrees = max(int((self._baseline > 0).sum()) - 1, 1)
        """Of freedom of the distance: groups that the training data is in, less one."""
        self._mean, self._deviation = (0.0, 1.0)
        if self._ordered.size:
            mean, deviation = baseline_scale(grid, baseline)
            # What is squared below would not fit into a float64.
            unit = 1.0 if 1 / SQUARABLE < deviation < SQUARABLE else deviation
            self._centres = self._centres / unit
            self._mean, self._deviation = mean / unit, deviation / unit
            least = float(np.diff(self._centres).min(initial=self._deviation))
            self._bin = max(least, NARROWEST * self._deviation)

    @property
    def directions(self) -> tuple[tuple[int, int], ...]:
        """In which directions these scores may drift."""
        return NUMERIC_DIRECTIONS if self._ordered.size else CATEGORICAL_DIRECTIONS

    def thin(self, window: Cells, rows: int, seed: int) -> Cells:
        """A random subset of ``rows`` rows, without replacement, as counts.

        Raises:
            ValueError: there are fewer rows.
        """
        generator = np.random.Generator(np.random.PCG64(seed))
        total = int(window.sum())
        if total >= INEXHAUSTIBLE:
            return generator.multinomial(rows, window / total)
        return generator.multivariate_hypergeometric(window, rows, method="marginals")

    def effect(self, window: Cells, reference: Cells) -> float:
        """Excess JS divergence, bits."""
        return excess_js(window, reference)

    def scores(self, window: Cells) -> Floats:
        """Distance, mean and spread of a window [cells]; NaN where no value is on the line.

        The distance is (χ²/degrees)^⅓, close to normal (Wilson, Hilferty, 1931). The mean is in
        standard deviations of the training data from its mean, the spread the logarithm of the
        window's standard deviation over the training data's.
        """
        a, b = self._grouped(window), self._baseline
        n, m = max(int(window.sum()), 1), max(self._total, 1)
        ratio = np.sqrt(m / n)
        pooled = a + b
        terms = (ratio * a - b / ratio) ** 2 / np.maximum(pooled, 1)
        distance = float((terms.sum() / self.degrees) ** (1 / 3))
        if not self._ordered.size:
            return np.array([distance])
        weights = window[self._ordered]
        valid = int(weights.sum())
        if not valid:
            return np.array([distance, np.nan, np.nan])
        mean = float(weights @ self._centres) / valid
        variance = float(weights @ (self._centres - mean) ** 2) / valid
        spread = 0.5 * np.log((variance + self._bin**2 / 4) / (self._deviation**2))
        return np.array([distance, (mean - self._mean) / self._deviation, spread])

    def least(self, min_effect: float) -> tuple[float, ...]:
        """How far each score has to move to be worth ``min_effect`` bits of JS divergence.

        To first order JS is χ²·(1/n + 1/m)/8 nats, δ²/8 for a shift of a normal variable by δ, and
        ρ²/4 for a logarithm of its spread that changes by ρ (half the Fisher information, a
        quarter: Lin, 1991).
        """
        nats = min_effect * float(np.log(2))
        rows, m = self._rows, max(self._total, 1)
        distance = (1 + 8 * nats * rows * m / (rows + m) / self.degrees) ** (1 / 3) - 1
        if not self._ordered.size:
            return (distance,)
        return (distance, float(np.sqrt(8 * nats)), float(np.sqrt(4 * nats)))

    def merged(self, several: Floats) -> Floats:
        """What windows with these scores [windows, scores] would score if they were merged, going
        by their expectation: means average, and what a χ² of n rows against m has in excess of its
        degrees of freedom grows with n·m/(n + m)."""
        result = several.mean(axis=0)
        rows, m = self._rows * len(several), max(self._total, 1)
        growth = rows / self._rows * (self._rows + m) / (rows + m)
        excess = float((several[:, DISTANCE] ** 3).mean()) - 1
        result[DISTANCE] = max(1 + growth * excess, 0.0) ** (1 / 3)
        return result

    def _grouped(self, cells: Cells) -> Cells:
        return np.add.reduceat(cells[self._order], self._edges)
