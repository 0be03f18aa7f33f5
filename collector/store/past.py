"""The stored past of streams and groups, as the monitors ask for it; and their state as bytes."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.engine import Connection

from edgeml.collector.drift.groups import GroupSaved
from edgeml.collector.drift.monitor import Monitor
from edgeml.collector.drift.policy import RUNGS
from edgeml.collector.drift.track import Point, TrackState
from edgeml.collector.store.fleet_tables import group_points
from edgeml.collector.store.packing import unpack
from edgeml.collector.store.tables import tests
from edgeml.decoding import from_json, from_msgpack

_OF_POINT = ("index", "start_ms", "seed", "scores", "common")


def _point(row: sa.RowMapping) -> Point:
    """Of a row of ``tests``, as it went into its track."""
    return Point(
        index=row["index"],
        start_ms=row["start_ms"],
        seed=row["seed"],
        scores=decode_numbers(row["scores"]),
        common=decode_numbers(row["common"]) if row["common"] else None,
    )


class StreamPast:
    """Of one stream.

    Args:
        connection: of the transaction.
        stream_id: whose.
        unwritten: windows of a rung that are not in the database yet; None where what is there is
            not to be relied on until all is written.
        flush: writes what is known and not in the database yet.
    """

    def __init__(
        self,
        connection: Connection,
        stream_id: int,
        unwritten: Callable[[int], Sequence[Point] | None],
        flush: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._stream_id = stream_id
        self._unwritten = unwritten
        self._flush = flush

    def points(self, rung: int, limit: int) -> Sequence[Point]:
        """The last windows of a rung that are not excluded, the oldest first."""
        unwritten = self._unwritten(rung)
        if unwritten is None:
            self._flush()
        newest: Sequence[Point] = unwritten or ()
        table = tests
        query = (
            sa.select(*(table.c[name] for name in _OF_POINT))
            .where(table.c.stream_id == self._stream_id, table.c.rung == rung)
            .where(table.c.role == "reference")
            .order_by(table.c.index.desc())
            .limit(max(limit - len(newest), 0))
        )
        rows = self._connection.execute(query).mappings().all()
        return [*map(_point, reversed(rows)), *newest][-limit:]

    def cells_from(self, index: int, limit: int) -> NDArray[np.int64]:
        """Counts [windows, cells] of the last single test windows from an index on."""
        self._flush()
        query = (
            sa.select(tests.c.cells)
            .where(tests.c.stream_id == self._stream_id, tests.c.rung == 1)
            .where(tests.c.index >= index)
            .order_by(tests.c.index.desc())
            .limit(limit)
        )
        rows = [unpack(cells) for cells in self._connection.execute(query).scalars()]
        return np.array(rows, dtype=np.int64).reshape(len(rows), -1 if rows else 0)


def replay(connection: Connection, stream_id: int, monitor: Monitor) -> None:
    """Have the tracks of a monitor that was loaded take in the windows since they were stored."""
    behind = {
        length: track
        for length, track in zip(RUNGS, monitor.tracks, strict=False)
        if track.state.through is not None
    }
    if not behind:
        return
    query = (
        sa.select(tests.c.rung, *(tests.c[name] for name in _OF_POINT))
        .where(tests.c.stream_id == stream_id, tests.c.role == "reference")
        .where(
            sa.or_(
                *(
                    sa.and_(tests.c.rung == length, tests.c.index > track.state.through)
                    for length, track in behind.items()
                )
            )
        )
        .order_by(tests.c.rung, tests.c.index)
    )
    for row in connection.execute(query).mappings():
        behind[row["rung"]].replay([_point(row)])


class GroupPast:
    """Of one group."""

    def __init__(self, connection: Connection, group_id: int, flush: Callable[[], None]) -> None:
        self._connection = connection
        self._group_id = group_id
        self._flush = flush

    def points(self, limit: int) -> Sequence[Point]:
        """The last points that are not excluded, the oldest first."""
        self._flush()
        table = group_points
        query = (
            sa.select(*(table.c[name] for name in ("slot", "start_ms", "seed", "scores")))
            .where(table.c.group_id == self._group_id, table.c.role == "reference")
            .order_by(table.c.slot.desc())
            .limit(limit)
        )
        return [
            Point(
                index=row.slot,
                start_ms=row.start_ms,
                seed=row.seed,
                scores=decode_numbers(row.scores),
            )
            for row in reversed(self._connection.execute(query).all())
        ]


def blank_state(group: sa.RowMapping) -> dict[str, Any]:
    """What a group (a row of ``groups``) is set to when it starts from nothing."""
    least = from_json(group["saved"], GroupSaved).least
    return {
        "saved": msgspec.json.encode(GroupSaved(least=least)).decode(),
        "state": pack_state(TrackState()),
        "phase": "collecting",
        "reference": 0,
        "evidence": 0.0,
    }


def pack_state(state: TrackState) -> bytes:
    """A track's state; bags are mostly empty, so that it deflates well."""
    return zlib.compress(msgspec.msgpack.encode(state), 1)


def unpack_state(data: bytes) -> TrackState:
    """And back."""
    return from_msgpack(zlib.decompress(data), TrackState)


def encode_numbers(numbers: Sequence[float] | None) -> str | None:
    """As lists of numbers are stored; NaN is null."""
    return None if numbers is None else msgspec.json.encode(list(numbers)).decode()


def decode_numbers(text: str) -> list[float]:
    """And back."""
    found: list[Any] = from_json(text)
    return [float("nan") if number is None else float(number) for number in found]
