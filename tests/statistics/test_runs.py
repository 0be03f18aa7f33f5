"""The longest runs of several streams, however their rows come, are what counting gives."""

from __future__ import annotations

import numpy as np
import pytest

from edgeml.statistics import runs
from edgeml.statistics.runs import Runs

NEVER, SELDOM, OFTEN, MOSTLY, STUCK = 0.0, 0.01, 0.5, 0.9, 1.0
"""How often a stream has the value of the row before."""


def series(random: np.random.Generator, rows: int, repeats: list[float]) -> np.ndarray:
    values = random.normal(size=(rows, len(repeats)))
    for row in np.arange(1, rows):
        again = random.random(len(repeats)) < repeats
        values[row, again] = values[row - 1, again]
    return values


def by_hand(values: np.ndarray, begin: int, end: int) -> list[int]:
    """The longest runs that the rows from ``begin`` to ``end`` are part of, as long as these rows
    and those before make them."""
    longest: list[int] = []
    for column in values.T.tolist():
        run, most = 0, 0
        for row in range(end):
            run = run + 1 if row and column[row] == column[row - 1] else 1
            most = max(most, run) if row >= begin else 0
        longest.append(most)
    return longest


@pytest.mark.parametrize(
    "repeats",
    [
        [OFTEN],
        [OFTEN] * 7,
        [MOSTLY, MOSTLY, OFTEN],
        [OFTEN, STUCK, MOSTLY],
        [NEVER, OFTEN, MOSTLY],
        [SELDOM, OFTEN, OFTEN, NEVER],
        [SELDOM, STUCK],
        [STUCK] * 3,
    ],
    ids=str,
)
@pytest.mark.parametrize("seed", range(4))
def test_runs_over_buffers_and_windows(repeats: list[float], seed: int):
    random = np.random.default_rng(seed)
    values = series(random, 3000, repeats)
    values[1500:1503] = np.nan
    cuts = np.unique(random.integers(1, len(values), 40))
    found = Runs(len(repeats), width=5 * len(repeats))
    before, window = np.full((1, len(repeats)), np.nan), 0
    for at, part in zip([*cuts, len(values)], np.split(values, cuts), strict=True):
        found.add(np.concatenate([before, part]))
        before = part[-1:]
        if random.random() < 0.2 or at == len(values):
            assert found.take().tolist() == by_hand(values, window, int(at))
            window = int(at)


def test_a_stream_without_runs_may_have_some_later():
    """When longer ones alone were looked at, since all others had had those."""
    random = np.random.default_rng(0)
    values = series(random, 2000, [NEVER, MOSTLY])
    values[1500:1503, 0] = 7.0
    found = Runs(2, width=10)
    before = np.full((1, 2), np.nan)
    for part in np.split(values, 10):
        found.add(np.concatenate([before, part]))
        before = part[-1:]
    assert found.take()[0] == 3


def test_very_many_long_runs_are_looked_at_in_between(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(runs, "_MANY", 10)
    test_runs_over_buffers_and_windows([OFTEN, MOSTLY], 5)
