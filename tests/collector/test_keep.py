"""Retention: old windows become hours, then days, then nothing; what they counted stays."""

from __future__ import annotations

import signal
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from support.aging import MIDNIGHT, Aging, at, spread, sums, totals
from support.collectors import Start
from support.devices import Source
from support.fleets import ALARMS, HALL, FleetStore, fleet

from edgeml.collector.keep import merge, trim
from edgeml.collector.keep.keeper import needed
from edgeml.collector.keep.rule import DAY_MS, HELD_S, HOUR_MS
from edgeml.collector.store import tables
from edgeml.errors import CollectorError
from edgeml.telemetry import Window

PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
CAM = HALL[0]


@pytest.fixture(scope="module")
def bundle(narrow: Path) -> Path:
    return narrow


@settings(max_examples=3, deadline=None, phases=PHASES)
@given(st.data())
def test_whatever_is_merged_when_the_sums_are_the_same(bundle: Path, data: st.DataObject) -> None:
    """Windows of two devices and three boots over ten days, sent in any order, some again, with
    passes of the keeper, restarts and retractions in between: nothing is lost, nothing twice."""
    sources = [
        Source(bundle, seed=1),
        Source(bundle, seed=2, boot="boot-2"),
        Source(bundle, seed=3),
    ]
    names = [CAM, CAM, HALL[1]]
    sent: list[tuple[str, Window]] = []
    for name, source in zip(names, sources, strict=True):
        hours = data.draw(st.lists(st.integers(0, 239), min_size=4, max_size=7))
        sent += (
            (name, at(msgspec.structs.replace(source.window(), oldest=1), MIDNIGHT + h * HOUR_MS))
            for h in hours
        )
    order = data.draw(st.permutations(sent))
    with tempfile.TemporaryDirectory() as folder:
        plain = FleetStore(Path(folder) / "plain.sqlite", bundle)
        plain.send(*sent)
        aging = Aging(FleetStore(Path(folder) / "kept.sqlite", bundle))
        store, now_ms = aging.store, MIDNIGHT
        for number, one in enumerate(order):
            store.send(one)
            if data.draw(st.integers(0, 3)) == 0:
                store.send(data.draw(st.sampled_from(order[: number + 1])))
            now_ms += data.draw(st.sampled_from([0, 0, HOUR_MS, DAY_MS]))
            aging.until(now_ms)
            if data.draw(st.integers(0, 5)) == 0:
                aging.restart()
        aging.until(MIDNIGHT + 18 * DAY_MS)
        assert 24 in aging.resolutions()
        found, expected = by_name(store), by_name(plain)
        assert found == expected
        assert found["windows"] == found["rollups"]
        for each in (plain, store):
            each.engine.dispose()


def by_name(store: FleetStore) -> dict[str, Any]:
    """Totals by the names of devices: their numbers are given in the order in which they come."""
    d = tables.devices.c
    with store.engine.begin() as connection:
        names = {row.id: row.device for row in connection.execute(sa.select(d.id, d.device))}
    found = totals(store)
    return {
        **found,
        **{w: {(names[d], s): c for (d, s), c in found[w].items()} for w in ("windows", "rollups")},
        "requests": sorted((names[d], outcome, n) for d, outcome, n in found["requests"]),
    }


def test_windows_become_hours_and_days_and_go(store: FleetStore, bundle: Path) -> None:
    aging = Aging(store)
    store.send(*((CAM, window) for window in spread(Source(bundle, seed=1).windows(72))))
    before = totals(store)
    aging.until(MIDNIGHT + 2 * DAY_MS)
    assert aging.resolutions() == {0: 72}
    aging.until(MIDNIGHT + 4 * DAY_MS)
    # Test windows that streams learn from keep theirs.
    assert aging.resolutions() == {1: 23, 0: 3}
    assert totals(store) == before
    aging.until(MIDNIGHT + 7 * DAY_MS)
    assert aging.resolutions() == {24: 1, 0: 3}
    assert totals(store) == before
    r = tables.count_rollups.c
    with store.engine.begin() as connection:
        hours = set(connection.execute(sa.select(r.hour_ms)).scalars())
        marked = connection.execute(sa.select(tables.merged_days.c.day_ms)).scalars().all()
    assert hours == {MIDNIGHT} == set(marked)
    aging.until(MIDNIGHT + 22 * DAY_MS)
    assert aging.resolutions() == {0: 3}
    assert totals(store)["rollups"] == before["rollups"]  # until the last of the day is gone


def test_a_day_goes_with_all_that_was_made_of_it(store: FleetStore, bundle: Path) -> None:
    aging = Aging(store, kept=0)
    source = Source(bundle, seed=1)
    store.send(*((CAM, window) for window in spread(source.windows(6))))
    aging.until(MIDNIGHT + 22 * DAY_MS)
    assert aging.resolutions() == {}
    assert totals(store)["rollups"] == {}
    with store.engine.begin() as connection:
        for table in (tables.merged_days, tables.counts, tables.tests, tables.outcome_rollups):
            assert connection.execute(sa.select(table)).first() is None
    # The device goes on, and is what it was.
    store.send((CAM, at(source.window(), MIDNIGHT + 22 * DAY_MS)))
    assert {stream.phase for stream in store.reader.streams()} == {"collecting"}
    assert aging.resolutions() == {0: 1}


def test_what_comes_late_is_added_to_the_hour_and_the_day_that_were_merged(
    store: FleetStore, bundle: Path
) -> None:
    source = Source(bundle, seed=1)
    windows = spread(msgspec.structs.replace(w, oldest=1) for w in source.windows(12))
    late = [windows.pop(4), windows.pop(4)]  # the mark waits for them
    aging = Aging(store, kept=0)
    store.send(*((CAM, window) for window in windows))
    aging.until(MIDNIGHT + 4 * DAY_MS)
    assert aging.resolutions() == {1: 2, 0: 6}  # above the mark all is as it was
    store.send((CAM, late[0]), (CAM, late[1]))
    for days in (6, 9):  # whose windows came just now, by the test's clock: they are as old
        aging.until(MIDNIGHT + days * DAY_MS)
    assert aging.resolutions() == {24: 1}
    plain = FleetStore(store.path.with_name("plain.sqlite"), bundle)
    plain.send(*((CAM, window) for window in sorted([*windows, *late], key=lambda w: w.start_ms)))
    assert totals(store) == totals(plain)
    later = [at(w, MIDNIGHT + 5 * HOUR_MS) for w in source.windows(2)]
    for each in (store, plain):
        each.send((CAM, later[0]))
        each.send((CAM, later[1]))
    assert totals(store) == totals(plain)
    r = tables.count_rollups.c
    with store.engine.begin() as connection:
        assert set(connection.execute(sa.select(r.hour_ms)).scalars()) == {MIDNIGHT}


def test_a_window_that_was_merged_and_comes_again_is_known(store: FleetStore, bundle: Path) -> None:
    aging = Aging(store, kept=0)
    windows = spread(Source(bundle, seed=1).windows(6))
    store.send(*((CAM, window) for window in windows))
    before = totals(store)
    for days in (4, 9):
        aging.until(MIDNIGHT + days * DAY_MS)
        outcome = store.intake.store([received(window) for window in windows])
        assert (outcome.accepted, outcome.duplicates) == (0, 6)
        assert [mark.through for mark in outcome.marks] == [6]  # so the device forgets them
        assert totals(store) == before
        aging.restart()


def received(window: Window) -> Any:
    from edgeml.collector.ingest.validate import Received
    from edgeml.telemetry import Topic

    return Received(Topic("hall", "cam-0", "stats", window.model), window, window.start_ms + 1000)


@pytest.mark.parametrize("days", [4, 9], ids=["hours", "days"])
def test_a_firmware_and_a_span_are_retracted_from_what_was_merged(
    store: FleetStore, bundle: Path, days: int
) -> None:
    """What is left is what there would be without them. A span takes whole hours or days."""
    old, new = Source(bundle, seed=1), Source(bundle, seed=2, boot="boot-2")
    status = msgspec.structs.replace(new.status(), agent="0.2.0")
    ran = [spread(old.windows(6)), spread(new.windows(6))]
    store.send((CAM, old.status()), (CAM, status))
    aging = Aging(store, kept=0)
    store.send(*((CAM, window) for window in ran[0]))
    without = totals(store)
    store.send(*((CAM, window) for window in ran[1]))
    before = totals(store)
    aging.until(MIDNIGHT + days * DAY_MS)
    view = store.retract(agent="0.2.0")
    assert (view.windows, view.rows) == (6, 240)
    assert view.resolution_ms == (HOUR_MS if days == 4 else DAY_MS)
    found = totals(store)
    assert found["requests"] == without["requests"]
    # Extremes stay as bounds after a subtraction.
    assert sums(found["rollups"]) == sums(without["rollups"]) == sums(found["windows"])
    aging.until(MIDNIGHT + (days + 1) * DAY_MS)  # what is retracted grows old, too
    store.undo(view.id)
    assert totals(store) == before
    with pytest.raises(CollectorError, match="no stored window is of that"):
        store.retract(from_ms=MIDNIGHT + 1, to_ms=MIDNIGHT + HOUR_MS)
    if days == 4:
        view = store.retract(from_ms=MIDNIGHT, to_ms=MIDNIGHT + HOUR_MS + 1)
        assert (view.windows, view.across) == (6, 2)
        store.undo(view.id)
    view = store.retract(from_ms=MIDNIGHT, to_ms=MIDNIGHT + DAY_MS)
    assert (view.windows, view.across) == (12, 0)
    assert totals(store)["rollups"] == {}
    aging.until(MIDNIGHT + 23 * DAY_MS)
    with pytest.raises(CollectorError, match="not kept any more"):
        store.undo(view.id)


def test_evidence_alarms_and_references_do_not_notice(bundle: Path, tmp_path: Path) -> None:
    """With as many test windows as streams may ask for, each goes on as if all were there."""
    found: list[dict[str, Any]] = []
    sources = fleet(bundle, HALL)
    batches = [
        [
            (name, at(source.window(broken=broken), MIDNIGHT + slot * 6 * HOUR_MS))
            for name, source in sources.items()
            for broken in (name == CAM and slot >= 30,)
        ]
        for slot in range(44)
    ]
    for kept in (False, True):
        store = FleetStore(tmp_path / f"{kept}.sqlite", bundle)
        aging = Aging(store, kept=needed(ALARMS.policy))
        for slot, batch in enumerate(batches):
            store.send(*batch)
            if kept and slot % 4 == 0:
                aging.until(MIDNIGHT + slot * 6 * HOUR_MS)
            if slot in {17, 33}:
                store.restart()
                aging.restart()
        found.append(store.contents() | totals(store))
        store.engine.dispose()
    assert found[1]["alarms"]
    for name in ("streams", "alarms", "groups", "points", "rollups", "requests"):
        assert found[1][name] == found[0][name], name


def test_streams_outlive_their_old_test_windows(store: FleetStore, bundle: Path) -> None:
    """Of three times as many windows as are kept: armed, and an alarm rises and closes."""
    aging = Aging(store, kept=30)
    sources = fleet(bundle, HALL)
    for slot in range(90):
        dark, start_ms = 60 <= slot < 72, MIDNIGHT + slot * 3 * HOUR_MS
        store.send(
            *((n, at(s.window(broken=dark and n == CAM), start_ms)) for n, s in sources.items())
        )
        if slot % 8 == 0:
            aging.until(MIDNIGHT + slot * 3 * HOUR_MS)
            store.intake.forget()
        if slot == 70:
            assert {a.device for a in store.reader.alarms(open_only=True)} == {"cam-0"}
    alarms = store.reader.alarms()
    assert {alarm.device for alarm in alarms} == {"cam-0"}
    assert {alarm.open for alarm in alarms} == {False}
    streams = store.reader.streams()
    assert all(stream.armed for stream in streams if stream.device != "cam-0")
    t = tables.tests.c
    with store.engine.begin() as connection:
        query = sa.select(t.stream_id, sa.func.min(t.index)).where(t.rung == 1)
        query = query.group_by(t.stream_id)
        oldest = {row[1] for row in connection.execute(query)}
    assert min(oldest) > 0
    assert store.reader.histogram(streams[0].id) is not None
    assert aging.resolutions().keys() >= {0, 1}


def test_windows_that_wait_for_their_bundle_wait_as_long_as_days_are_kept(
    bundle: Path, tmp_path: Path
) -> None:
    store = FleetStore(tmp_path / "fleet.sqlite", bundle, known=False)
    aging = Aging(store, kept=0)
    store.send(*((CAM, window) for window in spread(Source(bundle, seed=1).windows(3))))
    aging.until(MIDNIGHT + 19 * DAY_MS)
    assert aging.resolutions() == {0: 3}
    aging.until(MIDNIGHT + 22 * DAY_MS)
    assert aging.resolutions() == {}


def test_a_clock_that_jumps_deletes_nothing_until_it_is_to_be_believed(
    store: FleetStore, bundle: Path
) -> None:
    aging = Aging(store, kept=0)
    store.send(*((CAM, window) for window in spread(Source(bundle, seed=1).windows(6))))
    aging.until(MIDNIGHT + DAY_MS)
    future = MIDNIGHT + 3650 * DAY_MS
    aging.seconds += 3600
    assert not aging.keeper.step(future)
    assert aging.keeper.done.held
    aging.restart()  # nor is it believed for being there at the next start
    assert not aging.keeper.step(future)
    aging.seconds += HELD_S / 2
    aging.keeper.step(future + 43_200_000)
    assert aging.resolutions() == {0: 6}
    aging.seconds += HELD_S / 2  # put right in time
    aging.keeper.step(MIDNIGHT + 2 * DAY_MS + 3_600_000)
    assert not aging.keeper.done.held
    assert aging.resolutions() == {0: 3, 1: 1}  # as is due by then


def test_a_device_whose_clock_is_wrong_by_years_loses_nothing(
    store: FleetStore, bundle: Path
) -> None:
    """It stands where its clock says, and is kept from when it came."""
    aging = Aging(store)
    source = Source(bundle, seed=1)
    store.intake.store(
        [received(at(window, 5000 + n)) for n, window in enumerate(source.windows(3))]
    )
    w = tables.windows
    with store.engine.begin() as connection:
        connection.execute(sa.update(w).values(received_ms=MIDNIGHT))
    before = totals(store)
    aging.until(MIDNIGHT + DAY_MS)
    assert aging.resolutions() == {0: 3}
    assert totals(store) == before


def test_thousands_of_windows_in_an_hour_are_merged_in_several_goes(
    store: FleetStore, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merge, "AT_ONCE", 4)
    aging = Aging(store, kept=0)
    windows = spread(Source(bundle, seed=1).windows(23), step_ms=1000)
    store.send(*((CAM, window) for window in windows))
    before = totals(store)
    aging.until(MIDNIGHT + 4 * DAY_MS)
    assert aging.resolutions() == {1: 1}
    assert totals(store) == before


def test_what_cannot_be_merged_holds_up_nothing_else(
    store: FleetStore, bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    aging = Aging(store, kept=0)
    store.send(*((CAM, window) for window in spread(Source(bundle, seed=1).windows(9))))
    c, w = tables.counts, tables.windows
    with store.engine.begin() as connection:
        second = sa.select(w.c.id).where(w.c.sequence == 5).scalar_subquery()
        connection.execute(sa.update(c).where(c.c.window_id == second).values(packed=b"\xff"))
    aging.until(MIDNIGHT + 4 * DAY_MS)
    assert aging.resolutions() == {1: 2, 0: 3}
    assert "cannot be merged" in caplog.text


def test_space_is_given_back_to_the_file_system(
    store: FleetStore, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trim, "LEAST_FREE", 256)
    monkeypatch.setattr(trim, "AT_ONCE", 128)
    aging = Aging(store, kept=0)
    source = Source(bundle, seed=1)
    for _ in range(16):
        store.send(*((CAM, window) for window in spread(source.windows(18))))
    with store.engine.begin() as connection:
        full = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    aging.until(MIDNIGHT + 22 * DAY_MS)
    with store.engine.begin() as connection:
        left = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        free = connection.exec_driver_sql("PRAGMA freelist_count").scalar_one()
    assert left - free < full / 5  # what is in use
    assert free < trim.LEAST_FREE < full
    assert left < full


@pytest.mark.parametrize("point", ["while windows are replaced", "while a day is merged"])
def test_a_collector_that_is_killed_in_the_middle_of_it(
    start: Start, store: FleetStore, bundle: Path, tmp_path: Path, point: str
) -> None:
    """Started again, it goes on from there: no count is lost or doubled."""
    store.send(*((CAM, window) for window in spread(Source(bundle, seed=1).windows(72))))
    w, t = tables.windows, tables.tests
    with store.engine.begin() as connection:  # long ago, by the wall clock
        connection.execute(sa.update(w).values(received_ms=w.c.received_ms - 400 * DAY_MS))
        connection.execute(sa.delete(t))
    before = totals(store)
    store.engine.dispose()
    config = tmp_path / "collector.toml"
    config.write_text("[keep]\nwindows_days = 1\nhours_days = 2\ndays_days = 0\n")
    options = ("--embedded-broker", "--config", str(config))
    dying = start(*options, crash=point)
    assert dying.wait() == -signal.SIGKILL
    store.restart()
    assert totals(store) == before
    collector = start(*options).wait_ready()
    collector.wait_until("keep", lambda keep: keep["merged"] > 0 and keep["waiting"] == 0)
    assert collector.stop() == 0
    aging = Aging(store)  # opens the database, which wants the lock that a busy collector has
    assert aging.resolutions() == {24: 1}
    assert totals(store) == before
