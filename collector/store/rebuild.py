"""Builds the evidence of streams anew from the windows that count.

Evidence has an order, so nothing can be subtracted from it: streams that had a part in a retraction
are emptied and fed all their other windows again, in the order in which they came. What peers'
scores were at the time is kept. Thresholds are today's.

Alarms that the windows left raise again stay as they were; one that they do not is closed, with the
reason ``retracted``, and stays in the list.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from edgeml.collector.drift.peers import SITE_PEERS, VERSION_PEERS, Point, Scores
from edgeml.collector.ingest.validate import read_statistics
from edgeml.collector.store.anew import empty
from edgeml.collector.store.arrivals import arrived
from edgeml.collector.store.evaluation import Evaluator, Known
from edgeml.collector.store.fleet_tables import group_alarms, group_points, groups
from edgeml.collector.store.groups import Series, scored_rows, scored_tests
from edgeml.collector.store.past import blank_state, decode_numbers
from edgeml.collector.store.tables import alarms, counts, devices, streams, tests, windows
from edgeml.statistics import Counts

RETRACTED = "retracted"
FLUSH = 500
"""Windows whose results are held in memory at a time."""


def rebuild(
    connection: Connection, evaluator: Evaluator, changed: Iterable[sa.RowMapping], *, now_ms: int
) -> None:
    """Rebuild the streams that windows (rows of ``windows``) had a part in, and their groups."""
    evaluator.forget()
    evaluator.count_live(connection, now_ms)
    runs = sorted({(w["device_id"], w["model"], w["version"], w["artifact"]) for w in changed})
    for run in runs:
        _rebuild_run(connection, evaluator, run, now_ms)
    for row in _groups(connection, runs):
        _rebuild_group(connection, evaluator, row, now_ms)
    evaluator.flush(connection)
    evaluator.forget()


def _groups(connection: Connection, runs: Iterable[tuple[Any, ...]]) -> list[sa.RowMapping]:
    """The groups that those devices are in: their sites', and their versions'. What another site
    has in common is of other devices."""
    found: dict[int, sa.RowMapping] = {}
    for device_id, model, version, _ in runs:
        site = sa.select(devices.c.site).where(devices.c.id == device_id).scalar_subquery()
        query = sa.select(groups).filter_by(model=model, version=version)
        query = query.where(sa.or_(groups.c.site == "", groups.c.site == site))
        found |= {row["id"]: row for row in connection.execute(query).mappings()}
    return [found[number] for number in sorted(found)]


def _rebuild_run(
    connection: Connection, evaluator: Evaluator, run: tuple[Any, ...], now_ms: int
) -> None:
    """All streams of a device with one model version and artifact."""
    names = ("device_id", "model", "version", "artifact")
    of_run = dict(zip(names, run, strict=True))
    ids = connection.execute(sa.select(streams.c.id).filter_by(**of_run)).scalars().all()
    if not ids:
        return
    commons = _commons(connection, ids)
    old = _set_aside(connection, alarms, "stream_id", ids, now_ms)
    connection.execute(sa.delete(tests).where(tests.c.stream_id.in_(ids)))
    empty(connection, ids)
    query = (
        sa.select(windows, devices.c.site, devices.c.device)
        .join(devices, devices.c.id == windows.c.device_id)
        .where(*(windows.c[name] == value for name, value in of_run.items()))
        .where(windows.c.evaluated, windows.c.refused.is_(None), windows.c.retraction_id.is_(None))
        .order_by(windows.c.id)
    )
    for number, row in enumerate(list(connection.execute(query).mappings()), start=1):
        window = arrived(row, stored_counts(connection, evaluator, row))
        evaluator.evaluate(connection, window, replay=commons.get(row["id"], {}))
        if number % FLUSH == 0:
            evaluator.flush(connection)
    evaluator.flush(connection)
    _settle(connection, alarms, "stream_id", ids, old, now_ms)


def stored_counts(
    connection: Connection, evaluator: Evaluator, row: sa.RowMapping
) -> dict[str, Counts]:
    """The counts of a window (a row of ``windows``) by stream; its bundle has to be known."""
    known = evaluator.baseline(connection, row["bundle"]) or Known()
    query = sa.select(counts.c.packed).filter_by(window_id=row["id"]).order_by(counts.c.place)
    packed = connection.execute(query).scalars().all()
    return read_statistics(row["baseline"], packed, known=known.hash, streams=known.streams)


def _commons(connection: Connection, ids: Sequence[int]) -> dict[int, dict[int, Scores]]:
    """What peers' scores were, by window and stream."""
    query = sa.select(tests.c.window_id, tests.c.stream_id, tests.c.common).where(
        tests.c.stream_id.in_(ids), tests.c.common.is_not(None), tests.c.rung == 1
    )
    found: dict[int, dict[int, Scores]] = {}
    for row in connection.execute(query):
        found.setdefault(row.window_id, {})[row.stream_id] = tuple(decode_numbers(row.common))
    return found


def _rebuild_group(
    connection: Connection, evaluator: Evaluator, row: sa.RowMapping, now_ms: int
) -> None:
    """A group's points are the medians of the scores that its devices have now, slot by slot."""
    series = Series(row["model"], row["version"], row["stream"], row["slot_ms"])
    slots: dict[int, dict[int, Scores]] = {}
    query = scored_tests(series)
    if row["site"]:
        query = query.where(devices.c.site == row["site"])
    for device, slot, scores in scored_rows(connection, query, series):
        if slot <= row["last_slot"]:
            slots.setdefault(slot, {})[device.id] = scores
    ids = [row["id"]]
    old = _set_aside(connection, group_alarms, "group_id", ids, now_ms)
    connection.execute(sa.delete(group_points).where(group_points.c.group_id == row["id"]))
    change = sa.update(groups).where(groups.c.id == row["id"])
    connection.execute(change.values(**blank_state(row), reason=""))
    least = SITE_PEERS if row["site"] else VERSION_PEERS
    for slot, scores in sorted(slots.items()):
        if len(scores) >= least:
            point = Point.of(row["site"], slot, list(scores.values()))
            at_ms = (slot + 1) * series.slot_ms
            evaluator.groups.step(connection, series, point, at_ms=at_ms, c=row["threshold"])
    evaluator.groups.watched()  # their budget was spent when they first came
    evaluator.groups.flush(connection)
    _settle(connection, group_alarms, "group_id", ids, old, now_ms)


def _set_aside(
    connection: Connection, table: sa.Table, owner: str, ids: Sequence[int], now_ms: int
) -> list[sa.RowMapping]:
    """The alarms that there are; for as long as their streams are rebuilt none is open."""
    query = sa.select(table).where(table.c[owner].in_(ids)).order_by(table.c.id)
    found = list(connection.execute(query).mappings())
    change = sa.update(table).where(table.c[owner].in_(ids), table.c.closed_ms.is_(None))
    connection.execute(change.values(closed_ms=now_ms))
    return found


def _settle(
    connection: Connection,
    table: sa.Table,
    owner: str,
    ids: Sequence[int],
    old: Sequence[sa.RowMapping],
    now_ms: int,
) -> None:
    """Alarms that were raised again keep their number and moment; others are closed."""
    last = max((row["id"] for row in old), default=0)
    query = sa.select(table).where(table.c[owner].in_(ids), table.c.id > last)
    raised = {(row[owner], row["since_ms"]): row for row in connection.execute(query).mappings()}
    for row in old:
        again = raised.get((row[owner], row["since_ms"]))
        if again is None:
            closed = row["closed_ms"] if row["closed_ms"] is not None else now_ms
            values: dict[str, Any] = {"closed_ms": closed, "reason": RETRACTED}
        else:
            connection.execute(sa.delete(table).where(table.c.id == again["id"]))
            values = {n: v for n, v in again.items() if n not in {"id", "opened_ms"}}
        connection.execute(sa.update(table).where(table.c.id == row["id"]).values(**values))
