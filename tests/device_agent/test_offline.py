"""Off line and back: whatever happens in whatever order, the collector's sums are the device's."""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from support.counts import cells_of, packed

from edgeml.collector.store.high_water import advance
from edgeml.device_agent.uplink.delivery import PASSED_OVER, Delivery, Key, Trickle
from edgeml.device_agent.uplink.outbox import Outbox
from edgeml.device_agent.uplink.thinning import Waiting, pairs_to_merge, thinned
from edgeml.errors import TelemetryError
from edgeml.telemetry import Window, merge, merge_key

BASELINES = ("0" * 16, "1" * 16)
ON_THEIR_WAY = 2
LIMIT = 1_700
"""Bytes: room for five windows, which is one of each kind and those on their way."""

KINDS = (("a", "x", BASELINES[0]), ("b", "x", BASELINES[1]), ("b", "y", BASELINES[1]))
kinds = st.sampled_from(KINDS)
counts = st.lists(st.integers(0, 300), min_size=3, max_size=3)


@st.composite
def windows(draw: st.DrawFn, kinds: st.SearchStrategy[tuple[str, str, str]] = kinds) -> Window:
    model, artifact, baseline = draw(kinds)
    cells = draw(counts)
    return Window(
        boot="-", sequence=1, oldest=1, model=model, version="1", bundle="0" * 64,
        artifact=artifact, start_ms=draw(st.integers(0, 2**45)),  # a clock that is wrong by ages
        duration_ms=draw(st.integers(0, 10**6)), rows=sum(cells),
        outcomes={"served": sum(cells), "shed": draw(st.integers(0, 9))},
        baseline=baseline, statistics=[packed(cells)],
    )  # fmt: skip


Totals = dict[str, Counter[str]]


def add(totals: Totals, window: Window) -> None:
    """All that is counted in a window, by its kind."""
    of = totals.setdefault(merge_key(window), Counter())
    of.update(window.outcomes)
    of["windows"] += window.merged
    of["rows"] += window.rows
    of["duration"] += window.duration_ms
    for statistics in window.statistics:
        for n, count in enumerate(cells_of(statistics, 3)):
            of[f"cell {n}"] += count


alike = windows(st.just(KINDS[0]))


@given(alike, alike, alike)
def test_merging_is_exact_and_says_how_many_there_were(one: Window, two: Window, three: Window):
    left = merge(merge(one, two), three)
    right = merge(one, merge(two, three))
    assert left == right
    assert left.merged == 3
    assert left.start_ms == one.start_ms
    apart: Totals = {}
    together: Totals = {}
    for window in (one, two, three):
        add(apart, window)
    add(together, left)
    assert together == apart


@pytest.mark.parametrize("name", ["model", "version", "bundle", "artifact", "baseline"])
def test_what_differs_in_kind_is_not_merged(name: str):
    one = Window(
        boot="-", sequence=1, oldest=1, model="m", version="1", bundle="0" * 64, artifact="a",
        start_ms=0, duration_ms=0, rows=0, outcomes={}, statistics=[],
    )  # fmt: skip
    fields = {key: getattr(one, key) for key in Window.__struct_fields__}
    other = Window(**fields | {name: "f" * 64})
    with pytest.raises(
        TelemetryError, match="the same model, version, bundle, artifact and baseline"
    ):
        merge(one, other)


def test_the_shortest_neighbours_are_merged_first_and_kinds_stay_apart():
    rows = [
        Waiting(1, "a", 60, 100),
        Waiting(2, "b", 1, 100),
        Waiting(3, "a", 60, 100),
        Waiting(4, "a", 10, 100),
        Waiting(5, "a", 10, 90),
        Waiting(6, "b", 300, 100),
    ]
    assert pairs_to_merge(rows, 1) == [(4, 5)]
    assert pairs_to_merge(rows, 91) == [(4, 5), (1, 3)]
    assert pairs_to_merge(rows, 10**6) == [(4, 5), (1, 3), (2, 6)]
    assert pairs_to_merge(rows, 0) == []


@given(st.lists(windows(), max_size=12), st.integers(1, 12))
def test_what_the_disk_does_not_take_is_merged_in_memory(closed: list[Window], limit: int):
    kept = thinned(closed, limit)
    assert len(kept) <= max(limit, len({merge_key(window) for window in closed}))
    before: Totals = {}
    after: Totals = {}
    for window in closed:
        add(before, window)
    for window in kept:
        add(after, window)
    assert after == before


def test_a_window_that_the_collector_refuses_does_not_hold_up_the_others_for_ever():
    plan = Delivery(in_flight=2, resend_s=10.0, resend_cap_s=40.0)
    bad, good = Key("b", 1), Key("b", 2)
    now = 0.0
    for _ in range(PASSED_OVER - 1):
        for key in plan.due([bad, good], now):
            plan.sent(key, now)
        assert not plan.refused(bad)
        assert not plan.refused(bad)  # one more mark after the same sending says nothing new
        now += 100.0
    plan.due([bad, good], now)
    plan.sent(bad, now)
    assert plan.refused(bad)


@given(st.integers(0, 2**32), st.floats(0.01, 10))
def test_the_backlog_trickles_with_jitter(seed: int, mean_s: float):
    trickle = Trickle(mean_s, random.Random(seed))
    now, delays = 0.0, []
    for _ in range(200):
        trickle.pause(now)
        delays.append(trickle.due - now)
        now = trickle.due
    assert all(0 <= delay <= 2 * mean_s * (1 + 1e-9) for delay in delays)
    assert 0.7 * mean_s < sum(delays) / len(delays) < 1.3 * mean_s
    assert len(set(delays)) > 100


class OffLineAndBack(RuleBasedStateMachine):
    """The real outbox, an unreliable wire, and what a collector keeps: each key once."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.boots = 0
        self.closed: Totals = {}
        self.stored: dict[tuple[str, int], Window] = {}
        self.through: Counter[str] = Counter()
        self.wire: list[Window] = []
        self.box = self.open()

    def open(self) -> Outbox:
        self.boots += 1
        return Outbox(
            Path(self.folder.name), boot=f"boot-{self.boots}", limit_bytes=LIMIT, events_kept=3
        )

    @rule(several=st.lists(windows(), min_size=1, max_size=5))
    def close_windows(self, several: list[Window]) -> None:
        for window in several:
            assert self.box.append(window).dropped == 0
            add(self.closed, window)

    @rule(limit=st.integers(1, 4), backlog=st.integers(0, 4))
    def send(self, limit: int, backlog: int) -> None:
        # As the uplink does it: what is on its way is bounded, and so is what cannot be merged.
        room = ON_THEIR_WAY - len(self.box.pending())
        if room > 0:
            self.box.number(min(room, limit), backlog=backlog)
        for key in self.box.pending():
            found = self.box.load(key)
            assert found is not None
            self.wire.append(found)

    @precondition(lambda self: self.wire)
    @rule(data=st.data(), again=st.booleans(), told=st.booleans())
    def arrive(self, data: st.DataObject, again: bool, told: bool) -> None:
        """Any message, in any order, perhaps not for the last time; the mark may get lost."""
        at = data.draw(st.integers(0, len(self.wire) - 1))
        window = self.wire[at] if again else self.wire.pop(at)
        self.stored.setdefault((window.boot, window.sequence), window)
        boot = window.boot
        above = sorted(sequence for owner, sequence in self.stored if owner == boot)
        self.through[boot] = advance(self.through[boot], window.oldest, above)
        if told:
            self.box.stored(boot, self.through[boot])

    @rule()
    def lose_connection(self) -> None:
        self.wire.clear()

    @rule()
    def restart(self) -> None:
        self.box.close()
        self.box = self.open()

    @invariant()
    def nothing_is_lost_and_nothing_counted_twice(self) -> None:
        assert self.box.filling().bytes <= LIMIT
        found: Totals = {}
        for window in self.stored.values():
            add(found, window)
        for kind, totals in found.items():
            assert all(totals[name] <= self.closed[kind][name] for name in totals)

    def teardown(self) -> None:
        """Everything arrives in the end."""
        while self.box.filling().waiting or self.box.pending():
            self.box.number(10**6, backlog=10**6)
            for key in self.box.pending():
                window = self.box.load(key)
                assert window is not None
                self.stored.setdefault(key, window)
                self.box.stored(*key)
        found: Totals = {}
        for window in self.stored.values():
            add(found, window)
        assert found == self.closed
        self.box.close()
        self.folder.cleanup()


OffLineAndBack.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
test_off_line_and_back = OffLineAndBack.TestCase
