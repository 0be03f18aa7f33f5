"""Streams that start anew: from nothing, or from here on. For rebuilding and re-baselining, while
no evaluator remembers them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from edgeml.collector.drift.saved import Saved
from edgeml.collector.store.tables import streams, tests, tracks
from edgeml.decoding import from_msgpack


def empty(connection: Connection, ids: Sequence[int]) -> None:
    """As if no window had come."""
    _put(connection, ids, lambda saved: Saved(pending=_nothing(saved), reference=_nothing(saved)))


def from_here(connection: Connection, ids: Sequence[int], reason: str) -> None:
    """Reference and evidence start anew with the next window; what was stays as history."""
    _put(
        connection,
        ids,
        lambda saved: Saved(
            next_index=saved.next_index, pending=_nothing(saved), reference=_nothing(saved)
        ),
        reason,
    )
    past = sa.update(tests).where(tests.c.stream_id.in_(ids), tests.c.role == "reference")
    connection.execute(past.values(role="past"))


def _nothing(saved: Saved) -> list[int]:
    """No counts that wait for more rows, on the same grid."""
    return [0] * len(saved.pending)


def _put(
    connection: Connection,
    ids: Sequence[int],
    change: Callable[[Saved], Saved],
    reason: str = "",
) -> None:
    connection.execute(sa.delete(tracks).where(tracks.c.stream_id.in_(ids)))
    query = sa.select(streams.c.id, streams.c.saved).where(streams.c.id.in_(ids))
    for row in connection.execute(query).all():
        saved = change(from_msgpack(row.saved, Saved))
        values = {
            "saved": msgspec.msgpack.encode(saved),
            "phase": "collecting",
            "reason": reason,
            "reference": 0,
            "evidence": 0.0,
            "windows": 0,
            "offset_js": None,
            "stuck": "{}",
        }
        connection.execute(sa.update(streams).where(streams.c.id == row.id).values(**values))
