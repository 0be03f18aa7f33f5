"""The statistics contract: count vectors on versioned grids, never a sample of the data.

The exporter fits, the agent fills, the collector merges. Tests on them live in the collector.
"""

from edgeml.statistics.baseline import Baseline, Stream, TensorStatistics, fit_baseline
from edgeml.statistics.counts import Counts
from edgeml.statistics.grid import Grid, fit_grid
from edgeml.statistics.observe import Observer

__all__ = [
    "Baseline",
    "Counts",
    "Grid",
    "Observer",
    "Stream",
    "TensorStatistics",
    "fit_baseline",
    "fit_grid",
]
