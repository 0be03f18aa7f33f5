"""Counts as bytes: few of them, and nothing else is taken for counts."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgeml.errors import StatisticsError
from edgeml.statistics import Counts, Grid, fit_grid, merged, pack, predictive, unpack
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


MANY = {
    "normal, 30 % zeros": lambda n: np.where(RANDOM.random(n) < 0.3, 0, RANDOM.normal(0, 1, n)),
    "clipped": lambda n: np.clip(RANDOM.normal(0, 1, n), -1, 1.2),
    "half normal, half uniform": lambda n: np.where(
        RANDOM.random(n) < 0.5, RANDOM.normal(0, 1, n), RANDOM.uniform(-3, 3, n)
    ),
    "gamma": lambda n: RANDOM.gamma(2, 1, n),
    "beta": lambda n: RANDOM.beta(2, 5, n),
    "double exponential": lambda n: RANDOM.laplace(0, 1, n),
    "few floats": lambda n: RANDOM.integers(0, 50, n) + 0.0,
}
"""More kinds of numbers, in windows of very many rows."""
MOST = {
    "skewed": 65,
    "day": 66,
    "beta": 66,
    "integers": 66,
    "heavy tails": 67,
    "two humps": 68,
    "gamma": 70,
    "many zeros": 71,
    "few floats": 77,
}
"""Bytes of a million rows where they may be more than 64."""


@pytest.mark.parametrize("rows", [300, 1000, 10_000, 100_000])
@pytest.mark.parametrize("name", DATA | MANY)
def test_a_numeric_stream_costs_at_most_64_bytes_a_window(name, rows):
    data = (DATA | MANY)[name]
    grid = fit_grid(data(10_000))
    for _ in range(50 if rows <= 1000 else 5):
        usual = Counts.of(grid, data(rows))
        drifted = Counts.of(grid, data(rows) * 1.5 + 3)
        most = {300: 32, 1000: 40}.get(rows, 64)
        assert max(len(pack(usual, grid)), len(pack(drifted, grid))) <= most
        # Half as many as in the plain form, a few more where there are atoms.
        assert len(pack(usual, grid)) <= 0.75 * len(plain(usual))


@pytest.mark.parametrize("name", DATA | MANY)
def test_a_million_rows_cost_at_most_64_bytes_too_but_for_some(name):
    data = (DATA | MANY)[name]
    grid = fit_grid(data(10_000))
    assert len(pack(Counts.of(grid, data(1_000_000)), grid)) <= MOST.get(name, 64)


def test_where_a_logarithmic_line_lies_is_told_if_it_pays():
    """The density on it has a jump at each power of two, of which the neighbours tell nothing."""
    grid = Grid(kind="numeric", bins=32, low=0.03, high=30.0, log=True)
    few, many = (Counts.of(grid, RANDOM.lognormal(0, 1, n)) for n in (1000, 300_000))
    assert grid.octaves == (118, 1274)  # .03 is 1.92 / 64, and 30 is 1.875 * 16
    assert pack(few, grid) == pack(few)
    assert len(pack(many, grid)) <= len(pack(many)) - 6
    assert unpack(pack(many, grid), grid) == unpack(pack(many), grid) == many


def test_a_merged_window_tells_where_its_line_lies_if_one_of_both_did():
    grid = Grid(kind="numeric", bins=32, low=0.03, high=30.0, log=True)
    few, many = (Counts.of(grid, RANDOM.lognormal(0, 1, n)) for n in (1000, 300_000))
    together = pack(few + many, grid)
    assert merged(pack(few, grid), pack(many, grid)) == together
    assert merged(pack(many, grid), pack(few, grid)) == together
    assert len(together) < len(merged(pack(few), pack(many)))


def test_a_line_that_is_not_the_grids_is_refused():
    grid = Grid(kind="numeric", bins=32, low=0.03, high=30.0, log=True)
    other = Grid(kind="numeric", bins=32, low=0.04, high=30.0, log=True)
    sent = pack(Counts.of(grid, RANDOM.lognormal(0, 1, 300_000)), grid)
    for wrong in (other, GRID):
        with pytest.raises(StatisticsError, match="line that is not the grid's"):
            unpack(sent, wrong)


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
    assert merged(pack(counts), pack(Counts.zeros(grid))) == pack(counts + Counts.zeros(grid))
    assert len(pack(counts)) <= len(plain(counts))
    numbers = predictive.Numbers(cells, list(sums), [*ends, run])
    line = data.draw(st.none() | st.tuples(st.integers(0, 127), st.integers(0, 2048 * 128)))
    assert predictive.read(predictive.write(numbers, line)) == (numbers, line)


def test_counts_of_a_device_that_packs_them_plainly_are_read():
    """Bytes of an edgeml whose windows were of schema 2."""
    counts = Counts.of(GRID, np.linspace(-5, 5, 501))
    sent = bytes.fromhex(OLD)
    assert unpack(sent, GRID) == counts
    assert len(pack(counts)) < len(sent)
    assert merged(sent, pack(counts)) == pack(counts + counts)


@given(
    st.binary(max_size=300)
    | st.tuples(st.integers(128, 255), st.integers(33, 255), st.binary(max_size=80)).map(
        lambda data: bytes(data[:2]) + data[2]
    )
)
@example(b"")
@example(b"\xff" * 300)
@example(GOOD + b"\x00")
def test_garbage_is_refused_and_nothing_else_happens(data):
    for grid in (GRID, NAMES):
        try:
            counts = unpack(data, grid)
        except StatisticsError:
            continue
        if not data.startswith(b"\0"):  # see test_golomb.py
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
    for more in (b"\0", b"\1", b"\xff"):
        with pytest.raises(StatisticsError):
            unpack(good + more, grid)


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
        b"\xff" * (1 << 16),  # a number that is too long
        b"\xff" * (1 << 13),  # and one that is just not
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
