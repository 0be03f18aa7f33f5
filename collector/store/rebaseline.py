"""Re-baseline: reference and evidence of streams start anew at once, and what was drift is what the
next windows are compared with. For a change that is wanted: a lamp replaced, a camera moved."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from edgeml.collector.store.anew import from_here
from edgeml.collector.store.fleet_tables import group_alarms, group_points, groups, rebaselines
from edgeml.collector.store.past import blank_state
from edgeml.collector.store.selection import StreamSelection
from edgeml.collector.store.tables import alarms, devices, streams
from edgeml.collector.views import RebaselineView
from edgeml.errors import CollectorError

REASON = "re-baselined"


def rebaseline(
    connection: Connection,
    selection: StreamSelection,
    *,
    by: str,
    now_ms: int,
) -> RebaselineView:
    """Have the streams that are meant start anew; their open alarms close.

    Raises:
        CollectorError: no stream is meant.
    """
    selection.check()
    query = (
        sa.select(streams.c.id)
        .join(devices, devices.c.id == streams.c.device_id)
        .where(selection.of_devices())
    )
    ids = connection.execute(query).scalars().all()
    if not ids:
        raise CollectorError(
            "no stream is of that",
            expected="a device or site that has reported, and the name of a statistic of it",
            remedy="`edgeml fleet drift` lists the streams.",
        )
    from_here(connection, ids, REASON)
    closed = _close(connection, alarms, "stream_id", ids, now_ms)
    found = connection.execute(sa.select(groups).where(selection.of_groups())).mappings().all()
    for row in found:
        change = sa.update(groups).where(groups.c.id == row["id"])
        connection.execute(change.values(reason=REASON, **blank_state(row)))
        past = sa.update(group_points).where(group_points.c.group_id == row["id"])
        connection.execute(past.values(role="past"))
    closed += _close(connection, group_alarms, "group_id", [row["id"] for row in found], now_ms)
    count = len(ids) + len(found)
    text = msgspec.json.encode(selection).decode()
    added = sa.insert(rebaselines).values(at_ms=now_ms, by=by, selection=text, streams=count)
    connection.execute(added)
    return RebaselineView(at_ms=now_ms, by=by, streams=count, closed=closed)


def _close(
    connection: Connection, table: sa.Table, owner: str, ids: Iterable[int], now_ms: int
) -> int:
    change = sa.update(table).where(table.c[owner].in_(ids), table.c.closed_ms.is_(None))
    return connection.execute(change.values(closed_ms=now_ms, reason=REASON)).rowcount
