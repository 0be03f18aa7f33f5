"""Group streams: medians of a site or a version, monitored as one."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeml.collector.drift import track
from edgeml.collector.drift.effects import excess_js
from edgeml.collector.drift.groups import GroupMonitor, GroupSaved, GroupStep
from edgeml.collector.drift.peers import Point
from edgeml.collector.drift.policy import Policy
from edgeml.collector.drift.scores import MEAN, SPREAD, CellScorer
from edgeml.collector.drift.track import TrackState
from edgeml.statistics import Counts, fit_grid

POLICY = Policy(reference=20, close_after=5, season="none")
LEAST = (1.0, 0.53, 0.37)


class Group:
    """A group's monitor and its store."""

    def __init__(self, scores: int = 3) -> None:
        self.monitor = GroupMonitor(GroupSaved(least=LEAST[:scores]), POLICY)
        self.stored: list[track.Point] = []

    def points(self, limit: int) -> list[track.Point]:
        return self.stored[-limit:]

    def step(self, point: Point, threshold: float = 1e4) -> GroupStep:
        step = self.monitor.step(
            point,
            start_ms=point.slot * 60_000,
            key=f"hall/{point.slot}",
            threshold=threshold,
            source=self,
        )
        if step.excluded_from is None:
            self.stored.append(step.point)
        else:
            self.stored = [p for p in self.stored if p.index < step.excluded_from]
        return step

    def feed(self, sent: list[Point]) -> list[str]:
        """What happened, slot by slot."""
        told: list[str] = []
        for point in sent:
            step = self.step(point)
            told += ["opened"] * step.opened + ["closed"] * step.closed
        return told

    def restart(self) -> None:
        """As after a crash."""
        saved = msgspec.json.decode(msgspec.json.encode(self.monitor.saved), type=GroupSaved)
        state = msgspec.msgpack.encode(self.monitor.track.save())
        self.monitor = GroupMonitor(saved, POLICY, msgspec.msgpack.decode(state, type=TrackState))


def points(count: int, *, seed: int, shift: float = 0.0, first: int = 0) -> list[Point]:
    found = np.random.default_rng(seed).normal([1, shift, 0], [0.01, 0.1, 0.1], (count, 3))
    return [
        Point(site="hall", slot=first + n, devices=4, scores=tuple(row.tolist()))
        for n, row in enumerate(found)
    ]


def test_what_a_whole_site_sees_is_raised_once_and_closes() -> None:
    group = Group()
    assert group.feed(points(30, seed=1)) == []
    assert group.monitor.phase == "armed"
    assert group.feed(points(30, seed=2, shift=1.0, first=30)) == ["opened"]
    assert group.monitor.phase == "alarm"
    assert group.feed(points(6, seed=3, first=60)) == ["closed"]
    assert group.monitor.phase == "armed"


@pytest.mark.parametrize("kind", [1, 2, 3], ids=["categories", "vectors", "numbers"])
def test_statistics_of_every_kind_have_groups(kind: int) -> None:
    """They differ in how many scores a window has."""
    sent = [*points(30, seed=1), *points(30, seed=2, first=30)]
    far = [Point(site="hall", slot=n, devices=4, scores=(5.0, 5.0, 5.0)) for n in range(60, 90)]
    group = Group(kind)
    told = group.feed([msgspec.structs.replace(p, scores=p.scores[:kind]) for p in [*sent, *far]])
    assert told == ["opened"]


def test_the_alarm_says_how_far_and_since_when() -> None:
    group = Group()
    group.feed(points(30, seed=1))
    steps = [group.step(p) for p in points(30, seed=2, shift=1.0, first=30)]
    (raised,) = (step for step in steps if step.opened)
    assert raised.shift[MEAN] == pytest.approx(1.0, abs=0.2)
    assert raised.since_ms / 60_000 == pytest.approx(30, abs=2)
    assert raised.point.evidence >= 1e4


def test_evidence_of_a_shift_that_is_not_worth_it_raises_nothing() -> None:
    group = Group()
    group.feed(points(30, seed=1))
    small = [
        msgspec.structs.replace(p, scores=(p.scores[0], 0.4, p.scores[2]))
        for p in points(60, seed=2, first=30)
    ]
    assert group.feed(small) == []
    assert group.monitor.evidence > 1e4


def test_slots_that_wander_are_not_armed() -> None:
    group = Group()
    slow = [
        Point(site="", slot=n, devices=9, scores=(0.0, float(np.sin(n / 8)), 0.0))
        for n in range(60)
    ]
    assert group.feed(slow) == []
    assert group.monitor.phase == "collecting"
    assert group.monitor.reason


def test_restart_on_an_empty_store_starts_anew_at_once() -> None:
    group = Group()
    group.feed(points(30, seed=1))
    group.feed(points(30, seed=2, shift=1.0, first=30))
    group.stored.clear()
    group.monitor.restart(group)
    monitor = group.monitor
    assert (monitor.phase, monitor.evidence, monitor.reference_size) == ("collecting", 0.0, 0)
    # What was drift is now what it is compared with.
    assert group.feed(points(40, seed=3, shift=1.0, first=60)) == []
    assert monitor.phase == "armed"


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 110), st.integers(0, 20))
def test_a_restart_at_any_point_changes_nothing(cut: int, seed: int) -> None:
    sent = [
        *points(30, seed=seed),
        *points(40, seed=seed + 1, shift=1.2, first=30),
        *points(50, seed=seed + 2, first=70),
    ]
    steady, restarted = Group(), Group()
    for point in sent:
        if point.slot == cut:
            restarted.restart()
        one, two = steady.step(point), restarted.step(point)
        assert (one.opened, one.closed) == (two.opened, two.closed)
        assert steady.monitor.evidence == restarted.monitor.evidence


def test_what_is_worth_an_alarm_is_the_same_in_every_score() -> None:
    """Whatever moves, as far as its least it is as many bits of JS divergence."""
    random = np.random.default_rng(1)
    grid = fit_grid(np.linspace(-8, 8, 1000), bins=64)
    baseline = Counts.of(grid, random.normal(size=50_000)).cells
    scorer = CellScorer(grid, baseline, 20_000)
    least = scorer.least(0.05)
    for moved, drawn in (
        (MEAN, random.normal(least[MEAN], 1, 20_000)),
        (SPREAD, random.normal(0, np.exp(least[SPREAD]), 20_000)),
    ):
        cells = Counts.of(grid, drawn).cells
        scores = scorer.scores(cells)
        assert excess_js(cells, baseline) == pytest.approx(0.05, rel=0.35)
        assert scores[moved] == pytest.approx(least[moved], abs=0.03)
        assert scores[0] == pytest.approx(1 + least[0], rel=0.25)
