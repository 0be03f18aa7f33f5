"""A stream's last window beside the training data and beside the device's own past."""

from __future__ import annotations

import numpy as np

from edgeml.collector.drift.effects import shares
from edgeml.collector.drift.scores import Cells, numbers, rows_of, scorer
from edgeml.collector.views import Histogram
from edgeml.statistics import Counts, Grid
from edgeml.statistics.baseline import Stream
from edgeml.statistics.categorical import LEAST_SEEN, seen


def two_baselines(
    stream: Stream, window: Cells, past: Cells, *, lately: Counts | None = None
) -> Histogram:
    """Compare.

    Args:
        stream: of the baseline.
        window: the last window, as :func:`~edgeml.collector.drift.scores.numbers` has it.
        past: the reference, likewise; of no row before there is one.
        lately: all counts of the last hour or day, which new categories are read from.
    """
    grid, training = stream.grid, numbers(stream.grid, stream.baseline())
    effect = scorer(grid, stream.baseline(), rows_of(grid, window)).effect
    # As they lie on the line, then the others.
    order = np.append(grid.ordered, grid.unordered)

    def shown(cells: Cells) -> list[float]:
        return shares(cells[order]).tolist() if cells.any() else []

    known = past if past.any() else np.zeros_like(window)
    return Histogram(
        kind=grid.kind,
        centres=grid.centres().tolist() or list(range(grid.cells)),
        names=_names(grid),
        window=shown(window),
        rows=rows_of(grid, window),
        baseline=shown(training),
        baseline_rows=rows_of(grid, training),
        skew=None if stream.temporal or not training.any() else effect(window, training),
        past=shown(known),
        past_rows=rows_of(grid, known),
        change=effect(window, known) if known.any() else None,
        new=_new(lately) if lately is not None and grid.kind == "categorical" else {},
    )


def _names(grid: Grid) -> list[str]:
    match grid.kind:
        case "numeric":
            return []
        case "categorical":
            return [*map(str, grid.values or range(grid.bins)), "other", "missing"]
        case "vector":
            return ["finite", "not finite"]


def _new(lately: Counts) -> dict[str, int]:
    """The most frequent one first. A retraction takes the count of a name, and leaves the name."""
    rows = {label: seen(lately.sums, label) for label in lately.labels}
    order = sorted(rows.items(), key=lambda item: (-item[1], item[0]))
    return {label: most for label, most in order if most >= LEAST_SEEN}
