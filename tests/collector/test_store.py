"""The store without a broker: once in any order, marks, rollups, and what arrives malformed."""

from __future__ import annotations

import contextlib
import functools
import operator
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from support.counts import counts_of
from support.devices import START_MS, Source
from support.schema3 import pack_3

from edgeml.bundle import open_bundle
from edgeml.collector.config import AlarmConfig
from edgeml.collector.ingest.validate import Received, Refused, validate
from edgeml.collector.store import tables
from edgeml.collector.store.database import open_database
from edgeml.collector.store.evaluation import Evaluator
from edgeml.collector.store.high_water import advance
from edgeml.collector.store.intake import Intake
from edgeml.collector.store.packing import pack
from edgeml.collector.store.packing import unpack as unpack_cells
from edgeml.collector.store.past import StreamPast
from edgeml.collector.store.queries import Reader
from edgeml.collector.web.words import building as words_of
from edgeml.errors import CollectorError
from edgeml.statistics import Counts, unpack
from edgeml.statistics.packed import plain
from edgeml.telemetry import (
    Building,
    Event,
    Message,
    ModelState,
    Reported,
    Topic,
    Window,
    decode,
    encode,
    merge,
)

ALARMS = AlarmConfig(reference_windows=20, per_windows=2000, season="none")


def open_intake(path: Path, alarms: AlarmConfig = ALARMS) -> tuple[Intake, sa.Engine]:
    engine = open_database(str(path))
    return Intake(engine, Evaluator(alarms.policy, alarms.budget)), engine


def received(message: Message, *, device: str = "cam", at_ms: int = START_MS) -> Received:
    name = message.model if isinstance(message, Window) else ""
    kind = type(message).__name__
    leaf = {"Window": "stats"}.get(kind, kind.lower())
    topic = Topic("hall", device, leaf, name or getattr(message, "kind", ""))  # type: ignore[arg-type]
    return Received(topic, message, at_ms)


def contents(engine: sa.Engine) -> dict[str, list[tuple[object, ...]]]:
    """All that counts of a store: windows, rollups and evidence, without when it came."""
    with engine.begin() as connection:

        def rows(*columns: sa.ColumnElement[object]) -> list[tuple[object, ...]]:
            return sorted(tuple(row) for row in connection.execute(sa.select(*columns)))

        w, c, o = tables.windows.c, tables.count_rollups.c, tables.outcome_rollups.c
        return {
            "windows": rows(w.boot, w.sequence, w.start_ms),
            "counts": rows(c.stream, c.hour_ms, c.windows, c.packed),
            "outcomes": rows(o.hour_ms, o.outcome, o["count"]),
        }


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_replays_in_any_order_leave_the_same_store(narrow: Path, data: st.DataObject) -> None:
    """Each window at least once, some again, in batches of any size and any order."""
    windows = Source(narrow, seed=1).windows(8)
    once = data.draw(st.permutations(range(8)))
    again = data.draw(st.lists(st.integers(0, 7), max_size=8))
    order = data.draw(st.permutations([*once, *again]))
    sizes = data.draw(st.lists(st.integers(1, 5), min_size=16, max_size=16))
    with tempfile.TemporaryDirectory() as folder:
        plain, plain_engine = open_intake(Path(folder) / "plain.sqlite")
        shuffled, engine = open_intake(Path(folder) / "shuffled.sqlite")
        for intake in (plain, shuffled):
            intake.add_bundle(open_bundle(narrow), size=1, now_ms=1)
        plain.store([received(window) for window in windows])
        duplicates = 0
        while order:
            size = sizes.pop()
            batch, order = order[:size], order[size:]
            outcome = shuffled.store([received(windows[index]) for index in batch])
            duplicates += outcome.duplicates
        assert contents(engine) == contents(plain_engine)
        assert duplicates == len(again)
        plain_engine.dispose()
        engine.dispose()


@given(
    st.integers(0, 5),
    st.integers(1, 8),
    st.lists(st.integers(1, 20), max_size=20).map(sorted),
)
def test_the_mark_is_the_end_of_what_is_stored_without_a_gap(
    through: int, oldest: int, stored: list[int]
) -> None:
    mark = advance(through, oldest, stored)
    settled = set(stored) | set(range(1, through + 1)) | set(range(1, oldest))
    assert all(sequence in settled for sequence in range(1, mark + 1))
    assert mark + 1 not in settled
    assert mark >= through


@pytest.mark.parametrize(
    ("sent", "mark"),
    [
        ([(1, 1), (2, 1), (3, 1)], 3),
        ([(3, 1), (1, 1)], 1),  # the second is on its way
        ([(7, 7), (8, 7)], 8),  # below the seventh nothing will ever come
        ([(1, 1), (5, 4)], 3),  # 2 and 3 were given up, the fourth is in the outbox still
        ([(1, 1), (5, 5)], 5),  # the device gave the gap up
        ([(2, 2), (1, 1)], 2),  # an old message says nothing about now
    ],
)
def test_marks(bundle: Path, tmp_path: Path, sent: list[tuple[int, int]], mark: int) -> None:
    intake, _ = open_intake(tmp_path / "fleet.sqlite")
    window = Source(bundle, seed=1).window()
    outcome = None
    for sequence, oldest in sent:
        changed = msgspec.structs.replace(window, sequence=sequence, oldest=oldest)
        outcome = intake.store([received(changed)])
    assert outcome is not None
    assert [m.through for m in outcome.marks] == [mark]


def test_two_devices_and_two_boots_are_counted_apart(bundle: Path, tmp_path: Path) -> None:
    intake, engine = open_intake(tmp_path / "fleet.sqlite")
    first, second = Source(bundle, seed=1), Source(bundle, seed=1, boot="boot-2")
    outcome = intake.store(
        [
            received(first.window(), device="one"),
            received(second.window(), device="one"),
            received(first.window(), device="two"),
        ]
    )
    assert (outcome.accepted, outcome.duplicates) == (3, 0)
    marks = {(m.topics.device, m.boot): m.through for m in outcome.marks}
    assert marks == {("one", "boot-1"): 1, ("one", "boot-2"): 1, ("two", "boot-1"): 2}
    engine.dispose()


def test_rollups_are_the_sum_of_the_windows(bundle: Path, tmp_path: Path) -> None:
    intake, engine = open_intake(tmp_path / "fleet.sqlite")
    intake.add_bundle(open_bundle(bundle), size=1, now_ms=1)
    windows = Source(bundle, seed=1).windows(5)
    intake.store([received(window) for window in windows[:2]])
    intake.store([received(window) for window in windows[2:]])
    baseline = open_bundle(bundle).baseline()
    assert baseline is not None
    with engine.begin() as connection:
        rows = connection.execute(sa.select(tables.count_rollups)).mappings().all()
    assert {row["stream"] for row in rows} == baseline.streams.keys()
    for row in rows:
        stream = baseline.streams[row["stream"]]
        expected = [counts_of(window, baseline)[stream.name] for window in windows]
        assert unpack(row["packed"], stream.grid) == functools.reduce(operator.add, expected)
        assert row["windows"] == 5


def test_a_merged_window_counts_as_the_windows_in_it(bundle: Path, tmp_path: Path) -> None:
    """Its counts as theirs, its share of the alarm budget as one of them."""
    stores: list[tuple[dict[str, list[tuple[object, ...]]], set[float]]] = []
    first, *windows = Source(bundle, seed=1).windows(5)
    for sent in (windows, [merge(merge(windows[0], windows[1]), merge(windows[2], windows[3]))]):
        intake, engine = open_intake(
            tmp_path / f"{len(sent)}.sqlite", msgspec.structs.replace(ALARMS, per_windows=0)
        )
        intake.add_bundle(open_bundle(bundle), size=1, now_ms=1)
        intake.store([received(first)])  # now all streams share the budget
        assert intake.store([received(window) for window in sent]).accepted == len(sent)
        thresholds = {stream.threshold for stream in Reader(engine).streams()}
        stores.append((contents(engine), thresholds))
        engine.dispose()
    (apart, each), (together, one) = stores
    assert together["counts"] == apart["counts"]
    assert together["outcomes"] == apart["outcomes"]
    assert one == each


def test_a_stream_without_a_stored_test_window_has_no_cells(tmp_path: Path) -> None:
    """An alarm may be of the newest window alone, which is not stored yet."""
    _, engine = open_intake(tmp_path / "fleet.sqlite")
    with engine.begin() as connection:
        past = StreamPast(connection, 1, lambda rung: [], lambda: None)
        assert list(past.cells_from(0, 512)) == []
        assert past.points(1, 100) == []


@pytest.mark.parametrize("schema", [1, 2, 7])
def test_the_store_of_another_version_is_refused_and_left_alone(
    tmp_path: Path, schema: int
) -> None:
    path = tmp_path / "fleet.sqlite"
    _, engine = open_intake(path)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE schema SET version = {schema}")
    engine.dispose()
    before = path.read_bytes()
    with pytest.raises(CollectorError, match=f"schema {schema}.*Expected schema 3 to 6"):
        open_intake(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("of_windows", "of_database", "pack"), [(2, 3, plain), (3, 5, pack_3)], ids=["plain", "Golomb"]
)
def test_a_store_of_counts_packed_in_an_older_form_is_taken_over(
    bundle: Path,
    tmp_path: Path,
    of_windows: int,
    of_database: int,
    pack: Callable[[Counts], bytes],
) -> None:
    """Older windows, and rollups of an older database, count as those of today."""

    def packed(counts: Counts) -> bytes:
        short = counts.extremes.size and len(pack(counts)) < len(plain(counts))
        return pack(counts) if short else plain(counts)

    baseline = open_bundle(bundle).baseline()
    assert baseline is not None
    windows = Source(bundle, seed=1).windows(4)
    old = [
        msgspec.structs.replace(
            window,
            schema=of_windows,
            statistics=list(map(packed, counts_of(window, baseline).values())),
        )
        for window in windows[:2]
    ]
    path = tmp_path / "fleet.sqlite"
    intake, engine = open_intake(path)
    intake.add_bundle(open_bundle(bundle), size=1, now_ms=1)
    intake.store([received(decode(encode(window), Window)) for window in old])
    with engine.begin() as connection:
        rollups = connection.execute(sa.select(tables.count_rollups)).mappings().all()
        for row in rollups:
            counts = unpack(row["packed"], baseline.streams[row["stream"]].grid)
            change = sa.update(tables.count_rollups).filter_by(stream=row["stream"])
            connection.execute(change.values(packed=packed(counts)))
        connection.exec_driver_sql(f"UPDATE schema SET version = {of_database}")
    engine.dispose()

    intake, engine = open_intake(path)
    assert intake.store([received(window) for window in windows[2:]]).accepted == 2
    with engine.begin() as connection:
        assert connection.execute(sa.select(tables.schema.c.version)).scalar() == tables.SCHEMA

    intake, today = open_intake(tmp_path / "today.sqlite")
    intake.add_bundle(open_bundle(bundle), size=1, now_ms=1)
    intake.store([received(window) for window in windows])
    assert contents(engine) == contents(today)


def test_what_failed_to_commit_left_nothing_in_memory_either(bundle: Path, tmp_path: Path) -> None:
    intake, engine = open_intake(tmp_path / "fleet.sqlite")
    intake.add_bundle(open_bundle(bundle), size=1, now_ms=1)
    source = Source(bundle, seed=1)
    intake.store([received(window) for window in source.windows(22)])
    later = [received(window) for window in source.windows(3, broken=True)]
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TRIGGER full BEFORE INSERT ON tests "
            "BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
        )
    with pytest.raises(sa.exc.DBAPIError, match="disk is full"):
        intake.store(later)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TRIGGER full")
    assert intake.store(later).accepted == 3

    plain, plain_engine = open_intake(tmp_path / "plain.sqlite")
    plain.add_bundle(open_bundle(bundle), size=1, now_ms=1)
    source = Source(bundle, seed=1)
    plain.store([received(window) for window in source.windows(22)])
    plain.store([received(window) for window in source.windows(3, broken=True)])
    for one, two in zip(Reader(engine).streams(), Reader(plain_engine).streams(), strict=True):
        assert (one.stream, one.evidence, one.phase) == (two.stream, two.evidence, two.phase)


def test_an_event_that_comes_twice_is_kept_once(tmp_path: Path) -> None:
    intake, engine = open_intake(tmp_path / "fleet.sqlite")
    event = Event(
        boot="b", kind="restart", time_ms=5, model="tiny", message="killed", details={"mb": 512}
    )
    intake.store([received(event), received(event)])
    (kept,) = Reader(engine).events(site="hall", device="cam")
    assert (kept.kind, kept.message, kept.details) == ("restart", "killed", {"mb": 512})


def test_an_old_status_is_no_contact(bundle: Path, tmp_path: Path) -> None:
    intake, engine = open_intake(tmp_path / "fleet.sqlite")
    source = Source(bundle, seed=1)
    fresh = received(source.status(), at_ms=1000)
    intake.store([msgspec.structs.replace(fresh, retained=True)])
    assert Reader(engine).devices(now_ms=2000)[0].last_seen_ms is None
    intake.store([fresh])
    intake.store([received(source.status(online=False), at_ms=5000)])  # its last will
    (device,) = Reader(engine).devices(now_ms=9000)
    assert (device.last_seen_ms, device.online) == (1000, False)


def test_a_device_that_builds_an_engine_says_how_far_it_is(tmp_path: Path) -> None:
    intake, engine = open_intake(tmp_path / "fleet.sqlite")
    building = Building(
        version="2", artifact="trt-fp16", stage="loading", elapsed_s=42.3, expected_s=95
    )
    state = ModelState(
        name="tiny", version="1", bundle="", artifact="onnx", phase="active", building=building
    )
    intake.store([received(Reported(boot="b", models=(state,)))])
    ((model,),) = (device.models for device in Reader(engine).devices(now_ms=9000))
    assert (model.phase, model.building) == ("active", building)
    words = "loading trt-fp16 of 2 for 42 s; last time it took 95 s"
    assert words_of(building) == words


@pytest.mark.parametrize(
    ("topic", "reason"),
    [
        ("edgeml/v1/hall/cam/stats", "topic"),
        ("edgeml/v2/hall/cam/stats/tiny", "topic"),
        ("edgeml/v1/hall/cam/stored", "topic"),
        ("edgeml/v1/hall/c am/status", "topic"),
        ("edgeml/v1/hall/cam/stats/other", "name"),
    ],
)
def test_topics_that_promise_something_else(bundle: Path, topic: str, reason: str) -> None:
    payload = encode(Source(bundle, seed=1).window())
    found = validate(topic, payload, received_ms=0)
    assert isinstance(found, Refused)
    assert found.reason == reason


@given(st.binary(max_size=200), st.sampled_from(["stats/m", "status", "reported", "event/k"]))
def test_no_payload_is_too_strange(payload: bytes, leaf: str) -> None:
    found = validate(f"edgeml/v1/hall/cam/{leaf}", payload, received_ms=0)
    assert isinstance(found, Received | Refused)


@given(st.lists(st.integers(0, 2**48), max_size=50))
def test_packed_counts_come_back(cells: list[int]) -> None:
    assert unpack_cells(pack(cells)).tolist() == cells


def test_a_foreign_database_is_left_alone(tmp_path: Path) -> None:
    import sqlite3

    path = tmp_path / "accounts.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE accounts (id INTEGER)")
    with pytest.raises(CollectorError, match="not the collector's"):
        open_database(str(path))


def test_a_file_that_is_no_database_is_said_to_be_none(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database, " * 100)
    with pytest.raises(CollectorError, match="file is not a database"):
        open_database(str(path))


def test_who_reads_does_not_wait_for_who_writes(tmp_path: Path) -> None:
    path = tmp_path / "fleet.sqlite"
    engine = open_database(str(path))
    engine.dispose()  # whoever reads next makes a connection
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")  # as long as a retraction of a large fleet takes
        assert Reader(engine).standings() == []
        other.execute("ROLLBACK")
    engine.dispose()
