"""What a window scores: which way it moved and how far, whatever the number of its rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeml.collector.drift.scores import DISTANCE, MEAN, SPREAD, CellScorer
from edgeml.statistics import Counts, Grid

GRID = Grid(kind="numeric", bins=32, low=-4.0, high=4.0)
BASELINE = Counts.of(GRID, np.random.default_rng(0).normal(size=500)).cells


def test_windows_that_are_only_smaller_are_not_more_extreme() -> None:
    """Scores of 30 rows thinned from 40 and from 400 come from one distribution."""
    random = np.random.default_rng(3)
    scorer = CellScorer(GRID, BASELINE, 30)

    def scores(rows: int) -> np.ndarray:
        windows = (Counts.of(GRID, random.normal(size=rows)).cells for _ in range(400))
        return np.array([scorer.scores(scorer.thin(w, 30, i)) for i, w in enumerate(windows)])

    small, large = scores(40), scores(400)
    error = np.sqrt(small.var(axis=0) / 400 + large.var(axis=0) / 400)
    assert (np.abs(small.mean(axis=0) - large.mean(axis=0)) < 4 * error).all()


def test_scores_say_which_way_a_window_moved() -> None:
    random = np.random.default_rng(4)
    scorer = CellScorer(GRID, BASELINE, 400)

    def score(values: np.ndarray) -> np.ndarray:
        return scorer.scores(Counts.of(GRID, values).cells)

    usual, up = score(random.normal(0, 1, 400)), score(random.normal(1, 1, 400))
    wide = score(random.normal(0, 2, 400))
    assert up[MEAN] - usual[MEAN] == pytest.approx(1.0, abs=0.2)
    assert wide[SPREAD] - usual[SPREAD] == pytest.approx(np.log(2), abs=0.15)
    assert usual[DISTANCE] < 1.6 < min(up[DISTANCE], wide[DISTANCE])


def test_a_window_of_nothing_but_missing_values_has_a_distance_and_no_mean() -> None:
    scorer = CellScorer(GRID, BASELINE, 30)
    found = scorer.scores(Counts.of(GRID, np.full(30, np.nan)).cells)
    assert found[DISTANCE] > 3
    assert np.isnan(found[[MEAN, SPREAD]]).all()


def test_the_score_of_merged_windows_is_foretold_from_the_single_ones() -> None:
    random = np.random.default_rng(5)
    single, merged = CellScorer(GRID, BASELINE, 100), CellScorer(GRID, BASELINE, 1600)
    found: list[np.ndarray] = []
    for _ in range(40):
        windows = [Counts.of(GRID, random.normal(0.5, 1, 100)).cells for _ in range(16)]
        foretold = single.merged(np.array([single.scores(w) for w in windows]))
        found.append(merged.scores(np.sum(windows, axis=0)) - foretold)
    assert np.abs(np.mean(found, axis=0)).max() < 0.2


@given(st.lists(st.integers(0, 60), min_size=3, max_size=30), st.integers(0, 2**48), st.data())
def test_thinning_takes_a_subset_and_the_same_one_each_time(
    counts: list[int], seed: int, data: st.DataObject
) -> None:
    cells = np.asarray(counts, dtype=np.int64)
    rows = data.draw(st.integers(0, int(cells.sum())))
    thin = CellScorer(GRID, BASELINE, 30).thin
    taken = thin(cells, rows, seed)
    assert taken.sum() == rows
    assert (taken <= cells).all()
    assert (thin(cells, rows, seed) == taken).all()


def test_windows_of_more_rows_than_can_be_drawn_from_are_thinned_too() -> None:
    """NumPy draws without replacement from a thousand million at most."""
    scorer = CellScorer(GRID, BASELINE, 30)
    many = BASELINE * 10**8
    thinned = [scorer.thin(many, 30, seed) for seed in range(200)]
    assert {int(each.sum()) for each in thinned} == {30}
    assert not np.any(np.array(thinned)[:, BASELINE == 0])
    shares = np.mean(thinned, axis=0) / 30
    assert np.abs(shares - BASELINE / BASELINE.sum()).max() < 0.02
