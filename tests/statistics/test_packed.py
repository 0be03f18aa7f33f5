"""Counts as bytes: few of them, and nothing else is taken for counts."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgeml.errors import StatisticsError
from edgeml.statistics import Counts, Grid, fit_grid, merged, pack, unpack

RANDOM = np.random.default_rng(11)
GRID = Grid(kind="numeric", bins=32, low=-4.0, high=4.0)
NAMES = Grid(kind="categorical", bins=2, values=("a", "b"))
GOOD = pack(Counts.of(GRID, RANDOM.normal(size=500)))
NAMED = pack(Counts.of(NAMES, ["a"] * 9 + ["new"] * 7 + ["ü"] * 8))

DATA = {
    "normal": lambda n: RANDOM.normal(20, 3, n),
    "uniform": RANDOM.random,
    "skewed": lambda n: RANDOM.lognormal(0, 1, n),
    "many zeros": lambda n: np.where(RANDOM.random(n) < 0.5, 0, RANDOM.exponential(1, n)),
    "integers": lambda n: RANDOM.integers(0, 256, n),
    "day": lambda n: 15 + 5 * np.sin(np.linspace(0, 7, n)) + RANDOM.normal(0, 1, n),
    "two humps": lambda n: RANDOM.normal(0, 1, n) + 9 * (RANDOM.random(n) < 0.4),
    "heavy tails": lambda n: RANDOM.standard_t(2, n),
    "some NaN": lambda n: np.where(RANDOM.random(n) < 0.02, np.nan, RANDOM.normal(0, 1, n)),
}


@pytest.mark.parametrize("rows", [300, 1000])
@pytest.mark.parametrize("name", DATA)
def test_a_numeric_stream_costs_at_most_64_bytes_a_window(name, rows):
    grid = fit_grid(DATA[name](10_000))
    sizes = [len(pack(Counts.of(grid, DATA[name](rows)))) for _ in range(50)]
    assert max(sizes) <= 64
    drifted = Counts.of(grid, DATA[name](rows) * 1.5 + 3)
    assert len(pack(drifted)) <= 64


@given(st.binary(max_size=300))
@example(b"")
@example(b"\xff" * 300)
@example(GOOD + b"\x00")
def test_garbage_is_refused_and_nothing_else_happens(data):
    for grid in (GRID, NAMES):
        try:
            counts = unpack(data, grid)
        except StatisticsError:
            continue
        assert pack(counts) == data


@pytest.mark.parametrize("good", [GOOD, NAMED], ids=["numeric", "categorical"])
@given(data=st.data())
def test_a_changed_byte_is_refused_or_is_other_counts(good, data):
    """The form is canonical: there are no two spellings of the same counts."""
    at, byte = data.draw(st.integers(0, len(good) - 1)), data.draw(st.integers(0, 255))
    changed = good[:at] + bytes([byte]) + good[at + 1 :]
    grid = GRID if good is GOOD else NAMES
    try:
        counts = unpack(changed, grid)
    except StatisticsError:
        return
    assert pack(counts) == changed
    assert (counts == unpack(good, grid)) == (changed == good)


@pytest.mark.parametrize("good", [GOOD, NAMED], ids=["numeric", "categorical"])
def test_cut_short_or_longer_is_refused(good):
    grid = GRID if good is GOOD else NAMES
    for length in range(len(good)):
        with pytest.raises(StatisticsError):
            unpack(good[:length], grid)
    with pytest.raises(StatisticsError, match="more bytes"):
        unpack(good + b"\x01", grid)


@pytest.mark.parametrize(
    "bomb",
    [
        b"\xff\xff\xff\xff\x0f\x02",  # four thousand million cells
        b"\x82\x20\x80\x22\x00\x81\x20\x00\xff\x21\x00" * 2,
        b"\x26\x02\x00\xff\xff\xff\xff\x0f",  # as many zeros
        b"\x04\x20\x00\x03\x00\x1f\x01\xff\xff\x7f",  # labels
    ],
)
def test_no_small_message_takes_much_memory(bomb):
    tracemalloc.start()
    with pytest.raises(StatisticsError):
        unpack(bomb, GRID)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def test_merging_counts_of_different_shapes_is_refused():
    with pytest.raises(StatisticsError, match="numbers"):
        merged(GOOD, NAMED)


def test_names_that_are_not_bounded_are_refused():
    """A sender cannot smuggle more names than the sketch has counters, nor any on a number."""
    counts = Counts.zeros(NAMES)
    counts.labels = frozenset(f"n{i}" for i in range(500))
    with pytest.raises(StatisticsError, match="names"):
        unpack(pack(counts), NAMES)
    counts = Counts.of(GRID, [1.0])
    counts.labels = frozenset({"x"})
    with pytest.raises(StatisticsError, match="numeric grid"):
        unpack(pack(counts), GRID)
