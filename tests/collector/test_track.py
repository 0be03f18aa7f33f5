"""One series from its first window to evidence: when it is armed, why not, and what it sees."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeml.collector.drift.track import Point, Track, TrackPolicy, TrackState

MINUTE = 60_000
HOURS = 60 * MINUTE
UP_AND_DOWN = ((0, 1), (0, -1))
PLAIN = TrackPolicy(reference=40, season="none")


class Series:
    """A track, its store, and a source of windows."""

    def __init__(self, policy: TrackPolicy = PLAIN, *, seed: int = 1, every: int = 5) -> None:
        self.policy = policy
        self.track = Track(UP_AND_DOWN, policy)
        self.stored: list[Point] = []
        self.random = np.random.default_rng(seed)
        self.every = every * MINUTE
        self.now = 0

    def feed(self, value: float, *, common: float | None = None, gap: int = 1) -> Point:
        self.now += gap * self.every
        point = Point(
            index=len(self.stored),
            start_ms=self.now,
            seed=len(self.stored),
            scores=[value],
            common=None if common is None else [common],
        )
        self.stored.append(point)
        self.track.step(point, lambda: self.stored[-self.policy.longest_reference :])
        return point

    def noise(self, count: int, *, shift: float = 0.0) -> list[Point]:
        return [self.feed(float(self.random.normal(shift))) for _ in range(count)]

    def restart(self) -> None:
        """As after a crash: what is left is what was stored."""
        stored = msgspec.msgpack.encode(self.track.save())
        state = msgspec.msgpack.decode(stored, type=TrackState)
        self.track = Track(UP_AND_DOWN, self.policy, state)


def test_it_is_armed_after_its_reference_and_not_before() -> None:
    series = Series()
    series.noise(39)
    assert not series.track.armed
    series.noise(1)
    assert series.track.armed
    assert series.track.evidence == 0.0


def test_a_shift_is_evidence_and_is_dated() -> None:
    series = Series()
    series.noise(60)
    quiet = series.track.evidence
    series.noise(12, shift=4.0)
    assert quiet < 200
    assert series.track.evidence > 1e6
    up, down = series.track.by_direction
    assert up > 1e6 > down
    assert 10 <= series.track.windows_since_change <= 13
    series.track.clear(np.array([True, True]))
    assert series.track.evidence == 0.0


def test_it_waits_for_the_days_that_show_its_season() -> None:
    series = Series(TrackPolicy(reference=40, season="day"), every=60)
    series.noise(71)
    assert not series.track.armed
    assert "of the 3 days that show what a day does to it" in series.track.state.reason
    series.noise(1)
    assert series.track.armed


def test_day_and_night_are_no_drift_once_there_is_history() -> None:
    """Two deviations up and down each day. Without the season they are taken for a wander, in which
    a shift of three does not show."""
    seasonal, blind = (
        Series(TrackPolicy(reference=40, season=season), every=30) for season in ("day", "none")
    )
    for series in (seasonal, blind):
        for at in range(14 * 48):
            cycle = 2 * np.sin(2 * np.pi * at / 48)
            series.feed(cycle + float(series.random.normal()))
    for series in (seasonal, blind):
        assert series.track.armed
        assert series.track.evidence < 1e4
    assert blind.track.state.models[0].phi > 0.9
    assert seasonal.track.state.models[0].season == "day"
    for series in (seasonal, blind):
        for at in range(14 * 48, 14 * 48 + 20):
            series.feed(2 * np.sin(2 * np.pi * at / 48) + float(series.random.normal(3)))
    assert seasonal.track.evidence > 1e6
    assert blind.track.evidence < 1e4


def test_weekends_are_no_drift_and_a_working_day_like_them_is() -> None:
    series = Series(TrackPolicy(reference=40, season="week"), every=60)

    def hours(first_day: int, days: int, *, off: set[int]) -> None:
        for at in range(24 * first_day, 24 * (first_day + days)):
            series.feed(float(series.random.normal(3.0 * (at // 24 % 7 in off))))

    hours(0, 42, off={2, 3})  # the first day of all, 1 Jan 1970, was a Thursday
    assert series.track.armed
    assert series.track.state.models[0].season == "week"
    assert series.track.evidence < 1e4
    hours(42, 1, off={0})
    assert series.track.evidence > 1e6


def test_what_wanders_slowly_is_not_armed_on_a_short_reference_and_says_why() -> None:
    series = Series()
    level = 0.0
    for _ in range(100):
        level = 0.95 * level + float(series.random.normal(0, 0.3))
        series.feed(level)
    assert not series.track.armed
    assert "it wanders slowly" in series.track.state.reason


def test_windows_that_swing_back_and_forth_are_not_armed() -> None:
    """Each foretells the next one, and no wander explains it."""
    series = Series()
    for at in range(60):
        series.feed((-1) ** at + 0.3 * float(series.random.normal()))
    assert not series.track.armed
    assert "the windows depend on each other (lag-1 correlation" in series.track.state.reason


def test_a_reference_that_is_evidence_against_itself_is_not_armed_until_it_is_longer() -> None:
    """Its last windows are not like its first ones: it may hold what is to be found."""
    series = Series()
    for at in range(40):
        odd = at >= 32 and at % 2 == 0
        series.feed(float(series.random.normal(4.0 * odd)))
    assert not series.track.armed
    assert "on its own reference, at most 4,000 is taken" in series.track.state.reason
    series.noise(60)
    assert series.track.armed
    assert series.track.state.reason == ""


def test_a_series_with_peers_is_judged_by_what_they_did_not_see() -> None:
    """A common wander that would never be armed alone, and a device that leaves it."""
    series, level = Series(), 0.0
    for _ in range(100):
        level += float(series.random.normal(0, 0.5))
        series.feed(level + float(series.random.normal()), common=level)
    assert series.track.armed
    assert series.track.state.relative
    for _ in range(12):
        level += 3.0  # what all see alike
        series.feed(level + float(series.random.normal()), common=level)
    assert series.track.evidence < 1e4
    for _ in range(12):
        series.feed(level + 4 + float(series.random.normal()), common=level)
    assert series.track.evidence > 1e6


def test_a_window_without_its_peers_or_without_a_score_says_nothing() -> None:
    series = Series()
    for _ in range(60):
        series.feed(float(series.random.normal()), common=0.0)
    before = series.track.evidence
    assert series.feed(50.0).evidence is None, "nobody else reported"
    assert series.feed(float("nan"), common=0.0).evidence is None
    assert series.track.evidence == before


def test_it_learns_again_when_its_history_has_doubled_but_not_amid_evidence() -> None:
    calm, moved = Series(seed=3), Series(seed=3)
    for series in (calm, moved):
        series.noise(70)
        assert series.track.state.windows == 30
    calm.noise(15)
    moved.noise(15, shift=5.0)
    assert calm.track.state.windows == 5, "learned at 80 windows"
    assert moved.track.state.windows == 45, "kept what it knew before the change"
    assert moved.track.evidence > 1e5


def test_a_clock_that_jumps_back_and_forth_does_no_harm() -> None:
    series = Series()
    series.noise(60)
    series.now -= 1000 * HOURS
    series.noise(20)
    series.now += 5000 * HOURS
    series.noise(20)
    assert np.isfinite(series.track.evidence)
    assert series.track.evidence < 1e4


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.sampled_from([0.0, 0.0, 2.0]), min_size=45, max_size=90),
    st.sets(st.integers(0, 90), max_size=5),
    st.integers(0, 1000),
)
def test_a_restart_at_any_point_changes_nothing(
    shifts: list[float], restarts: set[int], seed: int
) -> None:
    steady, restarted = Series(seed=seed), Series(seed=seed)
    for at, shift in enumerate(shifts):
        if at in restarts:
            restarted.restart()
        one, two = (float(s.random.normal(shift)) for s in (steady, restarted))
        assert one == two
        assert steady.feed(one) == restarted.feed(two)
    assert steady.track.save() == restarted.track.save()


@pytest.mark.parametrize("value", [0.0, 1e6, 5e-324])
def test_a_constant_series_raises_nothing(value: float) -> None:
    series = Series()
    for _ in range(150):
        series.feed(value)
    assert series.track.evidence < 1e4
