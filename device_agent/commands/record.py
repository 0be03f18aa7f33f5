"""Which commands were begun, and what came of them: on the disk before anything is done.

A command that stands here is not carried out again, whatever happened to the agent since. Where the
file is new (the first start, or a damaged one that was moved aside) nothing is known of what came
before, so what was issued before is refused, too.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Generator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from edgeml.device_agent import logs
from edgeml.errors import AgentError

FILE = "commands.sqlite"
SET_ASIDE = "commands.damaged"

_TABLES = (
    """CREATE TABLE IF NOT EXISTS commands(
        number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,
        begun_ms INTEGER NOT NULL, result BLOB)""",
    "CREATE TABLE IF NOT EXISTS since(ms INTEGER NOT NULL)",
)


class Earlier(NamedTuple):
    """A command that was begun before."""

    begun_ms: int
    result: bytes | None
    """What was answered; None where the agent ended before that."""


class CommandRecord:
    """Args:
        folder: the agent's state folder.
        kept: commands at most; the oldest are forgotten.
        wall_ms: now.

    Raises:
        AgentError: the folder cannot be written to.
    """

    def __init__(self, folder: Path, *, kept: int, wall_ms: int) -> None:
        self._kept = kept
        self._lock = threading.Lock()
        path = folder / FILE
        try:
            self._database = _open(path, wall_ms)
        except sqlite3.DatabaseError as error:
            logs.warn("commands forgotten", reason=error)
            try:
                path.replace(folder / SET_ASIDE)
                for rest in ("-wal", "-shm"):
                    path.with_name(f"{FILE}{rest}").unlink(missing_ok=True)
                self._database = _open(path, wall_ms)
            except (sqlite3.Error, OSError) as again:
                raise _unwritable(again) from error

    def begin(self, key: str, *, issued_ms: int, wall_ms: int) -> Earlier | str:
        """Note that a command is being carried out.

        Returns:
            Nothing (an empty string) where it may be; what is known of it where it was begun
            before; or why it cannot be told whether it was.

        Raises:
            AgentError: that could not be noted.
        """
        with self._lock, _told():
            row = self._database.execute(
                "SELECT begun_ms, result FROM commands WHERE id = ?", (key,)
            ).fetchone()
            if row is not None:
                return Earlier(*row)
            (since,) = self._database.execute("SELECT ms FROM since").fetchone()
            with self._database:
                if wall_ms < since:  # the clock was ahead when the record was begun
                    since = wall_ms
                    self._database.execute("UPDATE since SET ms = ?", (since,))
                if issued_ms < since:
                    return "The command was issued before this device began to remember any."
                self._database.execute(
                    "INSERT INTO commands(id, begun_ms) VALUES (?, ?)", (key, wall_ms)
                )
                self._database.execute(
                    "DELETE FROM commands WHERE number <= (SELECT max(number) FROM commands) - ?",
                    (self._kept,),
                )
        return ""

    def finish(self, key: str, result: bytes) -> None:
        """Note what was answered.

        Raises:
            AgentError: that could not be noted.
        """
        with self._lock, _told(), self._database:
            self._database.execute("UPDATE commands SET result = ? WHERE id = ?", (result, key))

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def __enter__(self) -> CommandRecord:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _open(path: Path, wall_ms: int) -> sqlite3.Connection:
    database = sqlite3.connect(path, check_same_thread=False)
    try:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        with database:
            for table in _TABLES:
                database.execute(table)
            database.execute(
                "INSERT INTO since SELECT ? WHERE NOT EXISTS (SELECT * FROM since)", (wall_ms,)
            )
    except BaseException:
        database.close()
        raise
    return database


@contextlib.contextmanager
def _told() -> Generator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise _unwritable(error) from error


def _unwritable(error: Exception) -> AgentError:
    return AgentError(
        f"The commands that were carried out cannot be noted: {error}",
        expected="a state folder that the agent may write to",
    )
