"""Group streams: medians of a site or a version, monitored as one."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeml.collector.drift.groups import GroupMonitor, GroupRecord, GroupSaved, rebaselined
from edgeml.collector.drift.moments import least_moments, moments
from edgeml.collector.drift.monitor import Policy
from edgeml.collector.drift.peers import Point, Scores
from edgeml.statistics import fit_grid
from edgeml.statistics.counts import Counts

POLICY = Policy(reference=20, close_after=5)
LEAST = least_moments(ordered=True, min_effect=0.05)


def points(count: int, *, seed: int, shift: float = 0.0, first: int = 0) -> list[Point]:
    found = np.random.default_rng(seed).normal([0, shift, 0], [0.01, 0.1, 0.1], (count, 3))
    return [
        Point(site="hall", slot=first + n, devices=4, scores=tuple(row.tolist()))
        for n, row in enumerate(found)
    ]


def feed(monitor: GroupMonitor, sent: list[Point], threshold: float = 1e4) -> list[str]:
    """What happened, slot by slot."""
    told: list[str] = []
    for point in sent:
        step = monitor.step(
            point, start_ms=point.slot * 60_000, key=f"hall/{point.slot}", threshold=threshold
        )
        told += ["opened"] * step.opened + ["closed"] * step.closed
    return told


def test_what_a_whole_site_sees_is_raised_once_and_closes() -> None:
    monitor = GroupMonitor(LEAST, POLICY)
    assert feed(monitor, points(30, seed=1)) == []
    assert monitor.phase == "armed"
    assert feed(monitor, points(30, seed=2, shift=1.0, first=30)) == ["opened"]
    assert monitor.phase == "alarm"
    assert feed(monitor, points(6, seed=3, first=60)) == ["closed"]
    assert monitor.phase == "armed"


def test_the_alarm_says_how_far_and_since_when() -> None:
    monitor = GroupMonitor(LEAST, POLICY)
    feed(monitor, points(30, seed=1))
    steps = [
        monitor.step(p, start_ms=p.slot * 60_000, key=str(p.slot), threshold=1e4)
        for p in points(30, seed=2, shift=1.0, first=30)
    ]
    (raised,) = (step for step in steps if step.opened)
    assert raised.shift[1] == pytest.approx(1.0, abs=0.2)
    assert raised.since_ms / 60_000 == pytest.approx(30, abs=2)


def test_evidence_of_a_shift_that_is_not_worth_it_raises_nothing() -> None:
    monitor = GroupMonitor(LEAST, POLICY)
    feed(monitor, points(30, seed=1))
    small = [
        msgspec.structs.replace(p, scores=(p.scores[0], 0.3, p.scores[2]))
        for p in points(60, seed=2, first=30)
    ]
    assert feed(monitor, small) == []
    assert monitor.evidence > 1e4


def test_slots_that_depend_on_each_other_are_not_armed() -> None:
    monitor = GroupMonitor(LEAST, POLICY)
    slow = [
        Point(site="", slot=n, devices=9, scores=(0.0, float(np.sin(n / 8)), 0.0))
        for n in range(20)
    ]
    assert feed(monitor, slow) == []
    assert monitor.phase == "collecting"
    assert "depend on each other" in monitor.saved.reason


def test_rebaseline_starts_anew_at_once() -> None:
    monitor = GroupMonitor(LEAST, POLICY)
    feed(monitor, points(30, seed=1))
    feed(monitor, points(30, seed=2, shift=1.0, first=30))
    monitor = GroupMonitor.restore(LEAST, POLICY, rebaselined(last_slot=59), [])
    assert (monitor.phase, monitor.evidence, monitor.reference_size) == ("collecting", 0.0, 0)
    # What was drift is now what it is compared with.
    assert feed(monitor, points(40, seed=3, shift=1.0, first=60)) == []
    assert monitor.phase == "armed"


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 110), st.integers(0, 20))
def test_a_monitor_is_rebuilt_from_what_its_steps_stored(cut: int, seed: int) -> None:
    sent = [
        *points(30, seed=seed),
        *points(40, seed=seed + 1, shift=1.2, first=30),
        *points(50, seed=seed + 2, first=70),
    ]
    stored: dict[int, GroupRecord] = {}
    monitor = GroupMonitor(LEAST, POLICY)

    def step(of: GroupMonitor, point: Point) -> tuple[bool, bool, float]:
        told = of.step(point, start_ms=point.slot, key=str(point.slot), threshold=1e4)
        for record in told.records:
            encoded = msgspec.json.encode(record)
            stored[record.slot] = msgspec.json.decode(encoded, type=GroupRecord)
        return told.opened, told.closed, of.evidence

    for point in sent[:cut]:
        step(monitor, point)
    saved = msgspec.json.decode(msgspec.json.encode(monitor.saved), type=GroupSaved)
    records = [stored[slot] for slot in sorted(stored) if slot >= saved.first_slot]
    again = GroupMonitor.restore(LEAST, POLICY, saved, records)
    assert (again.phase, again.reference_size) == (monitor.phase, monitor.reference_size)
    assert again.evidence == pytest.approx(monitor.evidence)
    for point in sent[cut:]:
        assert step(again, point) == pytest.approx(step(monitor, point))


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ((1.0, 1.0), (1.0, 0.0)),
        ((-0.5, 1.0), (-0.5, 0.0)),
        ((0.0, 1.5), (0.0, math.log(1.5))),
    ],
)
def test_moments_say_which_way_and_how_far(
    changed: tuple[float, float], expected: tuple[float, float]
) -> None:
    rng = np.random.default_rng(1)
    grid = fit_grid(np.linspace(-8, 8, 1000), bins=64)
    baseline = Counts.of(grid, rng.normal(size=50_000)).cells
    cells = Counts.of(grid, rng.normal(*changed, size=20_000)).cells
    found = moments(grid, cells, baseline)
    assert found[1:] == pytest.approx(expected, abs=0.03)
    # What is the least worth of a shift in the mean is the least in bits too.
    least = least_moments(ordered=True, min_effect=found[0])
    ratios: Scores = tuple(abs(f) / lim for f, lim in zip(found, least, strict=True))
    assert max(ratios[1:]) == pytest.approx(1, rel=0.25)
