"""The outbox's file: opened, guarded, and moved aside where it is damaged.

SQLite with a write-ahead log and ``synchronous=FULL``. The agent goes on with an empty file where
the old one cannot be read any more; what was wrong is told.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from edgeml.errors import AgentError

FILE = "outbox.sqlite"
SET_ASIDE = "outbox.damaged"
"""Where a damaged file goes; one is kept, the latest."""

_SCHEMA = 2
_TABLES = (
    # Numbered: the collector may have them.
    """CREATE TABLE IF NOT EXISTS windows(
        id INTEGER PRIMARY KEY, boot TEXT NOT NULL, sequence INTEGER NOT NULL,
        body BLOB NOT NULL, UNIQUE(boot, sequence))""",
    # Never sent: nobody has them. Schema 1 had no such table; all of its windows had numbers.
    """CREATE TABLE IF NOT EXISTS waiting(
        id INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL, duration_ms INTEGER NOT NULL,
        size INTEGER NOT NULL, body BLOB NOT NULL)""",
    # All that is asked about many windows at once; their bodies are 32 MB.
    "CREATE INDEX IF NOT EXISTS waiting_brief ON waiting(key, duration_ms, size)",
    "CREATE TABLE IF NOT EXISTS events(id INTEGER PRIMARY KEY AUTOINCREMENT, body BLOB NOT NULL)",
    f"PRAGMA user_version={_SCHEMA}",
)

R = TypeVar("R")


class OutboxFile:
    """One connection, for one thread at a time.

    Args:
        folder: the agent's state folder.

    Raises:
        AgentError: the folder cannot be written to.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._lock = threading.Lock()
        self.damaged = ""
        """What was wrong with the file that was moved aside; empty where none was."""
        self._database = self._open()

    def do(self, work: Callable[[sqlite3.Connection], R]) -> R:
        """Do ``work`` alone; where the file turns out to be damaged, once more on a new one.

        Raises:
            AgentError: the disk does not take it, and nothing has changed.
        """
        with self._lock:
            try:
                return work(self._database)
            except sqlite3.OperationalError as error:
                raise _unwritable(self._path, error) from error
            except sqlite3.DatabaseError as error:
                self._database.close()
                self._set_aside(str(error))
                self._database = self._open()
                return work(self._database)

    def close(self) -> None:
        """Close it; what is in it stays."""
        with self._lock:
            self._database.close()

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except sqlite3.OperationalError as error:
            raise _unwritable(self._path, error) from error
        except sqlite3.DatabaseError as error:
            self._set_aside(str(error))
            try:
                return self._connect()
            except sqlite3.Error as again:
                raise _unwritable(self._path, again) from again

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._path, check_same_thread=False)
        try:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=FULL")
            _check(database)
            with database:
                for statement in _TABLES:
                    database.execute(statement)
        except BaseException:
            database.close()
            raise
        return database

    def _set_aside(self, problem: str) -> None:
        self.damaged = problem
        for suffix in ("-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                self._path.with_name(FILE + suffix).unlink()
        with contextlib.suppress(FileNotFoundError):
            self._path.replace(self._path.with_name(SET_ASIDE))


def _unwritable(path: Path, error: sqlite3.Error) -> AgentError:
    return AgentError(
        f"The outbox {path} cannot be used: {error}",
        expected="a folder that may be written to, with room",
        remedy="Free some space, or name another folder with --state.",
    )


def _check(database: sqlite3.Connection) -> None:
    found = database.execute("PRAGMA user_version").fetchone()[0]
    if found not in {0, 1, _SCHEMA}:
        raise sqlite3.DatabaseError(f"it has schema {found}, not {_SCHEMA}")
    problem = database.execute("PRAGMA quick_check(1)").fetchone()[0]
    if problem != "ok":
        raise sqlite3.DatabaseError(problem)
