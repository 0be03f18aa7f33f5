"""The two-sample χ² test of a window's rows against the baseline's rows.

Two-sample, because the baseline is a sample too: taking 10,000 calibration rows as exact makes the
test fire at .98 for a nominal .05. It is a test of *rows*, which are not independent within a
window, so it describes one window on a page and pages nobody.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeml.statistics import Grid

Cells = NDArray[np.int64]

LEVEL = 0.05
POWER = 0.8
ROWS_A_GROUP = 5
"""Expected rows of the smaller sample in a group: the textbook minimum for the χ² tail."""
MAX_GROUPS = 16


class ChiSquare(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one test."""

    statistic: float
    dof: int
    p: float
    n: int
    """Rows of the window."""
    m: int
    """Rows of the baseline."""
    effect: float
    """√(statistic · (1/n + 1/m) / 2): Cohen's w scale for two samples; 0.1 small, 0.3 medium, 0.5
    large."""
    detectable: float
    """The smallest effect that this test finds at level .05 with power .8."""


def chi_square(grid: Grid, window: Cells, baseline: Cells) -> ChiSquare:
    """Test whether two count vectors on ``grid`` come from one distribution.

    Σ (√(m/n)·aᵢ − √(n/m)·bᵢ)² / (aᵢ + bᵢ) over groups of cells of near-equal mass, against χ² with
    groups − 1 degrees of freedom. The groups depend on the pooled counts only, and hence not on
    which rows came from which side.
    """
    n, m = int(window.sum()), int(baseline.sum())
    statistic, dof = chi_square_statistic(grid, window, baseline)
    if dof == 0:
        return ChiSquare(statistic=0.0, dof=0, p=1.0, n=n, m=m, effect=0.0, detectable=1.0)
    scale = (1 / n + 1 / m) / 2
    return ChiSquare(
        statistic=statistic,
        dof=dof,
        p=float(_special().chdtrc(dof, statistic)),
        n=n,
        m=m,
        effect=float(np.sqrt(statistic * scale)),
        detectable=detectable_effect(dof, n, m),
    )


def detectable_effect(dof: int, n: float, m: float) -> float:
    """The smallest Cohen's w that a test of so many degrees of freedom and rows finds at level
    :data:`LEVEL` with power :data:`POWER`."""
    return float(np.sqrt(_noncentrality(max(dof, 1)) * (1 / n + 1 / m) / 2))


def chi_square_statistic(grid: Grid, window: Cells, baseline: Cells) -> tuple[float, int]:
    """The statistic of :func:`chi_square` and its degrees of freedom, (0, 0) where a
    side is empty."""
    n, m = int(window.sum()), int(baseline.sum())
    if n == 0 or m == 0:
        return 0.0, 0
    a, b = _grouped(grid, window, baseline)
    ratio = np.sqrt(m / n)
    return float(np.sum((ratio * a - b / ratio) ** 2 / (a + b))), a.size - 1


def group_edges(masses: NDArray[np.int64], groups: int) -> NDArray[np.int64]:
    """First cell of each group, so that ordered cells fall into at most ``groups`` of near-equal
    mass."""
    before = np.cumsum(masses) - masses
    label = (2 * before + masses) * groups // max(2 * int(masses.sum()), 1)
    return np.flatnonzero(np.diff(label, prepend=-1))


def cell_groups(grid: Grid, window: Cells, baseline: Cells) -> NDArray[np.int64]:
    """The group of each cell, int64 [cells]: groups of near-equal mass along the line, each other
    cell for itself; −1 where nothing was counted on either side."""
    smaller = min(int(window.sum()), int(baseline.sum()))
    groups = min(max(smaller // ROWS_A_GROUP, 2), MAX_GROUPS)
    line, apart = grid.ordered, grid.unordered
    pooled = window + baseline
    if not line.size:  # categories, which merge along no line: common ones first
        line = np.argsort(-pooled, kind="stable")
        apart = line[:0]
    edges = group_edges(pooled[line], groups)
    labels = np.full(pooled.size, -1, dtype=np.int64)
    labels[line] = np.searchsorted(edges, np.arange(line.size), side="right") - 1
    labels[apart] = edges.size + np.arange(apart.size)
    used = np.bincount(labels, weights=pooled) > 0
    return np.where(used, np.cumsum(used) - 1, -1)[labels]


def _grouped(grid: Grid, window: Cells, baseline: Cells) -> tuple[Cells, Cells]:
    labels = cell_groups(grid, window, baseline)
    inside = labels >= 0
    a, b = (np.bincount(labels[inside], weights=side[inside]) for side in (window, baseline))
    return a.astype(np.int64), b.astype(np.int64)


@lru_cache(maxsize=256)
def _noncentrality(dof: int) -> float:
    """The noncentrality at which a χ² test of :data:`LEVEL` has :data:`POWER`."""
    critical = _special().chdtri(dof, LEVEL)
    return float(_special().chndtrinc(critical, dof, 1 - POWER))


@lru_cache(maxsize=1)
def _special() -> Any:
    """scipy.special: the χ² tails, without the half second that scipy.stats takes to load."""
    return import_module("scipy.special")
