"""Conformal p-values, bets and e-detectors: the bounds that are promised, by seeded simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from edgeml.collector.drift.bets import P_CELLS, SHIFTS, log_bets, p_cells, rate_rows
from edgeml.collector.drift.budget import Budget
from edgeml.collector.drift.ebh import e_value, ebh
from edgeml.collector.drift.evidence import MAX_STARTS, Detector
from edgeml.collector.drift.ranks import CELLS, cells_of, p_values, rehearsed, ties, uniform

Array = np.ndarray


class Watch:
    """Series of standardised scores: their bags, and a detector that suspects large ones."""

    def __init__(self, reference: Array, *, caution: float = 1.0, seed: int = 0) -> None:
        self.series = reference.shape[1]
        self.bags = np.zeros((self.series, CELLS), dtype=np.int64)
        self.detector = Detector(self.series, caution)
        self.random = np.random.default_rng(seed)
        self.before = 0
        for row in reference:
            self.rank(row)

    def rank(self, row: Array) -> Array:
        cells = cells_of(row)
        p = p_values(self.bags, cells, self.random.random(self.series))
        self.bags[np.arange(self.series), cells] += 1
        self.before += 1
        return p

    def update(self, row: Array) -> Array:
        before = self.before
        return self.detector.update(self.rank(row), before)


DRAWS = {
    "normal": lambda random, size: random.standard_normal(size),
    "heavy tails": lambda random, size: random.standard_cauchy(size),
    "a few values with many ties": lambda random, size: random.integers(0, 3, size).astype(float),
}


@pytest.mark.parametrize("kind", DRAWS)
def test_p_values_of_exchangeable_scores_are_uniform_and_independent(kind: str) -> None:
    random = np.random.default_rng(1)
    scores = DRAWS[kind](random, (60, 80))
    watch = Watch(scores[:1])
    found = np.array([watch.rank(row) for row in scores[1:]])
    assert stats.kstest(found.ravel(), "uniform").pvalue > 0.001
    assert abs(np.corrcoef(found[1:].ravel(), found[:-1].ravel())[0, 1]) < 4 / found.size**0.5


def test_scores_above_all_others_have_small_p_values() -> None:
    bag = np.bincount(cells_of([1.0, 2.0, 3.0]), minlength=CELLS)[None, :]

    def p(score: float, theta: float) -> float:
        return float(p_values(bag, cells_of([score]), theta)[0])

    assert p(9.0, theta=1.0) == 1 / 4
    assert p(0.0, theta=1.0) == 1.0
    assert p(2.0, theta=0.0) == 1 / 4


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_every_score_has_a_cell_and_larger_ones_no_smaller_one(score: float) -> None:
    cell = int(cells_of(score))
    assert 0 <= cell < CELLS
    if np.isfinite(score):
        assert int(cells_of(score + 1.0)) >= cell


def test_the_same_window_has_the_same_randomness_in_every_replay() -> None:
    assert uniform("site", "cam", 7) == uniform("site", "cam", 7)
    assert uniform("site", "cam", 7) != uniform("site", "cam", 8)
    assert stats.kstest([uniform(i) for i in range(2000)], "uniform").pvalue > 0.001


def test_every_bet_is_fair_to_the_last_digit() -> None:
    """Its mean over a uniform p-value is one, whichever row of the table is played."""
    upper = 2.0 ** (-np.arange(P_CELLS) / 3)
    width = upper - np.append(upper[1:], 0.0)
    means = np.einsum("c,rcd->rd", width, np.exp(log_bets()))
    assert means == pytest.approx(np.ones_like(means), rel=1e-9)


@given(st.floats(1e-9, 1.0, exclude_min=True))
def test_a_p_value_falls_into_the_cell_that_the_table_was_made_for(p: float) -> None:
    cell = int(p_cells(p))
    assert p <= 2.0 ** (-cell / 3) * (1 + 1e-12)
    assert cell == P_CELLS - 1 or p >= 2.0 ** (-(cell + 1) / 3) * (1 - 1e-12)


def test_the_bet_on_a_drifted_window_shrinks_as_drifted_windows_fill_the_bag() -> None:
    rows = [int(rate_rows(300.0, k)) for k in (1.0, 10.0, 100.0, 300.0)]
    won = np.exp(log_bets()[rows, P_CELLS - 1, SHIFTS.index(2.0)])
    assert (np.diff(won) < 0).all()


@pytest.mark.parametrize("kind", DRAWS)
@pytest.mark.parametrize(("threshold", "caution"), [(50.0, 1.0), (400.0, 1.0), (50.0, 2.0)])
def test_false_alarms_stay_within_the_promise(kind: str, threshold: float, caution: float) -> None:
    """At most T/c of them, with evidence that begins anew after each."""
    random = np.random.default_rng(2)
    scores = DRAWS[kind](random, (170, 240))
    watch = Watch(scores[:20], caution=caution)
    fired = 0
    for row in scores[20:]:
        over = watch.update(row) >= threshold
        fired += int(over.sum())
        watch.detector.clear(over)
    promised = 240 * 150 / threshold
    assert fired <= promised + 3 * promised**0.5
    if caution == 1.0 and kind == "normal":
        assert fired > 0.02 * promised  # and it is no detector that never speaks


def test_of_the_list_of_what_drifts_no_more_is_wrong_than_it_says() -> None:
    """200 fleets of 60 streams, of each of which four drift for the last 40 of 150 windows."""
    random = np.random.default_rng(8)
    fleets, streams, drifting = 200, 60, 4
    watch = Watch(random.standard_normal((40, fleets * streams)))
    shifts = np.tile(4.0 * (np.arange(streams) < drifting), fleets)
    for at in range(150):
        found = watch.update(random.standard_normal(fleets * streams) + shifts * (at >= 110))
    wrong, listed = [], 0
    for values in found.reshape(fleets, streams):
        one = ebh([e_value(evidence, 150) for evidence in values], 0.2)
        wrong.append((one >= drifting).sum() / max(len(one), 1))
        listed += int((one < drifting).sum())
    assert np.mean(wrong) <= 0.2
    assert listed > 0.9 * fleets * drifting
    # R itself is no e-value: lists of it are mostly of streams that do not drift.
    naive = [ebh(values, 0.2) for values in found.reshape(fleets, streams)]
    assert np.mean([(one >= drifting).sum() / max(len(one), 1) for one in naive]) > 0.2


def delays(shift: float, *, reference: int, threshold: float, series: int = 60) -> Array:
    random = np.random.default_rng(3)
    watch = Watch(random.standard_normal((reference, series)))
    found = np.full(series, np.inf)
    for at in range(1, 151):
        values = watch.update(random.normal(shift, 1, series))
        found[(values >= threshold) & np.isinf(found)] = at
    return found


@pytest.mark.parametrize(
    ("shift", "reference", "threshold", "windows"),
    [(6.0, 30, 5e4, 6), (2.0, 300, 2e9, 20), (1.0, 300, 2e9, 80), (4.0, 48, 2e9, 14)],
)
def test_changes_are_found_soon(
    shift: float, reference: int, threshold: float, windows: int
) -> None:
    """c = 2·10⁹ is one false page a year for 20,000 streams of five minutes."""
    found = delays(shift, reference=reference, threshold=threshold)
    assert np.median(found) <= windows
    assert np.isfinite(found).mean() > 0.9


def test_evidence_against_a_lasting_change_is_not_forgotten() -> None:
    random = np.random.default_rng(4)
    watch = Watch(random.normal(size=(40, 1)))
    seen = [float(watch.update(random.normal(8, 1, 1))[0]) for _ in range(60)]
    assert 1e5 < seen[5] < seen[19] < seen[39] < seen[59]
    assert 55 <= watch.detector.windows_since_change(0) <= 62


def test_the_change_is_dated() -> None:
    random = np.random.default_rng(5)
    watch = Watch(random.normal(size=(60, 1)))
    for _ in range(6):
        watch.update(random.normal(7, 1, 1))
    assert 5 <= watch.detector.windows_since_change(0) <= 7


def test_starts_are_bounded_and_what_they_won_is_kept() -> None:
    watch = Watch(np.random.default_rng(6).normal(size=(20, 2)))
    for at in range(5 * MAX_STARTS):
        before = watch.detector.values.sum()
        watch.update(np.random.default_rng(at).normal(size=2))
        starts, _ = watch.detector.save()
        assert len(starts[1]) <= MAX_STARTS
        ages = np.array(starts[1])
        assert (np.diff(ages) < 0).all()
        assert watch.detector.values.sum() >= 0.1 * before  # a window costs a factor of ten at most
    assert ages[0] > 4 * MAX_STARTS, "the oldest idea of a change is not thrown away"


def test_evidence_goes_on_from_what_was_saved() -> None:
    random = np.random.default_rng(7)
    watch = Watch(random.normal(size=(30, 3)), caution=1.5)
    for _ in range(40):
        watch.update(random.normal(0.5, 1, 3))
    restored = Detector(3, 1.5)
    restored.load(*watch.detector.save())
    p = random.random(3)
    assert restored.update(p, 70) == pytest.approx(watch.detector.update(p, 70), rel=0, abs=0)


def test_thresholds_share_the_budget_among_all_streams() -> None:
    yearly = Budget(false_alarms=1, per_days=365)
    assert yearly.windows(300_000) == pytest.approx(105_120)
    # One false alarm a year for 20,000 streams of five-minute windows.
    alone = yearly.threshold(streams={"device": 20_000}, duration_ms=300_000)
    assert alone == pytest.approx(2.1e9, rel=0.01)
    demo = Budget(false_alarms=1, per_windows=2000)
    assert demo.threshold(streams={"device": 24}, duration_ms=1000) == 48_000
    assert "1 expected false alarm in 2,000 windows" in demo.describe()


@given(
    st.fixed_dictionaries(
        {s: st.integers(0, 10_000) for s in ("device", "site", "version", "fleet")}
    ).filter(lambda streams: any(streams.values())),
    st.floats(0.1, 50),
)
def test_the_whole_budget_is_given_out_and_no_more(streams: dict, allowed: float) -> None:
    budget = Budget(false_alarms=allowed, per_windows=1000)
    expected = sum(
        count * 1000 / budget.threshold(scope, streams=streams, duration_ms=1)
        for scope, count in streams.items()
        if count
    )
    assert expected == pytest.approx(allowed)


def test_a_rehearsal_ranks_each_window_among_those_before_it() -> None:
    cells = cells_of(np.random.default_rng(3).integers(-2, 3, (70, 3)))
    bags = np.zeros((3, CELLS), dtype=np.int64)
    for at, (row, found) in enumerate(zip(cells, rehearsed(cells), strict=True)):
        np.testing.assert_allclose(found, p_values(bags, row, ties(at, 3)))
        bags[np.arange(3), row] += 1
