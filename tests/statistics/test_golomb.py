"""Counts of windows of schema 3: what those devices sent is read, and nothing else is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.schema3 import Writer, pack_3

from edgeml.errors import StatisticsError
from edgeml.statistics import Counts, Grid, golomb, merged, pack, unpack
from edgeml.statistics.packed import plain

LARGE = 1 << 90
LINE = np.linspace(-1, 1, 2001)
SENT = {
    "smooth": (
        Grid(kind="numeric", bins=32, low=-4.0, high=4.0),
        3 * LINE**3,
        "00df460032936c4f6c5b42012f22c259af3f5eca14c0f5251d8a832b5e01fe96db800780",
    ),
    "logarithmic, many zeros": (
        Grid(kind="numeric", bins=32, low=0.01, high=100.0, log=True, atoms=(0.0,)),
        np.where(abs(LINE) < 0.2, 0, (2 * LINE) ** 6),
        "0076005be9fbbbe2a50aaa9aa291e331949fe2ca4beaa444b9e82144220327001320d35a4784b8d05fda",
    ),
    "some NaN": (
        Grid(kind="numeric", bins=16, low=0.0, high=1.0),
        np.where(LINE < -0.9, np.nan, LINE),
        "000413e880821111155555554801c2a032fe399ffc2d90e62799a4dac0",
    ),
}
"""Bytes that an edgeml has written whose windows were of schema 3."""


@pytest.mark.parametrize("name", SENT)
def test_what_a_device_sent_is_read_and_merges(name):
    grid, values, data = SENT[name]
    counts, sent = Counts.of(grid, values), bytes.fromhex(data)
    assert unpack(sent, grid) == counts
    assert sent == pack_3(counts)
    assert merged(sent, sent) == pack(counts + counts)


@given(st.data())
def test_any_counts_come_back(data):
    bins, few = data.draw(st.integers(1, 80)), st.sampled_from([0, 0, 1, 2, 1000])
    grid = Grid(kind="numeric", bins=bins)
    cells = data.draw(
        st.lists(few | st.integers(0, 2**40), min_size=grid.cells, max_size=grid.cells)
    )
    far = st.integers(-(2**61), 2**61)
    ends = data.draw(st.tuples(far, far).map(sorted) | st.just([2**62, -(2**62)]))
    sums, run = data.draw(st.tuples(far, far)), data.draw(st.integers(0, 2**61))
    counts = Counts(grid.hash, cells, sums, [*ends, run])
    sent = pack_3(counts)
    if len(sent) < len(plain(counts)):
        assert unpack(sent, grid) == counts
    else:
        with pytest.raises(StatisticsError, match="plain form that is as short"):
            unpack(sent, grid)


@given(st.binary(max_size=80))
def test_garbage_is_refused_or_is_the_one_spelling_of_its_counts(data):
    grid = Grid(kind="numeric", bins=32)
    try:
        counts = unpack(b"\0" + data, grid)
    except StatisticsError:
        return
    assert pack_3(counts) == b"\0" + data


def test_the_codes_are_those_of_the_standard():
    """Table 9-1 of ITU-T H.264, for parameter 0: 1, 010, 011, 00100."""
    source = golomb.Reader(bytes([0b1_010_011_0, 0b0100_0000]))
    assert [source.one(0, LARGE) for _ in range(4)] == [0, 1, 2, 3]
    source.end()
    source = golomb.Reader(bytes([0b1000_0100, 0b00_000000]))
    assert [source.one(3, LARGE) for _ in range(2)] == [0, 8]


@given(st.binary(max_size=40), st.lists(st.integers(0, 40), max_size=40))
def test_whatever_is_read_to_its_end_is_what_is_written_of_it(data, parameters):
    source, again = golomb.Reader(data), Writer()
    try:
        for parameter in parameters:
            again.put(source.one(parameter, LARGE), parameter)
        source.end()
    except StatisticsError:
        return
    assert again.bytes() == data


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "end in the middle"),
        (b"\x00", "end in the middle"),
        (b"\x01", "end in the middle"),
        (b"\x1e", "14 where at most 9"),
        (bytes(17) + b"\xff" * 40, "more than 128 bits"),
        (b"\x80\x00", "more bytes"),
        (b"\xc0", "more bytes"),
    ],
)
def test_what_is_no_number_is_refused_with_the_reason(data, words):
    source = golomb.Reader(data)

    def read_one():
        source.one(0, 9)
        source.end()

    with pytest.raises(StatisticsError, match=words):
        read_one()
