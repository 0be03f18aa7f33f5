"""One statistic of a column: which cell of its grid each row falls in."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeml.drift_report.arrow import arrow
from edgeml.drift_report.values import numbers, text_statistic, texts
from edgeml.statistics import Grid

Kind = Literal["numeric", "categorical", "text"]
Cells = NDArray[np.int64]


class Located(NamedTuple):
    """What a block of rows came to."""

    cells: Cells
    """int64 [rows]."""
    missing: int
    """Rows where nothing stands."""
    broken: int
    """Rows where something stands that is no number, and should be one."""


class Statistic(msgspec.Struct, frozen=True, kw_only=True):
    """What is counted of a column."""

    name: str
    """The column's; of a text's statistics ``COLUMN · length`` and so on."""
    column: str
    kind: Kind
    grid: Grid
    part: str = ""
    """Of a text: one of :data:`edgeml.drift_report.values.CHARACTERS`."""
    values: tuple[str, ...] = ()
    """Of a categorical: the baseline's most frequent values, in the order of the cells."""

    def locate(self, column: Any) -> Located:
        """The cell of each row of an Arrow array."""
        if self.kind == "categorical":
            return self._locate_category(column)
        found = text_statistic(column, self.part) if self.part else numbers(column)
        return Located(
            self.grid.locate(found.values), int(found.missing.sum()), int(found.broken.sum())
        )

    def _locate_category(self, column: Any) -> Located:
        compute, pa = arrow("compute"), arrow()
        column = texts(column)
        missing = compute.is_null(column).to_numpy(zero_copy_only=False)
        index = compute.index_in(column, value_set=pa.array(self.values, pa.string()))
        other = len(self.values) + 1
        cells = compute.fill_null(index, other).to_numpy(zero_copy_only=False).astype(np.int64)
        return Located(np.where(missing, len(self.values), cells), int(missing.sum()), 0)

    def labels(self) -> tuple[str, ...]:
        """A name for each cell of a categorical; none for numbers."""
        return (*self.values, "(missing)", "(other)") if self.kind == "categorical" else ()


def categorical(column: str, values: tuple[str, ...]) -> Statistic:
    """The statistic of a column of categories: a cell each, then missing, then anything else."""
    grid = Grid(kind="categorical", bins=len(values) + 1)
    return Statistic(name=column, column=column, kind="categorical", grid=grid, values=values)
