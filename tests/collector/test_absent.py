"""Rows without a value: found where they are new, however slow the series; a gap is one event."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import signal, stats

from edgeml.collector.drift import combined
from edgeml.collector.drift.absent import absent_cells, share_test
from edgeml.collector.drift.compare import compare
from edgeml.drift_report.stretches import Stretches
from edgeml.statistics import Grid

GRID = Grid(kind="numeric", bins=32, low=-3.3, high=3.3)


def series(random: np.random.Generator, rows: int, *, correlation: float = 0.9) -> np.ndarray:
    steps = random.normal(size=rows) * np.sqrt(1 - correlation**2)
    return signal.lfilter([1], [1, -correlation], steps)


def gaps(random: np.random.Generator, rows: int, *, share: float, length: int) -> np.ndarray:
    """Flags of rows in gaps of geometric lengths."""
    found, at, missing = np.zeros(rows, dtype=bool), 0, random.random() < share
    while at < rows:
        lasts = int(random.geometric(1 / (length if missing else length * (1 - share) / share)))
        found[at : at + lasts] = missing
        at, missing = at + lasts, not missing
    return found


def counted(values: np.ndarray, missing: np.ndarray) -> Stretches:
    stretches = Stretches(GRID.cells)
    stretches.add(GRID.locate(np.ma.masked_array(values, mask=missing)))
    return stretches


def compared(window: Stretches, baseline: Stretches) -> combined.Test:
    return combined.combined_test(
        GRID,
        window.total,
        baseline.total,
        window_stretches=window.complete,
        baseline_stretches=baseline.complete,
    )


def some(flags: np.ndarray, first: int, last: int) -> np.ndarray:
    found = flags.copy()
    found[first:last] = True
    return found


def test_what_is_newly_missing_from_a_slow_series_is_found() -> None:
    random = np.random.default_rng(1)
    for _ in range(10):
        window = counted(series(random, 2000), random.random(2000) < 0.14)
        baseline = counted(series(random, 8000), np.zeros(8000, dtype=bool))
        found = compared(window, baseline)
        assert found.p < 1e-6
        assert found.effective["location"][0] < 400  # of its values
        assert found.effective["missing"][0] > 1000


def test_also_where_it_began_in_the_middle() -> None:
    random = np.random.default_rng(2)
    missing = (random.random(2000) < 0.3) & (np.arange(2000) > 1200)
    baseline = counted(series(random, 8000), np.zeros(8000, dtype=bool))
    assert compared(counted(series(random, 2000), missing), baseline).p < 1e-6


@pytest.mark.parametrize(
    ("share", "length"), [(0.14, 1), (0.01, 1), (0.05, 20), (0.14, 200), (0.02, 500)]
)
def test_what_was_missing_before_is_no_evidence(share: float, length: int) -> None:
    """At random, and in gaps from longer than a stretch to a quarter of all rows."""
    random = np.random.default_rng(3)

    def side(rows: int) -> Stretches:
        if length == 1:
            missing = random.random(rows) < share
        else:
            missing = gaps(random, rows, share=share, length=length)
        return counted(series(random, rows, correlation=0), missing)

    found = [compared(side(2000), side(8000)).p <= 0.05 for _ in range(60)]
    assert sum(found) <= 8


def test_one_gap_is_one_event_and_many_are_many() -> None:
    random = np.random.default_rng(4)
    values, none = series(random, 2000, correlation=0), np.zeros(2000, dtype=bool)
    baseline = counted(series(random, 8000, correlation=0), np.zeros(8000, dtype=bool))
    window = counted(values, some(none, 600, 800))
    one = compare(
        GRID,
        window.total,
        baseline.total,
        window_stretches=window.complete,
        baseline_stretches=baseline.complete,
    )
    assert one.parts["missing"] > 0.1
    assert one.p > 0.05
    assert one.measures["js"].p > 0.05
    assert one.effective_n == 2000  # of its values
    assert one.detectable > 0.02  # and more of such gaps might have come unseen
    many = none
    for first in range(50, 2000, 100):
        many = some(many, first, first + 10)
    assert compared(counted(values, many), baseline).p < 1e-4


def test_a_sensor_that_has_died_is_no_gap() -> None:
    random = np.random.default_rng(5)
    values, none = series(random, 2000), np.zeros(2000, dtype=bool)
    baseline = counted(series(random, 8000), np.zeros(8000, dtype=bool))
    for died in (0, 900, 1400):
        assert compared(counted(values, some(none, died, 2000)), baseline).p < 1e-6


@pytest.mark.parametrize(("here", "there"), [(6, 3), (0, 9), (1, 0), (3, 9), (997, 4000)])
def test_few_of_independent_rows_are_tested_exactly(here: int, there: int) -> None:
    missing = absent_cells(GRID)["missing"]
    sides = [np.zeros(GRID.cells, dtype=np.int64) for _ in range(2)]
    for side, rows, absent in zip(sides, (1000, 4000), (here, there), strict=True):
        side[3], side[missing] = rows - absent, absent
    found = share_test(missing, *sides, window_stretches=None, baseline_stretches=None)
    assert found is not None
    rare = (here, there) if here < 500 else (1000 - here, 4000 - there)
    tails = [
        stats.binomtest(rare[0], sum(rare), 0.2, alternative=side).pvalue
        for side in ("less", "greater")
    ]
    assert found.p == pytest.approx(min(2 * min(tails), 1))


def test_many_of_independent_rows_are_tested_as_a_share() -> None:
    missing = absent_cells(GRID)["missing"]
    sides = [np.zeros(GRID.cells, dtype=np.int64) for _ in range(2)]
    for side, rows, absent in zip(sides, (1000, 4000), (160, 500), strict=True):
        side[3], side[missing] = rows - absent, absent
    found = share_test(missing, *sides, window_stretches=None, baseline_stretches=None)
    assert found is not None
    table = [[160, 840], [500, 3500]]
    assert found.p == pytest.approx(stats.chi2_contingency(table, correction=False).pvalue)


def test_the_cells_p_value_tells_of_what_is_missing() -> None:
    random = np.random.default_rng(6)
    window = counted(series(random, 2000), random.random(2000) < 0.14)
    baseline = counted(series(random, 8000), np.zeros(8000, dtype=bool))
    assert compare(GRID, window.total, baseline.total).measures["chi2"].p < 1e-6
