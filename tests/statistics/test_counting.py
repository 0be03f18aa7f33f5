"""Streams of a tensor counted together come out as number by number, to the last unit."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from sys import getrefcount

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeml.statistics import MISSING, Counts, Grid, numeric
from edgeml.statistics.counts import NOTHING
from edgeml.statistics.grid import UNITS
from edgeml.statistics.numeric import BLOCK, STREAMS, NumericTally
from edgeml.statistics.places import FARTHEST, FIRST, MARGIN

LINEAR = Grid(kind="numeric", bins=32, low=-3.1, high=3.3)
ZERO = Grid(kind="numeric", bins=32, low=-3.1, high=3.3, atoms=(0.0,))
LOG = Grid(kind="numeric", bins=32, low=0.03, high=40.0, log=True)
GRIDS = [
    LINEAR,
    ZERO,
    LOG,
    Grid(kind="numeric", bins=512, low=-1.0, high=2.0, atoms=(-0.5, 0.0, 1.0, 1e300)),
    Grid(kind="numeric", bins=7, low=0.5, high=1e6, log=True, atoms=(-2.0, 0.0, 1.0)),
    # Lines so long that zero, NaN and infinity lie on them beside numbers.
    Grid(kind="numeric", bins=16, low=1e-300, high=1e300, log=True),
    Grid(kind="numeric", bins=3, low=-1e-200, high=1e-200),
]
SPECIAL = [0.0, -0.0, 1.0, -1.0, math.nan, -math.nan, MISSING, math.inf, -math.inf]
FAR = [5e-324, -1e-310, 1e-300, 1e5, -1e9, 1e300, -1.7e308]


def bits(value: float) -> int:
    return struct.unpack("<q", struct.pack("<d", value))[0]


def place(grid: Grid, value: float) -> float:
    return float(max(bits(value), 0)) if grid.log else value


def plainly(grid: Grid, column: list[float]) -> Counts:
    """The counts of one stream, number by number."""
    low, high = place(grid, grid.low), place(grid, grid.high)
    scale = grid.bins * UNITS / (high - low)
    cells, units, clipped = [0] * grid.cells, [NOTHING, -NOTHING], []
    run = longest = 0
    before = math.nan
    for value in column:
        run = run + 1 if value == before else 1
        longest, before = max(longest, run), value
        if bits(value) == bits(MISSING):
            cells[grid.missing] += 1
        elif not math.isfinite(value):
            cells[grid.nan + (0 if math.isnan(value) else 1 if value < 0 else 2)] += 1
        else:
            exact = place(grid, value) * scale + -low * scale
            unit = math.floor(min(max(exact, -FARTHEST), FARTHEST))
            units = [min(units[0], unit), max(units[1], unit)]
            clipped.append(min(max(unit, FIRST), (grid.bins + MARGIN) * UNITS - 1))
            cell = min(max(unit // UNITS, -1), grid.bins) + 1
            cells[grid.bins + 2 + grid.atoms.index(value) if value in grid.atoms else cell] += 1
    sums = [sum(clipped), sum(unit * unit for unit in clipped)]
    return Counts(grid.hash, cells, sums, [*units, longest])


def check(grids: list[Grid], matrix: np.ndarray, cuts: list[int]) -> None:
    tally = NumericTally(grids)
    for n, part in enumerate(np.split(matrix, cuts)):
        # Whatever the order in memory.
        tally.add(np.asfortranarray(part) if n == 3 else part)
    for grid, column, counts in zip(grids, matrix.T.tolist(), tally.take(), strict=True):
        # A list of floats keeps the bits of a NaN.
        assert counts == plainly(grid, column)


@given(
    st.lists(st.sampled_from(GRIDS), min_size=1, max_size=5),
    st.lists(
        st.sampled_from(SPECIAL + FAR) | st.floats(-4, 4) | st.floats() | st.floats(0.01, 100),
        max_size=300,
    ),
    st.lists(st.integers(0, 60), max_size=5),
)
def test_a_few_numbers_of_every_sort(grids, values, cuts):
    rows = len(values) // len(grids)
    matrix = np.array(values[: rows * len(grids)]).reshape(rows, len(grids))
    check(grids, matrix, sorted(min(cut, rows) for cut in cuts))


@pytest.mark.parametrize("streams", [1, 3, STREAMS, STREAMS + 5])
@pytest.mark.parametrize("odd", [0.0, 1e-4, 0.01])
def test_buffers_of_numbers_with_some_odd_ones(streams: int, odd: float):
    """More than two buffers full, the last one in part; runs of some rows, and one of very many."""
    random = np.random.default_rng(streams)
    rows = 2 * BLOCK // streams + 777
    matrix = random.normal(size=(rows, streams))
    matrix[random.random(matrix.shape) < 0.3] = 0.0
    matrix[300:, 0] = np.repeat(matrix[300:, 0], 300)[: rows - 300]
    some = random.random(matrix.shape) < odd
    matrix[some] = random.choice(SPECIAL + FAR, int(some.sum()))
    for grids in ([LINEAR], [ZERO], [LOG], GRIDS):
        check((grids * streams)[:streams], matrix, [1, 1, 2, 100, *range(101, 301), 900])


def least(units: np.ndarray) -> np.ndarray:
    """As x86-64 has it: the least integer for all that none of 32 bits is."""
    return np.where(np.abs(units) < 2**31, units, -(2**31))


def lowest_bits(units: np.ndarray) -> np.ndarray:
    """As ARM has it: the nearest integer of 64 bits, of which 32 are taken; 0 for NaN."""
    whole = np.clip(np.nan_to_num(units), -(2.0**63), 2.0**63 - 1024)
    return whole.astype(np.int64).astype(np.int32)


def nearest(units: np.ndarray) -> np.ndarray:
    """As one has it that takes one number at a time: the nearest integer of 32 bits."""
    return np.clip(np.nan_to_num(units), -(2**31), 2**31 - 1)


@pytest.mark.parametrize("integers", [least, lowest_bits, nearest])
def test_whatever_integer_a_processor_makes_of_what_is_far_out(
    integers: Callable[[np.ndarray], np.ndarray], monkeypatch: pytest.MonkeyPatch
):
    def squared(units: np.ndarray, cells: np.ndarray) -> np.ndarray:
        cells[...] = integers(units)
        return np.einsum("ij,ij->j", units, units)

    monkeypatch.setattr(numeric, "_squared", squared)
    # On a line of 128 units a number, what has the lowest 32 bits of one that is near.
    line = Grid(kind="numeric", bins=8, low=0.0, high=8.0)
    aliases = [turns * 2.0**32 / UNITS + near for turns in (-3, -1, 1, 2) for near in (0.0, 5.5)]
    for far in [
        *aliases,
        math.nan,
        MISSING,
        math.inf,
        -math.inf,
        1e300,
        -1e300,
        2.0**24,
        -(2.0**24),
    ]:
        for count in (1, 7, 300):
            column = np.full((count, 1), 5.5)
            column[count // 2] = far
            check([line], column, [count // 3])


def test_a_batch_of_no_rows_is_not_kept():
    tally, empty = NumericTally([LINEAR, ZERO]), np.empty((0, 2))
    kept = np.ones((5, 2))
    tally.add(kept)
    before = getrefcount(empty)
    for _ in range(3):
        tally.add(empty)
    assert getrefcount(empty) == before
    assert [counts.total for counts in tally.take()] == [5, 5]


def test_no_streams_have_no_counts():
    tally = NumericTally([])
    tally.add(np.empty((BLOCK + 1, 0)))
    assert tally.take() == []
