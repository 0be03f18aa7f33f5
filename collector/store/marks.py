"""The high-water mark of a boot, kept in the database."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from edgeml.collector.store.bulk import Bulk
from edgeml.collector.store.database import upsert
from edgeml.collector.store.high_water import advance
from edgeml.collector.store.tables import boots, windows
from edgeml.telemetry import Topics

_THROUGH = sa.select(boots.c.through).where(
    boots.c.device_id == sa.bindparam("device_id"), boots.c.boot == sa.bindparam("boot")
)
_ABOVE = (
    sa.select(windows.c.sequence)
    .where(windows.c.device_id == sa.bindparam("device_id"))
    .where(windows.c.boot == sa.bindparam("boot"), windows.c.sequence > sa.bindparam("settled"))
    .order_by(windows.c.sequence)
)
_MARK = Bulk(
    lambda connection: upsert(connection, boots, key=("device_id", "boot"), values=("through",))
)


class Boot(NamedTuple):
    """A boot of a device."""

    device_id: int
    topics: Topics
    boot: str


class Mark(msgspec.Struct, frozen=True):
    """What to tell a device."""

    topics: Topics
    boot: str
    through: int


def advance_all(connection: Connection, heard: Mapping[Boot, int]) -> list[Mark]:
    """Bring the marks of boots up to what is stored.

    Args:
        connection: of the transaction.
        heard: the oldest window that each boot still has.
    """
    marks: list[Mark] = []
    rows: list[dict[str, Any]] = []
    for (device_id, topics, boot), oldest in heard.items():
        at = {"device_id": device_id, "boot": boot}
        through = connection.execute(_THROUGH, at).scalar() or 0
        above = connection.execute(_ABOVE, at | {"settled": max(through, oldest - 1)})
        mark = advance(through, oldest, above.scalars())
        marks.append(Mark(topics, boot, mark))
        rows.append(at | {"through": mark})
    _MARK(connection, rows)
    return marks
