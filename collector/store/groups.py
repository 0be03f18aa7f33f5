"""Group streams in the store: what the peers of a device saw, and what sites and versions see.

Owns the :class:`Peers` of every series and the monitors of their groups, in memory, rebuilt from
the tables when first needed: peers from the scores in ``tests``, monitors from ``group_points``.
Part of the evaluator, inside its transaction and its thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from edgeml.collector.drift.budget import Scope
from edgeml.collector.drift.groups import GroupMonitor, GroupSaved, GroupStep
from edgeml.collector.drift.peers import (
    KEPT_SLOTS,
    Device,
    Peers,
    Point,
    Scores,
    comparable,
)
from edgeml.collector.drift.policy import Policy
from edgeml.collector.store.bulk import Bulk
from edgeml.collector.store.database import insert
from edgeml.collector.store.fleet_tables import group_alarms, group_points, groups
from edgeml.collector.store.past import (
    GroupPast,
    decode_numbers,
    encode_numbers,
    pack_state,
    unpack_state,
)
from edgeml.collector.store.tables import devices, streams, tests, windows
from edgeml.decoding import from_json

_STATE = ("saved", "state", "phase", "reason", "reference", "devices", "evidence", "threshold")
_CHANGE_GROUPS = Bulk(
    lambda _: (
        sa.update(groups)
        .where(groups.c.id == sa.bindparam("at_group"))
        .values({name: sa.bindparam(name) for name in (*_STATE, "last_slot", "last_ms")})
    )
)
_ADD_POINTS = Bulk(lambda _: sa.insert(group_points))
_EXCLUDE_POINTS = (
    sa.update(group_points)
    .where(
        group_points.c.group_id == sa.bindparam("at_group"),
        group_points.c.slot >= sa.bindparam("at_slot"),
    )
    .values(role="excluded")
)
_CLOSE = (
    sa.update(group_alarms)
    .where(group_alarms.c.group_id == sa.bindparam("at_group"), group_alarms.c.closed_ms.is_(None))
    .values(closed_ms=sa.bindparam("at_ms"))
)


class Series(NamedTuple):
    """One statistic of one model version in windows of one usual length."""

    model: str
    version: str
    stream: str
    slot_ms: int


class Scored(msgspec.Struct, frozen=True, kw_only=True):
    """A test window's scores, on their way to its peers."""

    series: Series
    device: Device
    start_ms: int
    scores: Scores
    received_ms: int
    duration_ms: int
    """Of a device's test window, at least."""
    least: Scores
    """How far each score has to move to be worth an alarm."""


class _Group(msgspec.Struct):
    group_id: int
    monitor: GroupMonitor
    devices: int = 0
    threshold: float = 0.0
    last_slot: int = -1
    last_ms: int = 0


class Groups:
    """Peers and group streams. One thread only.

    Args:
        policy: of the groups' monitors.
        threshold: for a stream of this scope with windows of so many ms.
    """

    def __init__(self, policy: Policy, threshold: Callable[[Scope, int], float]) -> None:
        self._policy = policy
        self._threshold = threshold
        self._peers: dict[Series, Peers] = {}
        self._known: dict[tuple[Series, str], _Group] = {}
        self._changed: dict[int, _Group] = {}
        self._points: dict[tuple[int, int], dict[str, Any]] = {}
        self._excluded: list[dict[str, Any]] = []
        self._watched: list[float] = []
        self._alarms: list[tuple[sa.Executable, dict[str, Any]]] = []

    def __len__(self) -> int:
        """Groups that are known."""
        return len(self._known)

    def forget(self) -> None:
        """Drop what is in memory: the database knows better."""
        for held in (self._peers, self._known, self._changed, self._points):
            held.clear()
        self._excluded.clear()
        self._watched.clear()
        self._alarms.clear()

    def common(
        self, connection: Connection, series: Series, device: Device, start_ms: int
    ) -> Scores | None:
        """What the device's peers' scores are just then; None where there are too few."""
        return self._series(connection, series).common(device, start_ms // series.slot_ms)

    def add(self, connection: Connection, scored: Scored) -> None:
        """Take in a window's scores, and monitor the groups whose slot it completes."""
        series = scored.series
        peers = self._series(connection, series)
        slot = scored.start_ms // series.slot_ms
        for point in peers.add(scored.device, slot, scored.scores):
            c = self._threshold("site" if point.site else "version", scored.duration_ms)
            self.step(connection, series, point, at_ms=scored.received_ms, c=c, least=scored.least)

    def step(
        self,
        connection: Connection,
        series: Series,
        point: Point,
        *,
        at_ms: int,
        c: float,
        least: Scores = (),
    ) -> None:
        """Feed a group's monitor with its next point.

        Args:
            connection: of the transaction.
            series: of the group.
            point: of a later slot than any before.
            at_ms: the collector's time.
            c: its threshold.
            least: for a group that is new, how far each score has to move to be worth an alarm.
        """
        group = self._group(connection, series, point, least)
        start_ms = point.slot * series.slot_ms
        key = "/".join(map(str, (*series, point.site, point.slot)))
        step = group.monitor.step(
            point,
            start_ms=start_ms,
            key=key,
            threshold=c,
            source=self._past(connection, group.group_id),
        )
        group.devices, group.threshold = point.devices, c
        group.last_slot, group.last_ms = point.slot, at_ms
        self._changed[group.group_id] = group
        self._note(group, step)
        if step.opened:
            row = {
                "group_id": group.group_id,
                "opened_ms": at_ms,
                "since_ms": step.since_ms,
                "shift": encode_numbers(step.shift),
                "evidence": step.point.evidence,
                "threshold": c,
            }
            self._alarms.append((sa.insert(group_alarms), row))
        if step.closed:
            self._alarms.append((_CLOSE, {"at_group": group.group_id, "at_ms": at_ms}))

    def watched(self) -> list[float]:
        """Thresholds of the points that were watched since the last flush: each is a share of the
        budget spent."""
        watched, self._watched = self._watched, []
        return watched

    def _flush_points(self, connection: Connection) -> None:
        _ADD_POINTS(connection, list(self._points.values()))
        if self._excluded:
            connection.execute(_EXCLUDE_POINTS, self._excluded)
        self._points.clear()
        self._excluded.clear()

    def _past(self, connection: Connection, group_id: int) -> GroupPast:
        return GroupPast(connection, group_id, lambda: self._flush_points(connection))

    def flush(self, connection: Connection) -> None:
        """Write what came of the windows since the last time."""
        self._flush_points(connection)
        for statement, values in self._alarms:
            connection.execute(statement, values)
        _CHANGE_GROUPS(connection, [_state(group) for group in self._changed.values()])
        self._changed.clear()
        self._alarms.clear()

    def _note(self, group: _Group, step: GroupStep) -> None:
        point = step.point
        self._points[group.group_id, point.index] = {
            "group_id": group.group_id,
            "slot": point.index,
            "start_ms": point.start_ms,
            "devices": group.devices,
            "scores": encode_numbers(point.scores),
            "role": "reference" if step.excluded_from is None else "excluded",
            "seed": point.seed,
            "evidence": point.evidence,
            "threshold": group.threshold,
        }
        if point.evidence is not None:
            self._watched.append(group.threshold)
        if step.opened:
            self._excluded.append({"at_group": group.group_id, "at_slot": step.excluded_from})

    def _series(self, connection: Connection, series: Series) -> Peers:
        if series not in self._peers:
            self._peers[series] = self._load_peers(connection, series)
        return self._peers[series]

    def _load_peers(self, connection: Connection, series: Series) -> Peers:
        rows = connection.execute(_of_series(sa.select(groups.c.site, groups.c.last_slot), series))
        peers = Peers({row.site: row.last_slot for row in rows}, _members(connection, series))
        newest = (
            sa.select(sa.func.max(tests.c.index))
            .where(tests.c.stream_id == streams.c.id)
            .correlate(streams)
            .scalar_subquery()
        )
        # Some more than are kept: a device's windows may come out of order.
        recent = scored_tests(series).where(tests.c.index > newest - 2 * KEPT_SLOTS)
        peers.restore(scored_rows(connection, recent, series, self._policy))
        return peers

    def _group(self, connection: Connection, series: Series, point: Point, least: Scores) -> _Group:
        found = self._known.get((series, point.site))
        if found is None:
            found = self._load(connection, series, point, least)
            self._known[series, point.site] = found
        return found

    def _load(self, connection: Connection, series: Series, point: Point, least: Scores) -> _Group:
        query = _of_series(sa.select(groups), series).where(groups.c.site == point.site)
        row = connection.execute(query).mappings().first()
        if row is not None:
            return self._restored(row)
        group = _Group(0, GroupMonitor(GroupSaved(least=least), self._policy))
        values = {**series._asdict(), "site": point.site, **_state(group)}
        del values["at_group"]
        added = insert(connection, groups).values(**values).returning(groups.c.id)
        group.group_id = connection.execute(added).scalar_one()
        return group

    def _restored(self, row: sa.RowMapping) -> _Group:
        saved = from_json(row["saved"], GroupSaved)
        monitor = GroupMonitor(saved, self._policy, unpack_state(row["state"]))
        values = {name: row[name] for name in ("devices", "threshold", "last_slot", "last_ms")}
        return _Group(group_id=row["id"], monitor=monitor, **values)


def _state(group: _Group) -> dict[str, Any]:
    monitor = group.monitor
    return {
        "at_group": group.group_id,
        "saved": msgspec.json.encode(monitor.saved).decode(),
        "state": pack_state(monitor.track.save()),
        "phase": monitor.phase,
        "reason": monitor.reason,
        "reference": monitor.reference_size,
        "devices": group.devices,
        "evidence": monitor.evidence,
        "threshold": group.threshold,
        "last_slot": group.last_slot,
        "last_ms": group.last_ms,
    }


def _of_series(query: Any, series: Series) -> Any:
    return query.where(*(groups.c[name] == value for name, value in series._asdict().items()))


def _members(connection: Connection, series: Series) -> list[Device]:
    """Devices that ever reported a series, whatever their windows' length."""
    query = (
        sa.select(devices.c.site, devices.c.id)
        .join(streams, streams.c.device_id == devices.c.id)
        .where(
            streams.c.model == series.model,
            streams.c.version == series.version,
            streams.c.stream == series.stream,
            streams.c.reference > 0,
        )
    )
    return [Device(row.site, row.id) for row in connection.execute(query.distinct())]


def scored_tests(series: Series) -> Any:
    """The test windows of a series, by device and in their order."""
    return (
        sa.select(
            *(devices.c.site, devices.c.id, tests.c.start_ms, tests.c.scores),
            *(windows.c.duration_ms, windows.c.merged),
        )
        .select_from(tests)
        .join(streams, streams.c.id == tests.c.stream_id)
        .join(devices, devices.c.id == streams.c.device_id)
        .join(windows, windows.c.id == tests.c.window_id)
        .where(
            streams.c.model == series.model,
            streams.c.version == series.version,
            streams.c.stream == series.stream,
            tests.c.rung == 1,
        )
        .order_by(tests.c.stream_id, tests.c.index)
    )


def scored_rows(
    connection: Connection, query: Any, series: Series, policy: Policy
) -> Iterable[tuple[Device, int, Scores]]:
    """Device, slot and scores of what :func:`scored_tests` finds in windows of that length, but
    those that have no place among others: of nothing but missing values there is no mean."""
    for row in connection.execute(query):
        scores = tuple(decode_numbers(row.scores))
        slot_ms = policy.slot_ms(row.duration_ms // row.merged)
        if slot_ms == series.slot_ms and comparable(scores):
            yield Device(row.site, row.id), row.start_ms // series.slot_ms, scores
