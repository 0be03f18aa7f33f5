"""How much of the alarm budget is spent: the sum of expected false alarms, by day.

Every window that is watched at a threshold c is expected to raise at most 1/c false alarms, so what
is spent so far is Σ 1/c, whatever depends on what.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from edgeml.collector.drift.budget import MS_A_DAY
from edgeml.collector.store.database import insert
from edgeml.collector.store.fleet_tables import budget_days


def spend(connection: Connection, thresholds: Sequence[float], *, at_ms: int) -> None:
    """Note windows that were watched, each at its threshold."""
    if not thresholds:
        return
    statement = insert(connection, budget_days).values(
        day_ms=at_ms - at_ms % MS_A_DAY,
        windows=len(thresholds),
        expected=sum(1 / c for c in thresholds if c > 0),
    )
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["day_ms"],
            set_={
                name: budget_days.c[name] + statement.excluded[name]
                for name in ("windows", "expected")
            },
        )
    )


def spent(connection: Connection, *, since_ms: int) -> tuple[int, float]:
    """Windows watched and false alarms expected of them, at most, on the days since then."""
    query = sa.select(
        sa.func.coalesce(sa.func.sum(budget_days.c.windows), 0),
        sa.func.coalesce(sa.func.sum(budget_days.c.expected), 0.0),
    ).where(budget_days.c.day_ms >= since_ms - since_ms % MS_A_DAY)
    windows, expected = connection.execute(query).one()
    return int(windows), float(expected)
