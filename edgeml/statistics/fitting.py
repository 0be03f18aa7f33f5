"""Finding a stream's grid from calibration data."""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgeml.errors import StatisticsError
from edgeml.statistics.categorical import names
from edgeml.statistics.grid import MAX_ATOMS, NUMERIC_BINS, Grid
from edgeml.statistics.places import as_numbers, locate

Numbers = NDArray[np.float64]

TAIL = 0.001
"""Share of the calibration values left outside the fitted range on either side."""

ATOM_SHARE, ATOM_ROWS = 0.05, 8
"""A single value that holds so much of the calibration data gets a cell of its own: more than a bin
holds on average, so that what happens beside it can be told from what happens to it."""

LOG_GAIN = 0.25
"""Bits of entropy that the counts must gain before bins are laid on a logarithmic line."""

LOG_ROWS = 32
"""Fewer values than this say nothing of skewness."""

FREQUENT = 64
"""Values with a cell of their own."""

MEDIAN_ROWS = 500
"""Calibration vectors whose distances give the bandwidth."""

LEAST_BANDWIDTH = 1e-3
"""Of the components' range."""

_FARTHEST = 2.0**1020
"""Ends of a range: further out, float64 could not tell the range's width."""


def fit_grid(values: ArrayLike, *, bins: int = NUMERIC_BINS) -> Grid:
    """Fit a numeric grid.

    Values that are frequent as such become atoms. The bins cover the central 99.8 % of the other
    finite values and a margin of 1 %, on a logarithmic line where all those are positive and the
    entropy of their counts is larger on it by :data:`LOG_GAIN` bits: a grid says most where its
    cells are used most evenly.

    Raises:
        StatisticsError: no value is finite.
    """
    flat = as_numbers(values).ravel()
    finite = flat[np.isfinite(flat)]
    if not finite.size:
        raise StatisticsError(
            f"none of {flat.size} calibration values is finite", expected="at least one number"
        )
    atoms = _atoms(finite)
    rest = finite[~np.isin(finite, atoms)]
    rest = np.clip(rest if rest.size else finite, -_FARTHEST, _FARTHEST)
    low, high = _range(rest)
    grid = Grid(kind="numeric", bins=bins, low=low, high=high, atoms=atoms)
    positive = float(rest.min()) >= np.finfo(np.float64).tiny
    if rest.size < LOG_ROWS or not positive or _constant(rest):
        return grid
    low, high = (float(edge) for edge in np.quantile(rest, [TAIL, 1 - TAIL]))
    if high <= 1.01 * low:
        return grid
    logarithmic = Grid(
        kind="numeric", bins=bins, low=low * 0.99, high=high * 1.01, log=True, atoms=atoms
    )
    gain = _entropy(logarithmic, rest) - _entropy(grid, rest)
    return logarithmic if gain > LOG_GAIN else grid


def fit_categories(values: ArrayLike, *, most: int = FREQUENT) -> Grid:
    """Fit a categorical grid to the ``most`` most frequent values, integers or text.

    Raises:
        StatisticsError: no value is there.
    """
    if np.asarray(values).dtype.kind in "biuf":
        numbers = as_numbers(values).ravel()
        found: Counter[int | str] = Counter(int(n) for n in numbers[np.isfinite(numbers)].tolist())
    else:
        found = Counter(name for name in names(values) if name is not None)
    if not found:
        raise StatisticsError("every calibration value is missing", expected="at least one value")
    ranked = sorted(found, key=lambda value: (-found[value], value))
    return Grid(
        kind="categorical", bins=min(len(ranked), most), values=tuple(sorted(ranked[:most]))
    )


def fit_vectors(vectors: ArrayLike, *, seed: int = 0) -> Grid:
    """Fit a grid of vectors [n, dimensions]: the median distance, and the components' range.

    Raises:
        StatisticsError: no vector is finite throughout.
    """
    found = np.asarray(vectors, dtype=np.float64)
    whole = found[np.isfinite(found).all(axis=1)]
    if not len(whole):
        raise StatisticsError(
            f"none of {len(found)} calibration vectors is finite", expected="at least one"
        )
    low, high = _range(np.clip(whole, -_FARTHEST, _FARTHEST))
    some = np.clip(whole[:: max(1, len(whole) // MEDIAN_ROWS)], low, high)
    peak = float(np.abs(some).max(initial=0)) or 1.0  # squares of huge numbers have no float64
    some = some / peak
    norms = (some**2).sum(axis=1)
    squares = norms[:, None] + norms - 2 * some @ some.T
    distances = np.sqrt(np.maximum(squares[np.triu_indices(len(some), 1)], 0))
    bandwidth = float(np.median(distances)) * peak if distances.size else 0.0
    if not 0 < bandwidth < np.inf:
        bandwidth = high - low
    # Angles of thousands of turns would be noise, and lose digits.
    bandwidth = max(bandwidth, LEAST_BANDWIDTH * (high - low))
    return Grid(
        kind="vector", bins=found.shape[1], low=low, high=high, bandwidth=bandwidth, seed=seed
    )


def _atoms(finite: Numbers) -> tuple[float, ...]:
    values, rows = np.unique(finite, return_counts=True)
    frequent = rows >= max(ATOM_SHARE * finite.size, ATOM_ROWS)
    order = np.argsort(-rows[frequent], kind="stable")[:MAX_ATOMS]
    return tuple(sorted(values[frequent][order].tolist()))


def _range(finite: Numbers) -> tuple[float, float]:
    low, high = (float(edge) for edge in np.quantile(finite, [TAIL, 1 - TAIL]))
    # So that an atom at the end of the range (a 0 or 1, a full scale) lies well inside a bin.
    margin = max(0.5 * abs(low), 0.5) if _constant(finite) else 0.01 * (high - low)
    return low - margin, high + margin


def _constant(finite: Numbers) -> bool:
    """Whether the range is narrower than float64 could divide into bins."""
    low, high = (float(edge) for edge in np.quantile(finite, [TAIL, 1 - TAIL]))
    least = NUMERIC_BINS * 64 * float(np.finfo(np.float64).eps) * max(abs(low), abs(high))
    return high - low <= max(least, 1e-280)


def _entropy(grid: Grid, values: Numbers) -> float:
    cells = np.bincount(locate(grid, values), minlength=grid.cells)
    shares = cells[cells > 0] / values.size
    return float(-(shares * np.log2(shares)).sum())
