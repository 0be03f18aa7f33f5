"""A device that says the same for ever."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeml.collector.drift.stuck import Repeats, repeat_probability, watch

Cells = NDArray[np.int64]

SPREAD = np.array([20, 100, 200, 300, 200, 100, 80], dtype=np.int64)
NARROW = np.array([990, 10, 0, 0, 0, 0, 0], dtype=np.int64)
ONE_VALUE = np.array([0, 0, 60, 0, 0, 0, 0], dtype=np.int64)
WINDOW = np.array([1, 7, 11, 15, 12, 8, 6], dtype=np.int64)


def feed(
    *windows: NDArray[np.int64], reference: NDArray[np.int64] = SPREAD, run: int = 0
) -> list[str]:
    state = Repeats()
    told: list[str] = []
    for n, cells in enumerate(windows):
        state = watch(state, cells, reference=reference, start_ms=n, longest_run=run)
        told.append(state.why)
    return told


def test_the_same_window_for_ever_is_stuck_and_another_one_ends_it() -> None:
    other = WINDOW[::-1].copy()
    *before, last, free = feed(WINDOW, WINDOW, WINDOW, WINDOW, WINDOW, WINDOW, other)
    assert before[0] == before[1] == ""
    assert last == "the same counts of 60 rows in 6 windows in a row"
    assert free == ""


def test_what_is_nearly_always_the_same_may_repeat() -> None:
    constant = np.array([60, 0, 0, 0, 0, 0, 0], dtype=np.int64)
    assert set(feed(*[constant] * 500, reference=NARROW)) == {""}
    # Nor is a model stuck that says one class for everything: it has drifted.
    assert set(feed(*[constant] * 500, reference=SPREAD)) == {""}


def test_empty_windows_are_not_stuck() -> None:
    assert set(feed(*[np.zeros(7, dtype=np.int64)] * 50)) == {""}


def test_one_value_that_fills_the_window_is_stuck_where_values_were_spread() -> None:
    assert feed(ONE_VALUE, run=60) == ["one value filled a window of 60 rows"]
    assert feed(ONE_VALUE, run=59) == [""]
    assert feed(np.array([60, 0, 0, 0, 0, 0, 0]), run=60, reference=NARROW) == [""]


def test_one_value_outside_of_what_was_seen_is_drift_and_not_stuck() -> None:
    never_seen = np.array([20, 100, 200, 300, 200, 100, 0], dtype=np.int64)
    dark = np.array([0, 0, 0, 0, 0, 0, 60], dtype=np.int64)
    assert feed(dark, run=60, reference=never_seen) == [""]


def test_a_run_lies_within_one_of_merged_windows() -> None:
    state = watch(Repeats(), ONE_VALUE, reference=SPREAD, start_ms=0, longest_run=30, merged=2)
    assert state.why == "one value filled a window of 30 rows"


@pytest.mark.parametrize("rows", [30, 100, 400])
def test_the_probability_of_a_repetition_is_what_a_simulation_finds(rows: int) -> None:
    shares = np.array([0.5, 0.3, 0.2])
    drawn = np.random.default_rng(1).multinomial(rows, shares, size=(2, 200_000))
    seen = float((drawn[0] == drawn[1]).all(axis=1).mean())
    cells = np.round(rows * shares).astype(np.int64)
    assert repeat_probability(cells) == pytest.approx(seen, rel=0.1)


@given(st.lists(st.integers(0, 500), min_size=1, max_size=20))
def test_it_is_a_probability(cells: list[int]) -> None:
    assert 0 < repeat_probability(np.array(cells, dtype=np.int64)) <= 1


def test_healthy_streams_are_never_called_stuck() -> None:
    rng = np.random.default_rng(2)
    for _ in range(300):
        cells = rng.multinomial(40, SPREAD / SPREAD.sum(), size=40)
        assert set(feed(*cells)) == {""}
