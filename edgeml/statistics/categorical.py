"""Where categories fall, and what is kept of new ones.

A value that the grid does not know falls in *other*. So that a new one can be told from the rare
old ones, it is also hashed into a count-min sketch (Cormode, Muthukrishnan, 2005), which is linear
and lies in the counts' sums. A window's most frequent new values are named, as
:mod:`edgeml.statistics.frequent` finds them; where windows merge, of the names that fall in each
counter of the sketch the first one in order of their hashes is kept. That is a minimum: it merges
in any order, and there are never more names than counters. A name that fewer than
:data:`LEAST_SEEN` rows of a window had is kept back, since it may tell of a single person.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgeml.statistics.counts import Counts
from edgeml.statistics.frequent import Frequent
from edgeml.statistics.grid import SKETCH_ROWS, SKETCH_WIDTH, Grid
from edgeml.statistics.places import as_numbers

Integers = NDArray[np.int64]

LEAST_SEEN = 5
"""Rows of a window that have a new value before it is named."""

LONGEST_LABEL = 64
"""Characters of a name; what is longer is cut."""

GATHERED_ROWS = 1024

_FIRST_CODE = 1 << 53
_Found = tuple[Integers, dict[str, int]]


@lru_cache(maxsize=4096)
def counters(label: str) -> tuple[tuple[int, ...], bytes]:
    """The counters of the sketch that a name falls in, one a row, and its place among names."""
    digest = hashlib.sha256(label.encode(errors="surrogatepass")).digest()
    rows = range(SKETCH_ROWS)
    return tuple(row * SKETCH_WIDTH + digest[row] % SKETCH_WIDTH for row in rows), digest


def bounded(labels: Iterable[str]) -> frozenset[str]:
    """Of each counter's names the first one."""
    first: dict[int, tuple[bytes, str]] = {}
    for label in labels:
        places, order = counters(label)
        for place in places:
            first[place] = min(first.get(place, (order, label)), (order, label))
    return frozenset(label for _, label in first.values())


def _told(labels: Iterable[str]) -> frozenset[str]:
    """Of labels, the most important first, those that are kept beside each other."""
    kept: frozenset[str] = frozenset()
    for label in labels:
        more = kept | {label}
        if bounded(more) == more:
            kept = more
    return kept


def seen(sums: Integers, label: str) -> int:
    """At most so many rows had a new value, by the sketch; an estimate from above."""
    places, _ = counters(label)
    return int(min(sums[place] for place in places))


def locate(grid: Grid, values: ArrayLike) -> Integers:
    """Cell of each value, flattened. A NaN, None or masked value is missing."""
    return _locate(grid, values)[0]


def _locate(grid: Grid, values: ArrayLike) -> _Found:
    """Cells, and the names of the values in *other* with how often each came."""
    if not grid.values or isinstance(grid.values[0], int):
        return _locate_codes(grid, as_numbers(values).ravel())
    return _locate_names(grid, values)


def _locate_codes(grid: Grid, flat: NDArray[np.float64]) -> _Found:
    if grid.values:
        known = np.array(grid.values, dtype=np.float64)
        order = np.argsort(known)
        at = np.minimum(np.searchsorted(known[order], flat), grid.bins - 1)
        found = order[at]
        hit = known[found] == flat
    else:
        hit = (flat >= 0) & (flat < grid.bins)
        found = np.where(hit, flat, 0).astype(np.int64)
        hit &= found == flat
    missing = np.isnan(flat)
    cells = np.where(hit, found, np.where(missing, grid.missing, grid.other)).astype(np.int64)
    new, times = np.unique(flat[~hit & ~missing], return_counts=True)
    return cells, dict(zip(map(_code, new.tolist()), times.tolist(), strict=True))


def _code(value: float) -> str:
    whole = abs(value) < _FIRST_CODE and value == int(value)
    return str(int(value)) if whole else repr(value)


def _locate_names(grid: Grid, values: ArrayLike) -> _Found:
    known = {value: cell for cell, value in enumerate(grid.values)}
    flat = names(values)
    cells = np.empty(len(flat), dtype=np.int64)
    new: dict[str, int] = {}
    for row, name in enumerate(flat):
        if name is None:
            cells[row] = grid.missing
            continue
        cells[row] = cell = known.get(name, grid.other)
        if cell == grid.other:
            label = name[:LONGEST_LABEL]
            new[label] = new.get(label, 0) + 1
    return cells, new


def names(values: ArrayLike) -> list[str | None]:
    """Values as text; None where one is missing."""
    found = np.asarray(values, dtype=object)
    missing = np.broadcast_to(getattr(values, "mask", False), found.shape).ravel().tolist()
    flat: list[Any] = found.ravel().tolist()
    return [
        None if masked or each is None or each != each else str(each)  # noqa: PLR0124 - NaN
        for each, masked in zip(flat, missing, strict=True)
    ]


class CategoricalTally:
    """Counts a categorical stream, as it comes. Not thread-safe."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._counts, self._new = Counts.zeros(grid), Frequent()
        self._waiting: list[NDArray[np.float64]] = []
        self._rows = 0

    def add_codes(self, codes: NDArray[np.float64]) -> None:
        """Take in numbers [n]; they wait for others, since a few cost as much as many."""
        self._waiting.append(codes.copy())
        self._rows += len(codes)
        if self._rows >= GATHERED_ROWS:
            self._count()

    def _count(self) -> None:
        waiting, self._waiting, self._rows = self._waiting, [], 0
        if waiting:
            self.add(np.concatenate(waiting))

    def add(self, values: ArrayLike) -> None:
        """Take in values [n]."""
        cells, new = _locate(self._grid, values)
        counts = self._counts
        counts.cells += np.bincount(cells, minlength=self._grid.cells)
        for label, times in new.items():
            for place in counters(label)[0]:
                counts.sums[place] += times
        self._new.add(new)

    def take(self) -> Counts:
        """The counts since the last call, and start anew."""
        self._count()
        taken, self._counts = self._counts, Counts.zeros(self._grid)
        taken.labels = _told(self._new.of(LEAST_SEEN))
        self._new = Frequent()
        return taken
