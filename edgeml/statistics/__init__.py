"""The statistics contract: count vectors on versioned grids, never a sample of the data.

The exporter fits, the agent fills, the collector merges. Tests on them live in the collector.
"""

from edgeml.statistics.baseline import Baseline, Stream, TensorStatistics, fit_baseline
from edgeml.statistics.counts import Counts
from edgeml.statistics.fitting import fit_categories, fit_grid, fit_vectors
from edgeml.statistics.grid import Grid
from edgeml.statistics.observe import Observer
from edgeml.statistics.packed import merged, pack, unpack
from edgeml.statistics.places import MISSING

__all__ = [
    "MISSING",
    "Baseline",
    "Counts",
    "Grid",
    "Observer",
    "Stream",
    "TensorStatistics",
    "fit_baseline",
    "fit_categories",
    "fit_grid",
    "fit_vectors",
    "merged",
    "pack",
    "unpack",
]
