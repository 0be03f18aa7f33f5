"""An asymmetric numeral system on one integer: what is written is read, and nothing else."""

from __future__ import annotations

from math import log2

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeml.errors import StatisticsError
from edgeml.statistics import logarithms
from edgeml.statistics.ans import Reader, Writer

LARGE = 1 << 62


@st.composite
def near(draw):
    most = draw(st.integers(0, 9) | st.integers(0, LARGE))
    numbers = st.integers(0, most)
    return (
        "near",
        draw(numbers),
        draw(numbers),
        most,
        draw(st.integers(1, 99) | st.integers(1, LARGE)),
    )


@st.composite
def choice(draw):
    starts = [0]
    for often in draw(st.lists(st.integers(1, 99), min_size=1, max_size=6)):
        starts.append(starts[-1] + often)
    return "choice", draw(st.integers(0, len(starts) - 2)), starts


STEPS = st.lists(
    near() | choice() | st.tuples(st.just("size"), st.integers(0, 9) | st.integers(0, LARGE - 1))
)


def written(steps):
    out = Writer()
    for kind, number, *rest in steps:
        assert getattr(out, kind)(number, *rest) == number
    return out.number()


@given(STEPS)
def test_numbers_come_back(steps):
    source = Reader(written(steps))
    for kind, number, *rest in steps:
        assert getattr(source, kind)(0, *rest) == number
    source.end()


@given(st.integers(0, 1 << 400), STEPS)
def test_whatever_is_read_to_its_end_is_what_is_written_of_it(number, steps):
    source = Reader(number)
    found = [(kind, getattr(source, kind)(0, *rest), *rest) for kind, _, *rest in steps]
    try:
        source.end()
    except StatisticsError:
        return
    assert written(found) == number


def test_a_symbol_takes_as_many_bits_as_it_is_improbable():
    def bits(steps):
        behind = [("size", LARGE - 1)]
        return log2(written(steps + behind)) - log2(written(behind))

    fifteen_of_sixteen = [("choice", 0, [0, 15, 16])] * 1000
    assert bits(fifteen_of_sixteen) == pytest.approx(1000 * log2(16 / 15), abs=0.1)
    any_byte = [("near", number, 128, 255, 1 << 20) for number in range(256)]
    assert bits(any_byte) == pytest.approx(256 * 8, abs=0.1)


def test_what_is_cut_short_or_longer_is_refused():
    steps = [("near", 500 + step, 512, 1 << 20, 10) for step in range(20)]
    whole = written(steps)
    for number in (0, whole >> 8, whole >> 80, whole << 8, whole << 8 | 1):
        source = Reader(number)
        for _, _, *rest in steps:
            source.near(0, *rest)
        with pytest.raises(StatisticsError, match="more bytes than they have numbers, or fewer"):
            source.end()


@given(st.integers(1, 1 << 90))
def test_logarithms_of_integers_are_near_those_of_numbers(number):
    assert logarithms.log2(number) / logarithms.OCTAVE == pytest.approx(log2(number), abs=4e-4)


@given(st.integers(-20 << 16, 20 << 16))
def test_shares_are_near_those_of_numbers(log):
    p = 1 / (1 + 2 ** (-log / logarithms.OCTAVE))
    assert logarithms.share(log) / (1 << logarithms.SHARE) == pytest.approx(p, abs=4e-4)


def test_the_tables_are_those_of_every_processor():
    """Wherever this runs: a table that differed would read other counts from the same bytes."""
    assert sum(place * log for place, log in enumerate(logarithms.LOGS)) == 396_416_465_150
    assert sum(place * p for place, p in enumerate(logarithms.SHARES)) == 58_841_263_192_898
