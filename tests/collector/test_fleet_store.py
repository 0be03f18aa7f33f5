"""What is more than one device, in the store: group streams, what peers saw, stuck, the budget."""

from __future__ import annotations

import shutil
from math import sqrt
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa
from support.devices import START_MS, Source
from support.fleets import ALARMS, HALL, LUMA, MEAN, FleetStore, fleet, phases

from edgeml.collector.config import AlarmConfig
from edgeml.collector.drift.chi2 import detectable_effect
from edgeml.collector.store import fleet_tables, tables
from edgeml.collector.store.fleet_queries import FleetReader
from edgeml.collector.store.past import decode_numbers
from edgeml.statistics import Counts, pack


def test_a_whole_site_is_raised_once_for_the_site(
    troubled: Path, bundle: Path, tmp_path: Path
) -> None:
    store = FleetStore(shutil.copy(troubled, tmp_path / "fleet.sqlite"), bundle, known=False)
    assert phases(store)["hall"] == "alarm"
    assert phases(store)["yard"] == "armed"
    g, a = fleet_tables.groups, fleet_tables.group_alarms
    query = sa.select(a).select_from(a.join(g)).where(g.c.site == "hall", g.c.stream == LUMA)
    with store.engine.begin() as connection:
        (alarm,) = connection.execute(query).mappings().all()
    assert decode_numbers(alarm["shift"])[1] < -0.5  # the mean fell
    assert abs(alarm["since_ms"] - (START_MS + 27_000)) <= 2000
    # And not again for each of its devices.
    assert {alarm.site for alarm in store.reader.alarms()} == {"yard"}


def test_what_the_whole_fleet_sees_is_raised_once_for_all_of_it(
    narrow: Path, tmp_path: Path
) -> None:
    """Each device is alone on its site, so that its peers are those of the version."""
    store = FleetStore(tmp_path / "fleet.sqlite", narrow)
    sources = fleet(narrow, [f"site-{n}/cam" for n in range(6)])
    for slot in range(36):
        store.send(*((n, source.window(broken=slot >= 26)) for n, source in sources.items()))
    assert store.reader.alarms() == []
    reader = FleetReader(store.engine, ALARMS.budget)
    (incident,) = reader.incidents(now_ms=START_MS + 37_000)
    assert (incident.scope, MEAN in incident.statistics) == ("fleet", True)
    assert incident.sentence.startswith("The whole fleet on tiny (6 devices) changed: ")
    # On the list of what drifts now it is the version's, and no device's either.
    found = reader.drifting(now_ms=START_MS + 37_000)
    assert {(one.scope, one.site, one.device) for one in found} == {("version", "", "")}
    assert set(incident.statistics) <= {one.stream for one in found}
    # Its evidence began after 20 slots; five more went by while the alarm was open.
    group_alarms = fleet_tables.group_alarms.c
    for one in found:
        query = sa.select(group_alarms.evidence).where(group_alarms.group_id == one.id)
        with store.engine.begin() as connection:
            held = connection.execute(query).scalar()
        if held is not None:
            assert one.e_value == pytest.approx(held / (35 - 20), rel=0.1)


def test_what_one_version_alone_sees_came_with_that_version(narrow: Path, tmp_path: Path) -> None:
    """Half of the devices have a later version, whose pictures go dark; the others see nothing."""
    store = FleetStore(tmp_path / "fleet.sqlite", narrow)
    sources = fleet(narrow, [f"site-{n}/cam" for n in range(12)])
    later = set(list(sources)[6:])
    for slot in range(34):
        batch = {
            n: source.window(broken=slot >= 26 and n in later) for n, source in sources.items()
        }
        batch |= {n: msgspec.structs.replace(batch[n], version="2.0") for n in later}
        store.send(*batch.items())
    assert store.reader.alarms() == []
    reader = FleetReader(store.engine, ALARMS.budget)
    (incident,) = reader.incidents(now_ms=START_MS + 35_000)
    assert (incident.scope, MEAN in incident.statistics) == ("version", True)
    assert incident.sentence.startswith("All devices on tiny 2.0 (6) changed: ")
    assert incident.sentence.endswith("those on 1.0 did not move: it came with the version.")
    found = reader.drifting(now_ms=START_MS + 35_000)
    assert {(one.scope, one.version) for one in found} == {("version", "2.0")}


def test_peers_of_frequent_windows_meet_in_slots_of_their_test_windows(
    narrow: Path, tmp_path: Path
) -> None:
    """Windows of a second, five of which make a test window: each device began at its own. After a
    retraction others complete the test windows, and what peers saw is not lost."""
    alarms = AlarmConfig(reference_windows=8, season="day", longest_reference=2 * 72 * 3600 // 5)
    store = FleetStore(tmp_path / "frequent.sqlite", narrow, alarms=alarms)
    sources = fleet(narrow, HALL)
    for at in range(31):
        store.send(*((n, s.window()) for n, s in list(sources.items())[: at + 1]))
    t, g, p = tables.tests.c, fleet_tables.groups.c, fleet_tables.group_points.c

    def found() -> tuple[set[int], list[bool]]:
        """Streams by their test windows, and of the last ones whether peers were seen."""
        query = sa.select(t.stream_id, t.start_ms, t.common).where(t.rung == 1)
        with store.engine.begin() as connection:
            rows = connection.execute(query.order_by(t.index)).all()
        streams = {row.stream_id: 0 for row in rows}
        for row in rows:
            streams[row.stream_id] += 1
        late = [row.common is not None for row in rows if row.start_ms > START_MS + 20_000]
        return set(streams.values()), late

    counted, late = found()
    assert counted == {5, 6}
    assert len(late) > 0
    assert all(late)
    with store.engine.begin() as connection:
        slots = connection.execute(sa.select(g.slot_ms).distinct()).scalars().all()
        points = connection.execute(sa.select(sa.func.count()).select_from(p.slot.table)).scalar()
    assert slots == [5000]
    assert points
    store.retract(site="hall", device="cam-0", to_ms=START_MS + 3000)
    _, late = found()
    assert all(late)


def test_the_list_of_what_drifts_now_names_the_one_that_left_its_peers(
    troubled: Path, bundle: Path, tmp_path: Path
) -> None:
    """e-BH over all streams of the store, and what sites and version have in common: of 136 and 51,
    one in the list needs 3,740, forty need 94."""
    store = FleetStore(shutil.copy(troubled, tmp_path / "fleet.sqlite"), bundle, known=False)
    reader = FleetReader(store.engine, ALARMS.budget)
    found = reader.drifting(now_ms=START_MS + 45_000)
    of_device: dict[str, set[str]] = {}
    for one in found:
        of_device.setdefault(f"{one.site}/{one.device}", set()).add(one.stream)
    # None of the cameras of the site that is dark as a whole, not the two to which nothing
    # happened; and of the frozen one what is new in each of its windows, which is too small for an
    # alarm.
    devices = {name for name in of_device if not name.endswith("/")}
    assert devices == {"yard/cam-1", "yard/cam-4"}
    # The dark site, and the version, five of whose eight cameras are dark.
    luma_of = {(one.scope, one.site) for one in found if one.stream == LUMA}
    assert {("site", "hall"), ("version", ""), ("device", "yard")} <= luma_of
    assert of_device["yard/cam-4"] == {"input.image.frozen"}
    alarms = {alarm.stream: alarm for alarm in store.reader.alarms(open_only=True)}
    assert LUMA in alarms.keys() <= of_device["yard/cam-1"]

    streams = store.reader.streams()
    e_values = [one.e_value for one in found]
    assert e_values == sorted(e_values, reverse=True)
    tested = len(streams) + len(reader.groups())
    assert e_values[-1] >= tested / (0.05 * len(found))
    luma = next(one for one in found if one.stream == LUMA and one.device)
    # The evidence began after 20 windows of 44, and goes on counting them while the alarm is open.
    assert luma.e_value == pytest.approx(alarms[LUMA].evidence / (44 - 20))
    listed = {(one.scope, one.id) for one in found}
    for stream in streams:
        assert ("device", stream.id) in listed or stream.evidence < tested / 0.05
    # After a month of silence nothing of it is of now.
    assert reader.drifting(now_ms=START_MS + 31 * 86_400_000) == []


def test_each_window_says_how_far_it_lies_and_what_it_could_have_shown(
    troubled: Path, bundle: Path, tmp_path: Path
) -> None:
    store = FleetStore(shutil.copy(troubled, tmp_path / "fleet.sqlite"), bundle, known=False)
    views = {f"{s.site}/{s.device}": s for s in store.reader.streams() if s.stream == LUMA}
    dark, usual = (views[f"yard/{name}"].last for name in ("cam-1", "cam-2"))
    assert dark is not None
    assert usual is not None
    for last in (dark, usual):
        assert (last["n"], last["m"]) == (40, sum(store.streams[LUMA].counts))
        assert last["detectable"] == detectable_effect(last["dof"], last["n"], last["m"])
        root = sqrt((1 / last["n"] + 1 / last["m"]) / 2)
        assert last["effect"] == pytest.approx(sqrt(last["chi2"]) * root)
    assert dark["p"] < 1e-6 < usual["p"]
    assert usual["effect"] < dark["detectable"] < dark["effect"]
    assert usual["w1"] < 0.5 < dark["w1"]


def test_what_peers_saw_is_stored_with_the_window(store: FleetStore, bundle: Path) -> None:
    sources = fleet(bundle, HALL)
    for _ in range(5):  # the first three decide how many rows are compared
        store.send(*((name, source.window()) for name, source in sources.items()))
    t, s = tables.tests.c, tables.streams.c
    query = (
        sa.select(t.scores, t.common, tables.windows.c.sequence, s.device_id)
        .select_from(tables.tests.join(tables.streams).join(tables.windows))
        .where(s.stream == LUMA, t.rung == 1)
    )
    with store.engine.begin() as connection:
        rows = connection.execute(query).all()
    # The last device of a slot sees the three others in the same one.
    scores = {(row.device_id, row.sequence): decode_numbers(row.scores) for row in rows}
    commons = {(row.device_id, row.sequence): row.common for row in rows}
    others = sorted(scores[device, 5][1] for device in (1, 2, 3))
    assert decode_numbers(commons[4, 5])[1] == pytest.approx(others[1])
    # The first one sees how they were a moment ago; and in the first slot there was nobody.
    before = sorted(scores[device, 4][1] for device in (2, 3, 4))
    assert decode_numbers(commons[1, 5])[1] == pytest.approx(before[1])
    assert commons[1, 3] is None


def test_a_window_without_any_value_is_nobodys_peer_after_a_restart_either(
    store: FleetStore, bundle: Path
) -> None:
    sources = fleet(bundle, HALL)
    grid = store.streams[LUMA].grid
    nothing = Counts.zeros(grid)
    nothing.cells[grid.missing] = 40
    for slot in range(5):
        batch = {name: source.window() for name, source in sources.items()}
        if slot == 3:
            statistics = list(batch[HALL[1]].statistics)
            statistics[list(store.streams).index(LUMA)] = pack(nothing)
            batch[HALL[1]] = msgspec.structs.replace(batch[HALL[1]], statistics=statistics)
        if slot == 4:
            store.restart()
        store.send(*batch.items())
    t, s = tables.tests.c, tables.streams.c
    query = (
        sa.select(t.common)
        .select_from(tables.tests.join(tables.streams).join(tables.windows))
        .where(s.stream == LUMA, s.device_id == 1, tables.windows.c.sequence == 5, t.rung == 1)
    )
    # The first one sees how the others were a moment ago, and two of them are too few.
    with store.engine.begin() as connection:
        assert connection.execute(query).scalar_one() is None


def test_a_frozen_camera_is_stuck_and_nothing_else(store: FleetStore, bundle: Path) -> None:
    source = Source(bundle, seed=1)
    store.send(*(("hall/cam", w) for w in source.windows(26)))
    frozen = source.window()
    again = [
        msgspec.structs.replace(frozen, sequence=27 + n, start_ms=frozen.start_ms + 1000 * n)
        for n in range(30)
    ]
    source.sequence = 60
    store.send(*(("hall/cam", w) for w in again))
    streams = {s.stream: s for s in store.reader.streams()}
    assert "windows in a row" in streams[LUMA].stuck
    assert streams[LUMA].phase == "armed"
    (device,) = store.reader.devices(now_ms=START_MS)
    assert device.state == "stuck"
    assert "luma" in device.reason
    reference = streams[LUMA].reference
    assert reference < 26 + 12  # the others did not enter it
    store.restart()
    store.send(("hall/cam", source.window()))
    freed = {s.stream: s for s in store.reader.streams()}[LUMA]
    assert (freed.stuck, freed.reference) == ("", reference + 1)


def test_the_budget_spent_is_the_sum_of_what_was_watched(store: FleetStore, bundle: Path) -> None:
    sources = fleet(bundle, HALL)
    for _ in range(28):
        store.send(*((name, source.window()) for name, source in sources.items()))
    view = FleetReader(store.engine, ALARMS.budget).budget(now_ms=START_MS)
    watched: list[float] = []
    with store.engine.begin() as connection:
        for table in (tables.tests, fleet_tables.group_points):
            query = sa.select(table.c.threshold).where(table.c.evidence.is_not(None))
            watched += connection.execute(query).scalars()
    assert view.windows == len(watched) > 400
    assert view.expected == pytest.approx(sum(1 / c for c in watched))
    assert 0 < view.expected < view.allowed
    assert FleetReader(store.engine, ALARMS.budget).drifting(now_ms=START_MS) == []
