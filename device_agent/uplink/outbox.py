"""What must not be lost until it has arrived: closed windows and events, in SQLite.

A window *waits* without a number until it is to be sent; then it gets the next number of this boot,
for good, and stays until the *collector* says that it is stored. An event stays until the broker
has it. Each change is one transaction with ``synchronous=FULL``: what is committed survives a power
cut, at the price of one flush to the medium (about a millisecond on an SSD, ten to forty on an SD
card), which no request waits for.

A full outbox merges neighbours among the windows that wait: nobody has seen those, so nobody can
count them twice, and the number is given to the sum. Numbered windows are never merged; they are
as few as may be on their way at once. Only where nothing is left to merge do the oldest windows go,
and are counted. The file itself is :mod:`~edgeml.device_agent.uplink.outbox_file`.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from msgspec.structs import replace

from edgeml.device_agent.uplink.delivery import Key
from edgeml.device_agent.uplink.outbox_file import OutboxFile
from edgeml.device_agent.uplink.thinning import Waiting, pairs_to_merge
from edgeml.errors import TelemetryError
from edgeml.telemetry import Event, Window, decode, encode, merge, merge_key

STEPS = (
    *("append", "append: merge", "append: drop", "append: commit", "append: done"),
    *("number", "number: commit", "number: done"),
    *("stored", "stored: commit", "stored: done"),
    *("event", "event: commit", "event: done"),
)
"""Where :class:`Outbox` calls ``at``, so that a test can end or spoil it there. After "done", which
follows the commit, only the end of the process can come between it and the caller."""

_SLACK = 64
"""A full outbox is brought down by one part in so many below its limit: looking for what to merge
costs as much for one pair as for many."""

_BYTES = """SELECT (SELECT coalesce(sum(length(body)), 0) FROM windows)
                 + (SELECT coalesce(sum(size), 0) FROM waiting)"""


class Appended(NamedTuple):
    """What a stored window cost the others."""

    merged: int
    """Windows that are now part of another one."""
    dropped: int
    """Windows that had to go."""


class Filling(NamedTuple):
    """What is in an outbox."""

    waiting: int
    """Windows, merged or not, that were never sent."""
    numbered: int
    """Windows that are on their way."""
    bytes: int
    """Of all windows' payloads."""
    events: int


def _nothing(_step: str) -> None:
    """What happens at each step, but in a test."""


class Outbox:
    """Windows and events of this device, those of earlier boots among them. Thread-safe.

    Args:
        folder: the agent's state folder.
        boot: of this run; what is first sent in it is numbered from 1.
        limit_bytes: for all windows' payloads together.
        events_kept: events at most; the oldest go.
        at: called at each of :data:`STEPS`, within its transaction up to "commit".

    Raises:
        AgentError: the folder cannot be written to.
    """

    def __init__(
        self,
        folder: Path,
        *,
        boot: str,
        limit_bytes: int,
        events_kept: int,
        at: Callable[[str], None] = _nothing,
    ) -> None:
        self._file = OutboxFile(folder)
        self._boot = boot
        self.limit_bytes = limit_bytes
        """For all windows' payloads together."""
        self._events_kept = events_kept
        self._at = at
        self._sequence = 0
        self._sent_live: dict[str, int] = {}
        """The newest window of each kind that was sent as such."""
        self.merged = 0
        """Windows that became part of another one since the start."""
        self.dropped = 0
        """Windows given up since the start."""

    @property
    def damaged(self) -> str:
        """What was wrong with the file that was moved aside; empty where none was."""
        return self._file.damaged

    def append(self, window: Window) -> Appended:
        """Store a closed window; its boot and its numbers are left for later.

        Raises:
            AgentError: the disk does not take it, and nothing has changed.
        """

        def write(database: sqlite3.Connection) -> Appended:
            self._at("append")
            with database:
                _add(database, window)
                done = self._make_room(database)
                self._at("append: commit")
            self._at("append: done")
            self.merged += done.merged
            self.dropped += done.dropped
            return done

        return self._file.do(write)

    def number(self, limit: int, *, backlog: int) -> list[Key]:
        """Give windows the numbers under which they are to be sent, now and ever after: those that
        are the newest of their kind, and then some of the others, oldest first.

        Args:
            limit: windows at most.
            backlog: others at most.

        Returns:
            Their keys; :meth:`load` has the windows.
        """

        def write(database: sqlite3.Connection) -> list[Key]:
            newest = self._live(database)
            chosen = sorted(newest.values())[:limit]
            backlogged = min(backlog, limit - len(chosen))
            oldest = database.execute(
                "SELECT id FROM waiting ORDER BY id LIMIT ?", (backlogged + len(newest),)
            )
            others = [found for (found,) in oldest if found not in newest.values()]
            chosen += others[:backlogged]
            if not chosen:
                return []
            self._at("number")
            sequence, dropped = self._sequence, 0
            keys: list[Key] = []
            with database:
                for waiting in chosen:
                    window = _read(database, waiting)
                    database.execute("DELETE FROM waiting WHERE id = ?", (waiting,))
                    if window is None:
                        dropped += 1
                        continue
                    sequence += 1
                    keys.append(Key(self._boot, sequence))
                    body = replace(window, boot=self._boot, sequence=sequence, oldest=sequence)
                    database.execute(
                        "INSERT INTO windows(boot, sequence, body) VALUES (?, ?, ?)",
                        (self._boot, sequence, encode(body)),
                    )
                self._at("number: commit")
            self._sequence = sequence
            self.dropped += dropped
            self._sent_live |= {key: n for key, n in newest.items() if n in chosen}
            self._at("number: done")
            return keys

        return self._file.do(write)

    def filling(self) -> Filling:
        """What is in it."""

        def read(database: sqlite3.Connection) -> Filling:
            counts = [
                database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608
                for table in ("waiting", "windows", "events")
            ]
            return Filling(counts[0], counts[1], database.execute(_BYTES).fetchone()[0], counts[2])

        return self._file.do(read)

    def pending(self, limit: int = 256) -> list[Key]:
        """Numbered windows, in the order of their numbers, at most ``limit``."""
        return self._file.do(
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
                "SELECT body, (SELECT min(sequence) FROM windows WHERE boot = :boot) FROM windows "
                "WHERE boot = :boot AND sequence = :sequence",
                key._asdict(),
            ).fetchone()
            if row is None:
                return None
            try:
                return replace(decode(row[0], Window), oldest=row[1])
            except TelemetryError:  # written by another version of edgeml: nobody reads it again
                self._forget(database, key)
                return None

        return self._file.do(read)

    def give_up(self, key: Key) -> None:
        """Drop a numbered window: the collector will not store it."""
        self._file.do(lambda database: self._forget(database, key))

    def stored(self, boot: str, sequence: int) -> int:
        """The collector has everything of ``boot`` up to ``sequence``: forget it."""

        def forget(database: sqlite3.Connection) -> int:
            self._at("stored")
            with database:
                forgotten = database.execute(
                    "DELETE FROM windows WHERE boot = ? AND sequence <= ?", (boot, sequence)
                ).rowcount
                self._at("stored: commit")
            self._at("stored: done")
            return forgotten

        return self._file.do(forget)

    def add_event(self, event: Event) -> None:
        """Keep an event for the broker; the oldest go where there are too many."""

        def write(database: sqlite3.Connection) -> None:
            self._at("event")
            with database:
                database.execute("INSERT INTO events(body) VALUES (?)", (encode(event),))
                database.execute(
                    "DELETE FROM events WHERE id <= (SELECT max(id) FROM events) - ?",
                    (self._events_kept,),
                )
                self._at("event: commit")
            self._at("event: done")

        self._file.do(write)

    def events(self) -> list[tuple[int, Event]]:
        """Events that the broker does not have yet, oldest first, with their ids here."""

        def read(database: sqlite3.Connection) -> list[tuple[int, Event]]:
            found: list[tuple[int, Event]] = []
            for number, body in database.execute("SELECT id, body FROM events ORDER BY id"):
                with contextlib.suppress(TelemetryError):  # as above; the bound takes it away
                    found.append((number, decode(body, Event)))
            return found

        return self._file.do(read)

    def event_sent(self, number: int) -> None:
        """The broker has taken an event."""

        def forget(database: sqlite3.Connection) -> None:
            with database:
                database.execute("DELETE FROM events WHERE id = ?", (number,))

        self._file.do(forget)

    def close(self) -> None:
        """Close the file; what is in it stays."""
        self._file.close()

    def __enter__(self) -> Outbox:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _live(self, database: sqlite3.Connection) -> dict[str, int]:
        """The id of the newest waiting window by key, where no newer one was ever sent."""
        found: Iterable[tuple[str, int]] = database.execute(
            "SELECT key, max(id) FROM waiting GROUP BY key"
        )
        return {key: newest for key, newest in found if newest > self._sent_live.get(key, 0)}

    def _make_room(self, database: sqlite3.Connection) -> Appended:
        """Within a transaction: merge, and where that is not enough drop, until the rest fits. The
        newest window always stays."""
        excess = database.execute(_BYTES).fetchone()[0] - self.limit_bytes
        if excess <= 0:
            return Appended(0, 0)
        merged = 0
        excess += self.limit_bytes // _SLACK
        while excess > 0:
            rows = database.execute("SELECT id, key, duration_ms, size FROM waiting ORDER BY id")
            pairs = pairs_to_merge(map(Waiting._make, rows), excess)
            count = 0
            for first, second in pairs:
                count += _merge(database, first, second)
            if not count:
                break
            self._at("append: merge")
            merged += count
            excess = database.execute(_BYTES).fetchone()[0] - self.limit_bytes
        dropped = 0
        while database.execute(_BYTES).fetchone()[0] > self.limit_bytes:
            if not _drop_oldest(database):
                break
            self._at("append: drop")
            dropped += 1
        return Appended(merged, dropped)

    def _forget(self, database: sqlite3.Connection, key: Key) -> None:
        with database:
            database.execute("DELETE FROM windows WHERE boot = ? AND sequence = ?", key)
        self.dropped += 1


def _add(database: sqlite3.Connection, window: Window) -> None:
    body = encode(window)
    database.execute(
        "INSERT INTO waiting(key, duration_ms, size, body) VALUES (?, ?, ?, ?)",
        (merge_key(window), window.duration_ms, len(body), body),
    )


def _read(database: sqlite3.Connection, waiting: int) -> Window | None:
    """A window that waits; None where it was written by an edgeml that is too different."""
    row = database.execute("SELECT body FROM waiting WHERE id = ?", (waiting,)).fetchone()
    with contextlib.suppress(TelemetryError):
        return decode(row[0], Window)
    return None


def _merge(database: sqlite3.Connection, first: int, second: int) -> bool:
    """Put the sum of two waiting windows in the place of the first; False where that cannot be."""
    one, two = _read(database, first), _read(database, second)
    if one is None or two is None:
        return False
    try:
        total = merge(one, two)
        body = encode(total)
    except TelemetryError:  # longer than a message may be, or damaged
        return False
    database.execute(
        "UPDATE waiting SET duration_ms = ?, size = ?, body = ? WHERE id = ?",
        (total.duration_ms, len(body), body, first),
    )
    database.execute("DELETE FROM waiting WHERE id = ?", (second,))
    return True


def _drop_oldest(database: sqlite3.Connection) -> bool:
    """Drop the oldest waiting window but the newest, else the oldest numbered one; False where
    there is none."""
    for table, spared in (("waiting", 1), ("windows", 0)):
        rows = database.execute(f"SELECT id FROM {table} ORDER BY id LIMIT 2").fetchall()  # noqa: S608
        if len(rows) > spared:
            database.execute(f"DELETE FROM {table} WHERE id = ?", rows[0])  # noqa: S608
            return True
    return False
