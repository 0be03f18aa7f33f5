"""Where the rollups of a window are: in its hour, or, once that was merged, in its day."""

from __future__ import annotations

from functools import reduce
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from edgeml.collector.keep.rule import DAY_MS, HOUR_MS
from edgeml.collector.store.database import insert
from edgeml.collector.store.tables import count_rollups, merged_days, outcome_rollups
from edgeml.statistics import merged

_OF_MODEL = ("device_id", "model", "version")


class Day(NamedTuple):
    """A day of a model version on a device."""

    device_id: int
    model: str
    version: str
    day_ms: int


_FIND = sa.select(merged_days.c.day_ms).where(
    *(merged_days.c[name] == sa.bindparam(name) for name in Day._fields)
)


def day_of(device_id: int, model: str, version: str, start_ms: int) -> Day:
    """The day that a window lies in."""
    return Day(device_id, model, version, start_ms - start_ms % DAY_MS)


def is_merged(connection: Connection, day: Day) -> bool:
    """Whether a day has one row in the place of its hours'."""
    return connection.execute(_FIND, day._asdict()).first() is not None


def place(start_ms: int, *, is_day: bool = False) -> int:
    """The ``hour_ms`` of a window's rollups: of its hour, or of its day."""
    return start_ms - start_ms % (DAY_MS if is_day else HOUR_MS)


def merge_day(connection: Connection, day: Day) -> None:
    """Have one row a day: counts and requests add. Of a day that is merged, the same again."""
    statement = insert(connection, merged_days).values(**day._asdict())
    connection.execute(statement.on_conflict_do_nothing())
    by_stream: dict[tuple[str, str], list[sa.RowMapping]] = {}
    for row in _take(connection, count_rollups, day):
        by_stream.setdefault((row["stream"], row["grid"]), []).append(row)
    sums: list[dict[str, Any]] = [
        {
            "stream": stream,
            "grid": grid,
            "windows": sum(row["windows"] for row in rows),
            "packed": reduce(merged, (row["packed"] for row in rows)),
        }
        for (stream, grid), rows in by_stream.items()
    ]
    _put(connection, count_rollups, day, sums)
    requests: dict[str, int] = {}
    for row in _take(connection, outcome_rollups, day):
        requests[row["outcome"]] = requests.get(row["outcome"], 0) + row["count"]
    _put(
        connection,
        outcome_rollups,
        day,
        [{"outcome": outcome, "count": count} for outcome, count in requests.items()],
    )


def forget_day(connection: Connection, day: Day) -> None:
    """As if nothing had come on that day."""
    for table in (count_rollups, outcome_rollups):
        connection.execute(sa.delete(table).where(_within(table, day)))
    connection.execute(sa.delete(merged_days).filter_by(**day._asdict()))


def _within(table: sa.Table, day: Day) -> Any:
    of_model = (table.c[name] == getattr(day, name) for name in _OF_MODEL)
    return sa.and_(*of_model, table.c.hour_ms.between(day.day_ms, day.day_ms + DAY_MS - 1))


def _take(connection: Connection, table: sa.Table, day: Day) -> list[sa.RowMapping]:
    rows = list(connection.execute(sa.select(table).where(_within(table, day))).mappings())
    connection.execute(sa.delete(table).where(_within(table, day)))
    return rows


def _put(connection: Connection, table: sa.Table, day: Day, sums: list[dict[str, Any]]) -> None:
    key = {**{name: getattr(day, name) for name in _OF_MODEL}, "hour_ms": day.day_ms}
    if sums:
        connection.execute(sa.insert(table), [{**key, **values} for values in sums])
