"""How much rows that depend on each other are worth: design effects, from counts of stretches.

Rows in order of time resemble their neighbours, and a test that takes them as independent fires on
nothing (at .72 for a nominal .05 with autocorrelation .9). What the dependence does to the variance
of a mean, the *design effect*, shows in how the counts of consecutive stretches of rows differ from
each other: the method of batch means (Conway, 1963), with an AR(1) factor for what dependence is
left between neighbouring stretches, and with it the corrections of χ² for clustered samples (Rao,
Scott, "On chi-squared tests for multiway contingency tables", 1984). No row is kept for it, and
shuffled rows come out at 1.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

Cells = NDArray[np.int64]
Floats = NDArray[np.float64]

FEWEST = 12
"""Stretches below which nothing is estimated from them."""
SEGMENTS = 4
NOTICED = 2.5
"""Standard errors above what independent rows show, before they are held to be dependent, so that
independent rows are seldom corrected for nothing."""


class Spread(msgspec.Struct, frozen=True):
    """The generalised design effects of a χ² test: their mean and squared coefficient of variation.
    1 and 0 for independent rows."""

    mean: float
    variation: float


INDEPENDENT = Spread(1.0, 0.0)


def design_effect(stretches: Cells, scores: Floats, *, stationary: bool) -> float:
    """What dependence multiplies the variance of the mean score with, at least 1.

    Args:
        stretches: counts of consecutive stretches of equally many rows, int64 [k, cells].
        scores: a score a cell, float64 [cells], 0 where a cell has none.
        stationary: whether nothing is known to change over the stretches. Elsewhere a change would
            pass for dependence, so each of :data:`SEGMENTS` parts is taken by itself and the median
            of the parts is used: a step or two within the rows do not reach it.
    """
    best, merged = 1.0, stretches
    # Long stretches see slow waves that the lag of short ones does not.
    for level in range(3):
        # A step shows in whichever part it falls in, so there must be parts to take the median of.
        if level and len(merged) < FEWEST * (2 if stationary else SEGMENTS):
            break
        if len(merged) < FEWEST:
            break
        best = max(best, _at_one_length(merged, scores, stationary=stationary))
        even = merged[: len(merged) // 2 * 2]
        merged = even[::2] + even[1::2]
    return best


def _at_one_length(stretches: Cells, scores: Floats, *, stationary: bool) -> float:
    totals, one_row = _totals(stretches, scores)
    if one_row <= 0:
        return 1.0
    parts = _parts(totals, stationary=stationary)
    rows = float(stretches.sum()) / len(stretches)
    ratio = float(np.median([part.var(ddof=1) for part in parts])) / (rows * one_row)
    lag = float(np.median([_lag(part) for part in parts]))
    return _inflation(ratio, lag, len(totals), parts=len(parts))


def _totals(stretches: Cells, scores: Floats) -> tuple[Floats, float]:
    """The stretches' sums of the centred score, and its variance over single rows."""
    counts = stretches.sum(axis=0)
    rows = max(int(counts.sum()), 1)
    scored = scores != 0
    middle = float(counts @ scores) / max(int(counts[scored].sum()), 1)
    centred = np.where(scored, scores - middle, 0.0)
    return stretches.astype(np.float64) @ centred, float(counts @ centred**2) / rows


def _parts(totals: Floats, *, stationary: bool) -> list[Floats]:
    if stationary or len(totals) < FEWEST * SEGMENTS:
        return [totals]
    return list(np.array_split(totals, SEGMENTS))


def _lag(totals: Floats) -> float:
    """The lag-1 autocorrelation, with its bias for short series (Kendall, 1954) taken off."""
    centred = totals - totals.mean()
    power = float(centred @ centred)
    if power <= 0:
        return 0.0
    k = len(totals)
    raw = float(centred[1:] @ centred[:-1]) / power
    return min((k * raw + 1) / (k - 3), 0.995)


def _inflation(ratio: float, lag: float, k: int, *, parts: int) -> float:
    """Of the variance: between stretches, and by what dependence is left between neighbours."""
    used = max(k - parts, 1)
    between = ratio if ratio > 1 + NOTICED * np.sqrt(2 / used) else 1.0
    after = (1 + lag) / (1 - lag) if lag > NOTICED / np.sqrt(used) else 1.0
    return max(between * after, 1.0)


def clumping(stretches: Cells, cells: NDArray[np.int64], *, stationary: bool) -> float:
    """The design effect of the share of rows in ``cells``: into how large clumps they fall, at
    least 1. Their own, whatever the values do: what is missing from a slow series may be missing at
    random, and what is missing from independent rows may be one long gap.

    Args:
        stretches: int64 [k, all cells], as in :func:`design_effect`.
        cells: indices of some of the cells.
        stationary: as in :func:`design_effect`. Here each part is measured by its own share, and
            the median is weighted by what a part tells: one without such rows says nothing of how
            they fall, and would hide the one gap in another.
    """
    best = 1.0
    events = stretches[:, cells].sum(axis=1).astype(np.float64)
    rows = float(stretches.sum()) / max(len(stretches), 1)
    if not stationary and any((part >= rows).all() for part in _parts(events, stationary=False)):
        return best  # nothing else for a whole part: that is a change, and no gap
    for level in range(3):
        if len(events) < FEWEST * ((2 if stationary else SEGMENTS) if level else 1):
            break
        best = max(best, _clumping_at(events, rows, stationary=stationary))
        even = events[: len(events) // 2 * 2]
        events, rows = even[::2] + even[1::2], 2 * rows
    return best


def _clumping_at(events: Floats, rows: float, *, stationary: bool) -> float:
    parts = _parts(events, stationary=stationary)
    by_chance = [rows * (mean := part.mean() / rows) * (1 - mean) for part in parts]
    told = [(part, chance) for part, chance in zip(parts, by_chance, strict=True) if chance > 0]
    if not told:
        return 1.0
    weights = np.array([chance * len(part) for part, chance in told])
    ratio = _weighted_median([part.var(ddof=1) / chance for part, chance in told], weights)
    lag = _weighted_median([_lag(part) for part, _ in told], weights)
    used = max(sum(len(part) - 1 for part, _ in told), 1)
    # A count of few has a long tail, so the variance of few counts scatters more (1 / its mean).
    scatter = np.sqrt((2 + used / weights.sum()) / used)
    between = ratio if ratio > 1 + NOTICED * scatter else 1.0
    after = (1 + lag) / (1 - lag) if lag > NOTICED / np.sqrt(used) else 1.0
    return max(between * after, 1.0)


def _weighted_median(values: list[float], weights: Floats) -> float:
    order = np.argsort(values)
    through = np.cumsum(weights[order])
    return float(values[int(order[np.searchsorted(through, through[-1] / 2)])])


def spread_of_groups(stretches: Cells, groups: NDArray[np.int64], *, stationary: bool) -> Spread:
    """The generalised design effects of the shares of groups of cells.

    Args:
        stretches: int64 [k, cells], as in :func:`design_effect`.
        groups: the group of each cell, int64 [cells]; −1 for a cell that is in none.
        stationary: as in :func:`design_effect`.
    """
    count = int(groups.max(initial=-1)) + 1
    if len(stretches) < FEWEST or count < 2:
        return INDEPENDENT
    inside = groups >= 0
    member = (groups[inside][:, None] == np.arange(count)).astype(np.float64)
    counts = stretches[:, inside] @ member  # [k, groups]
    shares = counts.sum(axis=0) / counts.sum()
    counts, shares = counts[:, shares > 0], shares[shares > 0]
    if shares.size < 2:
        return INDEPENDENT
    rows = counts.sum() / len(counts)
    scaled = (counts - counts.sum(axis=1, keepdims=True) * shares) / np.sqrt(rows * shares)
    parts = (
        [scaled]
        if stationary or len(scaled) < FEWEST * SEGMENTS
        else np.array_split(scaled, SEGMENTS)
    )
    found = [_spread(part) for part in parts]
    mean = float(np.median([one[0] for one in found]))
    lag = float(np.median([one[2] for one in found]))
    freedom = (len(scaled) - len(parts)) * (shares.size - 1)
    inflated = _inflation(mean / (shares.size - 1), lag, freedom + len(parts), parts=len(parts))
    if inflated == 1.0:
        return INDEPENDENT
    return Spread(inflated, float(np.median([one[1] for one in found])))


def _spread(scaled: Floats) -> tuple[float, float, float]:
    """Trace of the covariance, squared variation of its eigenvalues, and mean lag-1 correlation."""
    centred = scaled - scaled.mean(axis=0)
    k, groups = centred.shape
    covariance = centred.T @ centred / (k - 1)
    trace = float(np.trace(covariance))
    if trace <= 0:
        return 0.0, 0.0, 0.0
    # The squared trace over k − 1 is what noise alone adds to the trace of the square.
    square = float(np.sum(covariance**2)) - trace**2 / (k - 1)
    variation = max((groups - 1) * square / trace**2 - 1, 0.0)
    lag = float(np.sum(centred[1:] * centred[:-1]) / np.sum(centred**2))
    return trace, variation, min((k * lag + 1) / (k - 3), 0.995)
