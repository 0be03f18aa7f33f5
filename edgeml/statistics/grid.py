"""Which cell a value falls in. Counting is another matter: see :mod:`edgeml.statistics.counts`.

A grid is fitted once, from calibration data, and never changes: its hash names it, and counts on
another grid are refused. Binning is affine, one multiplication an element, because that is what a
small device can afford to leave on.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgeml.errors import StatisticsError

NUMERIC_BINS = 32
"""Fine enough for a χ² to regroup by mass, coarse enough for 40 bytes a window."""

TAIL = 0.001
"""Share of the calibration values left outside the fitted range on either side."""


class Grid(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Cells over the real line, or over category numbers.

    ``numeric``: ``bins`` equal bins over [low, high), then three cells more: underflow first, and
    after the bins overflow and invalid (NaN). ±Inf are under- and overflow.

    ``categorical``: one cell a category 0 … bins − 1, and one for anything else.
    """

    kind: Literal["numeric", "categorical"]
    bins: int
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if self.bins < 1 or (self.kind == "numeric" and not self.low < self.high):
            raise StatisticsError(
                f"a {self.kind} grid of {self.bins} bins over [{self.low}, {self.high})",
                expected="at least one bin, and low < high, both finite",
            )

    @property
    def cells(self) -> int:
        """Length of a count vector on this grid."""
        return self.bins + (3 if self.kind == "numeric" else 1)

    @property
    def hash(self) -> str:
        """16 hexadecimal digits that name exactly this grid."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()[:16]

    def locate(self, values: ArrayLike) -> NDArray[np.int64]:
        """Cell of each value.

        Args:
            values: any shape; flattened.

        Returns:
            int64, one cell in 0 … ``cells`` − 1 for each value.
        """
        flat = np.asarray(values, dtype=np.float64).ravel()
        if self.kind == "categorical":
            known = (flat >= 0) & (flat < self.bins)
            return np.where(known, flat, self.bins).astype(np.int64)
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = flat - self.low
            scaled *= self.bins / (self.high - self.low)
            scaled += 1
        # fmin and fmax, unlike clip, turn a NaN into a number that has an integer. From 0 on,
        # truncation is the floor.
        np.fmin(scaled, self.bins + 1, out=scaled)
        np.fmax(scaled, 0, out=scaled)
        cells = scaled.astype(np.int64)
        cells[np.isnan(flat)] = self.bins + 2
        return cells

    @property
    def ordered(self) -> NDArray[np.int64]:
        """Indices of the cells that lie on a line, in the line's order; none of categories. All
        other cells are neighbours of nothing."""
        return np.arange(self.bins + 2 if self.kind == "numeric" else 0)

    @property
    def unordered(self) -> NDArray[np.int64]:
        """Indices of all other cells."""
        return np.setdiff1d(np.arange(self.cells), self.ordered)

    def centres(self) -> NDArray[np.float64]:
        """A position for each of the ``ordered`` cells, ascending, for distances between
        distributions: the middles of the bins, with under- and overflow half a bin outside the
        range."""
        if self.kind == "categorical":
            return np.zeros(0)
        width = (self.high - self.low) / self.bins
        return self.low + width * (np.arange(-1, self.bins + 1, dtype=np.float64) + 0.5)


def fit_grid(values: ArrayLike, *, bins: int = NUMERIC_BINS) -> Grid:
    """Fit a numeric grid over the central 99.8 % of the finite values, and a margin of 1 %.

    Raises:
        StatisticsError: no value is finite.
    """
    flat = np.asarray(values, dtype=np.float64).ravel()
    finite = flat[np.isfinite(flat)]
    if not finite.size:
        raise StatisticsError(
            f"none of {flat.size} calibration values is finite", expected="at least one number"
        )
    low, high = (float(edge) for edge in np.quantile(finite, [TAIL, 1 - TAIL]))
    # Narrower than this, float64 could not divide the range into bins.
    least = bins * 64 * float(np.finfo(np.float64).eps) * max(abs(low), abs(high))
    constant = high - low <= least
    # So that an atom at the end of the range (a 0 or 1, a full scale) lies well inside a bin.
    margin = max(0.5 * abs(low), 0.5) if constant else 0.01 * (high - low)
    low, high = low - margin, high + margin
    return Grid(kind="numeric", bins=bins, low=low, high=high)
