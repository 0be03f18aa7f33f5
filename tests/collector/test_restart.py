"""A collector that starts again goes on from what it stored, which need not be all it knew."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from support.devices import START_MS, Source
from support.fleets import HALL, FleetStore, as_schema, fleet

from edgeml.collector.keep.keeper import Keeper
from edgeml.collector.keep.rule import DAY_MS, HOUR_MS, Rule
from edgeml.collector.store import evaluation, tables
from edgeml.collector.store.past import pack_state, unpack_state


def test_a_restart_in_the_middle_changes_nothing_for_groups(narrow: Path, tmp_path: Path) -> None:
    found: list[dict[str, Any]] = []
    for restarts in (set[int](), {3, 22, 30}):
        store = FleetStore(tmp_path / f"{len(restarts)}.sqlite", narrow)
        sources = fleet(narrow, HALL)
        for slot in range(34):
            if slot in restarts:
                store.restart()
            # One device is late by one slot, all the time.
            late = [("hall/cam-3", sources["hall/cam-3"].window())] if slot else []
            store.send(*((n, sources[n].window()) for n in HALL[:3]), *late)
        found.append(store.contents())
    assert found[0] == found[1]
    assert found[0]["points"]


def a_camera_that_was_dark(store: FleetStore, bundle: Path, restarts: set[int]) -> dict[str, Any]:
    """What is stored after 70 windows of one, with the alarm raised and closed."""
    source = Source(bundle, seed=1)
    for slot in range(70):
        if slot in restarts:
            store.restart()
        store.send(("hall/cam", source.window(broken=26 <= slot < 45)))
    return store.contents()


def test_a_restart_at_any_point_of_an_alarm_changes_nothing(narrow: Path, tmp_path: Path) -> None:
    """A track's state is stored each sixteenth window: between two of them it is that state, and
    the windows since."""
    plain = FleetStore(tmp_path / "plain.sqlite", narrow)
    found = a_camera_that_was_dark(plain, narrow, set())
    assert {is_open for *_, is_open in found["alarms"]} == {False}
    with plain.engine.begin() as connection:
        stored = connection.execute(sa.select(tables.tracks.c.state)).scalars()
        states = [unpack_state(state) for state in stored]
        (last,) = connection.execute(sa.select(sa.func.max(tables.tests.c.index))).scalars()
    assert any(state.through is not None and state.through < last for state in states)
    restarted = FleetStore(tmp_path / "restarted.sqlite", narrow)
    assert a_camera_that_was_dark(restarted, narrow, {5, 21, 24, 29, 33, 47, 56, 63}) == found


def test_a_database_of_schema_3_is_taken_over(
    store: FleetStore, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the state of each track as of its last window, and does not say so."""
    source = Source(bundle, seed=1)
    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "SAVED_EVERY", 1)
        store.send(*(("hall/cam", window) for window in source.windows(30)))
    t = tables.tracks
    with store.engine.begin() as connection:
        for row in connection.execute(sa.select(t)).all():
            state = msgspec.structs.replace(unpack_state(row.state), through=None)
            of_row = (t.c.stream_id == row.stream_id, t.c.rung == row.rung)
            connection.execute(sa.update(t).where(*of_row).values(state=pack_state(state)))
        connection.execute(sa.update(tables.schema).values(version=3))
    store.restart()
    plain = FleetStore(tmp_path / "plain.sqlite", bundle)
    same = Source(bundle, seed=1)
    plain.send(*(("hall/cam", window) for window in same.windows(30)))
    for slot in range(20):
        if slot == 10:
            store.restart()
        store.send(("hall/cam", source.window()))
        plain.send(("hall/cam", same.window()))
    assert store.contents() == plain.contents()


@pytest.mark.parametrize("schema", [3, 4])
def test_a_database_of_an_older_schema_goes_on_as_one_of_today(
    troubled: Path, bundle: Path, tmp_path: Path, schema: int
) -> None:
    """Two sites with alarms, made as the older edgeml made its tables: all is there when it is
    opened, the next windows come to the same, and what is new since then works on it."""
    old, today = tmp_path / "old.sqlite", tmp_path / "today.sqlite"
    for path in (old, today):
        shutil.copy(troubled, path)
    as_schema(old, schema)
    with closing(sqlite3.connect(old)) as database:
        columns = [row[1] for row in database.execute("PRAGMA table_info(windows)")]
        assert "resolution_ms" not in columns
    taken, plain = (FleetStore(path, bundle, known=False) for path in (old, today))
    assert taken.contents() == plain.contents()
    assert taken.contents()["alarms"]
    with taken.engine.begin() as connection:
        assert connection.execute(sa.select(tables.schema.c.version)).scalar() == tables.SCHEMA
    for store in (taken, plain):
        source = Source(bundle, seed=99, boot="boot-2")
        source.sequence = 44
        store.send(*(("yard/cam-1", window) for window in source.windows(6)))
    assert taken.contents() == plain.contents()
    taken.restart()
    assert taken.contents() == plain.contents()
    view = taken.retract(site="hall", device="cam-2")
    assert view.windows == 44
    # Retention finds the windows by an index that is new, and marks what it merges.
    rule = Rule(windows_days=1, hours_days=2, days_days=3)
    now_ms = START_MS + 2 * DAY_MS
    keeper = Keeper(taken.engine, taken.intake.judging, rule, kept=3)
    while keeper.step(now_ms):
        pass
    assert keeper.done.merged > 0
    with taken.engine.begin() as connection:
        resolutions = connection.execute(sa.select(tables.windows.c.resolution_ms)).scalars()
        assert HOUR_MS in set(resolutions)
