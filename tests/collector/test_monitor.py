"""The life of one stream: collecting, armed, alarm, and back; and a restart at any point of it."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeml.collector.drift.memory import Memory
from edgeml.collector.drift.monitor import SIZING, Monitor
from edgeml.collector.drift.policy import RUNGS, Policy
from edgeml.collector.drift.saved import Saved, Step
from edgeml.collector.drift.scores import MEAN, SPREAD, CellScorer, numbers
from edgeml.collector.drift.season import HOUR_MS, SPAN_HOURS, Season
from edgeml.collector.drift.track import TrackState
from edgeml.statistics import Counts, Grid

GRID = Grid(kind="numeric", bins=32, low=-4.0, high=4.0)
POLICY = Policy(reference=20, close_after=5, season="none")
TRAINING = Counts.of(GRID, np.random.default_rng(0).normal(size=500))
THRESHOLD = 48_000.0


class Life:
    """A monitor, its store, and a source of windows."""

    def __init__(
        self,
        seed: int = 2,
        policy: Policy = POLICY,
        threshold: float = THRESHOLD,
        length_ms: int = 300_000,
    ) -> None:
        self.policy, self.threshold, self.length_ms = policy, threshold, length_ms
        self.monitor = Monitor(GRID, TRAINING, policy)
        self.store = Memory()
        self.random = np.random.default_rng(seed)
        self.sent = 0

    def window(
        self, *, shift: float = 0.0, scale: float = 1.0, rows: int = 40, merged: int = 1
    ) -> Step:
        """Close a window of rows drawn around ``shift``."""
        values = self.random.normal(shift, scale, rows)
        return self.feed(Counts.of(GRID, values).cells, merged=merged)

    def feed(self, cells: np.ndarray, *, merged: int = 1) -> Step:
        self.sent += 1
        step = self.monitor.step(
            cells,
            key=f"w{self.sent}",
            start_ms=self.sent * self.length_ms,
            length_ms=self.length_ms,
            merged=merged,
            threshold=self.threshold,
            source=self.store,
        )
        self.store.add(step)
        return step

    def windows(self, count: int, **how: float) -> list[Step]:
        return [self.window(**how) for _ in range(count)]

    def restart(self) -> None:
        """As after a crash: what is left is what was stored."""
        saved = msgspec.msgpack.decode(msgspec.msgpack.encode(self.monitor.saved), type=Saved)
        tracks = {
            rung: msgspec.msgpack.decode(msgspec.msgpack.encode(track.save()), type=TrackState)
            for rung, track in zip(RUNGS, self.monitor.tracks, strict=False)
        }
        self.monitor = Monitor(GRID, TRAINING, self.policy, saved, tracks)


def test_a_stream_is_armed_after_its_reference_and_says_so_before() -> None:
    life = Life()
    life.windows(2)
    assert life.monitor.reason == f"2 of {SIZING} windows that its usual size comes from"
    life.windows(9)
    assert life.monitor.phase == "collecting"
    assert life.monitor.reason == "11 of 20 reference windows"
    life.windows(9)
    assert life.monitor.phase == "armed"
    assert life.monitor.reason == ""
    assert life.monitor.saved.rows == 30
    assert life.monitor.reference_size == 20
    assert life.monitor.reference_cells.sum() == 20 * 40


@pytest.mark.parametrize(
    ("change", "moved"),
    [({"shift": 1.5}, MEAN), ({"shift": -1.5}, MEAN), ({"scale": 2.5}, SPREAD)],
)
def test_a_change_raises_one_alarm_and_its_windows_leave_the_reference(
    change: dict[str, float], moved: int
) -> None:
    life = Life()
    life.windows(30)
    steps = life.windows(40, **change)
    opened = [step for step in steps if step.opened]
    assert len(opened) == 1, "an alarm neither forgets nor fires again"
    assert steps.index(opened[0]) <= 11
    assert opened[0].change > POLICY.min_effect
    assert abs(opened[0].moved[moved]) > 0.5
    assert life.monitor.phase == "alarm"
    assert 28 <= opened[0].excluded_from <= 32
    assert life.monitor.reference_size == opened[0].excluded_from
    assert life.monitor.reference_cells.sum() == opened[0].excluded_from * 40


def test_it_closes_when_the_world_is_back_and_can_fire_again() -> None:
    life = Life()
    life.windows(40)
    life.windows(20, shift=2.0)
    steps = life.windows(12)
    assert sum(step.closed for step in steps) == 1
    assert life.monitor.phase == "armed"
    assert life.monitor.reference_size < 60
    assert any(step.opened for step in life.windows(14, shift=2.0))


def test_a_change_that_is_sure_but_too_small_to_matter_is_no_alarm() -> None:
    life = Life(policy=msgspec.structs.replace(POLICY, min_effect=0.9))
    life.windows(30)
    steps = life.windows(20, shift=1.5)
    assert life.monitor.evidence > THRESHOLD
    assert not any(step.opened for step in steps)
    assert max(step.change or 0 for step in steps) > 0.1


def test_what_one_window_is_too_small_to_show_is_seen_in_merged_ones() -> None:
    """A change as large as a window's own noise, .16 with 40 rows: when the alarm comes, single
    windows alone are far from one."""
    life = Life(policy=msgspec.structs.replace(POLICY, reference=48, min_effect=0.0))
    life.windows(700)
    steps = [life.window(shift=0.15)]
    while not steps[-1].opened:
        assert len(steps) < 300
        steps.append(life.window(shift=0.15))
    assert life.monitor.tracks[0].evidence < THRESHOLD / 5
    rungs = {record.rung for step in steps for record in step.records}
    assert rungs == set(RUNGS)


def test_where_nothing_changes_the_whole_ladder_raises_no_more_than_it_promises() -> None:
    """At most one alarm in as many watched windows as the threshold says, of all rungs together,
    however the merged windows depend on the single ones. Were they added up and not averaged, there
    would be more."""
    life = Life(policy=msgspec.structs.replace(POLICY, close_after=3, min_effect=0.0), threshold=20)
    watched, opened, ladder = 0, 0, np.zeros(len(RUNGS), dtype=int)
    for _ in range(1200):
        was = life.monitor.phase
        armed = [track.armed for track in life.monitor.tracks]
        step = life.window()
        if was == "armed":
            watched += 1
            opened += step.opened
            ladder += armed
    assert watched > 800
    assert 0.2 * watched / 20 < opened <= watched / 20
    assert (ladder[:3] > watched / 3).all()


def test_the_windows_of_the_evidence_are_what_its_mean_is_at_most() -> None:
    """Of 193 windows the single ones have begun anew with the 192nd, those merged by four with the
    128th: sixteen of them since, and R is the average of both."""
    life = Life(policy=msgspec.structs.replace(POLICY, reference=48))
    life.windows(193)
    assert [track.armed for track in life.monitor.tracks] == [True, True, False, False]
    assert life.monitor.windows == np.ceil((1 + 4 * 16) / 2)


def test_windows_pass_while_an_alarm_keeps_its_evidence() -> None:
    """Else R over its windows would be taken at the moment at which it was largest."""
    life = Life()
    life.windows(30)
    while not life.window(shift=1.5).opened:
        pass
    raised, windows = life.monitor.evidence, life.monitor.windows
    assert windows == life.sent - 20
    life.windows(7, shift=1.5)
    assert (life.monitor.evidence, life.monitor.windows) == (raised, windows + 7)
    life.restart()
    assert (life.monitor.evidence, life.monitor.windows) == (raised, windows + 7)


def test_merged_windows_hold_the_counts_of_those_they_are_merged_of() -> None:
    life = Life()
    life.windows(64)
    for rung in RUNGS[1:]:
        for point in life.store.points(rung, 100):
            parts = [life.store.records[1, point.index + i].cells for i in range(rung)]
            assert (life.store.records[rung, point.index].cells == np.sum(parts, axis=0)).all()


def test_small_windows_are_merged_until_there_are_enough_rows() -> None:
    life = Life()
    steps = [life.window(rows=8) for _ in range(8)]
    assert [len(step.records) for step in steps] == [0, 0, 0, 1, 0, 0, 0, 1]
    assert steps[3].records[0].cells.sum() == 32
    assert life.window(rows=0).records == []


@pytest.mark.parametrize(
    ("length_ms", "season", "merged"),
    [
        (300_000, "week", 1),
        (59_997, "week", 5),
        (60_003, "week", 5),
        (10_000, "week", 30),
        (200_000, "week", 1),
        (60_000, "day", 1),
        (1000, "none", 1),
    ],
)
def test_windows_are_merged_until_the_longest_reference_spans_the_season(
    length_ms: int, season: Season, merged: int
) -> None:
    policy = Policy(season=season)
    assert policy.windows_of(length_ms) == merged
    assert policy.test_ms(length_ms) * policy.longest_reference >= SPAN_HOURS[season] * HOUR_MS


def test_a_stream_of_frequent_windows_is_armed_once_it_has_seen_its_season() -> None:
    """Its longest reference would be over before the season is, in windows as they come."""
    policy = Policy(reference=20, longest_reference=100, season="day", close_after=5)
    life = Life(policy=policy, length_ms=600_000)  # 100 of them are less than a day
    life.windows(72 * 6 - 1)
    assert life.monitor.phase == "collecting"
    assert "of the 3 days that show what a day does to it" in life.monitor.reason
    life.windows(20)
    assert life.monitor.phase == "armed"
    assert life.monitor.saved.rows == 30 * 9, "they are of nine device windows each"
    assert {sum(r.cells) for (rung, _), r in life.store.records.items() if rung == 1} == {9 * 40}
    steps = life.windows(30 * 9, shift=1.0)
    assert sum(step.opened for step in steps) == 1


def test_windows_that_a_device_merged_itself_count_as_what_they_are_of() -> None:
    policy = Policy(reference=20, longest_reference=100, season="day")
    life = Life(policy=policy, length_ms=600_000)
    steps = [life.window(merged=5, rows=200) for _ in range(6)]
    assert [len(step.records) for step in steps] == [0, 0, 1, 1, 0, 1]
    assert life.monitor.saved.rows == 300


def test_categories_have_a_distance_only() -> None:
    grid = Grid(kind="categorical", bins=4)
    training = Counts.of(grid, np.repeat(np.arange(4), [50, 30, 15, 5]))
    monitor = Monitor(grid, training, POLICY)
    assert CellScorer(grid, training.cells, 30).scores(training.cells).shape == (1,)
    store, random = Memory(), np.random.default_rng(6)
    opened: list[int] = []
    for at in range(60):
        shares = [0.5, 0.3, 0.15, 0.05, 0, 0] if at < 40 else [0.1, 0.2, 0.3, 0.2, 0.2, 0]
        step = monitor.step(
            random.multinomial(40, shares),
            key=str(at),
            start_ms=at * 1000,
            length_ms=1000,
            threshold=THRESHOLD,
            source=store,
        )
        store.add(step)
        opened += [at] * step.opened
    assert len(opened) == 1
    assert 40 < opened[0] < 55


def test_how_far_it_moved_is_over_the_windows_that_had_a_value() -> None:
    """Every other window has none, before the change and after it."""
    nothing = np.zeros(GRID.cells, dtype=np.int64)
    nothing[GRID.missing] = 40
    life = Life(policy=msgspec.structs.replace(POLICY, reference=60))
    for _ in range(60):
        life.window()
        life.feed(nothing)
    step = life.window(shift=1.5)
    while not step.opened:
        step = life.feed(nothing) if life.sent % 2 else life.window(shift=1.5)
    scores = np.array([r.point.scores for (rung, _), r in life.store.records.items() if rung == 1])
    since = len(scores) - step.since
    moved = np.nanmean(scores[since:], axis=0) - np.nanmean(scores[:since], axis=0)
    assert step.moved == pytest.approx(moved.tolist())
    assert moved[MEAN] > 1
    saved = life.monitor.saved
    assert abs(saved.reference_absent[MEAN] - saved.reference_windows / 2) <= 1


def test_an_alarm_may_be_of_the_newest_window_alone() -> None:
    """No window since the change is stored when it is judged."""
    life = Life(policy=msgspec.structs.replace(POLICY, min_effect=0.0), threshold=1.0)
    life.windows(20)
    opened = next(step for step in iter(life.window, None) if step.opened)
    assert opened.since == 1
    assert opened.change is not None


def test_what_a_monitor_holds_is_bounded() -> None:
    life = Life(policy=msgspec.structs.replace(POLICY, longest_reference=60))
    life.windows(100)
    half = sum(len(msgspec.msgpack.encode(track.save())) for track in life.monitor.tracks)
    life.windows(200)
    whole = sum(len(msgspec.msgpack.encode(track.save())) for track in life.monitor.tracks)
    assert whole < 1.5 * half + 10_000
    life.windows(100, shift=3.0)
    assert len(msgspec.msgpack.encode(life.monitor.saved)) < 4_000


@settings(max_examples=15, deadline=None)
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
        assert steady.monitor.evidence == restarted.monitor.evidence
    assert steady.monitor.phase == restarted.monitor.phase
    assert steady.monitor.saved == restarted.monitor.saved


@pytest.mark.parametrize("change", ["mean", "correlation"])
def test_embeddings_are_watched_by_their_kernel_mean(change: str) -> None:
    """A change of the correlation alone moves no mean, and the kernel sees it."""
    random = np.random.default_rng(8)
    grid = Grid(kind="vector", bins=8, low=-4.0, high=4.0, bandwidth=4.0, seed=1)
    training = Counts.of(grid, random.normal(size=(500, 8)))
    monitor, store = Monitor(grid, training, POLICY), Memory()
    opened: list[int] = []
    for at in range(70):
        vectors = random.normal(size=(60, 8))
        if at >= 45:
            vectors = vectors + 0.5 if change == "mean" else vectors[:, :1] + 0.3 * vectors
        step = monitor.step(
            numbers(grid, Counts.of(grid, vectors)),
            key=str(at),
            start_ms=at * 1000,
            length_ms=1000,
            threshold=THRESHOLD,
            source=store,
        )
        store.add(step)
        opened += [at] * step.opened
    assert len(opened) == 1
    assert 45 < opened[0] < 60
    assert monitor.offset < 0.01
