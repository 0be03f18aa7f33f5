"""Two-sample tests on rows: what SciPy's give, with a baseline sorted once for many windows."""

from __future__ import annotations

from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Found(NamedTuple):
    """Statistics, all larger for more change, and p-values in the limit of many rows."""

    ks: float
    cvm: float
    t: float
    ks_p: float
    t_p: float


def exact_tests(window: Floats, baseline: Floats) -> Found:
    """Kolmogorov-Smirnov, Cramér-von Mises and Welch's t.

    Args:
        window: [n], in any order, with or without ties.
        baseline: [m], ascending, without a value that is there twice or in the window.
    """
    special: Any = import_module("scipy.special")
    n, m = window.size, baseline.size
    rows = np.sort(window)
    below = np.searchsorted(baseline, rows)
    # A value that the window has often is one jump, from its first place to its last.
    starts = np.flatnonzero(np.append(True, rows[1:] != rows[:-1]))
    ends = np.append(starts[1:], n)
    ks = max(
        float(np.abs(starts / n - below[starts] / m).max()),
        float(np.abs(ends / n - below[starts] / m).max()),
    )
    middle = np.repeat((starts + ends - 1) / 2, ends - starts)
    above = below + middle - np.arange(n)
    inside = np.cumsum(np.bincount(below, minlength=m + 1))[:m].astype(np.float64)
    u = n * float(above @ above) + m * float(inside @ inside)
    cvm = u / (n * m * (n + m)) - (4 * n * m - 1) / (6 * (n + m))
    error = float(np.sqrt(window.var(ddof=1) / n + baseline.var(ddof=1) / m))
    t = abs(float(window.mean() - baseline.mean())) / error
    root = float(np.sqrt(n * m / (n + m)))
    return Found(ks, cvm, t, float(special.kolmogorov(root * ks)), 2 * float(special.ndtr(-t)))


def check(random: np.random.Generator) -> None:
    """Compare with SciPy.

    Raises:
        ValueError: it finds something else.
    """
    stats: Any = import_module("scipy.stats")
    baseline = np.sort(random.standard_normal(1000))
    loose = random.standard_normal(300) + 0.1
    for window in (loose, np.where(np.arange(300) < 20, 0.3, loose)):
        found = exact_tests(window, baseline)
        theirs = (
            stats.ks_2samp(window, baseline).statistic,
            stats.cramervonmises_2samp(window, baseline).statistic,
            abs(stats.ttest_ind(window, baseline, equal_var=False).statistic),
        )
        if not np.allclose(found[:3], theirs, rtol=1e-9):
            message = f"KS, Cramér-von Mises and t are {found[:3]}, and {theirs} by SciPy"
            raise ValueError(message)
