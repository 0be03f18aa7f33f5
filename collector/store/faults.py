"""Which windows were refused or could not be judged, and why, for the API and the pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from edgeml.collector.store.tables import devices, unjudged, windows
from edgeml.collector.views import FaultView

SHOWN = 100
"""Of a reason's windows only their number is told; some reasons name numbers, and are many."""

STREAM = ("device_id", "model", "version", "artifact", "stream")
_BY = (windows.c.device_id, windows.c.model, windows.c.version)
_HOW_MANY = (
    sa.func.sum(windows.c.merged).label("windows"),
    sa.func.min(windows.c.received_ms).label("first_ms"),
    sa.func.max(windows.c.received_ms).label("last_ms"),
)


def faults(connection: Connection, *, site: str = "", device: str = "") -> list[FaultView]:
    """By device and reason, what came last first."""
    refused = (
        sa.select(*_BY, windows.c.refused.label("reason"), *_HOW_MANY)
        .add_columns(sa.literal("refused").label("kind"), sa.literal("").label("stream"))
        .where(windows.c.refused.is_not(None))
        .group_by(*_BY, windows.c.refused)
    )
    failed = (
        sa.select(*_BY, unjudged.c.reason, *_HOW_MANY)
        .add_columns(sa.literal("not judged").label("kind"), unjudged.c.stream)
        .join(unjudged, unjudged.c.window_id == windows.c.id)
        .group_by(*_BY, unjudged.c.reason, unjudged.c.stream)
    )
    found = [row for query in (refused, failed) for row in _rows(connection, query, site, device)]
    views = [FaultView(**{n: row[n] for n in FaultView.__struct_fields__}) for row in found]
    return sorted(views, key=lambda view: -view.last_ms)[:SHOWN]


def _rows(connection: Connection, query: Any, site: str, device: str) -> list[sa.RowMapping]:
    found = query.subquery()
    wanted = (
        sa.select(found, devices.c.site, devices.c.device)
        .join(devices, devices.c.id == found.c.device_id)
        .order_by(found.c.last_ms.desc())
        .limit(SHOWN)
    )
    for name, value in (("site", site), ("device", device)):
        if value:
            wanted = wanted.where(devices.c[name] == value)
    return list(connection.execute(wanted).mappings())


def unjudged_windows() -> Any:
    """A subquery: how many windows of each stream, as :data:`STREAM` names it, are not judged."""
    by = [(unjudged if name == "stream" else windows).c[name] for name in STREAM]
    return (
        sa.select(*by, sa.func.count().label("windows"))
        .join(unjudged, unjudged.c.window_id == windows.c.id)
        .group_by(*by)
        .subquery()
    )


def refusing(connection: Connection, since: Mapping[int, int]) -> dict[int, str]:
    """Why devices' windows are refused now: of devices of which none was taken since.

    Args:
        connection: to the database.
        since: when the last window of a device was judged, by the device's number.
    """
    newest = (
        sa.select(windows.c.device_id, sa.func.max(windows.c.id).label("id"))
        .where(windows.c.refused.is_not(None))
        .group_by(windows.c.device_id)
        .subquery()
    )
    query = sa.select(windows.c.device_id, windows.c.refused, windows.c.received_ms).join(
        newest, newest.c.id == windows.c.id
    )
    return {
        row.device_id: row.refused
        for row in connection.execute(query)
        if row.received_ms > since.get(row.device_id, 0)
    }
