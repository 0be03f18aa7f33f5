"""Windows that are refused or cannot be judged: nothing is lost, and one sees why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.devices import START_MS, Source
from support.fleets import HALL, LUMA, FleetStore

from edgeml.bundle import open_bundle
from edgeml.collector.ingest.counters import Counters
from edgeml.collector.ingest.queueing import Inbox, Item
from edgeml.collector.ingest.validate import Received
from edgeml.collector.ingest.writer import Writer
from edgeml.collector.store import evaluation, judging
from edgeml.collector.store.unjudged import TRIED_ALIKE
from edgeml.statistics import Counts, Grid
from edgeml.telemetry import Status, Topic, Window

CAM = HALL[0]
POISON = 43
"""Rows of a window that the evaluation is made to stumble over."""


class Stumbling:
    """The evaluation's :func:`numbers`, which divides by zero over windows of so many rows.

    Args:
        stream: only of this statistic.
    """

    def __init__(self, patch: pytest.MonkeyPatch, store: FleetStore, stream: str = LUMA) -> None:
        self.tried = 0
        self._grid = store.streams[stream].grid.hash
        self._real = evaluation.numbers
        patch.setattr(evaluation, "numbers", self)

    def __call__(self, grid: Grid, counts: Counts) -> Any:
        if grid.hash == self._grid and counts.total == POISON:
            self.tried += 1
            return 1 / 0
        return self._real(grid, counts)


def test_a_statistic_that_cannot_be_judged_is_counted_and_judged_at_the_next_start(
    store: FleetStore, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = FleetStore(tmp_path / "plain.sqlite", bundle)
    source = Source(bundle, seed=1)
    windows = [*source.windows(30), source.window(rows=POISON)]
    for each in (plain, store):
        each.send(*((CAM, window) for window in windows[:30]))
    with monkeypatch.context() as patch:
        Stumbling(patch, store)
        store.send((CAM, windows[30]))
    plain.send((CAM, windows[30]))

    found, expected = store.contents(), plain.contents()
    assert found["counts"] == expected["counts"]
    assert found["outcomes"] == expected["outcomes"]
    assert others(found) == others(expected)
    assert found["streams"] != expected["streams"]
    (fault,) = store.reader.faults()
    assert (fault.kind, fault.stream, fault.windows) == ("not judged", LUMA, 1)
    assert fault.reason == "ZeroDivisionError: division by zero"
    assert {s.stream: s.unjudged for s in store.reader.streams() if s.unjudged} == {LUMA: 1}

    assert store.intake.late.judge_again() == 0  # not for ever: once in a start
    store.restart()
    assert store.intake.late.judge_again() == 1
    assert store.contents() == expected
    assert store.reader.faults() == []


def others(contents: dict[str, Any]) -> list[Any]:
    """The streams that nothing befell."""
    return [stream for stream in contents["streams"] if stream[1] != LUMA]


def test_one_that_still_fails_is_tried_once_a_start(
    store: FleetStore, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stumbling = Stumbling(monkeypatch, store)
    store.send((CAM, Source(bundle, seed=1).window(rows=POISON)))
    assert stumbling.tried == 1
    for start in (2, 3):
        store.restart()
        assert store.intake.late.judge_again() == 1
        assert store.intake.late.judge_again() == 0
        assert stumbling.tried == start
        assert [fault.windows for fault in store.reader.faults()] == [1]


def test_a_device_that_sends_poison_all_the_time_is_not_tried_all_the_time(
    store: FleetStore, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stumbling = Stumbling(monkeypatch, store)
    source = Source(bundle, seed=1)
    for _ in range(20):
        store.send((CAM, source.window(rows=POISON)), (HALL[1], source.window()))
    assert stumbling.tried == TRIED_ALIKE
    (fault,) = store.reader.faults()
    assert (fault.device, fault.windows) == ("cam-0", 20)
    assert {d.device: d.outcomes["served"] for d in store.reader.devices(now_ms=START_MS)} == {
        "cam-0": 20 * POISON,
        "cam-1": 20 * 40,
    }


def test_counts_that_cannot_even_be_read_are_kept_for_later(
    store: FleetStore, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Source(bundle, seed=1)
    first, second = source.windows(2)
    with monkeypatch.context() as patch:

        def read(baseline: str, statistics: Any, **known: Any) -> Any:
            raise OverflowError("a number of 70 bits")

        patch.setattr(judging, "read_statistics", read)
        store.send((CAM, first))
        (fault,) = store.reader.faults()
        assert (fault.stream, fault.reason) == ("", "OverflowError: a number of 70 bits")
    store.send((CAM, second))  # does not wait for the first
    assert store.contents()["counts"]
    store.restart()
    assert store.intake.late.judge_again() == 1
    plain = FleetStore(tmp_path / "plain.sqlite", bundle)
    plain.send((CAM, second))
    plain.send((CAM, first))
    assert store.contents() == plain.contents()


def test_it_can_be_retracted_and_put_back(
    store: FleetStore, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stumbling = Stumbling(monkeypatch, store)
    source = Source(bundle, seed=1)
    sent = [source.window(rows=POISON if slot == 4 else 40) for slot in range(9)]
    store.send(*((CAM, window) for window in sent))
    before, tried = store.contents(), stumbling.tried
    view = store.retract(device="cam-0", from_ms=sent[6].start_ms)
    assert view.windows == 3
    store.undo(view.id)
    assert store.contents() == before
    assert stumbling.tried == tried  # it is known to fail


@pytest.mark.parametrize("known", [True, False])
def test_a_fault_that_names_no_statistic_is_found_window_by_window(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    """Over the writer's thread: all is acknowledged, and only the poisonous one is not judged. So
    is it with windows that waited for their bundle."""
    store = FleetStore(tmp_path / "fleet.sqlite", bundle, known=known)
    real = evaluation.add_effects

    def add_effects(rows: Any) -> None:
        if any(
            row["n"] == POISON if "n" in row else sum(cells) == POISON for _, cells, row in rows
        ):
            raise FloatingPointError("lost in the batch")
        real(rows)

    monkeypatch.setattr(evaluation, "add_effects", add_effects)
    source = Source(bundle, seed=1)
    sent = [source.window(rows=POISON if slot == 5 else 40) for slot in range(9)]
    settled: list[int] = []
    counters, inbox = Counters(0), Inbox()
    writer = Writer(
        intake=store.intake,
        inbox=inbox,
        counters=counters,
        tell=lambda mark: settled.append(mark.through),
        clock_ms=lambda: START_MS,
    )
    acknowledged: list[int] = []
    for window in sent:
        item = Item(received(window), lambda n=window.sequence: acknowledged.append(n))
        assert inbox.put(item, timeout_s=1)
    writer.start()
    if not known:
        store.intake.add_bundle(open_bundle(bundle), size=1, now_ms=1)
        writer.change(lambda *_: None).result()
    writer.stop()
    assert sorted(acknowledged) == list(range(1, 10))
    assert settled[-1] == 9
    counted = counters.snapshot()
    assert (counted["accepted"], counted["refused"]) == (9, {})
    while store.intake.late.evaluate_waiting():
        pass
    (fault,) = store.reader.faults()
    assert (fault.stream, fault.windows) == ("", 1)
    assert {stream.last["n"] for stream in store.reader.streams() if stream.last} == {40}


def received(window: Window) -> Received:
    return Received(Topic("hall", "cam-0", "stats", window.model), window, window.start_ms)


def test_a_device_whose_windows_are_refused_says_so(store: FleetStore, bundle: Path) -> None:
    """They are stored as settled, so nothing else would tell that it is watched no more."""
    source = Source(bundle, seed=1)
    store.send((CAM, source.status()), *((CAM, window) for window in source.windows(25)))
    assert state(store) == ("armed", "")
    foreign = [msgspec.structs.replace(w, baseline="f" * 64) for w in source.windows(2)]
    store.send(*((CAM, window) for window in foreign))
    (fault,) = store.reader.faults(device="cam-0")
    assert (fault.kind, fault.windows) == ("refused", 2)
    assert "of the baseline ffff" in fault.reason
    assert state(store) == ("refused", fault.reason)
    store.send((CAM, source.window()))
    assert state(store) == ("armed", "")
    assert store.reader.faults(device="cam-1") == []


def state(store: FleetStore) -> tuple[str, str]:
    (device,) = store.reader.devices(now_ms=START_MS)
    return device.state, device.reason


def test_what_cannot_be_stored_at_all_holds_up_nobody(
    store: FleetStore, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A birth is no data: it is counted as a fault."""
    source = Source(bundle, seed=1)

    def note_boot(connection: Any, device_id: int, status: Status) -> None:
        raise ValueError("no such agent")

    monkeypatch.setattr("edgeml.collector.store.intake.note_boot", note_boot)
    counters, inbox = Counters(0), Inbox()
    writer = Writer(
        intake=store.intake,
        inbox=inbox,
        counters=counters,
        tell=lambda mark: None,
        clock_ms=lambda: START_MS,
    )
    acknowledged: list[str] = []
    birth = Received(Topic("hall", "cam-0", "status", ""), source.status(), START_MS)
    for what in (birth, received(source.window())):
        name = type(what.message).__name__
        assert inbox.put(Item(what, lambda name=name: acknowledged.append(name)), timeout_s=1)
    writer.start()
    writer.stop()
    assert acknowledged == ["Status", "Window"]
    counted = counters.snapshot()
    assert (counted["accepted"], counted["refused"]) == (1, {"fault": 1})
