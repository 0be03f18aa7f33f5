"""Have more rows no value than before? A test of a share, for rows that fall in clumps.

Whether a value is missing depends on other things than what it would have been, so it has a test
and a dependence of its own. One long gap is one event, however many rows it takes: the numbers of
rows are divided by the size of the clumps (:func:`~edgeml.collector.drift.dependence.clumping`),
and the test of the few events that are left is the exact one, conditional on their sum
(Przyborowski, Wilenski, 1940).
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeml.collector.drift.dependence import clumping
from edgeml.statistics import Grid

Cells = NDArray[np.int64]
Absence = Literal["missing", "not finite"]

MANY_EVENTS = 10
"""Expected on the side that expects fewer, from which their share is taken for normal."""


class ShareTest(NamedTuple):
    """The result."""

    p: float
    effective: tuple[float, float]
    """Independent rows that those of window and baseline are worth."""


def absent_cells(grid: Grid) -> dict[Absence, NDArray[np.int64]]:
    """The cells of rows that have no value, by what stands there instead."""
    if grid.kind == "vector":
        return {}
    missing = np.array([grid.missing])
    if grid.kind == "categorical":
        return {"missing": missing}
    return {"missing": missing, "not finite": np.setdiff1d(grid.unordered, missing)}


def share_test(
    cells: NDArray[np.int64],
    window: Cells,
    baseline: Cells,
    *,
    window_stretches: Cells | None,
    baseline_stretches: Cells | None,
) -> ShareTest | None:
    """Test whether the share of rows in ``cells`` is the same; None where there is none of them, or
    no row at all on a side.

    Args:
        cells: indices.
        window: counts, int64 [all cells].
        baseline: the same.
        window_stretches: int64 [k, all cells]; None where the rows are independent.
        baseline_stretches: the same. Where they are given, the larger clumping of the two sides is
            taken to hold for both.
    """
    n, m = int(window.sum()), int(baseline.sum())
    events = int(window[cells].sum()), int(baseline[cells].sum())
    if not n or not m or not sum(events):
        return None
    of_n = of_m = 1.0
    if window_stretches is not None:
        of_n = clumping(window_stretches, cells, stationary=False)
    if baseline_stretches is not None:
        of_n = of_m = max(of_n, clumping(baseline_stretches, cells, stationary=True))
    effective = max(n / of_n, 1.0), max(m / of_m, 1.0)
    scale = effective[0] / n, effective[1] / m
    rare = events if 2 * sum(events) <= n + m else (n - events[0], m - events[1])
    share = sum(rare) / (n + m)
    if share * min(effective) >= MANY_EVENTS:
        difference = rare[0] / n - rare[1] / m
        p = _normal(difference, share * (1 - share) * sum(1 / rows for rows in effective))
    else:
        p = _of_few(rare[0] * scale[0], rare[1] * scale[1], effective[0] / sum(effective))
    return ShareTest(p, effective)


def _normal(difference: float, variance: float) -> float:
    special: Any = import_module("scipy.special")
    return float(2 * special.ndtr(-abs(difference) / np.sqrt(variance)))


def _of_few(here: float, there: float, share: float) -> float:
    """Two-sided, of so many events on either side where ``share`` of them is expected here; events
    need not be whole numbers."""
    special: Any = import_module("scipy.special")

    def at_least(some: float, rest: float, share: float) -> float:
        return float(special.betainc(some, rest + 1, share)) if some > 0 else 1.0

    return min(2 * at_least(here, there, share), 2 * at_least(there, here, 1 - share), 1.0)
