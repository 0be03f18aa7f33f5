"""What is learned of a series while nothing is wrong: its hours, its memory, and its caution."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeml.collector.drift.reference import (
    FOLDS,
    Learned,
    Usual,
    caution,
    folds,
    gaps_of,
    learn,
    on_even_grid,
    whiten,
)
from edgeml.collector.drift.season import (
    DAY_HOURS,
    HOUR_MS,
    SEASONS,
    Season,
    design,
    fit_profile,
    weights,
)
from edgeml.collector.drift.whitening import fit_memory, lag_one

Array = np.ndarray

QUARTER_MS = 900_000
DAY = 96  # windows of a quarter of an hour


def times(windows: int, *, first: int = 0) -> Array:
    return (first + np.arange(windows, dtype=np.int64)) * QUARTER_MS


def autoregressive(phi: float, size: tuple[int, int], seed: int = 1) -> Array:
    noise = np.random.default_rng(seed).normal(size=size)
    noise[1:] *= np.sqrt(1 - phi**2)
    for at in range(1, size[0]):
        noise[at] += phi * noise[at - 1]
    return noise


def day_cycle(at: Array) -> Array:
    return np.sin(2 * np.pi * at / (DAY_HOURS * HOUR_MS))


def weekend(at: Array) -> Array:
    return np.isin(at // (DAY_HOURS * HOUR_MS) % 7, (2, 3)).astype(float)


def test_the_profile_of_a_day_is_found_through_noise() -> None:
    at = times(10 * DAY)
    noise = np.random.default_rng(0).normal(size=at.size)
    profile = fit_profile(at, (3 * day_cycle(at) + noise)[:, None], "day")
    later = times(DAY, first=20 * DAY)
    found = (design(later, "day") @ profile)[:, 0]
    assert np.abs(found - 3 * day_cycle(later)).max() < 0.7


def test_an_outlier_does_not_bend_the_profile() -> None:
    at = times(10 * DAY)
    scores = np.random.default_rng(0).normal(size=(at.size, 1))
    clean = fit_profile(at, scores, "day")
    scores[123] = 1e6
    assert np.abs(fit_profile(at, scores, "day") - clean).max() < 1.0


@pytest.mark.parametrize(
    ("cycle", "season"),
    [
        (lambda at: 0 * at, "none"),
        (lambda at: 2 * day_cycle(at), "day"),
        (lambda at: 2 * day_cycle(at) + 2 * weekend(at), "week"),
    ],
)
def test_the_season_that_a_series_has_is_taken(cycle, season: str) -> None:
    at = times(14 * DAY)
    noise = np.random.default_rng(2).normal(size=(at.size, 20))
    learned = learn(at, noise + cycle(at)[:, None], length_ms=QUARTER_MS, seasons=("day", "week"))
    found = [model.season for model in learned.models]
    assert found.count(season) >= 18


def test_a_season_is_not_tried_on_too_short_a_history() -> None:
    at = times(2 * DAY)
    scores = 3 * day_cycle(at)[:, None] + np.random.default_rng(3).normal(size=(at.size, 1))
    learned = learn(at, scores, length_ms=QUARTER_MS, seasons=("day", "week"))
    assert learned.models[0].season == "none"


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.9])
def test_innovations_do_not_follow_each_other(phi: float) -> None:
    learned = learn(times(1500), autoregressive(phi, (1500, 30)), length_ms=QUARTER_MS, seasons=())
    assert np.abs(lag_one(learned.innovations)).mean() < 0.06
    assert np.median([model.phi for model in learned.models]) == pytest.approx(phi, abs=0.06)


def test_noise_alone_has_no_memory() -> None:
    phi, share = fit_memory(np.random.default_rng(4).normal(size=(600, 100)))
    assert (phi == 0).mean() > 0.9
    assert ((phi == 0) == (share == 0)).all()


def test_a_gap_lets_the_wander_go_on_unseen() -> None:
    """A third of the windows, and the memory is still counted in time, not in windows."""
    whole = autoregressive(0.9, (6000, 10))
    kept = np.sort(np.random.default_rng(5).choice(6000, 2000, replace=False))
    learned = learn(times(6000)[kept], whole[kept], length_ms=QUARTER_MS, seasons=())
    assert np.median([model.phi for model in learned.models]) == pytest.approx(0.9, abs=0.06)
    assert np.abs(lag_one(learned.innovations)).mean() < 0.06


def test_whitening_by_parts_is_whitening_at_once() -> None:
    """What a restart in the middle relies on is in test_track; here the law of the filter."""
    series = autoregressive(0.8, (50, 2))
    phi, share = np.array([0.8, 0.0]), np.array([0.9, 0.0])
    found = whiten(times(50), series, length_ms=QUARTER_MS, phi=phi, share=share)
    assert found[:, 1] == pytest.approx(series[:, 1])  # no memory: nothing is taken out
    assert found[:, 0].std() > series[:, 0].std() * 0.9  # in units of what was not foretold


def test_caution_grows_with_dependence_that_was_left_over() -> None:
    independent = caution(np.random.default_rng(6).normal(size=(3000, 40)))
    dependent = caution(autoregressive(0.5, (3000, 40)))
    assert 1.0 <= np.median(independent) < 1.4
    assert np.median(dependent) > 2.2  # (1 + φ)/(1 − φ) = 3


def test_what_is_usual_is_subtracted_by_the_hour() -> None:
    at = times(14 * DAY)
    scores = 5 * day_cycle(at)[:, None] + np.random.default_rng(7).normal(size=(at.size, 2))
    usual = Usual(learn(at, scores, length_ms=QUARTER_MS, seasons=("day",)).models)
    later = times(DAY, first=14 * DAY)
    residuals = usual.residuals(later, np.repeat(5 * day_cycle(later)[:, None], 2, axis=1))
    assert np.abs(residuals).max() < 1.0
    moved = usual.residuals(later, np.repeat(5 * day_cycle(later)[:, None] + 3, 2, axis=1))
    assert moved.mean() == pytest.approx(3.0, abs=0.4)


@pytest.mark.parametrize("size", [48, 200])
def test_a_constant_series_is_learned_without_a_fault(size: int) -> None:
    learned = learn(times(size), np.full((size, 1), 7.0), length_ms=QUARTER_MS, seasons=("day",))
    assert np.isfinite(learned.innovations).all()
    assert (learned.models[0].phi, learned.models[0].share) == (0.0, 0.0)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=20, max_size=60), st.integers(0, 2**32))
def test_gaps_of_any_length_are_laid_out_in_order(steps: list[int], seed: int) -> None:
    at = np.cumsum(np.array(steps)) * QUARTER_MS
    series = np.random.default_rng(seed).normal(size=(len(steps), 1))
    even = on_even_grid(at, series, QUARTER_MS)
    assert even[np.isfinite(even)] == pytest.approx(series[:, 0])
    assert (gaps_of(at, QUARTER_MS) > 0).all()


@pytest.mark.parametrize("hours", [1, 24, 48, 96, 24 * 7])
def test_every_fold_leaves_windows_to_learn_from(hours: int) -> None:
    at = np.arange(60, dtype=np.int64) * hours * HOUR_MS
    counts = np.bincount(folds(at), minlength=FOLDS)
    assert counts.min() >= len(at) // (2 * FOLDS)
    assert counts.max() <= len(at) // 2


def test_out_of_fold_innovations_are_as_wide_as_later_ones() -> None:
    """Else every later window would look extreme beside the reference."""
    at = times(28 * DAY)
    scores = 3 * day_cycle(at)[:, None] + np.random.default_rng(8).normal(size=(at.size, 40))
    n = 14 * DAY
    learned: Learned = learn(at[:n], scores[:n], length_ms=QUARTER_MS, seasons=("day", "week"))
    later = Usual(learned.models).residuals(at[n:], scores[n:])
    for inside, outside in pairwise([learned.innovations.std(axis=0), later.std(axis=0)]):
        assert np.median(outside / inside) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("season", SEASONS)
@given(st.integers(0, 60 * 365 * DAY))
def test_one_window_is_weighed_as_a_whole_reference_is(season: Season, quarter: int) -> None:
    at = quarter * QUARTER_MS + 1234
    row = np.zeros(design(np.array([at]), season).shape[1])
    for place, weight in weights(at, season):
        row[place] += weight
    np.testing.assert_allclose(row, design(np.array([at]), season)[0], atol=1e-9)


def test_one_window_is_as_usual_as_it_is_among_others() -> None:
    at = times(14 * DAY)
    scores = np.random.default_rng(2).normal(size=(at.size, 3)) + day_cycle(at)[:, None]
    usual = Usual(learn(at, scores, length_ms=QUARTER_MS, seasons=("day", "week")).models)
    together = usual.residuals(at, scores)
    alone = [usual.residual(int(at[n]), scores[n].tolist()) for n in range(0, at.size, 50)]
    np.testing.assert_allclose(alone, together[::50], atol=1e-9)
