"""The distance that windows of embeddings are watched by, beside the plain MMD of their features.

Powers beside the exact test on the rows are in docs/benchmarks.md.
"""

from __future__ import annotations

import numpy as np
import pytest

from edgeml.collector.drift.vectors import BEYOND, distance_squared, mmd_squared
from edgeml.statistics import Counts, Grid, fit_vectors

DIMENSIONS = 16


def numbers(grid: Grid, vectors: np.ndarray) -> np.ndarray:
    counts = Counts.of(grid, vectors)
    return np.concatenate([counts.cells, counts.sums])


def normal(random: np.random.Generator, rows: int) -> np.ndarray:
    """Off the origin, since the phases of the features must not matter."""
    return random.normal(size=(rows, DIMENSIONS)) + 3


def clusters(random: np.random.Generator, rows: int) -> np.ndarray:
    places = np.random.default_rng(1).normal(size=(5, DIMENSIONS)) * 2
    noise = random.normal(size=(rows, DIMENSIONS)) / 2
    return places[random.integers(0, 5, rows)] + noise


@pytest.mark.parametrize("draw", [normal, clusters])
@pytest.mark.parametrize("rows", [50, 400])
def test_it_is_zero_on_average_where_nothing_changed_whatever_the_rows(draw, rows: int) -> None:  # type: ignore[no-untyped-def]
    random = np.random.default_rng(2)
    grid = fit_vectors(draw(random, 2000))
    found = np.array(
        [
            distance_squared(
                grid, numbers(grid, draw(random, rows)), numbers(grid, draw(random, 1000))
            )
            for _ in range(100)
        ]
    )
    assert abs(found.mean()) < 0.4 * found.std()


def test_a_shift_of_the_mean_counts_as_in_the_mmd_and_a_correlation_more() -> None:
    random = np.random.default_rng(3)
    before, after = normal(random, 20_000), normal(random, 20_000)
    grid = fit_vectors(before)
    moved = after + 0.3 * (np.arange(DIMENSIONS) < 2)
    correlated = after.copy()
    correlated[:, 1::2] = 3 + 0.8 * (after[:, ::2] - 3) + 0.6 * (after[:, 1::2] - 3)
    baseline = numbers(grid, before)
    for changed, factor in ((moved, 1.0), (correlated, BEYOND)):
        window = numbers(grid, changed)
        plain = mmd_squared(window, baseline, cells=grid.cells)
        assert distance_squared(grid, window, baseline) == pytest.approx(factor * plain, rel=0.1)
