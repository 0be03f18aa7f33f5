"""Counts form a commutative group on each grid, whatever was counted; and grids lose no value."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeml.errors import StatisticsError
from edgeml.statistics import Counts, Grid, fit_grid

grids = st.one_of(
    st.builds(
        Grid,
        kind=st.just("numeric"),
        bins=st.integers(1, 64),
        low=st.floats(-1e6, -1e-6),
        high=st.floats(1e-6, 1e6),
    ),
    st.builds(Grid, kind=st.just("categorical"), bins=st.integers(1, 64)),
)
numbers = st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=50)


@given(grids, numbers, numbers, numbers)
def test_addition_is_associative_commutative_and_has_a_zero(grid, a, b, c):
    x, y, z = (Counts.of(grid, values) for values in (a, b, c))
    assert (x + y) + z == x + (y + z)
    assert x + y == y + x
    assert x + Counts.zeros(grid) == x


@given(grids, numbers, numbers)
def test_counting_together_is_counting_apart_and_adding(grid, a, b):
    assert Counts.of(grid, a + b) == Counts.of(grid, a) + Counts.of(grid, b)


@given(grids, numbers, numbers)
def test_taking_back_is_exact(grid, a, b):
    both = Counts.of(grid, a + b)
    assert both - Counts.of(grid, b) == Counts.of(grid, a)


@given(grids, numbers)
def test_every_value_is_counted_once(grid, values):
    counts = Counts.of(grid, values)
    assert counts.total == len(values)
    assert len(counts.cells) == grid.cells


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        (-np.inf, 0),
        (-0.001, 0),
        (0.0, 1),
        (0.24, 1),
        (0.25, 2),
        (0.99, 4),
        (1.0, 5),
        (1e300, 5),
        (np.inf, 5),
        (np.nan, 6),
    ],
)
def test_where_a_number_falls_on_four_bins_over_zero_to_one(value, cell):
    grid = Grid(kind="numeric", bins=4, low=0.0, high=1.0)
    assert grid.locate([value]).tolist() == [cell]


@pytest.mark.parametrize(("value", "cell"), [(0, 0), (2, 2), (3, 3), (99, 3), (-1, 3), (np.nan, 3)])
def test_an_unknown_category_is_anything_else(value, cell):
    assert Grid(kind="categorical", bins=3).locate([value]).tolist() == [cell]


def test_counts_on_another_grid_are_refused_by_name():
    coarse, fine = (Grid(kind="numeric", bins=bins) for bins in (4, 8))
    with pytest.raises(StatisticsError, match=fine.hash):
        Counts.zeros(coarse) + Counts.zeros(fine)


def test_taking_back_what_was_never_added_is_refused():
    grid = Grid(kind="categorical", bins=2)
    with pytest.raises(StatisticsError, match="smallest -1"):
        Counts.of(grid, [0]) - Counts.of(grid, [1])


def test_the_hash_names_the_grid_and_nothing_less():
    variants = [
        Grid(kind="numeric", bins=4),
        Grid(kind="numeric", bins=5),
        Grid(kind="numeric", bins=4, high=2.0),
        Grid(kind="numeric", bins=4, low=-1.0),
        Grid(kind="categorical", bins=4),
    ]
    assert len({grid.hash for grid in variants}) == len(variants)
    assert Grid(kind="numeric", bins=4).hash == variants[0].hash


@pytest.mark.parametrize("constant", [0.0, 1.0, -273.15, 1e300, 5e-324])
def test_a_constant_gets_a_grid_around_it(constant):
    grid = fit_grid([constant] * 10)
    cells = Counts.of(grid, [constant] * 10).cells
    assert cells[1:-2].sum() == 10, "inside the bins, not at their edge"


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=200))
def test_a_fitted_grid_holds_nearly_all_it_was_fitted_to(values):
    grid = fit_grid(values)
    outside = Counts.of(grid, values).cells[[0, -2]].sum()
    assert outside <= 2 + 0.002 * len(values)


@pytest.mark.parametrize("values", [[], [np.nan], [np.inf, -np.inf]])
def test_nothing_finite_fits_no_grid(values):
    with pytest.raises(StatisticsError, match="finite"):
        fit_grid(values)
