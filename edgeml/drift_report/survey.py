"""One pass over the baseline: what each column holds, and the statistics and grids that fit it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml.drift_report.arrow import arrow
from edgeml.drift_report.result import Finding
from edgeml.drift_report.statistic import Statistic, categorical
from edgeml.drift_report.tables import Storage, Table
from edgeml.drift_report.values import CHARACTERS, numbers, text_statistic, texts, times
from edgeml.statistics import Grid, fit_grid
from edgeml.statistics.grid import NUMERIC_BINS

SAMPLE = 100_000
"""Numbers that a grid is fitted to, drawn at random from all of the baseline's."""
SAMPLES_IN_ALL = 20_000_000
"""Of all columns together: 160 MB."""
VALUES = 64
"""Categories with a cell of their own."""
CANDIDATES = 10_000
"""Values that are counted while the most frequent ones are looked for."""
MOSTLY = 0.95
"""Share of a text column's values that must be numbers for it to be one of numbers."""
REPEATED = 0.2
"""Share of a text column's rows that its most frequent values must hold for them to be compared."""

Floats = NDArray[np.float64]


class Survey:
    """What was found.

    Args:
        baseline: is gone through once.
        columns: which to look at.
        categories: those of numbers that are to be taken as categories.
    """

    def __init__(
        self, baseline: Table, columns: Sequence[str], *, categories: Sequence[str] = ()
    ) -> None:
        self.rows = 0
        self.statistics: list[Statistic] = []
        self.findings: list[Finding] = []
        seed = np.random.default_rng(0)
        sample = int(min(SAMPLE, max(SAMPLES_IN_ALL // max(len(columns), 1), 1_000)))
        looks = {
            name: _Look(name, baseline.columns[name], name in categories, sample, seed)
            for name in columns
        }
        for batch in baseline.batches(columns):
            self.rows += len(next(iter(batch.values())))
            for name, column in batch.items():
                looks[name].take(column)
        for look in looks.values():
            self.statistics += look.statistics()
            if look.finding:
                self.findings.append(Finding(column=look.name, kind="skipped", text=look.finding))


class _Sample:
    """Values drawn at random, each with the same chance, from all that were seen."""

    def __init__(self, size: int, random: np.random.Generator) -> None:
        self._size, self._random = size, random
        self._values, self._keys = np.zeros(0), np.zeros(0)

    def take(self, values: Floats) -> None:
        finite = values[np.isfinite(values)]
        self._values = np.append(self._values, finite)
        self._keys = np.append(self._keys, self._random.random(len(finite)))
        if len(self._keys) > self._size:
            kept = np.argpartition(self._keys, self._size)[: self._size]
            self._values, self._keys = self._values[kept], self._keys[kept]

    def grid(self) -> Grid:
        """Fitted to them; any grid where there is none, since all of it is unordered then."""
        if not self._values.size:
            return Grid(kind="numeric", bins=NUMERIC_BINS)
        return fit_grid(self._values)


class _Look:
    """At one column, block by block."""

    def __init__(
        self, name: str, storage: Storage, category: bool, size: int, random: np.random.Generator
    ) -> None:
        self.name, self.finding = name, ""
        self._text = storage in ("text", "flag") or category
        self._number = storage in ("number", "text") and not category
        self._storage: Storage = storage
        self._time = storage == "text"
        self._present, self._broken, self._trimmed = 0, 0, False
        self._values: Counter[str] = Counter()
        self._sample = _Sample(size, random)
        self._parts = {part: _Sample(size, random) for part in CHARACTERS}
        self._first_broken = ""

    def take(self, column: Any) -> None:
        if self._storage in ("time", "other"):
            return
        if self._number:
            self._take_numbers(column)
        else:
            self._present += len(column) - int(column.null_count)
        if self._text:
            self._take_text(column)

    def _take_numbers(self, column: Any) -> None:
        found = numbers(column)
        self._present += int((~found.missing).sum())
        self._broken += int(found.broken.sum())
        self._sample.take(found.values)
        if found.broken.any() and not self._first_broken:
            self._first_broken = str(column[int(np.argmax(found.broken))].as_py())
        # A column of text need not be parsed to its end to be known as one.
        self._number = self._broken <= max(self._present, 1_000) / 2

    def _take_text(self, column: Any) -> None:
        column = texts(column)
        if self._time:
            self._time = times(column) is not None
        counts = arrow("compute").value_counts(arrow("compute").drop_null(column))
        found = zip(
            counts.field("values").to_pylist(), counts.field("counts").to_pylist(), strict=True
        )
        self._values.update(dict(found))
        if len(self._values) > CANDIDATES:
            # The rare ones are forgotten; a frequent one is seen again before long.
            self._values = Counter(dict(self._values.most_common(CANDIDATES // 2)))
            self._trimmed = True
        if self._broken or not self._number:
            for part, sample in self._parts.items():
                sample.take(text_statistic(column, part).values)

    def statistics(self) -> list[Statistic]:
        """What to count of the column; nothing, with a finding, where that is not known."""
        if self._storage == "other":
            self.finding = "holds neither numbers nor text nor flags"
        elif self._storage == "time" or (self._time and self._present):
            self.finding = "holds times, which only ever move on; --time makes windows of them"
        if self.finding:
            return []
        if self._number and (not self._text or self._broken <= (1 - MOSTLY) * self._present):
            grid = self._sample.grid()
            return [Statistic(name=self.name, column=self.name, kind="numeric", grid=grid)]
        common = self._values.most_common(VALUES)
        few = not self._trimmed and len(self._values) <= max(VALUES, self._present**0.5)
        held = sum(count for _, count in common)
        found: list[Statistic] = []
        if few or held >= REPEATED * self._present:
            found.append(categorical(self.name, tuple(value for value, _ in common)))
        if not few:
            found += [
                Statistic(
                    name=f"{self.name} · {part}",
                    column=self.name,
                    kind="text",
                    grid=sample.grid(),
                    part=part,
                )
                for part, sample in self._parts.items()
            ]
        return found
