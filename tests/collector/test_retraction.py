"""Windows are taken back exactly, and put back; streams start anew: what was, and what is left."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from support.devices import START_MS, Source
from support.fleets import HALL, MEAN, YARD, FleetStore, fleet, phases

from edgeml.bundle import open_bundle
from edgeml.collector.store import fleet_tables, tables
from edgeml.collector.store.rebaseline import rebaseline
from edgeml.collector.store.selection import StreamSelection
from edgeml.collector.views import AlarmView, StreamView
from edgeml.errors import CollectorError
from edgeml.telemetry import Window

PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
"""Not to shrink: an example takes seconds."""

DARK_SLOTS = 36


@pytest.fixture(scope="module")
def bundle(narrow: Path) -> Path:
    return narrow


@settings(max_examples=3, deadline=None, phases=PHASES)
@given(st.data())
def test_after_a_retraction_it_is_as_if_the_windows_had_never_come(
    bundle: Path, data: st.DataObject
) -> None:
    """Whatever is taken back, in whatever batches it came; and undone, as if nothing had been."""
    names = [HALL[0], "yard/cam-0"]
    first = data.draw(st.integers(2, 30), label="first")
    last = data.draw(st.integers(first + 1, 32), label="last")
    site = data.draw(st.sampled_from(["", "hall"]), label="site")
    size = data.draw(st.integers(1, 40), label="batch")
    sent = [
        (name, window)
        for name, source in fleet(bundle, names).items()
        for window in [*source.windows(26), *source.windows(6, broken=name == HALL[0])]
    ]
    # All streams are there before the first threshold, which is the fleet's size, matters.
    sent.sort(key=lambda s: s[1].sequence > 1)
    from_ms, to_ms = START_MS + first * 1000, START_MS + last * 1000

    def meant(name: str, window: Window) -> bool:
        return from_ms <= window.start_ms < to_ms and (not site or name.startswith(site))

    with tempfile.TemporaryDirectory() as folder:
        whole = FleetStore(Path(folder) / "whole.sqlite", bundle)
        without = FleetStore(Path(folder) / "without.sqlite", bundle)
        for batch in [sent[:2], *(sent[at : at + size] for at in range(2, len(sent), size))]:
            whole.send(*batch)
            without.send(*(s for s in batch if not meant(*s)))
        before = whole.contents()
        taken = [s for s in sent if meant(*s)]
        if not taken:
            return
        view = whole.retract(site=site, from_ms=from_ms, to_ms=to_ms)
        assert (view.windows, view.rows) == (len(taken), 40 * len(taken))
        after, expected = whole.contents(), without.contents()
        for name in ("outcomes", "streams", "alarms"):
            assert by_device(whole, after[name]) == by_device(without, expected[name]), name
        assert by_device(whole, after["counts"]) == by_device(without, expected["counts"])
        whole.undo(view.id)
        again = whole.contents()
        for name in again:
            assert again[name] == before[name], name
        whole.engine.dispose()
        without.engine.dispose()


def by_device(store: FleetStore, rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Rows with a device's name in the place of its number, which is given as devices come."""
    with store.engine.begin() as connection:
        found = connection.execute(sa.select(tables.devices)).mappings().all()
    names = {row["id"]: f"{row['site']}/{row['device']}" for row in found}
    return sorted(((names.get(row[0], row[0]), *row[1:]) for row in rows), key=repr)


def test_an_alarm_of_retracted_windows_closes_and_stays_in_the_list(
    store: FleetStore, bundle: Path
) -> None:
    sources = fleet(bundle, HALL[:2])
    for slot in range(DARK_SLOTS):
        store.send(*((n, s.window(broken=slot >= 28 and n == HALL[0])) for n, s in sources.items()))
    raised = {a.stream: a for a in store.reader.alarms(open_only=True)}
    assert {a.device for a in raised.values()} == {"cam-0"}
    view = store.retract(device="cam-0", from_ms=START_MS + 29_000)
    assert (view.windows, view.by, view.why, view.devices) == (8, "ann", "wet lens", 1)
    assert store.reader.alarms(open_only=True) == []
    closed = {a.stream: a for a in store.reader.alarms()}
    assert {a.reason for a in closed.values()} == {"retracted"}
    assert {a.id for a in closed.values()} == {a.id for a in raised.values()}
    store.undo(view.id)
    again = {a.stream: a for a in store.reader.alarms(open_only=True)}
    assert again == raised  # the same alarm, of the same moment
    with pytest.raises(CollectorError, match=f"retraction {view.id} is undone"):
        store.undo(view.id)


def test_a_firmware_is_retracted_by_the_boots_that_ran_it(store: FleetStore, bundle: Path) -> None:
    old, new = Source(bundle, seed=1), Source(bundle, seed=2, boot="boot-2")
    new_status = msgspec.structs.replace(new.status(), agent="0.2.0")
    store.send(("hall/cam", old.status()), *(("hall/cam", w) for w in old.windows(5)))
    store.send(("hall/cam", new_status), *(("hall/cam", w) for w in new.windows(3)))
    assert store.retract(agent="0.2.0").windows == 3
    with pytest.raises(CollectorError, match="no stored window is of that"):
        store.retract(agent="0.2.0")
    assert store.retract(agent="0.1.0").windows == 5
    assert store.contents()["counts"] == store.contents()["outcomes"] == []


def test_a_group_forgets_the_device_that_was_taken_back(store: FleetStore, bundle: Path) -> None:
    sources = fleet(bundle, HALL)
    for _ in range(6):
        store.send(*((n, s.window(broken=n == HALL[0])) for n, s in sources.items()))
    p = fleet_tables.group_points.c
    with store.engine.begin() as connection:
        assert max(connection.execute(sa.select(p.devices)).scalars()) == 4
    store.retract(device="cam-0")
    with store.engine.begin() as connection:
        assert set(connection.execute(sa.select(p.devices)).scalars()) == {3}


def test_a_retraction_leaves_other_sites_as_they_were(store: FleetStore, bundle: Path) -> None:
    """One of them has a window that came too late for its median, which stays without it."""
    sources = fleet(bundle, HALL + YARD)
    late = [("yard/cam-3", window) for window in sources["yard/cam-3"].windows(8)]
    for _ in range(8):
        store.send(*((n, s.window()) for n, s in sources.items() if n != "yard/cam-3"))
    store.send(*late)

    def yard() -> list[tuple[Any, ...]]:
        p, g = fleet_tables.group_points, fleet_tables.groups
        query = sa.select(*p.c, g.c.evidence).join(g).where(g.c.site == "yard")
        with store.engine.begin() as connection:
            return [tuple(row) for row in connection.execute(query)]

    before = yard()
    assert before
    view = store.retract(device="cam-0", site="hall")
    assert yard() == before
    store.undo(view.id)
    assert yard() == before


def test_a_retraction_leaves_the_medians_of_other_slots_as_they_were(
    store: FleetStore, bundle: Path
) -> None:
    """In all of them one device came too late, and stays out but where the median is taken anew."""
    sources = fleet(bundle, HALL)
    late = [("hall/cam-3", window) for window in sources["hall/cam-3"].windows(9)]
    for _ in range(9):
        store.send(*((n, s.window()) for n, s in sources.items() if n != "hall/cam-3"))
    store.send(*late)

    def points() -> dict[int, tuple[int, str]]:
        p, g = fleet_tables.group_points, fleet_tables.groups
        query = sa.select(p.c.start_ms, p.c.devices, p.c.scores).select_from(p.join(g))
        with store.engine.begin() as connection:
            found = connection.execute(query.where(g.c.site == "hall", g.c.stream == MEAN))
            return {row.start_ms: (row.devices, row.scores) for row in found}

    before = points()
    taken = max(before) - 2000
    store.retract(device="cam-0", from_ms=taken, to_ms=taken + 1000)
    after = points()
    assert {at for at in before if after[at] != before[at]} == {taken}
    assert {devices for devices, _ in before.values()} == {3}


def test_rollups_that_would_go_negative_are_refused_and_left_alone(
    store: FleetStore, bundle: Path
) -> None:
    store.send(*(("hall/cam", w) for w in Source(bundle, seed=1).windows(5)))
    with store.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE outcome_rollups SET count = 7")
    before = store.contents()
    with pytest.raises(CollectorError, match="would hold -33 served requests"):
        store.retract(device="cam", to_ms=START_MS + 1500)
    assert store.contents() == before
    with store.engine.begin() as connection:
        assert connection.execute(sa.select(fleet_tables.retractions)).all() == []


def test_nothing_named_is_not_everything(store: FleetStore) -> None:
    with pytest.raises(CollectorError, match="neither a device"):
        store.retract()
    with pytest.raises(CollectorError, match="neither a device"):
        store.intake.change(
            lambda connection, _: rebaseline(connection, StreamSelection(), by="", now_ms=1)
        )


def test_windows_that_wait_for_their_bundle_are_retracted_too(bundle: Path, tmp_path: Path) -> None:
    store = FleetStore(tmp_path / "fleet.sqlite", bundle, known=False)
    store.send(*(("hall/cam", w) for w in Source(bundle, seed=1).windows(5)))
    view = store.retract(device="cam", to_ms=START_MS + 3500)
    store.intake.add_bundle(open_bundle(bundle), size=1, now_ms=1)
    assert store.intake.late.evaluate_waiting() == 2
    assert {row[3] for row in store.contents()["counts"]} == {2}
    store.undo(view.id)
    assert store.intake.late.evaluate_waiting() == 3
    assert {row[3] for row in store.contents()["counts"]} == {5}


@pytest.fixture(scope="module")
def dark_once(tmp_path_factory: pytest.TempPathFactory, bundle: Path) -> Path:
    """A database: four cameras of one site, one of them dark since the 29th of 36 windows. Made
    once; tests change copies of it."""
    path = tmp_path_factory.mktemp("dark") / "fleet.sqlite"
    store = FleetStore(path, bundle)
    sources = fleet(bundle, HALL)
    for slot in range(DARK_SLOTS):
        store.send(*((n, s.window(broken=slot >= 28 and n == HALL[0])) for n, s in sources.items()))
    store.engine.dispose()  # the last connection leaves nothing beside the file
    return path


@pytest.fixture
def dark(dark_once: Path, tmp_path: Path, bundle: Path) -> FleetStore:
    return FleetStore(shutil.copy(dark_once, tmp_path / "dark.sqlite"), bundle)


@pytest.mark.parametrize(
    "selection",
    [
        StreamSelection(device="cam-0"),
        StreamSelection(site="hall", stream=MEAN),
        StreamSelection(all=True),
    ],
)
def test_rebaseline_starts_anew_and_closes_alarms(
    dark: FleetStore, bundle: Path, selection: StreamSelection
) -> None:
    store = dark

    def meant(of: StreamView | AlarmView) -> bool:
        return selection.device in ("", of.device) and selection.stream in ("", of.stream)

    raised = store.reader.alarms(open_only=True)
    view = store.intake.change(
        lambda connection, _: rebaseline(connection, selection, by="ann", now_ms=START_MS)
    )
    assert view.closed == sum(map(meant, raised)) > 0
    assert {a.reason for a in store.reader.alarms() if not a.open} == {"re-baselined"}
    for stream in store.reader.streams():
        assert stream.phase == "collecting" or not meant(stream)
        assert (stream.evidence == 0.0) or not meant(stream)
    anew = "collecting" if not selection.device else "armed"
    assert phases(store, MEAN)["hall"] == anew
    # The dark images are what it is compared with now.
    sources = fleet(bundle, HALL)
    for source in sources.values():
        source.sequence = DARK_SLOTS
    for _ in range(24):
        store.send(*((n, s.window(broken=n == HALL[0])) for n, s in sources.items()))
    later = [s for s in store.reader.streams() if meant(s) and s.stream == MEAN]
    assert all(s.phase != "alarm" and s.reference > 0 for s in later)
