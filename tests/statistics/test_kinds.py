"""What each kind of grid makes of particular values."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeml.errors import StatisticsError
from edgeml.statistics import (
    MISSING,
    Counts,
    Grid,
    fit_categories,
    fit_grid,
    fit_vectors,
    pack,
)
from edgeml.statistics.categorical import LEAST_SEEN, CategoricalTally, seen
from edgeml.statistics.frequent import KEPT, Frequent
from edgeml.statistics.grid import UNITS
from edgeml.statistics.numeric import BLOCK, STREAMS, NumericTally
from edgeml.statistics.places import MARGIN
from edgeml.statistics.vector import means

RANDOM = np.random.default_rng(5)
FOUR = Grid(kind="numeric", bins=4, low=0.0, high=1.0)
ZERO = Grid(kind="numeric", bins=4, low=0.0, high=1.0, atoms=(0.0, 0.5))


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        (-1e300, 0),
        (-0.001, 0),
        (-5e-324, 0),
        (0.0, 1),
        (5e-324, 1),
        (0.24, 1),
        (0.25, 2),
        (0.99, 4),
        (1.0, 5),
        (1e300, 5),
        (1.7e308, 5),
        (np.nan, 6),
        (-np.inf, 7),
        (np.inf, 8),
        (MISSING, 9),
        (None, 9),
    ],
)
def test_where_a_number_falls_on_four_bins_over_zero_to_one(value, cell):
    assert FOUR.locate([value]).tolist() == [cell]


def test_a_masked_number_is_missing():
    assert FOUR.locate(np.ma.array([0.3, 0.3], mask=[False, True])).tolist() == [2, 9]


def test_an_atom_has_a_cell_of_its_own_at_its_place_on_the_line():
    assert ZERO.locate([0.0, 1e-9, 0.5, 0.5001]).tolist() == [6, 1, 7, 3]
    assert ZERO.ordered.tolist() == [0, 6, 1, 2, 7, 3, 4, 5]
    assert ZERO.unordered.tolist() == [8, 9, 10, 11]


def test_equal_ratios_are_equal_steps_on_a_logarithmic_grid():
    grid = Grid(kind="numeric", bins=8, low=1.0, high=256.0, log=True, atoms=(0.0,))
    assert grid.locate([1, 2, 4, 128, 255, 256, 0.5, -3, 0]).tolist() == [
        1,
        2,
        3,
        8,
        8,
        9,
        0,
        0,
        10,
    ]
    assert grid.centres().tolist() == [-1.5, *np.arange(-0.5, 9).tolist()]
    assert grid.value(3 * UNITS) == 8.0


@pytest.mark.parametrize(("value", "cell"), [(0, 0), (2, 2), (3, 3), (99, 3), (-1, 3), (0.5, 3)])
def test_an_unknown_category_is_another_one(value, cell):
    assert Grid(kind="categorical", bins=3).locate([value]).tolist() == [cell]


def test_text_and_missing_text():
    grid = fit_categories(["dog", "cat", "dog", None, "ant"], most=2)
    assert grid.values == ("ant", "dog"), "as frequent as each other: the first by name"
    assert grid.locate(["ant", "dog", "cat", None, float("nan")]).tolist() == [0, 1, 2, 3, 3]


def test_of_many_categories_the_most_frequent_have_a_cell_each():
    values = np.repeat(np.arange(100), np.arange(1, 101))
    assert fit_categories(values).values == tuple(range(36, 100))


def test_a_new_category_is_named_once_enough_rows_had_it():
    grid = fit_categories(["a", "b"])
    counts = Counts.of(grid, ["c"] * 40 + ["rare"] * (LEAST_SEEN - 1) + ["a"] * 9)
    assert counts.cells.tolist() == [9, 0, 44, 0]
    assert counts.labels == {"c"}
    assert seen(counts.sums, "c") in {40, 44}
    assert seen((counts - counts).sums, "c") == 0


@pytest.mark.parametrize("batch", [7, 5000])
@pytest.mark.parametrize("seed", range(5))
def test_what_is_frequent_among_very_many_rare_names_is_named_and_no_other(seed, batch):
    """Their hashes collide all over, so that the sketch alone would take each for frequent."""
    random = np.random.default_rng(seed)
    rare = [f"customer {number}" for number in random.permutation(4800)]
    values = random.permutation([*rare, *["refund"] * 150, *["trial"] * 50])
    tally = CategoricalTally(fit_categories(["a", "b"]))
    for start in range(0, len(values), batch):
        tally.add(values[start : start + batch])
    assert tally.take().labels == {"refund", "trial"}
    assert tally.take().labels == frozenset()


@given(st.lists(st.integers(0, 400), max_size=2000), st.integers(1, 300))
def test_no_name_is_counted_too_often_nor_a_frequent_one_lost(rows, batch):
    frequent = Frequent()
    for start in range(0, len(rows), batch):
        frequent.add(Counter(map(str, rows[start : start + batch])))
    true, lost = Counter(map(str, rows)), len(rows) // (KEPT + 1)
    assert frequent.lost <= lost
    for least in (1, 2, 5, 20):
        found = frequent.of(least)
        assert len(found) <= KEPT
        assert all(true[name] >= least for name in found)
        assert {name for name, times in true.items() if times >= least + lost} <= {*found}


def test_new_categories_without_end_take_no_more_room():
    grid = fit_categories([1, 2, 3])
    counts = Counts.of(grid, np.repeat(np.arange(10, 5000), 6))
    assert len(counts.labels) <= grid.sums
    assert len(pack(counts)) < 1000


@pytest.mark.parametrize("constant", [0.0, 1.0, -273.15, 1e300, -1.7e308, 5e-324, 1e-310])
def test_a_constant_gets_a_cell_of_its_own_and_a_grid_around_it(constant):
    grid = fit_grid([constant] * 10)
    counts = Counts.of(grid, [constant] * 10)
    assert grid.atoms == (constant,)
    assert counts.cells[grid.bins + 2] == 10
    assert counts.extremes[2] == 10
    assert Counts.of(grid, [constant + max(abs(constant), 1) / 100]).cells[: grid.bins + 2].sum()


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=200))
def test_a_fitted_grid_holds_nearly_all_it_was_fitted_to(values):
    grid = fit_grid(values)
    if max(map(abs, values)) < 1e300:  # beyond that float64 has no room for a range
        outside = Counts.of(grid, values).cells[[0, grid.bins + 1]].sum()
        assert outside <= 2 + 0.002 * len(values)


def test_a_fitted_grid_is_the_central_998_in_1000_in_bins_of_equal_width():
    """Whatever lies far outside: a wild value of the calibration makes no bin wider."""
    values = np.append(RANDOM.normal(size=100_000), [1e6] * 50)
    grid = fit_grid(values)
    low, high = np.quantile(values, [0.001, 0.999])
    margin = 0.02 * (high - low)
    assert 32 <= grid.bins <= 64
    assert not grid.log
    assert low - margin < grid.low < low < high < grid.high < high + margin
    edges = grid.low + (grid.high - grid.low) / grid.bins * np.arange(grid.bins)
    assert grid.locate(edges + 1e-6).tolist() == list(range(1, grid.bins + 1))


@pytest.mark.parametrize("values", [[], [np.nan], [np.inf, -np.inf], [None]])
def test_nothing_finite_fits_no_grid(values):
    with pytest.raises(StatisticsError, match="finite"):
        fit_grid(values)


def test_skewed_data_is_counted_on_a_logarithmic_line_and_other_data_is_not():
    assert fit_grid(RANDOM.lognormal(0, 2, 1000)).log
    assert not fit_grid(RANDOM.normal(10, 1, 1000)).log
    assert not fit_grid(RANDOM.random(1000)).log
    many_zeros = np.where(RANDOM.random(1000) < 0.3, 0, RANDOM.lognormal(0, 2, 1000))
    grid = fit_grid(many_zeros)
    assert grid.log
    assert grid.atoms == (0.0,)


def test_moments_are_finer_than_bins():
    values = RANDOM.normal(3, 2, 4000)
    grid = fit_grid(values)
    counts = Counts.of(grid, values)
    n, mean, variance = grid.moments(counts)
    assert n == 4000
    assert mean == pytest.approx(np.mean(values), abs=0.01)
    assert variance == pytest.approx(np.var(values), rel=0.01)
    smallest, largest = (grid.value(float(place)) for place in counts.extremes[:2])
    assert smallest == pytest.approx(values.min(), abs=grid.step / UNITS)
    assert largest == pytest.approx(values.max(), abs=grid.step / UNITS)


def test_a_wild_value_moves_a_sum_by_no_more_than_the_margin():
    calm, wild = (Counts.of(FOUR, [0.5] * 9 + [value]) for value in (0.5, 1e300))
    assert 0 < wild.sums[0] - calm.sums[0] <= (4 + MARGIN) * UNITS


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=30),
    st.integers(1, 2 * STREAMS),
    st.integers(0, 2**32 - 1),
)
def test_all_streams_together_are_each_stream_alone(cuts, streams, seed):
    """However it is batched: also where buffers overflow and runs go on over their borders."""
    random = np.random.default_rng(seed)
    matrix = random.choice([0.0, 0.0, 0.25, 0.3, 7.0, -1e300, np.nan, np.inf], (sum(cuts), streams))
    kinds = (
        FOUR,
        ZERO,
        Grid(kind="numeric", bins=7, low=0.1, log=True),
        Grid(kind="numeric", bins=5, atoms=(0.0, 0.3)),
    )
    grids = [kinds[n % len(kinds)] for n in range(streams)]
    tally = NumericTally(grids)
    for part in np.split(matrix, np.cumsum(cuts)[:-1]):
        tally.add(part)
    for grid, column, counts in zip(grids, matrix.T, tally.take(), strict=True):
        assert counts == Counts.of(grid, column)
        assert counts.extremes[2] == longest_run(column)


@given(st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_a_value_on_the_edge_of_a_bin_falls_alike_beside_other_streams(streams, seed):
    """What the exporter counts one by one is what a device counts together, to the last one."""
    random = np.random.default_rng(seed)
    low = float(random.normal())
    grid = Grid(kind="numeric", bins=30, low=low, high=low + float(random.exponential()) + 1e-3)
    edges = low + grid.step * np.arange(-2, 33) * random.choice([1, 1 + 1e-16, 1 - 1e-16], 35)
    tally = NumericTally([grid] * streams)
    tally.add(np.repeat(edges[:, None], streams, axis=1))
    assert all(counts == Counts.of(grid, edges) for counts in tally.take())


def longest_run(column: np.ndarray) -> int:
    longest = run = 1
    for before, value in itertools.pairwise(column):
        run = run + 1 if value == before else 1
        longest = max(longest, run)
    return longest


def test_a_run_goes_on_over_buffers_and_windows():
    tally = NumericTally([FOUR, FOUR])
    stuck = np.column_stack([np.full(BLOCK, 0.5), np.linspace(0, 1, BLOCK)])
    tally.add(stuck)
    assert [counts.extremes[2] for counts in tally.take()] == [BLOCK, 1]
    tally.add(stuck[:10])
    assert [counts.extremes[2] for counts in tally.take()] == [BLOCK + 10, 1]
    tally.add(np.array([[0.1, 0.1], [0.2, 0.2]]))
    assert [counts.extremes[2] for counts in tally.take()] == [1, 1]


def test_vectors_that_changed_only_in_their_correlation_lie_apart():
    calibration = RANDOM.normal(size=(2000, 8))
    mixed = RANDOM.normal(size=(2000, 8))
    mixed[:, 1] = 0.9 * mixed[:, 0] + np.sqrt(1 - 0.81) * mixed[:, 1]
    grid = fit_vectors(calibration)
    before, _ = means(grid, Counts.of(grid, calibration))
    same, _ = means(grid, Counts.of(grid, RANDOM.normal(size=(2000, 8))))
    other, _ = means(grid, Counts.of(grid, mixed))
    assert ((other - before) ** 2).sum() > 3 * ((same - before) ** 2).sum()


def test_the_mean_vector_is_the_mean_of_the_vectors():
    vectors = RANDOM.normal(2, 1, (500, 5)).astype(np.float32)
    grid = fit_vectors(vectors)
    counts = Counts.of(grid, np.concatenate([vectors, np.full((1, 5), np.nan)]))
    assert counts.cells.tolist() == [500, 1]
    _, mean = means(grid, counts)
    clipped = np.abs(mean - vectors.mean(axis=0)).max()
    assert clipped < 0.02


@pytest.mark.parametrize("vectors", [[[1e300, -1e300]], [[5e-324, 0.0]], [[0.0, 0.0]] * 9])
def test_vectors_at_the_ends_of_float64(vectors):
    counts = Counts.of(fit_vectors(vectors), vectors)
    assert counts.cells.tolist() == [len(vectors), 0]
    assert np.abs(counts.sums).max() <= 2 * 4096 * len(vectors)
