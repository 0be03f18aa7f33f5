"""Hourly sums, gathered over a batch and written once: counts by stream, with their sums and
extremes, and requests by outcome."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from edgeml.collector.keep.places import Day, day_of, is_merged, place
from edgeml.collector.store.bulk import Bulk
from edgeml.collector.store.database import insert, upsert
from edgeml.collector.store.tables import count_rollups, outcome_rollups
from edgeml.statistics import Counts, merged, pack

Key = tuple[Any, ...]

_COUNT_KEY = ("device_id", "model", "version", "stream", "grid", "hour_ms")
_OUTCOME_KEY = ("device_id", "model", "version", "hour_ms", "outcome")
_FIND_COUNTS = sa.select(count_rollups.c.packed, count_rollups.c.windows).where(
    *(count_rollups.c[name] == sa.bindparam(name) for name in _COUNT_KEY)
)
_SAVE_COUNTS = Bulk(
    lambda connection: upsert(
        connection, count_rollups, key=_COUNT_KEY, values=("windows", "packed")
    )
)


def _add_outcomes(connection: Connection) -> sa.Executable:
    statement = insert(connection, outcome_rollups)
    total = outcome_rollups.c["count"] + statement.excluded["count"]
    return statement.on_conflict_do_update(index_elements=_OUTCOME_KEY, set_={"count": total})


_ADD_OUTCOMES = Bulk(_add_outcomes)


class _Stored(NamedTuple):
    """What the database holds of a stream's hour."""

    hour_ms: int
    counts: Counts
    windows: int


class Rollups:
    """What a batch adds."""

    def __init__(self) -> None:
        self._counts: dict[Key, tuple[Counts, int]] = {}
        self._outcomes: dict[Key, int] = {}
        self._stored: dict[Key, _Stored] = {}
        """What the database holds of each stream's last hour, as far as we wrote it."""
        self._unmerged: dict[tuple[Any, ...], Day] = {}
        """The last day of each device's model that has its hours still."""

    def forget(self) -> None:
        """Drop what was gathered, and what is remembered of the database."""
        self._clear()
        self._stored.clear()
        self._unmerged.clear()

    def forget_devices(self, device_ids: Collection[int]) -> None:
        """Drop what is remembered of the database about these devices."""
        self._stored = {key: v for key, v in self._stored.items() if key[0] not in device_ids}
        self._unmerged = {key: v for key, v in self._unmerged.items() if key[0] not in device_ids}

    def _clear(self) -> None:
        self._counts.clear()
        self._outcomes.clear()

    def add_counts(
        self,
        *,
        device_id: int,
        model: str,
        version: str,
        start_ms: int,
        windows: int,
        counts: dict[str, Counts],
    ) -> None:
        """Add a window's counts by stream, and how many windows it stands for."""
        for stream, found in counts.items():
            key = (device_id, model, version, stream, found.grid, place(start_ms))
            total, before = self._counts.get(key, (None, 0))
            added = found if total is None else total + found
            self._counts[key] = (added, windows + before)

    def add_outcomes(
        self, *, device_id: int, model: str, version: str, start_ms: int, outcomes: dict[str, int]
    ) -> None:
        """Add a window's requests."""
        for outcome, count in outcomes.items():
            key = (device_id, model, version, place(start_ms), outcome)
            self._outcomes[key] = self._outcomes.get(key, 0) + count

    def flush(self, connection: Connection) -> None:
        """Add what was gathered to what the database holds."""
        self._place(connection)
        if self._counts:
            rows = [self._merged(connection, key, *sums) for key, sums in self._counts.items()]
            _SAVE_COUNTS(connection, rows)
        outcomes = [
            {**dict(zip(_OUTCOME_KEY, key, strict=True)), "count": count}
            for key, count in self._outcomes.items()
        ]
        _ADD_OUTCOMES(connection, outcomes)
        self._clear()

    def _place(self, connection: Connection) -> None:
        """Have what lies in a day that was merged added to the day."""
        for key, (counts, windows) in list(self._counts.items()):
            if self._lies_in_day(connection, (*key[:3], key[5])):
                del self._counts[key]
                at = (*key[:5], place(key[5], is_day=True))
                total, before = self._counts.get(at, (None, 0))
                self._counts[at] = (counts if total is None else total + counts, windows + before)
        for key, count in list(self._outcomes.items()):
            if self._lies_in_day(connection, key[:4]):
                del self._outcomes[key]
                at = (*key[:3], place(key[3], is_day=True), key[4])
                self._outcomes[at] = self._outcomes.get(at, 0) + count

    def _lies_in_day(self, connection: Connection, key: Key) -> bool:
        """Whether a device, model, version and hour are of a day that was merged."""
        device_id, model, version, hour_ms = key
        day, of_model = day_of(device_id, model, version, hour_ms), (device_id, model, version)
        if self._unmerged.get(of_model) == day:
            return False
        merged = is_merged(connection, day)
        if not merged:
            self._unmerged[of_model] = day
        return merged

    def _merged(
        self, connection: Connection, key: Key, counts: Counts, windows: int
    ) -> dict[str, Any]:
        """A row with what the database holds already: vectors do not add in SQL."""
        *stream, hour_ms = key
        row: dict[str, Any] = dict(zip(_COUNT_KEY, key, strict=True))
        last = self._stored.get(tuple(stream))
        if last is not None and last.hour_ms == hour_ms:
            counts, windows = last.counts + counts, last.windows + windows
        else:
            found = connection.execute(_FIND_COUNTS, row).first()
            if found is not None:
                packed = merged(found.packed, pack(counts))
                return row | {"packed": packed, "windows": windows + found.windows}
        if last is None or last.hour_ms <= hour_ms:
            self._stored[tuple(stream)] = _Stored(hour_ms, counts, windows)
        return row | {"packed": pack(counts), "windows": windows}
