"""Counting values on a grid of whatever kind: one by one stream here, a tensor's together in
:mod:`edgeml.statistics.observe`."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgeml.statistics import categorical, numeric, places, vector
from edgeml.statistics.counts import Counts
from edgeml.statistics.grid import Grid


def locate(grid: Grid, values: ArrayLike) -> NDArray[np.int64]:
    """Cell of each value, see :meth:`Grid.locate`."""
    match grid.kind:
        case "numeric":
            return places.locate(grid, values)
        case "categorical":
            return categorical.locate(grid, values)
        case "vector":
            return vector.locate(grid, values)


def count(grid: Grid, values: ArrayLike) -> Counts:
    """Count values, see :meth:`Counts.of`."""
    match grid.kind:
        case "numeric":
            numbers = numeric.NumericTally([grid])
            numbers.add(places.as_numbers(values).reshape(-1, 1))
            return numbers.take()[0]
        case "categorical":
            categories = categorical.CategoricalTally(grid)
            categories.add(values)
            return categories.take()
        case "vector":
            vectors = vector.VectorTally(grid)
            vectors.add(values)
            return vectors.take()
