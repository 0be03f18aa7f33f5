"""Exponential Golomb codes: what is written is read, in no other spelling."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeml.errors import StatisticsError
from edgeml.statistics.golomb import Reader, Writer, folded, unfolded

LARGE = 1 << 90
NUMBERS = st.lists(st.tuples(st.integers(0, 9) | st.integers(0, LARGE), st.integers(0, 40)))


def written(numbers):
    out = Writer()
    for number, parameter in numbers:
        out.put(number, parameter)
    return out.bytes()


def test_the_codes_are_those_of_the_standard():
    """Table 9-1 of ITU-T H.264, for parameter 0: 1, 010, 011, 00100."""
    assert written([(0, 0), (1, 0), (2, 0), (3, 0)]) == bytes([0b1_010_011_0, 0b0100_0000])
    assert written([(0, 3), (8, 3)]) == bytes([0b1000_0100, 0b00_000000])


@given(NUMBERS)
def test_numbers_come_back(numbers):
    source = Reader(written(numbers))
    assert [(source.one(parameter, LARGE), parameter) for _, parameter in numbers] == numbers
    source.end()


@given(st.binary(max_size=40), st.lists(st.integers(0, 40), max_size=40))
def test_whatever_is_read_to_its_end_is_what_is_written_of_it(data, parameters):
    source = Reader(data)
    try:
        numbers = [(source.one(parameter, LARGE), parameter) for parameter in parameters]
        source.end()
    except StatisticsError:
        return
    assert written(numbers) == data


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
    source = Reader(data)

    def read_one():
        source.one(0, 9)
        source.end()

    with pytest.raises(StatisticsError, match=words):
        read_one()


@given(st.integers())
def test_folding_is_undone(number):
    assert folded(number) >= 0
    assert unfolded(folded(number)) == number
