"""Builds the evidence of streams anew from the windows that count.

Evidence has an order, so nothing can be subtracted from it: streams that had a part in a retraction
are emptied and fed all their other windows again, in the order in which they came. What peers'
scores were at the time is kept. Thresholds are today's.

Alarms that the windows left raise again stay as they were; one that they do not is closed, with the
reason ``retracted``, and stays in the list.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from edgeml.collector.drift.peers import SITE_PEERS, VERSION_PEERS, Point, Scores
from edgeml.collector.drift.policy import Policy
from edgeml.collector.ingest.validate import read_statistics
from edgeml.collector.store.anew import empty
from edgeml.collector.store.arrivals import arrived
from edgeml.collector.store.evaluation import Evaluator
from edgeml.collector.store.fleet_tables import group_alarms, group_points, groups
from edgeml.collector.store.groups import Series, scored_rows, scored_tests
from edgeml.collector.store.known import Known
from edgeml.collector.store.past import blank_state, decode_numbers
from edgeml.collector.store.tables import alarms, counts, devices, streams, tests, windows
from edgeml.collector.store.unjudged import set_aside_of
from edgeml.statistics import Counts

Touched = dict[tuple[str, Series], set[int]]
"""Slots in which a site's devices, or all of a version's (no site), have other scores now."""

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
    touched: Touched = {}
    for run in runs:
        for series, slots in _rebuild_run(connection, evaluator, run, now_ms).items():
            for site in (_site(connection, run[0]), ""):
                touched.setdefault((site, series), set()).update(slots)
    for row in _groups(connection, runs):
        series = Series(row["model"], row["version"], row["stream"], row["slot_ms"])
        slots = touched.get((row["site"], series))
        if slots:
            _rebuild_group(connection, evaluator, row, series, slots, now_ms)
    evaluator.flush(connection)
    evaluator.forget()


def _groups(connection: Connection, runs: Iterable[tuple[Any, ...]]) -> list[sa.RowMapping]:
    """The groups that those devices are in: their sites', and their versions'. What another site
    has in common is of other devices."""
    found: dict[int, sa.RowMapping] = {}
    for device_id, model, version, _ in runs:
        query = sa.select(groups).filter_by(model=model, version=version)
        query = query.where(groups.c.site.in_(("", _site(connection, device_id))))
        found |= {row["id"]: row for row in connection.execute(query).mappings()}
    return [found[number] for number in sorted(found)]


def _site(connection: Connection, device_id: int) -> str:
    return connection.execute(sa.select(devices.c.site).filter_by(id=device_id)).scalar_one()


def _rebuild_run(
    connection: Connection, evaluator: Evaluator, run: tuple[Any, ...], now_ms: int
) -> dict[Series, set[int]]:
    """All streams of a device with one model version and artifact; the slots in which its scores
    are others now."""
    names = ("device_id", "model", "version", "artifact")
    of_run = dict(zip(names, run, strict=True))
    ids = connection.execute(sa.select(streams.c.id).filter_by(**of_run)).scalars().all()
    if not ids:
        return {}
    before = _scores(connection, evaluator.policy, ids)
    commons = _commons(connection, ids)
    old = _set_aside(connection, alarms, "stream_id", ids, now_ms)
    connection.execute(sa.delete(tests).where(tests.c.stream_id.in_(ids)))
    empty(connection, ids)
    query = (
        sa.select(windows, devices.c.site, devices.c.device)
        .join(devices, devices.c.id == windows.c.device_id)
        .where(*(windows.c[name] == value for name, value in of_run.items()))
        .where(windows.c.evaluated, windows.c.refused.is_(None), windows.c.retraction_id.is_(None))
        .where(windows.c.resolution_ms == 0)  # what was merged is no test window
        .order_by(windows.c.id)
    )
    aside = set_aside_of(connection, sa.and_(*(windows.c[n] == v for n, v in of_run.items())))
    for number, row in enumerate(list(connection.execute(query).mappings()), start=1):
        window = arrived(row, stored_counts(connection, evaluator, row))
        common = {stream: there.at(row["id"]) for stream, there in commons.items()}
        without = aside.get(row["id"], ())
        evaluator.evaluate(connection, window, replay=common, without=without)
        if number % FLUSH == 0:
            evaluator.flush(connection)
    evaluator.flush(connection)
    _settle(connection, alarms, "stream_id", ids, old, now_ms)
    after = _scores(connection, evaluator.policy, ids)
    return {
        series: {slot for slot, _ in before.get(series, set()) ^ after.get(series, set())}
        for series in before.keys() | after.keys()
    }


def _scores(
    connection: Connection, policy: Policy, ids: Sequence[int]
) -> dict[Series, set[tuple[int, str]]]:
    """Slot and scores of each test window of streams."""
    query = (
        sa.select(streams.c.model, streams.c.version, streams.c.stream, tests.c.start_ms)
        .add_columns(tests.c.scores, windows.c.duration_ms, windows.c.merged)
        .select_from(tests)
        .join(streams, streams.c.id == tests.c.stream_id)
        .join(windows, windows.c.id == tests.c.window_id)
        .where(tests.c.stream_id.in_(ids), tests.c.rung == 1)
    )
    found: dict[Series, set[tuple[int, str]]] = {}
    for row in connection.execute(query):
        length = policy.slot_ms(row.duration_ms // row.merged)
        series = Series(row.model, row.version, row.stream, length)
        found.setdefault(series, set()).add((row.start_ms // length, row.scores))
    return found


def stored_counts(
    connection: Connection, evaluator: Evaluator, row: sa.RowMapping
) -> dict[str, Counts]:
    """The counts of a window (a row of ``windows``) by stream; its bundle has to be known."""
    known = evaluator.baseline(connection, row["bundle"]) or Known()
    query = sa.select(counts.c.packed).filter_by(window_id=row["id"]).order_by(counts.c.place)
    packed = connection.execute(query).scalars().all()
    return read_statistics(row["baseline"], packed, known=known.hash, streams=known.streams)


class _Commons(NamedTuple):
    """What peers' scores were in the test windows of a stream, in their order."""

    last: list[int]
    """The device window that completed each."""
    scores: list[Scores | None]

    def at(self, window_id: int) -> Scores | None:
        """In the test window that a device window was in: without some of them, others complete
        the test windows."""
        place = bisect_left(self.last, window_id)
        return self.scores[place] if place < len(self.last) else None


def _commons(connection: Connection, ids: Sequence[int]) -> dict[int, _Commons]:
    """What peers' scores were, by stream."""
    query = (
        sa.select(tests.c.window_id, tests.c.stream_id, tests.c.common)
        .where(tests.c.stream_id.in_(ids), tests.c.rung == 1)
        .order_by(tests.c.window_id)
    )
    found: dict[int, _Commons] = {}
    for row in connection.execute(query):
        commons = found.setdefault(row.stream_id, _Commons([], []))
        commons.last.append(row.window_id)
        commons.scores.append(tuple(decode_numbers(row.common)) if row.common else None)
    return found


def _rebuild_group(
    connection: Connection,
    evaluator: Evaluator,
    row: sa.RowMapping,
    series: Series,
    touched: Collection[int],
    now_ms: int,
) -> None:
    """A group's points in these slots are the medians of the scores that its devices have now; the
    others stay, and all go through its monitor again."""
    points = {
        point.slot: Point(
            site=row["site"],
            slot=point.slot,
            devices=point.devices,
            scores=tuple(decode_numbers(point.scores)),
        )
        for point in connection.execute(sa.select(group_points).filter_by(group_id=row["id"]))
        if point.slot not in touched
    }
    slots: dict[int, dict[int, Scores]] = {}
    query = scored_tests(series).where(
        tests.c.start_ms >= min(touched) * series.slot_ms,
        tests.c.start_ms < (max(touched) + 1) * series.slot_ms,
    )
    if row["site"]:
        query = query.where(devices.c.site == row["site"])
    for device, slot, scores in scored_rows(connection, query, series, evaluator.policy):
        if slot in touched and slot <= row["last_slot"]:
            slots.setdefault(slot, {})[device.id] = scores
    least = SITE_PEERS if row["site"] else VERSION_PEERS
    points |= {
        slot: Point.of(row["site"], slot, list(scores.values()))
        for slot, scores in slots.items()
        if len(scores) >= least
    }
    ids = [row["id"]]
    old = _set_aside(connection, group_alarms, "group_id", ids, now_ms)
    connection.execute(sa.delete(group_points).where(group_points.c.group_id == row["id"]))
    change = sa.update(groups).where(groups.c.id == row["id"])
    connection.execute(change.values(**blank_state(row), reason=""))
    for slot, point in sorted(points.items()):
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
