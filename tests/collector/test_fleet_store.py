"""What is more than one device, in the store: group streams, retraction, re-baseline, stuck."""

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
from support.bundles import RIGHT
from support.devices import START_MS, Source
from support.fleets import ALARMS, FleetStore

from edgeml.bundle import open_bundle
from edgeml.collector.store import fleet_tables, tables
from edgeml.collector.store.feedback import Batch, Label, add_feedback
from edgeml.collector.store.fleet_queries import FleetReader
from edgeml.collector.store.past import decode_numbers
from edgeml.collector.store.rebaseline import rebaseline
from edgeml.collector.store.selection import StreamSelection
from edgeml.collector.views import AlarmView, StreamView
from edgeml.errors import CollectorError
from edgeml.telemetry import Window

PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
"""Not to shrink: an example takes seconds."""

LUMA = "input.image.luma_mean"


@pytest.fixture
def store(tmp_path: Path, bundle: Path) -> FleetStore:
    return FleetStore(tmp_path / "fleet.sqlite", bundle)


def fleet(bundle: Path, names: list[str]) -> dict[str, Source]:
    return {name: Source(bundle, seed=n) for n, name in enumerate(names, start=1)}


HALL = [f"hall/cam-{n}" for n in range(4)]
YARD = [f"yard/cam-{n}" for n in range(4)]
DARK_SLOTS = 36


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


def groups(store: FleetStore, stream: str = LUMA) -> dict[str, str]:
    """Phase of each group of a statistic."""
    g = fleet_tables.groups.c
    with store.engine.begin() as connection:
        rows = connection.execute(sa.select(g.site, g.phase).where(g.stream == stream)).all()
    return {row.site: row.phase for row in rows}


def test_a_whole_site_is_raised_once_for_the_site(store: FleetStore, bundle: Path) -> None:
    sources = fleet(bundle, HALL + YARD)
    for slot in range(45):
        dark = slot >= 26
        store.send(*((n, s.window(broken=dark and n in HALL)) for n, s in sources.items()))
    assert groups(store)["hall"] == "alarm"
    assert groups(store)["yard"] == "armed"
    g, a = fleet_tables.groups, fleet_tables.group_alarms
    query = sa.select(a).select_from(a.join(g)).where(g.c.site == "hall", g.c.stream == LUMA)
    with store.engine.begin() as connection:
        (alarm,) = connection.execute(query).mappings().all()
    assert decode_numbers(alarm["shift"])[1] < -0.5  # the mean fell
    assert abs(alarm["since_ms"] - (START_MS + 27_000)) <= 2000


def test_a_restart_in_the_middle_changes_nothing_for_groups(bundle: Path, tmp_path: Path) -> None:
    found: list[dict[str, Any]] = []
    for restarts in (set[int](), {3, 22, 30}):
        store = FleetStore(tmp_path / f"{len(restarts)}.sqlite", bundle)
        sources = fleet(bundle, HALL)
        for slot in range(34):
            if slot in restarts:
                store.restart()
            # One device is late by one slot, all the time.
            late = [("hall/cam-3", sources["hall/cam-3"].window())] if slot else []
            store.send(*((n, sources[n].window()) for n in HALL[:3]), *late)
        found.append(store.contents())
    assert found[0] == found[1]
    assert found[0]["points"]


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
    assert store.intake.evaluate_waiting() == 2
    assert {row[3] for row in store.contents()["counts"]} == {2}
    store.undo(view.id)
    assert store.intake.evaluate_waiting() == 3
    assert {row[3] for row in store.contents()["counts"]} == {5}


@pytest.mark.parametrize(
    "selection",
    [
        StreamSelection(device="cam-0"),
        StreamSelection(site="hall", stream=LUMA),
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
    assert groups(store)["hall"] == anew
    # The dark images are what it is compared with now.
    sources = fleet(bundle, HALL)
    for source in sources.values():
        source.sequence = DARK_SLOTS
    for _ in range(24):
        store.send(*((n, s.window(broken=n == HALL[0])) for n, s in sources.items()))
    later = [s for s in store.reader.streams() if meant(s) and s.stream == LUMA]
    assert all(s.phase != "alarm" and s.reference > 0 for s in later)


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


def labels(count: int, *, right: float, sure: float | None, group: str, device: str) -> list[Label]:
    """Of which that share was right."""
    return [
        Label(
            device=device,
            model="tiny",
            time_ms=START_MS + n * 1000,
            correct=n < right * count,
            confidence=sure,
            group=group,
        )
        for n in range(count)
    ]


def test_feedback_is_counted_once_and_says_how_right_the_model_was(
    store: FleetStore, bundle: Path
) -> None:
    store.send(*((f"hall/{name}", Source(bundle, seed=1).window()) for name in ("one", "two")))
    told = [
        *labels(400, right=0.9, sure=0.9, group="day", device="one"),
        *labels(400, right=0.6, sure=0.9, group="night", device="two"),
        *labels(200, right=0.5, sure=None, group="night", device="two"),
    ]

    def hand_in(sha256: str, *found: Label) -> bool:
        batch = Batch(sha256=sha256, labels=list(found))
        return store.intake.change(
            lambda connection, _: add_feedback(connection, batch, now_ms=START_MS)
        ).new

    fleet = FleetReader(store.engine, ALARMS.budget)
    assert hand_in("first", *told[:700])
    assert hand_in("second", *told[700:])
    once = fleet.accuracy(by="model")
    assert not hand_in("first", *told[:700])
    assert fleet.accuracy(by="model") == once
    (whole,) = once
    assert (whole.model, whole.version, whole.n) == ("tiny", "1.0", 1000)
    assert whole.accuracy == pytest.approx(0.7)
    assert whole.low < 0.7 < whole.high
    assert whole.gap is not None
    assert (whole.gap["best"], whole.gap["worst"]) == ("day", "night")
    assert whole.gap["low"] > 0.2
    devices = {found.part: found for found in fleet.accuracy(by="device")}
    assert devices["hall/one"].calibration_error == pytest.approx(0.0, abs=0.04)
    assert devices["hall/two"].calibration_error == pytest.approx(0.3, abs=0.04)
    assert sum(found.n for found in fleet.accuracy(by="hour")) == 1000


def test_confidences_say_how_right_a_model_probably_is_without_labels(
    store: FleetStore, bundle: Path
) -> None:
    usual, dark = Source(bundle, seed=1), Source(bundle, seed=2)
    store.send(*(("hall/usual", w) for w in usual.windows(10)))
    store.send(*(("hall/dark", w) for w in dark.windows(10, broken=True)))
    fleet = FleetReader(store.engine, ALARMS.budget)
    found = {estimate.device: estimate for estimate in fleet.estimates()}
    assert found["usual"].n == 400
    assert found["usual"].low < RIGHT < found["usual"].high
    assert found["usual"].accuracy == pytest.approx(RIGHT, abs=0.03)
    assert found["dark"].accuracy != pytest.approx(found["usual"].accuracy, abs=1e-6)
    assert fleet.estimates(StreamSelection(site="hall", device="dark")) == [found["dark"]]
    assert fleet.estimates(StreamSelection(site="yard", device="dark")) == []


def test_feedback_of_a_device_that_is_not_known_changes_nothing(
    store: FleetStore, bundle: Path
) -> None:
    store.send(("hall/one", Source(bundle, seed=1).window()))
    found = labels(3, right=1, sure=0.5, group="", device="one")
    found += labels(1, right=1, sure=0.5, group="", device="three")
    batch = Batch(sha256="x", labels=found)
    with pytest.raises(CollectorError, match="0 devices are called 'three'"):
        store.intake.change(lambda connection, _: add_feedback(connection, batch, now_ms=START_MS))
    assert FleetReader(store.engine, ALARMS.budget).accuracy(by="model") == []


def test_the_budget_spent_is_the_sum_of_what_was_watched(store: FleetStore, bundle: Path) -> None:
    sources = fleet(bundle, HALL)
    for _ in range(40):
        store.send(*((name, source.window()) for name, source in sources.items()))
    view = FleetReader(store.engine, ALARMS.budget).budget(now_ms=START_MS)
    watched: list[float] = []
    with store.engine.begin() as connection:
        for table in (tables.tests, fleet_tables.group_points):
            query = sa.select(table.c.threshold).where(table.c.evidence.is_not(None))
            watched += connection.execute(query).scalars()
    assert view.windows == len(watched) > 500
    assert view.expected == pytest.approx(sum(1 / c for c in watched))
    assert 0 < view.expected < view.allowed
    assert FleetReader(store.engine, ALARMS.budget).drifting() == []
