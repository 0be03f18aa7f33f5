"""The two-sample χ² test of a window's rows against the baseline's rows.

Two-sample, because the baseline is a sample too: taking 10,000 calibration rows as exact makes the
test fire at .98 for a nominal .05. It is a test of *rows*, which are not independent within a
window, so it describes one window on a page and pages nobody.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from math import sqrt
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
FEW_ROWS = 1
"""Groups of fewer expected rows are taken together (Cochran, 1954)."""
NO_ROWS = 0.18
"""Where all of those have fewer together, a single row by chance would be a difference of
(1 − .18)² / .18 = 3.8, which one degree of freedom exceeds at 5 %: they are no group."""
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
    return chi_squares(grid, window[None, :], baseline)[0]


def chi_squares(grid: Grid, windows: Cells, baseline: Cells) -> list[ChiSquare]:
    """:func:`chi_square` of many windows [windows, cells] against one baseline [cells]."""
    statistics, dofs = _statistics(grid, windows, baseline)
    tails = _special().chdtrc(np.maximum(dofs, 1), statistics)
    rows, m = windows.sum(axis=1).tolist(), int(baseline.sum())
    return [
        ChiSquare(
            statistic=statistic,
            dof=dof,
            p=p,
            n=n,
            m=m,
            effect=sqrt(statistic * (1 / n + 1 / m) / 2),
            detectable=detectable_effect(dof, n, m),
        )
        if dof
        else ChiSquare(statistic=0.0, dof=0, p=1.0, n=n, m=m, effect=0.0, detectable=1.0)
        for statistic, dof, p, n in zip(
            statistics.tolist(), dofs.tolist(), tails.tolist(), rows, strict=True
        )
    ]


def detectable_effect(dof: int, n: float, m: float) -> float:
    """The smallest Cohen's w that a test of so many degrees of freedom and rows finds at level
    :data:`LEVEL` with power :data:`POWER`."""
    return sqrt(_noncentrality(max(dof, 1)) * (1 / n + 1 / m) / 2)


def chi_square_statistic(grid: Grid, window: Cells, baseline: Cells) -> tuple[float, int]:
    """The statistic of :func:`chi_square` and its degrees of freedom, (0, 0) where a
    side is empty."""
    statistics, dofs = _statistics(grid, window[None, :], baseline)
    return float(statistics[0]), int(dofs[0])


def _statistics(
    grid: Grid, windows: Cells, baseline: Cells
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The same of many windows [windows, cells], each [windows]."""
    n, m = windows.sum(axis=1), max(int(baseline.sum()), 1)
    labels = _groups(grid, windows, baseline)
    a, b = (_by_group(labels, np.broadcast_to(side, labels.shape)) for side in (windows, baseline))
    ratio = np.sqrt(m / np.maximum(n, 1))[:, None]
    terms = (ratio * a - b / ratio) ** 2 / np.maximum(a + b, 1)
    possible = (n > 0) & baseline.any()
    dofs = np.where(possible, np.maximum(labels.max(axis=1), 0), 0)
    return np.where(possible, terms.sum(axis=1), 0.0), dofs


def group_edges(masses: NDArray[np.int64], groups: int) -> NDArray[np.int64]:
    """First cell of each group, so that ordered cells fall into at most ``groups`` of near-equal
    mass."""
    before = np.cumsum(masses) - masses
    label = (2 * before + masses) * groups // max(2 * int(masses.sum()), 1)
    return np.flatnonzero(np.diff(label, prepend=-1))


def cell_groups(grid: Grid, window: Cells, baseline: Cells) -> NDArray[np.int64]:
    """The group of each cell, int64 [cells]: groups of near-equal mass along the line, each other
    cell for itself; −1 where nothing was counted on either side."""
    return _groups(grid, window[None, :], baseline)[0]


def _groups(grid: Grid, windows: Cells, baseline: Cells) -> NDArray[np.int64]:
    """The same of many windows: int64 [windows, cells]."""
    pooled = windows + baseline
    smaller = np.minimum(windows.sum(axis=1), baseline.sum())
    groups = np.minimum(np.maximum(smaller // ROWS_A_GROUP, 2), MAX_GROUPS)
    on_line = grid.ordered.size or pooled.shape[1]
    if grid.ordered.size:
        order = np.broadcast_to(np.concatenate([grid.ordered, grid.unordered]), pooled.shape)
    else:  # categories, which merge along no line: common ones first
        order = np.argsort(-pooled, axis=1, kind="stable")
    masses = np.take_along_axis(pooled, order, axis=1)
    labels = np.empty_like(masses)
    line = masses[:, :on_line]
    expected = smaller / np.maximum(pooled.sum(axis=1), 1)
    labels[:, :on_line] = _without_small(
        _line_groups(line, groups[:, None]), line, expected[:, None]
    )
    apart = np.arange(1, masses.shape[1] - on_line + 1, dtype=np.int64)
    # Behind all of the line's: its last cell may have gone to an earlier group.
    labels[:, on_line:] = labels[:, :on_line].max(axis=1, keepdims=True) + apart
    used = _by_group(labels, masses) > 0
    numbered = np.where(used, np.cumsum(used, axis=1) - 1, -1)
    found = np.empty_like(labels)
    np.put_along_axis(found, order, np.take_along_axis(numbered, labels, axis=1), axis=1)
    return found


def _line_groups(masses: Cells, groups: Cells) -> NDArray[np.int64]:
    """The group of each cell along a line, [windows, cells]: see :func:`group_edges`."""
    through = np.cumsum(masses, axis=1)
    labels = (2 * through - masses) * groups // np.maximum(2 * through[:, -1:], 1)
    return np.cumsum(np.diff(labels, axis=1, prepend=-1) != 0, axis=1) - 1


def _without_small(labels: Cells, masses: Cells, expected: NDArray[np.float64]) -> Cells:
    """Labels [windows, cells] with all groups of fewer than :data:`FEW_ROWS` as one, or where these
    are fewer than :data:`NO_ROWS` as a part of the largest; ``expected`` rows of the smaller sample
    for each that was counted [windows, 1]."""
    rows = _by_group(labels, masses) * expected
    small = rows < FEW_ROWS
    if not (small & (rows > 0)).any():
        return labels
    some = np.where(small, rows, 0).sum(axis=1) >= NO_ROWS
    first: NDArray[np.int64] = (small & (rows > 0)).argmax(axis=1)
    largest: NDArray[np.int64] = rows.argmax(axis=1)
    into = np.where(some, first, largest)
    return np.where(np.take_along_axis(small, labels, axis=1), into[:, None], labels)


def _by_group(labels: NDArray[np.int64], counts: Cells) -> Cells:
    """Counts [windows, cells] added up by their labels; what has the label −1 is left out."""
    windows, cells = labels.shape
    # One place more a window, for what is left out.
    first = np.arange(windows, dtype=np.int64)[:, None] * (cells + 1)
    places = labels + first + 1
    sums = np.bincount(places.ravel(), weights=counts.ravel(), minlength=windows * (cells + 1))
    return sums.astype(np.int64).reshape(windows, cells + 1)[:, 1:]


@lru_cache(maxsize=256)
def _noncentrality(dof: int) -> float:
    """The noncentrality at which a χ² test of :data:`LEVEL` has :data:`POWER`."""
    critical = _special().chdtri(dof, LEVEL)
    return float(_special().chndtrinc(critical, dof, 1 - POWER))


@lru_cache(maxsize=1)
def _special() -> Any:
    """scipy.special: the χ² tails, without the half second that scipy.stats takes to load."""
    return import_module("scipy.special")
