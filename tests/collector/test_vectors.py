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


@pytest.mark.parametrize("draw", [normal, clusters])
def test_the_mmd_of_windows_is_that_of_the_gaussian_kernel_on_all_pairs_of_vectors(draw) -> None:  # type: ignore[no-untyped-def]
    random = np.random.default_rng(4)
    a, b = draw(random, 500) + 0.3, draw(random, 500)
    grids = [fit_vectors(b, seed=seed) for seed in range(8)]

    def kernel(one: np.ndarray, two: np.ndarray) -> np.ndarray:
        squares = (one**2).sum(axis=1)[:, None] + (two**2).sum(axis=1) - 2 * one @ two.T
        return np.exp(-squares / (2 * grids[0].bandwidth ** 2))

    def within(one: np.ndarray) -> float:
        return (kernel(one, one).sum() - len(one)) / (len(one) * (len(one) - 1))

    exact = within(a) + within(b) - 2 * kernel(a, b).mean()
    found = [mmd_squared(numbers(g, a), numbers(g, b), cells=g.cells) for g in grids]
    # 128 random projections know it to some tenths; over several draws they are right on average.
    assert exact > 0.01
    assert np.mean(found) == pytest.approx(exact, rel=0.1)
    assert found == pytest.approx([exact] * len(grids), rel=0.4)


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
