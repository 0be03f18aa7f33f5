"""Old windows to one that stands for them all: counts and requests add, exactly.

What comes out is a window like one that a device merged before it sent it, marked with the time
that it stands for. Only windows of one boot, artifact, bundle and state (retracted, refused) are
merged, so that a firmware, or a retraction, is told apart as before. Windows stay as they are while
anything hangs on each of them: test windows of a reference, a bundle that is awaited, a boot of
which not all has come.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from edgeml.collector.keep.places import Day
from edgeml.collector.store.evaluation import Evaluator
from edgeml.collector.store.tables import boots, counts, tests, unjudged, windows
from edgeml.decoding import from_json
from edgeml.errors import CollectorError
from edgeml.statistics import Counts, Grid, pack, unpack

_ALIKE = ("boot", "artifact", "bundle", "baseline", "refused", "retraction_id")
_SUMMED = ("duration_ms", "rows", "merged")
AT_ONCE = 256
"""Windows that are merged in one go: a device may have sent thousands in an hour."""


def due(day: Day, start_ms: int, span_ms: int, before_ms: int) -> Any:
    """A condition on ``windows``: those of a model that began in a span and came in by then, with
    those that are merged so far."""
    return sa.and_(
        windows.c.device_id == day.device_id,
        windows.c.model == day.model,
        windows.c.version == day.version,
        windows.c.start_ms.between(start_ms, start_ms + span_ms - 1),
        sa.or_(windows.c.received_ms < before_ms, windows.c.resolution_ms == span_ms),
        windows.c.resolution_ms <= span_ms,
    )


def drop_tests(connection: Connection, of_windows: Any, *, kept: int) -> None:
    """Delete the test windows of windows, but for those of the newest ``kept`` of their stream:
    streams learn from them."""
    other = tests.alias()
    newest = (
        sa.select(sa.func.max(other.c.index))
        .where(other.c.stream_id == tests.c.stream_id, other.c.rung == 1)
        .correlate(tests)
        .scalar_subquery()
    )
    meant = sa.select(windows.c.id).where(of_windows)
    old = tests.c.index + tests.c.rung <= newest + 1 - kept
    connection.execute(sa.delete(tests).where(tests.c.window_id.in_(meant), old))


def merge(
    connection: Connection, evaluator: Evaluator, of_windows: Any, start_ms: int, span_ms: int
) -> tuple[int, bool]:
    """Merge windows that lie in a span, as far as that can be done, :data:`AT_ONCE` at most.

    Returns:
        Windows that there are fewer of now, and whether more may be to do.
    """
    settled = sa.and_(
        boots.c.device_id == windows.c.device_id,
        boots.c.boot == windows.c.boot,
        boots.c.through >= windows.c.sequence,
    )
    tested = sa.exists(sa.select(tests.c.window_id).where(tests.c.window_id == windows.c.id))
    query = sa.select(windows).join(boots, settled)
    # Those first that are not merged yet: with each go there are fewer of them.
    order = (windows.c.resolution_ms, windows.c.id)
    query = query.where(of_windows, windows.c.evaluated, ~tested).order_by(*order).limit(AT_ONCE)
    found = connection.execute(query).mappings().all()
    alike: dict[tuple[Any, ...], list[sa.RowMapping]] = {}
    for row in found:
        alike.setdefault(tuple(row[name] for name in _ALIKE), []).append(row)
    fewer = 0
    for rows in alike.values():
        if len(rows) > 1 or rows[0]["resolution_ms"] < span_ms:
            _replace(connection, evaluator, rows, start_ms, span_ms)
            fewer += len(rows) - 1
    went_on = fewer > 0 or (len(found) > 0 and found[0]["resolution_ms"] < span_ms)
    return fewer, len(found) == AT_ONCE and went_on


def _replace(
    connection: Connection,
    evaluator: Evaluator,
    rows: Sequence[sa.RowMapping],
    start_ms: int,
    span_ms: int,
) -> None:
    ids = sorted(row["id"] for row in rows)
    outcomes: Counter[str] = Counter()
    for row in rows:
        outcomes.update(from_json(row["outcomes"]))
    sums = _sums(connection, evaluator, ids, rows[0]["bundle"])
    delete(connection, windows.c.id.in_(ids))
    sequence = max(row["sequence"] for row in rows)
    whole: dict[str, Any] = {
        **rows[0],
        **{name: sum(row[name] for row in rows) for name in _SUMMED},
        "id": ids[-1],  # windows are in the order in which they came
        "sequence": sequence,
        "start_ms": start_ms,
        "received_ms": max(row["received_ms"] for row in rows),
        "outcomes": msgspec.json.encode(outcomes).decode(),
        "resolution_ms": span_ms,
    }
    connection.execute(sa.insert(windows).values(**whole))
    packed = [
        {"window_id": ids[-1], "place": place, "packed": pack(total)}
        for place, total in sums.items()
    ]
    if packed:
        connection.execute(sa.insert(counts), packed)
    boot = sa.update(boots).filter_by(device_id=whole["device_id"], boot=whole["boot"])
    connection.execute(boot.where(boots.c.merged < sequence).values(merged=sequence))


def _sums(
    connection: Connection, evaluator: Evaluator, ids: Sequence[int], bundle: str
) -> Mapping[int, Counts]:
    """The sum of windows' counts, by place."""
    known = evaluator.baseline(connection, bundle)
    grids: list[Grid] = []
    if known is not None:
        grids += (stream.grid for stream in known.streams.values())
    query = sa.select(counts.c.place, counts.c.packed).where(counts.c.window_id.in_(ids))
    total: dict[int, Counts] = {}
    for place, packed in connection.execute(query):
        if place >= len(grids):
            raise CollectorError(
                f"windows of the bundle {bundle[:12]} have {place + 1} statistics or more",
                expected=f"the {len(grids)} of its baseline",
            )
        found = unpack(packed, grids[int(place)])
        total[place] = total[place] + found if place in total else found
    return total


def delete(connection: Connection, condition: Any) -> int:
    """Delete windows with their counts; how many."""
    meant = sa.select(windows.c.id).where(condition)
    for table in (counts, unjudged):
        connection.execute(sa.delete(table).where(table.c.window_id.in_(meant)))
    return connection.execute(sa.delete(windows).where(condition)).rowcount
