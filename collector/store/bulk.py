"""One statement for many rows, without SQLAlchemy looking at each value of each row: for rows that
are numbers, text and bytes already it costs more than SQLite does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

Row = Mapping[str, Any]
Hand = Callable[[Row], Any]
"""A row as the driver takes it."""


class Bulk:
    """A statement that is rendered once a dialect, and handed to the driver with its rows.

    Args:
        build: makes the statement, in the words of a connection's dialect.
    """

    def __init__(self, build: Callable[[Connection], sa.Executable]) -> None:
        self._build = build
        self._rendered: dict[str, tuple[str, Hand]] = {}

    def __call__(self, connection: Connection, rows: Sequence[Row]) -> None:
        """Execute it for all rows, which have the same names; for none, do nothing."""
        if not rows:
            return
        if connection.dialect.name not in self._rendered:
            self._rendered[connection.dialect.name] = self._render(connection, list(rows[0]))
        text, hand = self._rendered[connection.dialect.name]
        connection.exec_driver_sql(text, list(map(hand, rows)))

    def _render(self, connection: Connection, names: list[str]) -> tuple[str, Hand]:
        statement: Any = self._build(connection)
        compiled: Any = statement.compile(dialect=connection.dialect, column_keys=names)
        places: list[str] | None = compiled.positiontup
        if places is None:  # the driver takes values by name
            return str(compiled), dict
        return str(compiled), itemgetter(*places)
