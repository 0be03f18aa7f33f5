"""One suite of laws for every kind of grid: counts add, subtract and travel without any loss."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeml.errors import StatisticsError
from edgeml.statistics import Counts, Grid, merged, pack, unpack
from edgeml.statistics.grid import SKETCH_ROWS, SKETCH_WIDTH

numbers = st.floats(allow_nan=True, allow_infinity=True) | st.sampled_from([0.0, 1.0]) | st.none()
NUMERIC = st.builds(
    Grid,
    kind=st.just("numeric"),
    bins=st.integers(1, 64),
    low=st.floats(1e-6, 1e3),
    high=st.floats(2e3, 1e6),
    log=st.booleans(),
    atoms=st.lists(st.floats(-1e6, 1e6), max_size=4, unique=True).map(lambda a: tuple(sorted(a))),
)
ATOMIC = st.builds(
    Grid, kind=st.just("numeric"), bins=st.just(8), low=st.just(-1.0), atoms=st.just((0.0, 1.0))
)
CODES = st.builds(Grid, kind=st.just("categorical"), bins=st.integers(1, 64))
LISTED = st.just(Grid(kind="categorical", bins=3, values=(-7, 0, 2**40)))
NAMED = st.just(Grid(kind="categorical", bins=3, values=("", "cat", "dog")))
VECTORS = st.builds(
    Grid,
    kind=st.just("vector"),
    bins=st.just(3),
    low=st.floats(-1e6, -1e-6),
    high=st.floats(1e-6, 1e6),
    bandwidth=st.floats(2e3, 1e9),  # a thousandth of the range, as fitting has it at least
    seed=st.integers(0, 9),
)
codes = st.integers(-3, 70) | st.just(2**40) | st.none()
texts = st.sampled_from(["cat", "dog", "cow", "ant" * 30]) | st.text(max_size=5) | st.none()
vectors = st.tuples(*[st.floats(width=32, allow_nan=True, allow_infinity=True)] * 3)
# Each case: a grid, and several lists of values for it.
CASES = {
    "numeric": (NUMERIC | ATOMIC, numbers),
    "codes": (CODES | LISTED, codes),
    "text": (NAMED, texts),
    "vector": (VECTORS, vectors),
}

every_kind = pytest.mark.parametrize("kind", CASES)


def counts_of(kind: str, data: st.DataObject, times: int) -> tuple[Grid, list[Counts]]:
    grids, values = CASES[kind]
    grid = data.draw(grids)
    # Often the same few values over and over, so that there are runs and frequent new categories.
    some = st.lists(values, max_size=12).flatmap(
        lambda few: st.lists(st.sampled_from(few), max_size=40) if few else st.just([])
    )
    return grid, [Counts.of(grid, data.draw(some)) for _ in range(times)]


@every_kind
@given(data=st.data())
def test_addition_is_associative_and_commutative_and_has_an_identity(kind, data):
    grid, (x, y, z) = counts_of(kind, data, 3)
    assert (x + y) + z == x + (y + z)
    assert x + y == y + x
    assert x + Counts.zeros(grid) == x


@every_kind
@given(data=st.data())
def test_subtraction_is_the_inverse_and_extremes_stay_bounds(kind, data):
    grid, (x, y) = counts_of(kind, data, 2)
    back = (x + y) - y
    assert back.adds_as(x)
    assert (x - x).adds_as(Counts.zeros(grid))
    if grid.extremes:
        assert back.extremes[0] <= x.extremes[0]
        assert (back.extremes[1:] >= x.extremes[1:]).all()
    assert x.labels <= back.labels | x.labels


@every_kind
@given(data=st.data())
def test_counting_together_is_counting_apart_and_adding(kind, data):
    grids, values = CASES[kind]
    grid, a, b = data.draw(grids), *data.draw(st.tuples(*[st.lists(values, max_size=30)] * 2))
    together, apart = Counts.of(grid, a + b), Counts.of(grid, a) + Counts.of(grid, b)
    assert np.array_equal(together.cells, apart.cells)
    # The projection of a vector may be rounded otherwise in a batch of another size.
    assert np.abs(together.sums - apart.sums).max(initial=0) <= (kind == "vector")
    assert np.array_equal(together.extremes[:2], apart.extremes[:2])
    assert (together.extremes[2:] >= apart.extremes[2:]).all(), "a run may go on from a to b"


@every_kind
@given(data=st.data())
def test_every_value_is_counted_once(kind, data):
    grids, values = CASES[kind]
    grid, some = data.draw(grids), data.draw(st.lists(values, max_size=30))
    counts = Counts.of(grid, some)
    assert counts.total == len(some)
    assert (counts.cells.size, counts.sums.size) == (grid.cells, grid.sums)
    located = np.bincount(grid.locate(some), minlength=grid.cells)
    assert np.array_equal(counts.cells, located)


@every_kind
@given(data=st.data())
def test_cells_are_on_the_line_or_off_it_and_the_line_ascends(kind, data):
    grid = data.draw(CASES[kind][0])
    every = [*grid.ordered.tolist(), *grid.unordered.tolist()]
    assert sorted(every) == list(range(grid.cells))
    assert len(grid.centres()) == len(grid.ordered)
    assert (np.diff(grid.centres()) >= 0).all()


@every_kind
@given(data=st.data())
def test_what_is_packed_arrives_and_merges_without_its_grid(kind, data):
    grid, (x, y) = counts_of(kind, data, 2)
    assert unpack(pack(x), grid) == x
    assert unpack(merged(pack(x), pack(y)), grid) == x + y


@every_kind
@given(data=st.data())
def test_the_bytes_are_bounded_by_the_grid_and_not_by_the_data(kind, data):
    grid, (x,) = counts_of(kind, data, 1)
    labels = SKETCH_ROWS * SKETCH_WIDTH * (4 * 64 + 2) + 2 if kind == "text" else 70 * 8
    assert len(pack(x)) <= 16 + 2 * grid.cells + 4 * grid.sums + 5 * grid.extremes + labels


@every_kind
@given(data=st.data())
def test_counts_on_another_grid_are_refused_by_name(kind, data):
    _, (x,) = counts_of(kind, data, 1)
    other = Grid(kind="numeric", bins=100)
    with pytest.raises(StatisticsError, match=other.hash):
        x + Counts.zeros(other)
    with pytest.raises(StatisticsError, match=other.hash):
        unpack(pack(x), other)


@every_kind
@given(data=st.data())
def test_taking_back_what_was_never_added_is_refused(kind, data):
    grid, (x,) = counts_of(kind, data, 1)
    if x.total:
        with pytest.raises(StatisticsError, match="smallest -"):
            Counts.zeros(grid) - x


def test_the_hash_names_the_grid_and_nothing_less():
    variants = [
        Grid(kind="numeric", bins=4),
        Grid(kind="numeric", bins=5),
        Grid(kind="numeric", bins=4, high=2.0),
        Grid(kind="numeric", bins=4, low=-1.0),
        Grid(kind="numeric", bins=4, low=0.5),
        Grid(kind="numeric", bins=4, low=0.5, log=True),
        Grid(kind="numeric", bins=4, atoms=(0.0,)),
        Grid(kind="categorical", bins=4),
        Grid(kind="categorical", bins=4, values=(1, 2, 3, 4)),
        Grid(kind="categorical", bins=4, values=("1", "2", "3", "4")),
        Grid(kind="vector", bins=4),
        Grid(kind="vector", bins=4, seed=1),
    ]
    assert len({grid.hash for grid in variants}) == len(variants)
    assert Grid(kind="numeric", bins=4).hash == variants[0].hash


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "numeric", "bins": 0},
        {"kind": "numeric", "bins": 513},
        {"kind": "numeric", "bins": 4, "low": 1.0, "high": 1.0},
        {"kind": "numeric", "bins": 4, "low": -1.7e308, "high": 1.7e308},
        {"kind": "numeric", "bins": 4, "low": float("nan")},
        {"kind": "numeric", "bins": 4, "low": 0.0, "log": True},
        {"kind": "numeric", "bins": 4, "atoms": (1.0, 0.0)},
        {"kind": "numeric", "bins": 4, "atoms": (float("inf"),)},
        {"kind": "categorical", "bins": 2, "values": (1, 1)},
        {"kind": "categorical", "bins": 2, "values": (1, "1")},
        {"kind": "categorical", "bins": 3, "values": (1, 2)},
        {"kind": "vector", "bins": 3, "bandwidth": 0.0},
        {"kind": "vector", "bins": 5000},
    ],
    ids=str,
)
def test_a_grid_that_cannot_be_is_refused(fields):
    with pytest.raises(StatisticsError):
        Grid(**fields)
