"""What else grows with time: the points of sites and versions, and what devices told."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from edgeml.collector.store.fleet_tables import group_points
from edgeml.collector.store.tables import events

FREE_SHARE = 0.1
"""Of a file's pages: fewer free ones are filled again soon enough."""
LEAST_FREE, AT_ONCE = 1024, 512
"""Pages; at 4 kB, 4 MB and 2 MB."""


INCREMENTAL = 2
"""The mode of ``PRAGMA auto_vacuum`` in which pages can be given back."""


def trim_points(connection: Connection, group_id: int, *, before_ms: int, kept: int) -> None:
    """Delete a group's points from before, but for the newest ``kept``, which it learns from."""
    of_group = group_points.c.group_id == group_id
    # Slots are numbered by time, and not each has a point.
    last = sa.select(group_points.c.slot).where(of_group).order_by(group_points.c.slot.desc())
    oldest = connection.execute(last.offset(max(kept - 1, 0)).limit(1)).scalar()
    if oldest is not None:
        old = sa.and_(group_points.c.slot < oldest, group_points.c.start_ms < before_ms)
        connection.execute(sa.delete(group_points).where(of_group, old))


def trim_events(connection: Connection, *, before_ms: int) -> None:
    """Delete what was told before."""
    connection.execute(sa.delete(events).where(events.c.received_ms < before_ms))


def give_back(connection: Connection) -> bool:
    """Give some of the free pages of an SQLite file back to the file system, where there are many.

    A file that an older edgeml made cannot: its free pages are filled again, and stay in the file.

    Returns:
        Whether there are more to give back.
    """
    if connection.dialect.name != "sqlite" or _pragma(connection, "auto_vacuum") != INCREMENTAL:
        return False
    free, pages = _pragma(connection, "freelist_count"), _pragma(connection, "page_count")
    if free < max(LEAST_FREE, FREE_SHARE * pages):
        return False
    driver: Any = connection.connection.driver_connection
    # It frees a page with each row that is asked for, and has none to show for it.
    driver.execute(f"PRAGMA incremental_vacuum({AT_ONCE})").fetchall()
    return True


def file_size(connection: Connection) -> tuple[int, int]:
    """Bytes of an SQLite file, and of it those that are free; 0 of another database."""
    if connection.dialect.name != "sqlite":
        return 0, 0
    page = _pragma(connection, "page_size")
    return page * _pragma(connection, "page_count"), page * _pragma(connection, "freelist_count")


def _pragma(connection: Connection, name: str) -> int:
    return int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one())
