"""One test of two samples from their counts: location, scale, tails, shape and what is missing.

A χ² on counts sees any change of shape and is weak on small ones; a rank test of one direction has
all of its power there and none elsewhere. Their p-values are combined by the Cauchy combination
(Liu, Xie, "Cauchy combination test", 2020), whose tail holds whatever the dependence between them,
so one p-value has nearly the power of whichever of them fits the change.

Rows that have no value are no part of these: how many they are has a test of its own
(:mod:`edgeml.collector.drift.absent`).

Rows that depend on each other are worth fewer: each part is corrected by its own design effect
(:mod:`edgeml.collector.drift.dependence`) where counts of consecutive stretches are given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeml.collector.drift.absent import Absence, absent_cells, share_test
from edgeml.collector.drift.chi2 import cell_groups, chi_square_statistic
from edgeml.collector.drift.dependence import (
    INDEPENDENT,
    Spread,
    design_effect,
    spread_of_groups,
)
from edgeml.collector.drift.linear_rank import kurtosis, normal_scores, score_difference
from edgeml.statistics import Grid

Cells = NDArray[np.int64]
Floats = NDArray[np.float64]
Part = Literal["location", "scale", "tails", "shape"] | Absence

WEIGHTS: dict[Part, float] = {
    "location": 0.68,
    "scale": 0.05,
    "tails": 0.07,
    "shape": 0.20,
    "missing": 0.20,
    "not finite": 0.20,
}
"""Of the parts in the combination. A part of weight w that is alone in seeing a change sees it at
about w times the level, which costs much power where the change is barely seen and little
elsewhere. KS and Cramér-von Mises on the rows are at their best for shifts of the mean and weak on
all else, so most of the weight is there; the shape's is what a spike needs (a sensor that stands
still). These four were searched for the largest least ratio to the power of either test, by
simulation over the changes of benchmarks/drift_worlds.py. The other two take part only where rows
without a value are on either side, each with as much as the shape."""

LEAST_P = 1e-300
LEAST_ROWS = 50
"""Independent rows that dependent ones must be worth for their shape to be tested: with fewer, the
dependence of sixteen groups cannot be told from sixteen groups that changed (fired at .46)."""
LONGEST_TAIL = 0.5
"""Kurtosis of the mean score up to which it is taken for normal: two expected rows in a rare cell
that makes up the score, or 30 rows for a change of scale. With fewer the part is left out."""


class Test(msgspec.Struct, frozen=True, kw_only=True):
    """The result."""

    p: float
    """Of the combination: the probability of as much where nothing changed."""
    parts: dict[Part, float]
    """The p-value of each part that could be taken: categories have no direction, some parts take
    more rows than others, and nothing may be missing."""
    n: int
    """Rows of the window."""
    m: int
    """Rows of the baseline."""
    effective: dict[Part, tuple[float, float]]
    """Independent rows that those of window and baseline are worth to each part."""


def combined_test(
    grid: Grid,
    window: Cells,
    baseline: Cells,
    *,
    window_stretches: Cells | None = None,
    baseline_stretches: Cells | None = None,
) -> Test:
    """Test whether two count vectors on ``grid`` come from one distribution.

    Args:
        grid: of both.
        window: int64 [cells].
        baseline: int64 [cells].
        window_stretches: the same rows, counted in consecutive stretches of equal length, int64
            [k, cells]; None where the rows are independent or their order is unknown.
        baseline_stretches: as for the window; None where the baseline's rows are known to be
            independent. Where they are given, the larger dependence of the two sides is taken to
            hold for both.
    """
    n, m = int(window.sum()), int(baseline.sum())
    p_values: dict[Part, float] = {}
    effective: dict[Part, tuple[float, float]] = {}
    on_line = _on_line(grid, window), _on_line(grid, baseline)
    directions: tuple[Part, ...] = ("location", "scale", "tails")
    for part, scores in zip(directions, normal_scores(grid, window + baseline), strict=True):
        difference, variance = score_difference(scores, *on_line)
        if variance > 0:
            of_n, of_m = _design_effects(scores, window_stretches, baseline_stretches)
            effective[part] = max(n / of_n, 1.0), max(m / of_m, 1.0)
            share = of_n / int(on_line[0].sum()), of_m / int(on_line[1].sum())
            if kurtosis(scores, on_line[0] + on_line[1]) <= LONGEST_TAIL * min(effective[part]):
                p_values[part] = _two_sided(difference, variance, share)
    absent = absent_cells(grid)
    valued = _valued(absent, window), _valued(absent, baseline)
    statistic, dof = chi_square_statistic(grid, *valued)
    if dof:
        groups = cell_groups(grid, *valued)
        in_n, in_m = _spreads(groups, window_stretches, baseline_stretches)
        effective["shape"] = max(n / in_n.mean, 1.0), max(m / in_m.mean, 1.0)
        fewest = [min(rows) for rows in zip(*effective.values(), strict=True)]
        if fewest[0] >= min(LEAST_ROWS, n) and fewest[1] >= min(LEAST_ROWS, m):
            rows = int(valued[0].sum()), int(valued[1].sum())
            p_values["shape"] = _corrected_chi_square(statistic, dof, (in_n, in_m), rows)
    for absence, cells in absent.items():
        found = share_test(
            cells,
            window,
            baseline,
            window_stretches=window_stretches,
            baseline_stretches=baseline_stretches,
        )
        if found is not None:
            p_values[absence], effective[absence] = found
    return Test(
        p=cauchy_combination(list(p_values.values()), [WEIGHTS[part] for part in p_values]),
        parts=p_values,
        n=n,
        m=m,
        effective=effective,
    )


def cauchy_combination(p_values: Sequence[float], weights: Sequence[float]) -> float:
    """One p-value of several, of any dependence among them (Liu, Xie, 2020).

    Args:
        p_values: in [0, 1]; none at all gives 1.
        weights: positive, one a p-value; scaled to sum 1.
    """
    if not p_values:
        return 1.0
    p = np.clip(np.asarray(p_values, dtype=np.float64), LEAST_P, 1 - 1e-15)
    # tan((½ − p)π) without the loss of digits at small p.
    cotangent = 1 / np.tan(np.pi * p)
    share = np.asarray(weights, dtype=np.float64)
    total = float(share @ cotangent / share.sum())
    return float(np.arctan2(1.0, total) / np.pi)


def _valued(absent: Mapping[Absence, NDArray[np.int64]], cells: Cells) -> Cells:
    """Counts without those of rows that have no value."""
    found = cells.copy()
    for without in absent.values():
        found[without] = 0
    return found


def _on_line(grid: Grid, cells: Cells) -> Cells:
    line = np.zeros_like(cells)
    line[grid.ordered] = cells[grid.ordered]
    return line


def _design_effects(
    scores: Floats, window: Cells | None, baseline: Cells | None
) -> tuple[float, float]:
    of_n = 1.0 if window is None else design_effect(window, scores, stationary=False)
    if baseline is None:
        return of_n, 1.0
    # Where nothing changed, both come from one process: rows that were shuffled after they were
    # taken are not worth more for it.
    of_both = max(of_n, design_effect(baseline, scores, stationary=True))
    return of_both, of_both


def _spreads(
    groups: NDArray[np.int64], window: Cells | None, baseline: Cells | None
) -> tuple[Spread, Spread]:
    of_n = INDEPENDENT if window is None else spread_of_groups(window, groups, stationary=False)
    if baseline is None:
        return of_n, INDEPENDENT
    of_m = spread_of_groups(baseline, groups, stationary=True)
    of_both = max(of_n, of_m, key=lambda spread: spread.mean)
    return of_both, of_both


def _two_sided(difference: float, variance: float, share: tuple[float, float]) -> float:
    """Of the standardised difference, against t with the degrees of freedom that the effective
    numbers of rows leave (Satterthwaite, 1946)."""
    special: Any = import_module("scipy.special")
    # One over the effective number of rows is the share; of less than two nothing is known.
    freedom = sum(share) ** 2 / sum(one**2 / max(1 / max(one, 1e-12) - 1, 1.0) for one in share)
    z = abs(difference) / np.sqrt(variance * sum(share))
    return float(2 * special.stdtr(freedom, -z))


def _corrected_chi_square(
    statistic: float, dof: int, spreads: tuple[Spread, Spread], rows: tuple[int, int]
) -> float:
    """Rao and Scott's second-order correction: the statistic over the mean design effect, and fewer
    degrees of freedom where the effects are unlike."""
    special: Any = import_module("scipy.special")
    shares = [spread.mean / n for spread, n in zip(spreads, rows, strict=True)]
    mean = sum(shares) / sum(1 / n for n in rows)
    variation = float(np.average([spread.variation for spread in spreads], weights=shares))
    return float(special.chdtrc(dof / (1 + variation), statistic / (mean * (1 + variation))))
