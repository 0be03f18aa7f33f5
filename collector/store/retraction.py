"""Exact retraction: windows are taken out of everything that was made of them, and put back.

Counts subtract, so the rollups are afterwards what they would be had the windows never come. The
windows themselves stay, marked; nothing is lost, and a retraction can be undone. What depends on
them in an order, the evidence of their streams, is rebuilt from the windows that are left
(:mod:`edgeml.collector.store.rebuild`). All of it is one transaction, with a row that says who did
it, when, what and why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from edgeml.collector.keep.places import Day, day_of, is_merged, place
from edgeml.collector.store.evaluation import Evaluator
from edgeml.collector.store.fleet_tables import retractions
from edgeml.collector.store.rebuild import rebuild, stored_counts
from edgeml.collector.store.selection import Selection
from edgeml.collector.store.tables import count_rollups, outcome_rollups, windows
from edgeml.collector.views import RetractionView
from edgeml.decoding import from_json
from edgeml.errors import CollectorError, StatisticsError
from edgeml.statistics import Counts, Grid, pack, unpack

Key = tuple[Any, ...]

_OUTCOME_KEY = ("device_id", "model", "version", "hour_ms", "outcome")
_COUNT_KEY = ("device_id", "model", "version", "stream", "grid", "hour_ms")
_NEEDED = ("id", "device_id", "model", "version", "start_ms", "outcomes", "rows", "merged")
_OF_VIEW = [c.name for c in retractions.c if c.name != "selection"]


def retract(
    connection: Connection,
    evaluator: Evaluator,
    selection: Selection,
    *,
    by: str,
    why: str,
    now_ms: int,
) -> RetractionView:
    """Take windows out of the rollups and the evidence, exactly.

    Raises:
        CollectorError: no window is meant, or one was never added.
    """
    found = _windows(
        connection,
        selection.windows(*windows.c).where(
            windows.c.refused.is_(None), windows.c.retraction_id.is_(None)
        ),
    )
    if not found:
        raise CollectorError(
            "no stored window is of that",
            expected="windows that count and are not retracted already",
            remedy="`edgeml fleet retractions` lists what is; times are those of the devices.",
        )
    added = sa.insert(retractions).values(
        at_ms=now_ms,
        by=by,
        why=why,
        selection=msgspec.json.encode(selection).decode(),
        windows=sum(window["merged"] for window in found),
        rows=sum(window["rows"] for window in found),
        devices=len({window["device_id"] for window in found}),
    )
    number = connection.execute(added.returning(retractions.c.id)).scalar_one()
    _mark(connection, found, number)
    _add(connection, evaluator, found, sign=-1)
    rebuild(connection, evaluator, found, now_ms=now_ms)
    whole = [window["resolution_ms"] for window in found]
    across = connection.execute(selection.across()).scalar_one()
    view = listed(connection, number)[0]
    return msgspec.structs.replace(view, resolution_ms=max(whole), across=across)


def undo(
    connection: Connection, evaluator: Evaluator, number: int, *, by: str, now_ms: int
) -> RetractionView:
    """Put back what a retraction took out.

    Raises:
        CollectorError: there is none of that number, or it is undone already.
    """
    row = connection.execute(sa.select(retractions).filter_by(id=number)).mappings().first()
    if row is None or row["undone_ms"] is not None:
        raise CollectorError(
            f"there is no retraction {number}" if row is None else f"retraction {number} is undone",
            expected="the number of one that stands",
            remedy="`edgeml fleet retractions` lists them.",
        )
    query = sa.select(*windows.c).where(windows.c.retraction_id == number)
    found = _windows(connection, query)
    if not found:
        raise CollectorError(
            f"the windows of retraction {number} are not kept any more",
            expected="a retraction that is younger than what `[keep] days_days` says",
        )
    _mark(connection, found, None)
    _add(connection, evaluator, found, sign=1)
    change = sa.update(retractions).where(retractions.c.id == number)
    connection.execute(change.values(undone_ms=now_ms, undone_by=by))
    rebuild(connection, evaluator, found, now_ms=now_ms)
    return listed(connection, number)[0]


def listed(connection: Connection, number: int | None = None) -> list[RetractionView]:
    """All retractions, or one; the last one first."""
    query = sa.select(retractions).order_by(retractions.c.id.desc())
    if number is not None:
        query = query.where(retractions.c.id == number)
    return [
        RetractionView(
            selection=from_json(row["selection"]),
            **{
                n: row[n] for n in RetractionView.__struct_fields__ if n in row and n != "selection"
            },
        )
        for row in connection.execute(query).mappings()
    ]


def _windows(connection: Connection, query: Any) -> list[sa.RowMapping]:
    return list(connection.execute(query.order_by(windows.c.id)).mappings())


def _mark(connection: Connection, found: Iterable[sa.RowMapping], number: int | None) -> None:
    change = (
        sa.update(windows)
        .where(windows.c.id == sa.bindparam("at_id"))
        .values(retraction_id=sa.bindparam("number"))
    )
    connection.execute(change, [{"at_id": w["id"], "number": number} for w in found])


def _add(
    connection: Connection, evaluator: Evaluator, found: Iterable[sa.RowMapping], *, sign: int
) -> None:
    """Add windows to the rollups, or with sign −1 take them out."""
    outcomes: Counter[Key] = Counter()
    sums: dict[Key, Counts] = {}
    merged: Counter[Key] = Counter()
    grids: dict[str, Grid] = {}
    places: dict[Day, bool] = {}
    for window in found:
        at = (window["device_id"], window["model"], window["version"])
        day = day_of(*at, window["start_ms"])
        if day not in places:
            places[day] = is_merged(connection, day)
        hour_ms = place(window["start_ms"], is_day=places[day])
        for outcome, count in from_json(window["outcomes"]).items():
            outcomes[(*at, hour_ms, outcome)] += sign * count
        if not window["evaluated"]:  # its counts were never rolled up
            continue
        known = evaluator.baseline(connection, window["bundle"])
        grids |= {s.grid.hash: s.grid for s in known.streams.values()} if known else {}
        for stream, counts in stored_counts(connection, evaluator, window).items():
            key = (*at, stream, counts.grid, hour_ms)
            sums[key] = sums[key] + counts if key in sums else counts
            merged[key] += window["merged"]
    for key, count in outcomes.items():
        _add_outcomes(connection, dict(zip(_OUTCOME_KEY, key, strict=True)), count)
    for key, counts in sums.items():
        named: dict[str, Any] = dict(zip(_COUNT_KEY, key, strict=True))
        _add_counts(connection, named, grids[counts.grid], counts, sign * merged[key])


def _add_outcomes(connection: Connection, key: dict[str, Any], count: int) -> None:
    table = outcome_rollups
    there = connection.execute(sa.select(table.c["count"]).filter_by(**key)).scalar()
    total = (there or 0) + count
    if total < 0:
        raise _negative(f"{key['outcome']} requests", total)
    _replace(connection, table, key, {"count": total}, keep=total > 0)


def _add_counts(
    connection: Connection, key: dict[str, Any], grid: Grid, counts: Counts, merged: int
) -> None:
    table = count_rollups
    row = connection.execute(sa.select(table.c.packed, table.c.windows).filter_by(**key)).first()
    there = unpack(row.packed, grid) if row is not None else Counts.zeros(grid)
    number = merged + (row.windows if row is not None else 0)
    try:
        total = there + counts if merged > 0 else there - counts
    except StatisticsError:
        number = -1
        total = there
    if number < 0:
        raise _negative(f"counts of {key['stream']}", number)
    _replace(connection, table, key, {"packed": pack(total), "windows": number}, keep=number > 0)


def _replace(
    connection: Connection,
    table: sa.Table,
    key: dict[str, Any],
    values: dict[str, Any],
    *,
    keep: bool,
) -> None:
    """A rollup of nothing is no row: as if it had never been."""
    connection.execute(sa.delete(table).filter_by(**key))
    if keep:
        connection.execute(sa.insert(table).values(**key, **values))


def _negative(what: str, least: int) -> CollectorError:
    return CollectorError(
        f"after the retraction the rollups would hold {least} {what}",
        expected="only windows that were added, each once",
        remedy="Nothing was changed. The rollups are not what the windows add up to: keep the "
        "database and report it.",
    )
