"""Numbers with a sign, and numbers around a middle, as numbers from 0 on."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgeml.statistics.folding import folded, inwards, outwards, unfolded


@given(st.integers())
def test_folding_is_undone(number):
    assert folded(number) >= 0
    assert unfolded(folded(number)) == number


@given(st.integers(0, 40).flatmap(lambda most: st.tuples(st.just(most), st.integers(0, most))))
def test_numbers_around_a_middle_are_numbered_from_it_on_each_once(range_):
    most, middle = range_
    numbers = [outwards(number, middle, most) for number in range(most + 1)]
    assert sorted(numbers) == list(range(most + 1))
    assert numbers[middle] == 0
    assert [inwards(each, middle, most) for each in numbers] == list(range(most + 1))
