"""Counts as bytes: few of them, and nothing else is taken for counts."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgeml.errors import StatisticsError
from edgeml.statistics import Counts, Grid, fit_grid, merged, pack, unpack
from edgeml.statistics.packed import plain

RANDOM = np.random.default_rng(11)
GRID = Grid(kind="numeric", bins=32, low=-4.0, high=4.0)
NAMES = Grid(kind="categorical", bins=2, values=("a", "b"))
GOOD = pack(Counts.of(GRID, RANDOM.normal(size=500)))
NAMED = pack(Counts.of(NAMES, ["a"] * 9 + ["new"] * 7 + ["ü"] * 8))

OLD = (
    "2602320d0c0d0c0d0c0d0c0d0c0d0c0d0c0d0c0d0c0d0c0d0c0d"
    "0c0d0c0d0c0d0c0d0c330003a09c7da0cffeea170601ff078028"
)

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


@pytest.mark.parametrize("rows", [300, 1000, 10_000, 100_000])
@pytest.mark.parametrize("name", DATA)
def test_a_numeric_stream_costs_at_most_64_bytes_a_window(name, rows):
    grid = fit_grid(DATA[name](10_000))
    for _ in range(50 if rows <= 1000 else 5):
        usual = Counts.of(grid, DATA[name](rows))
        drifted = Counts.of(grid, DATA[name](rows) * 1.5 + 3)
        assert max(len(pack(usual)), len(pack(drifted))) <= 64
        # Half as many as in the plain form, a few more where there are atoms.
        assert len(pack(usual)) <= 0.75 * len(plain(usual))


@pytest.mark.parametrize("name", DATA)
def test_a_million_rows_cost_at_most_80(name):
    counts = Counts.of(fit_grid(DATA[name](10_000)), DATA[name](1_000_000))
    assert len(pack(counts)) <= 80


@given(st.data())
def test_any_counts_come_back_and_are_never_longer_than_in_the_plain_form(data):
    """Cells that are no histogram, and sums that no values have, too."""
    grid = data.draw(
        st.builds(
            Grid,
            kind=st.just("numeric"),
            bins=st.integers(1, 80) | st.just(512),
            atoms=st.sampled_from([(), (0.5,), (0.0, 1.0, 2.0, 3.0)]),
        )
    )
    few, many = st.sampled_from([0, 0, 1, 2, 1000]), st.integers(0, 2**40)
    cells = data.draw(st.lists(few | many, min_size=grid.cells, max_size=grid.cells))
    far = st.integers(-(2**61), 2**61)
    sums = data.draw(st.tuples(far, far))
    run = data.draw(st.integers(0, 2**61))
    ends = data.draw(st.tuples(far, far).map(sorted) | st.just([2**62, -(2**62)]))
    counts = Counts(grid.hash, cells, sums, [*ends, run])
    assert unpack(pack(counts), grid) == counts == unpack(plain(counts), grid)
    assert len(pack(counts)) <= len(plain(counts))


def test_counts_of_a_device_that_packs_them_plainly_are_read():
    """Bytes of an edgeml whose windows were of schema 2."""
    counts = Counts.of(GRID, np.linspace(-5, 5, 501))
    sent = bytes.fromhex(OLD)
    assert unpack(sent, GRID) == counts
    assert len(pack(counts)) < len(sent)
    assert merged(sent, pack(counts)) == pack(counts + counts)


@given(st.binary(max_size=300) | st.binary(max_size=80).map(lambda data: b"\0" + data))
@example(b"")
@example(b"\xff" * 300)
@example(GOOD + b"\x00")
def test_garbage_is_refused_and_nothing_else_happens(data):
    for grid in (GRID, NAMES):
        try:
            counts = unpack(data, grid)
        except StatisticsError:
            continue
        assert data in {pack(counts), plain(counts)}


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
        bytes(1 << 16),  # a number with half a million zeros before it
        b"\0\x80" + bytes(15) + b"\xff" * 60_000,  # one of 129 digits
        b"\0\0\0\x10" + b"\xff" * 60_000,  # half a million cells
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
