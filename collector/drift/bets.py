"""What to bet on a conformal p-value, if the scores shifted at a known window.

With n scores before a change and k since, this one among them, a share r = k/(n + k) of the pool is
drifted. If old scores are normal and drifted ones lie δ deviations higher, the p-value of a drifted
one is no longer uniform: where the pool's upper tail has mass p, at x, it has the density
f(x − δ) / ((1 − r) f(x) + r f(x − δ)). Betting just that is the likelihood ratio on ranks: its
wealth grows by about δ²/2 nats a window while r is small, and slower as the drifted windows fill
the pool, which no bet that knows only p can do (a·p^(a−1) starves once they have).

Nothing is assumed of the scores: whatever their distribution, p is uniform while they are
exchangeable, and every row of the table has the mean 1 over a uniform p, exactly, since it is made
of shares of the drifted distribution in cells of p. Normality only decides where it is strong.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SHIFTS = (0.5, 1.0, 2.0, 4.0, 8.0)
"""δ: shifts that are bet on, in standard deviations of the score. No smaller one: under a true
shift below a half of the least δ its wealth falls, so a reference that is off by so much raises
nothing. At the largest, drifted scores lie above all others."""

KEPT = 0.1
"""Share of the wealth that is not bet: a window that contradicts costs a factor of ten at most."""

P_CELLS_AN_OCTAVE = 3
OCTAVES = 12
P_CELLS = P_CELLS_AN_OCTAVE * OCTAVES + 1
"""Cells of p: geometric down to 2⁻¹², and one for all below."""

ODDS_AN_OCTAVE = 2
LEAST_OCTAVE, RATES = -13, 35
"""Values of k/n that the table has: 2⁻¹³, 2^(−12.5) … 2⁴."""


def p_cells(p: Floats | float) -> NDArray[np.intp]:
    """The cell of the table that a p-value in (0, 1] falls in."""
    octaves = -np.log2(np.asarray(p, dtype=np.float64)) * P_CELLS_AN_OCTAVE
    return np.minimum(np.maximum(octaves, 0), P_CELLS - 1).astype(np.intp)


def rate_rows(before: Floats | float, since: Floats | float) -> NDArray[np.intp]:
    """The row of the table for n scores before a change, and k since."""
    octaves = np.log2(np.asarray(since) / np.maximum(before, 1e-9)) - LEAST_OCTAVE
    rows = np.rint(octaves * ODDS_AN_OCTAVE)
    return np.minimum(np.maximum(rows, 0), RATES - 1).astype(np.intp)


@lru_cache(maxsize=1)
def log_bets() -> Floats:
    """The logarithm of what a unit of wealth becomes: float64 [rates, cells of p, shifts]."""
    special: Any = import_module("scipy.special")
    upper = 2.0 ** (-np.arange(P_CELLS) / P_CELLS_AN_OCTAVE)  # of each cell; the last reaches 0
    odds = 2.0 ** (np.arange(RATES) / ODDS_AN_OCTAVE + LEAST_OCTAVE)
    rates = odds / (1 + odds)
    shifts = np.asarray(SHIFTS)
    r, p, shift = np.broadcast_arrays(rates[:, None, None], upper[:, None], shifts)

    def tail(x: Floats) -> Floats:
        return (1 - r) * special.ndtr(-x) + r * special.ndtr(shift - x)

    low, high = np.full(r.shape, -12.0), np.full(r.shape, 16.0)
    for _ in range(60):  # bisection: the tail falls in x
        middle = (low + high) / 2
        above = tail(middle) > p
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    within = special.ndtr(shift - (low + high) / 2)
    within[:, 0] = 1.0
    mass = within - np.concatenate([within[:, 1:], np.zeros_like(within[:, :1])], axis=1)
    width = upper - np.append(upper[1:], 0.0)
    return np.log(KEPT + (1 - KEPT) * np.maximum(mass, 0.0) / width[:, None])
