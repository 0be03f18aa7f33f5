"""Opens the database: pragmas, the schema's version, and the lock that keeps a second collector
out."""

from __future__ import annotations

import fcntl
import os
import shlex
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import IO, Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from edgeml.collector.store import fleet_tables, tables
from edgeml.collector.store.takeover import take_over
from edgeml.errors import CollectorError

BUSY_MS = 2000
"""How long SQLite waits for a lock before the batch is given back and tried again."""


def database_url(text: str) -> sa.URL:
    """A SQLAlchemy URL; a plain path means SQLite.

    Raises:
        CollectorError: it is neither.
    """
    if "://" not in text:
        return sa.URL.create("sqlite", database=str(Path(text).expanduser().absolute()))
    try:
        return sa.make_url(text)
    except ArgumentError as error:
        raise CollectorError(
            f"the database {text!r} is no URL",
            expected="a path for SQLite, or a URL such as postgresql+psycopg://user@host/name",
        ) from error


def open_database(text: str) -> Engine:
    """Open the database, with all tables in place.

    Raises:
        CollectorError: it cannot be opened, is no database, or is of another edgeml's.
    """
    url = database_url(text)
    shown = url.render_as_string(hide_password=True) if "://" in text else text
    _need_folder(url)
    try:
        engine = sa.create_engine(url)
        if url.get_backend_name() == "sqlite":
            event.listen(engine, "connect", _prepare_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
        with engine.begin() as connection:
            _check_schema(connection, shown)
    except (ImportError, NoSuchModuleError) as error:
        raise CollectorError(
            f"the database {shown} cannot be opened: {error}",
            expected="an installed driver for it",
            remedy="For PostgreSQL `pip install 'psycopg[binary]'`.",
        ) from error
    except (DBAPIError, OSError) as error:
        reason = getattr(error, "orig", None) or error
        raise CollectorError(
            f"the database {shown} cannot be opened: {reason}",
            expected="a file in a folder that may be written, or a database that answers",
            remedy="Name another with --database.",
        ) from error
    return engine


def _need_folder(url: sa.URL) -> None:
    """A folder that is not there is mistyped, or a disk that is not mounted: a new database in its
    place would begin the fleet's history afresh, without a word."""
    if url.get_backend_name() != "sqlite" or not url.database:
        return
    folder = Path(url.database).parent
    if not folder.is_dir():
        raise CollectorError(
            f"there is no folder {folder} for the database {url.database}",
            expected="an SQLite file, new or not, in a folder that is there",
            remedy=f"Mend the path, or make the folder: mkdir -p {shlex.quote(str(folder))}.",
        )


def _prepare_sqlite(connection: Any, record: object) -> None:  # noqa: ARG001
    # Transactions are ours (see _begin_sqlite), not the driver's.
    connection.isolation_level = None
    ((pages,),) = connection.execute("PRAGMA page_count")
    for pragma in (
        f"busy_timeout={BUSY_MS}",
        # Of a new file: old windows' pages can be given back (edgeml.collector.keep.trim). Of
        # another it would want the lock of those who write, and whoever reads would wait for them.
        *(() if pages else ("auto_vacuum=INCREMENTAL",)),
        "journal_mode=WAL",
        # In WAL mode NORMAL can lose the last commits in a power cut; the windows in them would be
        # acknowledged and gone. FULL costs one fsync a batch.
        "synchronous=FULL",
        "foreign_keys=ON",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes", True)
    # IMMEDIATE: a transaction that reads and then writes cannot be told "busy" half way.
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _check_schema(connection: Connection, text: str) -> None:
    if sa.inspect(connection).has_table("schema"):
        found = connection.execute(sa.select(sa.func.max(tables.schema.c.version))).scalar()
        if found in tables.TAKEN_OVER:
            take_over(connection)
        elif found != tables.SCHEMA:
            raise CollectorError(
                f"the database {text} has schema {found}",
                expected=f"schema {min(tables.TAKEN_OVER)} to {tables.SCHEMA}, which this edgeml "
                "reads",
                remedy="Name another --database, or use the edgeml that wrote this one. Counts of "
                "schema 1 and 2 are on grids that no longer exist, so they cannot be taken over.",
            )
        return
    if sa.inspect(connection).get_table_names():
        raise CollectorError(
            f"the database {text} holds tables that are not the collector's",
            expected="an empty database or one of edgeml's",
            remedy="Name another with --database.",
        )
    fleet_tables.metadata.create_all(connection)
    connection.execute(sa.insert(tables.schema).values(version=tables.SCHEMA))


def insert(connection: Connection | Engine, table: sa.Table) -> Any:
    """INSERT with ON CONFLICT, in the words of the database's dialect."""
    # Loaded by name: those of a dialect that is not used take 50 ms.
    return import_module(f"sqlalchemy.dialects.{connection.dialect.name}").insert(table)


def upsert(
    connection: Connection | Engine, table: sa.Table, *, key: Sequence[str], values: Sequence[str]
) -> Any:
    """INSERT of rows that take the place of those with the same key."""
    statement = insert(connection, table)
    replaced = {name: statement.excluded[name] for name in values}
    return statement.on_conflict_do_update(index_elements=key, set_=replaced)


def lock_database(text: str) -> IO[bytes] | None:
    """Keep other collectors out of an SQLite file for as long as the returned file stays open.

    Returns:
        The lock file, or None where the database is a server's.

    Raises:
        CollectorError: another collector has it, or its folder is not there.
    """
    url = database_url(text)
    if url.get_backend_name() != "sqlite" or not url.database:
        return None
    _need_folder(url)
    path = Path(f"{url.database}.lock")
    try:
        handle = path.open("a+b")
    except OSError as error:
        raise CollectorError(
            f"{path} cannot be written: {error.strerror}",
            expected="a folder that may be written",
            remedy="Name another database with --database.",
        ) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        handle.seek(0)
        owner = handle.read(32).decode(errors="replace").strip()
        handle.close()
        raise CollectorError(
            f"another collector (process {owner or 'unknown'}) uses the database {url.database}",
            expected="one collector an SQLite file",
            remedy="Stop that one, or name another database with --database.",
        ) from error
    handle.truncate(0)
    handle.write(f"{os.getpid()}\n".encode())
    handle.flush()
    return handle
