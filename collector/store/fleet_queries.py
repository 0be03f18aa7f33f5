"""What is read of the fleet as a whole: incidents, group streams, the budget, what drifts now,
retractions. Never writes."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from edgeml.collector.drift.blame import Census, Incident, Moved, incidents
from edgeml.collector.drift.budget import MS_A_DAY, Budget, Scope
from edgeml.collector.drift.ebh import e_value, ebh
from edgeml.collector.drift.groups import windows
from edgeml.collector.drift.scores import MEAN, SPREAD
from edgeml.collector.store.estimates import EVERYWHERE, estimates
from edgeml.collector.store.evaluation import LIVE_MS
from edgeml.collector.store.feedback import accuracies
from edgeml.collector.store.fleet_tables import group_alarms, groups
from edgeml.collector.store.past import decode_numbers, unpack_state
from edgeml.collector.store.rebuild import RETRACTED
from edgeml.collector.store.retraction import listed
from edgeml.collector.store.selection import StreamSelection
from edgeml.collector.store.spending import spent
from edgeml.collector.store.tables import alarms, devices, streams
from edgeml.collector.views import (
    AccuracyView,
    BudgetView,
    DriftingView,
    EstimateView,
    GroupView,
    RetractionView,
)

PAST_MS = 7 * MS_A_DAY
"""Incidents that ended longer ago are history: the alarms keep them."""

FALSE_DISCOVERIES = 0.05
"""Share of mistakes that the list of what drifts now may hold, on average."""


_SHOWN = [c for c in groups.c if c.name not in {"saved", "state"}]
"""Of groups; the rest is kilobytes of state."""


class FleetReader:
    """Reads. Safe between threads."""

    def __init__(self, engine: Engine, budget: Budget) -> None:
        self._engine = engine.execution_options(writes=False)
        self._budget = budget

    def incidents(self, *, now_ms: int, open_only: bool = False) -> list[Incident]:
        """Alarms that belong together, each with its sentence; open and widest first."""
        with self._engine.begin() as connection:
            moved = _moved_devices(connection, now_ms) + _moved_groups(connection, now_ms)
            found = incidents(moved, _census(connection, now_ms))
        return [i for i in found if i.open or not open_only]

    def groups(self) -> list[GroupView]:
        """Where each group stream stands, by model, version and site."""
        order = (groups.c.model, groups.c.version, groups.c.site, groups.c.id)
        with self._engine.begin() as connection:
            rows = connection.execute(sa.select(*_SHOWN).order_by(*order)).mappings().all()
        return [
            GroupView(
                scope=_scope(row),
                armed=row["phase"] != "collecting",
                **{n: row[n] for n in GroupView.__struct_fields__ if n in row},
            )
            for row in rows
        ]

    def budget(self, *, now_ms: int) -> BudgetView:
        """What of the alarm budget is spent in its period."""
        # A period in windows has no beginning: then all that was watched counts.
        days = self._budget.per_days if not self._budget.per_windows else now_ms / MS_A_DAY
        since_ms = now_ms - int(days * MS_A_DAY)
        with self._engine.begin() as connection:
            windows, expected = spent(connection, since_ms=since_ms)
            raised = sum(
                connection.execute(
                    sa.select(sa.func.count())
                    .select_from(table)
                    .where(table.c.opened_ms >= since_ms, table.c.reason != RETRACTED)
                ).scalar_one()
                for table in (alarms, group_alarms)
            )
        return BudgetView(
            promise=self._budget.describe(),
            allowed=self._budget.false_alarms,
            expected=expected,
            windows=windows,
            alarms=raised,
        )

    def drifting(self, *, now_ms: int) -> list[DriftingView]:
        """The list of what drifts now (e-BH at :data:`FALSE_DISCOVERIES`), the surest first, of all
        streams that share the alarm budget, those of sites and versions too: one that is silent for
        longer is not of now."""
        with self._engine.begin() as connection:
            found = _of_devices(connection, now_ms) + _of_groups(connection, now_ms)
        values = [e_value(row["evidence"], gathered) for _, row, gathered in found]
        return [
            _drifting(*found[at], values[at]) for at in map(int, ebh(values, FALSE_DISCOVERIES))
        ]

    def accuracy(self, *, by: str) -> list[AccuracyView]:
        """What labels say, see :func:`accuracies`."""
        with self._engine.begin() as connection:
            return accuracies(connection, by=by)

    def estimates(self, chosen: StreamSelection = EVERYWHERE) -> list[EstimateView]:
        """What confidences say where there are no labels, see :func:`estimates`."""
        with self._engine.begin() as connection:
            return estimates(connection, chosen)

    def retractions(self) -> list[RetractionView]:
        """All, the last one first."""
        with self._engine.begin() as connection:
            return listed(connection)


Gathering = tuple[Scope, sa.RowMapping, int]
"""Whose a stream is, its row, and the windows in which it has gathered its evidence."""


def _of_devices(connection: Connection, now_ms: int) -> list[Gathering]:
    names = ("id", "model", "version", "stream", "evidence", "windows")
    query = (
        sa.select(*(streams.c[name] for name in names), devices.c.site, devices.c.device)
        .join(devices, devices.c.id == streams.c.device_id)
        .where(streams.c.last_ms > now_ms - LIVE_MS)
    )
    return [("device", row, row["windows"]) for row in connection.execute(query).mappings()]


def _of_groups(connection: Connection, now_ms: int) -> list[Gathering]:
    found: list[Gathering] = []
    query = sa.select(groups).where(groups.c.last_ms > now_ms - LIVE_MS)
    for row in connection.execute(query).mappings():
        in_alarm = row["phase"] == "alarm"
        state = unpack_state(row["state"])
        gathered = windows(state, in_alarm=in_alarm, last_slot=row["last_slot"])
        found.append((_scope(row), row, gathered))
    return found


def _scope(group: sa.RowMapping) -> Scope:
    return "site" if group["site"] else "version"


def _drifting(scope: Scope, row: sa.RowMapping, _: int, e: float) -> DriftingView:
    names = ("id", "site", "model", "version", "stream")
    return DriftingView(
        scope=scope, device=row.get("device", ""), e_value=e, **{name: row[name] for name in names}
    )


def _recent(table: sa.Table, now_ms: int) -> Any:
    since = sa.or_(table.c.closed_ms.is_(None), table.c.closed_ms > now_ms - PAST_MS)
    return sa.and_(since, table.c.reason != RETRACTED)


def _moved_devices(connection: Connection, now_ms: int) -> list[Moved]:
    query = (
        sa.select(
            alarms, devices.c.site, devices.c.device, *(streams.c[n] for n in ("model", "version"))
        )
        .add_columns(streams.c.stream)
        .join(streams, streams.c.id == alarms.c.stream_id)
        .join(devices, devices.c.id == streams.c.device_id)
        .where(_recent(alarms, now_ms))
    )
    return [
        _moved(row, "device", row["moved"], device=row["device"])
        for row in connection.execute(query).mappings().all()
    ]


def _moved_groups(connection: Connection, now_ms: int) -> list[Moved]:
    names = ("site", "model", "version", "stream")
    query = (
        sa.select(group_alarms, *(groups.c[n] for n in names))
        .join(groups, groups.c.id == group_alarms.c.group_id)
        .where(_recent(group_alarms, now_ms))
    )
    return [_moved(row, _scope(row), row["shift"]) for row in connection.execute(query).mappings()]


def _moved(row: sa.RowMapping, scope: Any, moved: str, *, device: str = "") -> Moved:
    shift = decode_numbers(moved)
    ordered = len(shift) > SPREAD
    return Moved(
        alarm=row["id"],
        scope=scope,
        site=row["site"],
        device=device,
        model=row["model"],
        version=row["version"],
        statistic=row["stream"],
        since_ms=row["since_ms"],
        closed_ms=row["closed_ms"],
        mean=shift[MEAN] if ordered else None,
        spread=shift[SPREAD] if ordered else None,
        distance=row.get("change") or 0.0,
    )


def _census(connection: Connection, now_ms: int) -> Census:
    query = (
        sa.select(devices.c.site, devices.c.device, streams.c.model, streams.c.version)
        .join(streams, streams.c.device_id == devices.c.id)
        .where(streams.c.last_ms > now_ms - LIVE_MS)
        .distinct()
    )
    rows = connection.execute(query).all()
    sites: dict[str, set[str]] = {}
    versions: dict[tuple[str, str], set[tuple[str, str]]] = {}
    for row in rows:
        sites.setdefault(row.site, set()).add(row.device)
        versions.setdefault((row.model, row.version), set()).add((row.site, row.device))
    armed = sa.select(groups.c.model, groups.c.version, groups.c.site).where(
        groups.c.phase != "collecting", groups.c.last_ms > now_ms - LIVE_MS
    )
    watched = connection.execute(armed.distinct()).all()
    return Census(
        sites={site: len(found) for site, found in sites.items()},
        versions={version: len(found) for version, found in versions.items()},
        watched=frozenset((w.model, w.version) for w in watched if not w.site),
        watched_sites=frozenset((w.model, w.version, w.site) for w in watched if w.site),
    )
