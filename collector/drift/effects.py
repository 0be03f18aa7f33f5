"""Effect sizes between two count vectors on one grid: how far apart, whatever the sample size.

JS, W1 and KS are finite on any counts and taken from the plain shares: smoothing would add a
distance of its own wherever the two sides have unlike numbers of rows (.85 standard deviations of
W1 for 41 rows beside 500 equal ones, were half a row added to each of 35 cells). PSI divides by
shares, so it alone is smoothed, by :data:`SMOOTHING` a cell. Categories have no order: W1 and KS
are None for them.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeml.statistics import Grid

SMOOTHING = 0.5
"""Added to each cell: Jeffreys' prior for a multinomial."""

Cells = NDArray[np.int64]
Floats = NDArray[np.float64]


class Effects(msgspec.Struct, frozen=True, kw_only=True):
    """How far a window lies from the baseline."""

    js: float
    """Jensen-Shannon divergence in bits, 0 to 1 (Lin, 1991). Few rows alone make it large."""
    excess_js: float
    """What of it is more than so few rows show where nothing has changed: :func:`excess_js`."""
    psi: float
    """Population stability index: the symmetrised Kullback-Leibler divergence, in nats."""
    w1: float | None
    """First Wasserstein distance in standard deviations of the baseline; None for categories, and
    where no value was valid."""
    ks: float | None
    """Largest difference of the cumulated shares, 0 to 1; None as for W1."""


def effects(grid: Grid, window: Cells, baseline: Cells) -> Effects:
    """All effect sizes of ``window`` [cells] against ``baseline`` [cells]."""
    return many_effects(grid, window[None, :], baseline)[0]


def many_effects(grid: Grid, windows: Cells, baseline: Cells) -> list[Effects]:
    """All effect sizes of each of ``windows`` [windows, cells] against ``baseline`` [cells]: for
    the arrays' overhead of one. To the last bit what each is by itself: sums run along
    contiguous rows, and no product of matrices decides in which order it adds."""
    js, excess = _divergences(windows, baseline)
    p, q = (_row_shares(side + SMOOTHING) for side in (windows, baseline[None, :]))
    psi = np.sum((p - q) * np.log(p / q), axis=1)
    on_line = np.ascontiguousarray(windows[:, grid.ordered])
    ordered = on_line.any(axis=1) & baseline[grid.ordered].any()
    w1 = ks = np.zeros(len(windows))
    if ordered.any():
        gap = _row_shares(on_line) - shares(baseline[grid.ordered])
        gap = np.abs(np.cumsum(gap, axis=1))
        ks = gap.max(axis=1)
        w1 = (gap[:, :-1] * np.diff(grid.centres())).sum(axis=1) / baseline_scale(grid, baseline)[1]
    columns = (each.tolist() for each in (js, excess, psi, w1, ks, ordered))
    return [
        Effects(
            js=a, excess_js=b, psi=c, w1=d if is_ordered else None, ks=e if is_ordered else None
        )
        for a, b, c, d, e, is_ordered in zip(*columns, strict=True)
    ]


def _divergences(windows: Cells, baseline: Cells) -> tuple[Floats, Floats]:
    """JS divergence and :func:`excess_js` of each window, bits."""
    p, q = _row_shares(windows), shares(baseline)
    middle = (p + q) / 2
    both = (_row_divergence(p, middle) + _row_divergence(np.tile(q, (len(p), 1)), middle)) / 2
    js = np.minimum(np.maximum(both / float(np.log(2)), 0.0), 1.0)
    n, m = windows.sum(axis=1), int(baseline.sum())
    used = ((windows > 0) | (baseline > 0)).sum(axis=1)
    scale = (1 / np.maximum(n, 1) + 1 / max(m, 1)) / (8 * float(np.log(2)))
    excess = np.maximum(js - (used - 1) * scale, 0.0)
    for at in np.flatnonzero(n == 0 if m else n >= 0):  # nothing was counted on one side
        excess[at] = excess_js(windows[at], baseline)
    return js, np.where(used < 2, 0.0, excess)


def _row_shares(rows: NDArray[np.number]) -> Floats:
    """:func:`shares` of each row."""
    totals = rows.sum(axis=1, keepdims=True)
    found: Floats = rows / np.maximum(totals, 1)
    return np.where(totals > 0, found, 1 / max(rows.shape[1], 1))


def _row_divergence(p: Floats, q: Floats) -> Floats:
    """Kullback-Leibler of each row, in nats; ``q`` is positive wherever ``p`` is."""
    ratio = np.divide(p, q, out=np.ones_like(p), where=p > 0)
    return np.sum(p * np.log(ratio), axis=1)


def shares(cells: Cells | Floats) -> Floats:
    """Relative frequencies, float64 [cells], sum 1; all equal where nothing was counted."""
    total = float(cells.sum())
    return cells / total if total else np.full(cells.size, 1 / max(cells.size, 1))


def smoothed_shares(cells: Cells) -> Floats:
    """Relative frequencies with no zero among them."""
    return shares(cells.astype(np.float64) + SMOOTHING)


def js_divergence(p: Floats, q: Floats) -> float:
    """Jensen-Shannon divergence of two distributions, in bits (0 to 1)."""
    middle = (p + q) / 2
    divergence = (_kullback_leibler(p, middle) + _kullback_leibler(q, middle)) / 2
    return min(max(divergence / float(np.log(2)), 0.0), 1.0)


def _kullback_leibler(p: Floats, q: Floats) -> float:
    """In nats; ``q`` is positive wherever ``p`` is."""
    used = p > 0
    return float(np.sum(p[used] * np.log(p[used] / q[used])))


def js_bias(cells: int, n: int, m: int) -> float:
    """What :func:`js_divergence` shows on average, in bits, where there is no difference at all.

    First order: (cells − 1)/8 · (1/n + 1/m) nats, from 2·JS ≈ χ²/4 (Grosse and others, "Analysis of
    symbolic sequences using the Jensen-Shannon divergence", 2002). Measured on 35 cells against 360
    rows it is .76 to .97 of the truth from 31 rows on, and more than the truth below a dozen.
    """
    if not n or not m:
        return 0.0
    return (cells - 1) / (8 * np.log(2)) * (1 / n + 1 / m)


def excess_js(window: Cells, baseline: Cells) -> float:
    """JS divergence in bits less :func:`js_bias`, at least 0, over the cells that are in use.

    What an alarm's minimum effect is compared with: a limit on it means the same for few rows and
    for many.
    """
    used = (window > 0) | (baseline > 0)
    a, b = window[used], baseline[used]
    if a.size < 2:
        return 0.0
    bias = js_bias(a.size, int(a.sum()), int(b.sum()))
    return max(js_divergence(shares(a), shares(b)) - bias, 0.0)


def baseline_scale(grid: Grid, baseline: Cells) -> tuple[float, float]:
    """Mean and standard deviation of the baseline, from the grid's centres; the deviation is at
    least a bin's width, so that a constant in the calibration data divides nothing by zero."""
    weights, centres = baseline[grid.ordered], grid.centres()
    total = max(int(weights.sum()), 1)
    mean = float(weights / total @ centres)  # their sum may be beyond all floats
    deviation = root_mean_square(centres - mean, weights / total)
    return mean, max(deviation, grid.step)


def root_mean_square(values: Floats, weights: Floats) -> float:
    """√Σ wx², of values that may be as large as 1e300."""
    unit = max(float(np.abs(values).max(initial=0.0)), 1e-300)
    return float(np.sqrt(weights @ (values / unit) ** 2)) * unit


def standard_mean(grid: Grid, window: Cells, baseline: Cells) -> float:
    """Signed distance of the means in standard deviations of the baseline, over valid values."""
    weights = window[grid.ordered]
    if not weights.sum():
        return 0.0
    mean, deviation = baseline_scale(grid, baseline)
    return (float(weights / weights.sum() @ grid.centres()) - mean) / deviation


def wasserstein(grid: Grid, window: Cells, baseline: Cells) -> float:
    """W1 between the distributions, in standard deviations of the baseline."""
    gap = _cumulated_gap(grid, window, baseline)[:-1]
    _, deviation = baseline_scale(grid, baseline)
    return float(np.abs(gap) @ np.diff(grid.centres()) / deviation)


def kolmogorov_smirnov(grid: Grid, window: Cells, baseline: Cells) -> float:
    """Largest difference of the cumulated shares over the ordered cells."""
    return float(np.abs(_cumulated_gap(grid, window, baseline)).max())


def _cumulated_gap(grid: Grid, window: Cells, baseline: Cells) -> Floats:
    return np.cumsum(shares(window[grid.ordered]) - shares(baseline[grid.ordered]))
