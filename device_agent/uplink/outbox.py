"""What must not be lost until it has arrived: closed windows and events, in SQLite.

A window stays until the *collector* says that it is stored, an event until the broker has it. Each
change is one transaction with ``synchronous=FULL``: a committed window survives a power cut, at the
price of one flush to the medium a window (about a millisecond on an SSD, ten to forty on an SD
card), which no request waits for.

A full outbox drops its oldest windows, and counts them: the newest say what is wrong now. A
damaged file is moved aside, and the agent goes on with an empty one.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, TypeVar

from msgspec.structs import replace

from edgeml.device_agent.uplink.delivery import Key
from edgeml.errors import AgentError, TelemetryError
from edgeml.telemetry import Event, Window, decode, encode

FILE = "outbox.sqlite"
SET_ASIDE = "outbox.damaged"
"""Where a damaged file goes; one is kept, the latest."""

_SCHEMA = 1
_TABLES = (
    """CREATE TABLE IF NOT EXISTS windows(
        id INTEGER PRIMARY KEY, boot TEXT NOT NULL, sequence INTEGER NOT NULL,
        body BLOB NOT NULL, UNIQUE(boot, sequence))""",
    "CREATE TABLE IF NOT EXISTS events(id INTEGER PRIMARY KEY AUTOINCREMENT, body BLOB NOT NULL)",
    f"PRAGMA user_version={_SCHEMA}",
)

R = TypeVar("R")


class Appended(NamedTuple):
    """A stored window's number, and how many older windows had to go for it."""

    sequence: int
    dropped: int


class Outbox:
    """Windows and events of this device, those of earlier boots among them. Thread-safe.

    Args:
        folder: the agent's state folder.
        boot: of this run; its windows are numbered from 1.
        limit_bytes: for all windows' payloads together.
        events_kept: events at most; the oldest go.

    Raises:
        AgentError: the folder cannot be written to.
    """

    def __init__(self, folder: Path, *, boot: str, limit_bytes: int, events_kept: int) -> None:
        self._path = folder / FILE
        self._boot = boot
        self._limit = limit_bytes
        self._events_kept = events_kept
        self._lock = threading.Lock()
        self._sequence = 0
        self.dropped = 0
        """Windows given up since the start."""
        self.damaged = ""
        """What was wrong with the file that was moved aside; empty where none was."""
        self._database = self._open()

    def append(self, window: Window) -> Appended:
        """Store a closed window under the next number of this boot.

        Raises:
            AgentError: the disk does not take it; the number is not used up.
        """

        def write(database: sqlite3.Connection) -> Appended:
            sequence = self._sequence + 1
            numbered = encode(replace(window, sequence=sequence, oldest=sequence))
            dropped = 0
            with database:
                database.execute(
                    "INSERT INTO windows(boot, sequence, body) VALUES (?, ?, ?)",
                    (self._boot, sequence, numbered),
                )
                dropped = self._make_room(database)
            self._sequence = sequence
            self.dropped += dropped
            return Appended(sequence, dropped)

        return self._guarded(write)

    def pending(self, limit: int = 256) -> list[Key]:
        """Stored windows, oldest first, at most ``limit``."""
        return self._guarded(
            lambda database: [
                Key(boot, sequence)
                for boot, sequence in database.execute(
                    "SELECT boot, sequence FROM windows ORDER BY id LIMIT ?", (limit,)
                )
            ]
        )

    def load(self, key: Key) -> Window | None:
        """A window as it is to be sent now; None where it went meanwhile."""

        def read(database: sqlite3.Connection) -> Window | None:
            row = database.execute(
                "SELECT body, (SELECT min(sequence) FROM windows WHERE boot = ?1) FROM windows "
                "WHERE boot = ?1 AND sequence = ?2",
                key,
            ).fetchone()
            if row is None:
                return None
            try:
                return replace(decode(row[0], Window), oldest=row[1])
            except TelemetryError:  # written by another version of edgeml: nobody reads it again
                with database:
                    database.execute("DELETE FROM windows WHERE boot = ? AND sequence = ?", key)
                return None

        return self._guarded(read)

    def stored(self, boot: str, sequence: int) -> int:
        """The collector has everything of ``boot`` up to ``sequence``: forget it."""

        def forget(database: sqlite3.Connection) -> int:
            with database:
                return database.execute(
                    "DELETE FROM windows WHERE boot = ? AND sequence <= ?", (boot, sequence)
                ).rowcount

        return self._guarded(forget)

    def add_event(self, event: Event) -> None:
        """Keep an event for the broker; the oldest go where there are too many."""

        def write(database: sqlite3.Connection) -> None:
            with database:
                database.execute("INSERT INTO events(body) VALUES (?)", (encode(event),))
                database.execute(
                    "DELETE FROM events WHERE id <= (SELECT max(id) FROM events) - ?",
                    (self._events_kept,),
                )

        self._guarded(write)

    def events(self) -> list[tuple[int, Event]]:
        """Events that the broker does not have yet, oldest first, with their ids here."""

        def read(database: sqlite3.Connection) -> list[tuple[int, Event]]:
            found: list[tuple[int, Event]] = []
            for number, body in database.execute("SELECT id, body FROM events ORDER BY id"):
                with contextlib.suppress(TelemetryError):  # as above; the bound takes it away
                    found.append((number, decode(body, Event)))
            return found

        return self._guarded(read)

    def event_sent(self, number: int) -> None:
        """The broker has taken an event."""

        def forget(database: sqlite3.Connection) -> None:
            with database:
                database.execute("DELETE FROM events WHERE id = ?", (number,))

        self._guarded(forget)

    def close(self) -> None:
        """Close the file; what is in it stays."""
        with self._lock:
            self._database.close()

    def __enter__(self) -> Outbox:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _make_room(self, database: sqlite3.Connection) -> int:
        """Within a transaction: drop the oldest until the rest fits; the newest always stays."""
        excess = database.execute("SELECT sum(length(body)) FROM windows").fetchone()[0]
        excess -= self._limit
        if excess <= 0:
            return 0
        rows: Sequence[tuple[int, int]] = database.execute(
            "SELECT id, length(body) FROM windows ORDER BY id"
        ).fetchall()
        dropped = 0
        for number, size in rows[:-1]:
            if excess <= 0:
                break
            database.execute("DELETE FROM windows WHERE id = ?", (number,))
            excess -= size
            dropped += 1
        return dropped

    def _guarded(self, work: Callable[[sqlite3.Connection], R]) -> R:
        """Do ``work`` alone; where the file turns out to be damaged, once more on a new one."""
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
    if found not in {0, _SCHEMA}:
        raise sqlite3.DatabaseError(f"it has schema {found}, not {_SCHEMA}")
    problem = database.execute("PRAGMA quick_check(1)").fetchone()[0]
    if problem != "ok":
        raise sqlite3.DatabaseError(problem)
