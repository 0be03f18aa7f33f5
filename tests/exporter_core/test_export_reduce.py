"""Delta debugging by its laws, for any property of a set of nodes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgeml.exporter.diagnosis.reduce import smallest

COUNTS = st.integers(1, 40)


@given(COUNTS, st.sets(st.integers(0, 39)))
def test_the_nodes_that_are_needed_are_found_exactly(count: int, needed: set[int]):
    needed = {index % count for index in needed} or {0}
    assert smallest(count, needed.issubset) == tuple(sorted(needed))


@given(COUNTS, st.randoms(use_true_random=False))
def test_whatever_the_property_what_is_left_shows_it_and_no_node_can_go(count: int, random):
    answers: dict[tuple[int, ...], bool] = {tuple(range(count)): True}

    def shows(items: tuple[int, ...]) -> bool:
        assert list(items) == sorted(set(items))
        return answers.setdefault(items, random.random() < 0.3)

    left = smallest(count, shows, most=10_000)
    assert answers[left]
    for index in left if len(left) > 1 else ():
        assert not shows(tuple(item for item in left if item != index))


@given(COUNTS)
def test_nothing_is_asked_twice_and_no_more_than_is_allowed(count: int):
    asked: list[tuple[int, ...]] = []

    def shows(items: tuple[int, ...]) -> bool:
        asked.append(items)
        return len(items) > count // 2

    smallest(count, shows, most=25)
    assert len(asked) == len(set(asked))
    assert len(asked) <= 25


def test_a_good_guess_saves_the_search():
    asked: list[tuple[int, ...]] = []

    def shows(items: tuple[int, ...]) -> bool:
        asked.append(items)
        return 7 in items

    assert smallest(1000, shows, guesses=[(3,), (7,)]) == (7,)
    assert asked == [(3,), (7,)]
