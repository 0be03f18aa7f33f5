"""The life of one stream: collecting, armed, alarm, and back; and a restart at any point of it."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeml.collector.drift.monitor import Monitor, Policy, Record, Saved, Step
from edgeml.collector.drift.score import score, thin
from edgeml.statistics import Counts, Grid

GRID = Grid(kind="numeric", bins=32, low=-4.0, high=4.0)
POLICY = Policy(reference=20, close_after=5)
BASELINE = Counts.of(GRID, np.random.default_rng(0).normal(size=500)).cells
THRESHOLD = 48_000.0


class Life:
    """A monitor, its store, and a source of windows."""

    def __init__(self, seed: int = 1, policy: Policy = POLICY) -> None:
        self.policy = policy
        self.monitor = Monitor(GRID, BASELINE, policy)
        self.store: dict[int, Record] = {}
        self.random = np.random.default_rng(seed)
        self.sent = 0

    def window(self, *, shift: float = 0.0, rows: int = 40) -> Step:
        """Close a window of rows drawn around ``shift``."""
        return self.feed(Counts.of(GRID, self.random.normal(shift, 1, rows)).cells)

    def feed(self, cells: np.ndarray) -> Step:
        self.sent += 1
        step = self.monitor.step(cells, key=f"w{self.sent}", threshold=THRESHOLD)
        for record in step.records:
            self.store[record.index] = msgspec.structs.replace(record)
        return step

    def windows(self, count: int, *, shift: float = 0.0) -> list[Step]:
        return [self.window(shift=shift) for _ in range(count)]

    def restart(self) -> None:
        """As after a crash: what is left is what was stored."""
        saved = msgspec.json.decode(msgspec.json.encode(self.monitor.saved), type=Saved)
        records = [r for i, r in sorted(self.store.items()) if i >= saved.first_index]
        self.monitor = Monitor.restore(GRID, BASELINE, self.policy, saved, records)


def test_a_stream_is_armed_after_its_reference_and_says_so_before() -> None:
    life = Life()
    life.windows(7)
    assert life.monitor.phase == "collecting"
    assert life.monitor.saved.reason == "7 of 20 reference windows"
    life.windows(13)
    assert life.monitor.phase == "armed"
    assert life.monitor.saved.rows == 30
    assert life.monitor.reference_size == 20


def test_a_shift_raises_one_alarm_and_its_windows_leave_the_reference() -> None:
    life = Life()
    life.windows(30)
    steps = life.windows(40, shift=1.5)
    opened = [index for index, step in enumerate(steps) if step.opened]
    assert len(opened) == 1, "an alarm neither forgets nor fires again"
    assert opened[0] <= 11
    assert steps[opened[0]].change > POLICY.min_effect
    assert life.monitor.phase == "alarm"
    roles = [life.store[i].role for i in range(70)]
    assert set(roles[:28]) == {"reference"}
    assert set(roles[32:]) == {"excluded"}


def test_it_closes_when_the_world_is_back_and_can_fire_again() -> None:
    life = Life()
    life.windows(40)
    life.windows(20, shift=2.0)
    steps = life.windows(12)
    assert sum(step.closed for step in steps) == 1
    assert life.monitor.phase == "armed"
    assert life.monitor.reference_size < 60
    assert any(step.opened for step in life.windows(12, shift=2.0))


def test_a_change_that_is_sure_but_too_small_to_matter_is_no_alarm() -> None:
    life = Life(policy=msgspec.structs.replace(POLICY, min_effect=0.9))
    life.windows(30)
    steps = life.windows(20, shift=1.5)
    assert life.monitor.evidence > THRESHOLD
    assert not any(step.opened for step in steps)
    assert max(step.change or 0 for step in steps) > 0.1


def test_small_windows_are_merged_until_there_are_enough_rows() -> None:
    life = Life()
    steps = [life.window(rows=8) for _ in range(4)]
    assert [len(step.records) for step in steps] == [0, 0, 0, 1]
    assert sum(steps[3].records[0].cells) == 32
    assert life.window(rows=0).records == []


def test_windows_that_are_only_smaller_are_not_more_extreme() -> None:
    """Scores of 30 rows thinned from 40 and from 400 come from one distribution."""
    random = np.random.default_rng(3)

    def scores(rows: int) -> np.ndarray:
        windows = (Counts.of(GRID, random.normal(size=rows)).cells for _ in range(400))
        found = [score(GRID, w, BASELINE, rows=30, seed=i) for i, w in enumerate(windows)]
        return np.asarray([s.distance for s in found])

    small, large = scores(40), scores(400)
    spread = np.sqrt(small.var() / 400 + large.var() / 400)
    assert abs(small.mean() - large.mean()) < 4 * spread


@given(st.lists(st.integers(0, 60), min_size=3, max_size=30), st.integers(0, 2**48), st.data())
def test_thinning_takes_a_subset_and_the_same_one_each_time(
    counts: list[int], seed: int, data: st.DataObject
) -> None:
    cells = np.asarray(counts, dtype=np.int64)
    rows = data.draw(st.integers(0, int(cells.sum())))
    taken = thin(cells, rows, seed)
    assert taken.sum() == rows
    assert (taken <= cells).all()
    assert (thin(cells, rows, seed) == taken).all()


def test_windows_that_wander_are_not_armed() -> None:
    life = Life(seed=4)
    drift = 0.0
    for _ in range(60):
        drift += life.random.normal(0, 0.4)
        life.window(shift=drift)
    assert life.monitor.phase == "collecting"
    assert "depend on each other" in life.monitor.saved.reason


def test_the_reference_is_bounded() -> None:
    life = Life(policy=msgspec.structs.replace(POLICY, longest_reference=60))
    life.windows(150)
    assert life.monitor.reference_size <= 61
    assert len(life.monitor._records) <= 61
    life.restart()
    assert life.monitor.reference_size <= 61


def test_a_long_alarm_takes_no_more_memory() -> None:
    life = Life()
    life.windows(30)
    life.windows(200, shift=2.5)
    assert len(life.monitor._records) <= 30 + 2 * POLICY.close_after + 10


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.sampled_from([0.0, 0.0, 0.0, 2.0]), min_size=25, max_size=70),
    st.sets(st.integers(0, 70), max_size=6),
    st.integers(0, 1000),
)
def test_a_restart_at_any_point_changes_nothing(
    shifts: list[float], restarts: set[int], seed: int
) -> None:
    steady, restarted = Life(seed), Life(seed)
    for index, shift in enumerate(shifts):
        if index in restarts:
            restarted.restart()
        one, two = steady.window(shift=shift), restarted.window(shift=shift)
        assert (one.opened, one.closed) == (two.opened, two.closed)
        assert steady.monitor.evidence == pytest.approx(restarted.monitor.evidence, rel=1e-9)
    assert steady.monitor.phase == restarted.monitor.phase
    assert steady.monitor.reference_size == restarted.monitor.reference_size
