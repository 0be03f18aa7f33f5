"""Conformal p-values and e-detectors: the bounds that are promised, by seeded simulation."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from edgeml.collector.drift.budget import Budget
from edgeml.collector.drift.conformal import Ranks, uniform
from edgeml.collector.drift.evidence import MAX_STARTS, Detector, Evidence, bet


def p_values(scores: np.ndarray, random: np.random.Generator, *, warm: int = 1) -> list[float]:
    ranks = Ranks(scores[:warm].tolist())
    found: list[float] = []
    for score in scores[warm:].tolist():
        found.append(ranks.p_value(score, random.random()))
        ranks.add(score)
    return found


@pytest.mark.parametrize("kind", ["normal", "heavy tails", "a few values with many ties"])
def test_p_values_of_exchangeable_scores_are_uniform_and_independent(kind: str) -> None:
    random = np.random.default_rng(1)
    draw = {
        "normal": random.standard_normal,
        "heavy tails": random.standard_cauchy,
        "a few values with many ties": lambda n: random.integers(0, 3, n).astype(float),
    }[kind]
    found = np.concatenate([p_values(draw(60), random) for _ in range(60)])
    assert stats.kstest(found, "uniform").pvalue > 0.001
    assert abs(np.corrcoef(found[1:], found[:-1])[0, 1]) < 4 / len(found) ** 0.5


def test_scores_above_all_others_have_small_p_values() -> None:
    ranks = Ranks([1.0, 2.0, 3.0])
    assert ranks.p_value(9.0, theta=1.0) == 1 / 4
    assert ranks.p_value(0.0, theta=1.0) == 1.0
    assert ranks.p_value(2.0, theta=0.0) == 1 / 4


def test_the_same_window_has_the_same_randomness_in_every_replay() -> None:
    assert uniform("site", "cam", 7) == uniform("site", "cam", 7)
    assert uniform("site", "cam", 7) != uniform("site", "cam", 8)
    draws = [uniform(i) for i in range(2000)]
    assert stats.kstest(draws, "uniform").pvalue > 0.001


@given(st.integers(1, 500), st.integers(1, 100))
def test_a_bet_is_fair(before: int, since: int) -> None:
    """Its mean over a uniform p-value is one, whatever came before."""
    n, k = np.array([float(before)]), np.array([float(since)])
    won, lost = bet(0.0, n, k), bet(1.0, n, k)
    low, high = np.zeros_like(won), np.ones_like(won)
    for _ in range(50):  # where it changes from one to the other
        middle = (low + high) / 2
        wins = np.array([[bet(p, n, k)[0, i] for i, p in enumerate(middle[0])]]) == won
        low, high = np.where(wins, middle, low), np.where(wins, high, middle)
    assert low * won + (1 - low) * lost == pytest.approx(np.ones_like(won), rel=1e-9)


@pytest.mark.parametrize(("threshold", "windows", "runs"), [(50.0, 150, 80), (400.0, 150, 80)])
def test_false_alarms_stay_within_the_promise(threshold: float, windows: int, runs: int) -> None:
    """At most T/c of them, restarts included, for an average of three detectors."""
    random = np.random.default_rng(2)
    fired = 0
    for _ in range(runs):
        evidence = Evidence(3)
        scores = random.normal(size=(2, windows + 20))
        one, two = (p_values(row, random, warm=20) for row in scores)
        for index, (p, q) in enumerate(zip(one, two, strict=True)):
            if evidence.update((p, q, 1 - q), 20 + index) >= threshold:
                fired += 1
                evidence = Evidence(3)
    promised = runs * windows / threshold
    assert fired <= promised + 3 * promised**0.5
    assert fired > 0.05 * promised  # and it is no detector that never speaks


def delays(shift: float, *, reference: int, threshold: float, runs: int = 40) -> np.ndarray:
    random = np.random.default_rng(3)
    found: list[int] = []
    for _ in range(runs):
        scores = random.normal(size=reference + 150)
        scores[reference:] += shift
        detector = Detector()
        for index, p in enumerate(p_values(scores, random, warm=20)):
            if detector.update(p, 20 + index) >= threshold:
                found.append(index + 20 - reference + 1)
                break
        else:
            found.append(10_000)
    return np.asarray(found)


def test_a_large_change_is_found_within_six_windows_of_thirty() -> None:
    assert np.median(delays(6.0, reference=30, threshold=50_000)) <= 6


def test_a_change_of_two_standard_deviations_is_found_at_a_fleets_threshold() -> None:
    """300 reference windows, c = 2·10⁹: a fixed mixture of a·p^(a−1) takes 23 windows."""
    found = delays(2.0, reference=300, threshold=2e9)
    assert np.median(found) <= 23
    assert (found < 10_000).all()


def test_evidence_against_a_lasting_change_is_not_forgotten() -> None:
    detector, ranks, random = Detector(), Ranks(), np.random.default_rng(4)
    for score in random.normal(size=40):
        ranks.add(float(score))
    seen: list[float] = []
    for index, score in enumerate(random.normal(8, 1, 60)):
        seen.append(detector.update(ranks.p_value(float(score), random.random()), 40 + index))
        ranks.add(float(score))
    assert all(later > earlier for earlier, later in pairwise(seen))
    assert detector.windows_since_change == 60


def test_the_change_is_dated() -> None:
    detector, random = Detector(), np.random.default_rng(5)
    scores = np.concatenate([random.normal(size=60), random.normal(7, 1, 6)])
    for index, p in enumerate(p_values(scores, random, warm=20)):
        detector.update(p, 20 + index)
    assert 5 <= detector.windows_since_change <= 7


def test_it_keeps_a_bounded_number_of_starts() -> None:
    detector, random = Detector(), np.random.default_rng(6)
    for index in range(3 * MAX_STARTS):
        detector.update(random.random(), 20 + index)
    assert detector.starts == MAX_STARTS


def test_thresholds_share_the_budget_among_all_streams() -> None:
    yearly = Budget(false_alarms=1, per_days=365)
    assert yearly.windows(300_000) == pytest.approx(105_120)
    # One false alarm a year for 20,000 streams of five-minute windows.
    assert yearly.threshold(streams=20_000, duration_ms=300_000) == pytest.approx(2.1e9, rel=0.01)
    demo = Budget(false_alarms=1, per_windows=2000)
    assert demo.threshold(streams=24, duration_ms=1000) == 48_000
    assert Budget(false_alarms=4, per_windows=2000).threshold(streams=24, duration_ms=1) == 12_000
    assert "1 expected false alarm in 2,000 windows" in demo.describe()
