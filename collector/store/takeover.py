"""Brings the tables of an older schema to today's: nothing in them is changed, some is added."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.schema import CreateColumn

from edgeml.collector.store import fleet_tables, tables

ADDED = (tables.windows.c.resolution_ms, tables.boots.c.merged)


def take_over(connection: Connection) -> None:
    """Add what is new since schema 3, and say that it is there."""
    for column in ADDED:
        name = column.table.name
        if column.name not in {c["name"] for c in sa.inspect(connection).get_columns(name)}:
            words = CreateColumn(column).compile(dialect=connection.dialect)
            connection.exec_driver_sql(f"ALTER TABLE {name} ADD COLUMN {words}")
    fleet_tables.metadata.create_all(connection)
    for table in fleet_tables.metadata.tables.values():
        for index in table.indexes:
            index.create(connection, checkfirst=True)
    connection.execute(sa.update(tables.schema).values(version=tables.SCHEMA))
