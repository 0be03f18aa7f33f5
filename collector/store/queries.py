"""What is read from the database, for the API and the pages. Never writes."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from edgeml.collector.drift.saved import Saved
from edgeml.collector.drift.stuck import Repeats
from edgeml.collector.store.histograms import two_baselines
from edgeml.collector.store.packing import unpack
from edgeml.collector.store.tables import (
    alarms,
    bundles,
    devices,
    events,
    outcome_rollups,
    streams,
    tests,
    windows,
)
from edgeml.collector.views import (
    AlarmView,
    BundleView,
    DeviceView,
    EventView,
    Histogram,
    ModelView,
    Point,
    StreamView,
)
from edgeml.statistics import Baseline
from edgeml.telemetry import Reported, Status

RECENT_MS = 3_600_000
"""Outcomes of the last hour are shown beside those of all time."""


_LAST = (
    *("excess_js", "js", "psi", "w1", "ks", "chi2", "dof", "p", "n", "m", "effect", "detectable"),
    *("mean", "start_ms"),
)
"""What is shown of a stream's last test window."""


class Reader:
    """Reads. Safe between threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine.execution_options(writes=False)

    def devices(self, *, now_ms: int) -> list[DeviceView]:
        """The fleet, by site and name."""
        with self._engine.begin() as connection:
            rows = connection.execute(
                sa.select(devices).order_by(devices.c.site, devices.c.device)
            ).mappings()
            found = [dict(row) for row in rows]
            outcomes = self._outcomes(connection, None)
            recent = self._outcomes(connection, now_ms - RECENT_MS)
            per_device: dict[tuple[str, str], list[StreamView]] = {}
            for view in self._streams(connection):
                per_device.setdefault((view.site, view.device), []).append(view)
            last = self._last_models(connection)
        return [
            _device(
                row,
                outcomes=outcomes.get(row["id"], {}),
                recent=recent.get(row["id"], {}),
                streams=per_device.get((row["site"], row["device"]), []),
                last=last.get(row["id"]),
            )
            for row in found
        ]

    def streams(self, *, site: str = "", device: str = "") -> list[StreamView]:
        """Where each stream of the fleet, or of a device, stands."""
        with self._engine.begin() as connection:
            return self._streams(connection, site=site, device=device)

    def history(self, stream_id: int, *, limit: int = 500) -> list[Point]:
        """The last test windows of a stream, oldest first."""
        query = (
            sa.select(tests)
            .where(tests.c.stream_id == stream_id, tests.c.rung == 1)
            .order_by(tests.c.index.desc())
            .limit(limit)
        )
        with self._engine.begin() as connection:
            rows = list(connection.execute(query).mappings())
        return [
            Point(**{name: row[name] for name in Point.__struct_fields__}) for row in reversed(rows)
        ]

    def histogram(self, stream_id: int) -> Histogram | None:
        """A stream's last test window beside its two baselines; None before there is one."""
        with self._engine.begin() as connection:
            query = sa.select(streams.c.stream, streams.c.saved, bundles.c.baseline).join(
                bundles, bundles.c.sha256 == streams.c.bundle
            )
            row = connection.execute(query.where(streams.c.id == stream_id)).first()
            last = connection.execute(
                sa.select(tests.c.cells)
                .where(tests.c.stream_id == stream_id, tests.c.rung == 1)
                .order_by(tests.c.index.desc())
                .limit(1)
            ).scalar()
        if row is None or row.baseline is None or last is None:
            return None
        stream = Baseline.decode(row.baseline).streams[row.stream]
        saved = msgspec.msgpack.decode(row.saved, type=Saved)
        return two_baselines(stream, unpack(last), np.asarray(saved.reference, dtype=np.int64))

    def alarms(
        self, *, open_only: bool = False, site: str = "", device: str = ""
    ) -> list[AlarmView]:
        """Alarms, the first one first."""
        query = (
            sa.select(
                alarms,
                devices.c.site,
                devices.c.device,
                *(streams.c[n] for n in ("model", "version", "artifact", "stream")),
            )
            .join(streams, streams.c.id == alarms.c.stream_id)
            .join(devices, devices.c.id == streams.c.device_id)
            .order_by(alarms.c.opened_ms, alarms.c.id)
        )
        if open_only:
            query = query.where(alarms.c.closed_ms.is_(None))
        query = _of_device(query, site, device)
        with self._engine.begin() as connection:
            rows = list(connection.execute(query).mappings())
        names = [
            n for n in AlarmView.__struct_fields__ if n not in {"effect", "effect_name", "open"}
        ]
        return [
            AlarmView(
                effect=row["change"],
                open=row["closed_ms"] is None,
                **{name: row[name] for name in names},
            )
            for row in rows
        ]

    def bundles(self) -> list[BundleView]:
        """Known bundles, and those that windows wait for."""
        waiting = (
            sa.select(
                windows.c.bundle,
                windows.c.model,
                windows.c.version,
                sa.func.count().label("waiting"),
            )
            .where(windows.c.evaluated.is_(False))
            .group_by(windows.c.bundle, windows.c.model, windows.c.version)
        )
        with self._engine.begin() as connection:
            known = (
                connection.execute(sa.select(bundles).order_by(bundles.c.added_ms)).mappings().all()
            )
            missing = connection.execute(waiting).mappings().all()
        count = {row["bundle"]: row["waiting"] for row in missing}
        found = [
            BundleView(
                sha256=row["sha256"],
                name=row["name"],
                version=row["version"],
                known=True,
                added_ms=row["added_ms"],
                streams=len(Baseline.decode(row["baseline"]).streams) if row["baseline"] else 0,
                waiting=count.pop(row["sha256"], 0),
            )
            for row in known
        ]
        unknown = [row for row in missing if row["bundle"] in count]
        return found + [
            BundleView(
                sha256=row["bundle"],
                name=row["model"],
                version=row["version"],
                known=False,
                waiting=row["waiting"],
            )
            for row in unknown
        ]

    def events(self, *, site: str = "", device: str = "", limit: int = 50) -> list[EventView]:
        """The last events, newest first."""
        query = (
            sa.select(events, devices.c.site, devices.c.device)
            .join(devices, devices.c.id == events.c.device_id)
            .order_by(events.c.received_ms.desc(), events.c.id.desc())
            .limit(limit)
        )
        with self._engine.begin() as connection:
            rows = list(connection.execute(_of_device(query, site, device)).mappings())
        names = [name for name in EventView.__struct_fields__ if name != "details"]
        return [
            EventView(
                details=msgspec.json.decode(row["details"]), **{name: row[name] for name in names}
            )
            for row in rows
        ]

    def _streams(
        self, connection: Connection, *, site: str = "", device: str = ""
    ) -> list[StreamView]:
        latest = (
            sa.select(tests.c.stream_id, sa.func.max(tests.c.index).label("index"))
            .where(tests.c.rung == 1)
            .group_by(tests.c.stream_id)
            .subquery()
        )
        open_alarms = sa.select(alarms).where(alarms.c.closed_ms.is_(None)).subquery()
        last = tests.alias()
        query = (
            sa.select(
                *(c for c in streams.c if c.name not in {"evidence", "threshold"}),
                devices.c.site,
                devices.c.device,
                open_alarms.c.opened_ms.label("alarm_ms"),
                # Evidence starts anew with an alarm; what raised it is what counts while it is
                # open.
                sa.func.coalesce(open_alarms.c.evidence, streams.c.evidence).label("evidence"),
                sa.func.coalesce(open_alarms.c.threshold, streams.c.threshold).label("threshold"),
                *(last.c[name].label(f"last_{name}") for name in _LAST),
            )
            .join(devices, devices.c.id == streams.c.device_id)
            .outerjoin(latest, latest.c.stream_id == streams.c.id)
            .outerjoin(
                last,
                sa.and_(
                    last.c.stream_id == latest.c.stream_id,
                    last.c.rung == 1,
                    last.c.index == latest.c.index,
                ),
            )
            .outerjoin(open_alarms, open_alarms.c.stream_id == streams.c.id)
            .order_by(devices.c.site, devices.c.device, streams.c.model, streams.c.id)
        )
        rows = connection.execute(_of_device(query, site, device)).mappings()
        return [_stream(dict(row)) for row in rows]

    def _outcomes(self, connection: Connection, since_ms: int | None) -> dict[int, dict[str, int]]:
        table = outcome_rollups
        query = sa.select(table.c.device_id, table.c.outcome, sa.func.sum(table.c["count"]))
        if since_ms is not None:
            query = query.where(table.c.hour_ms >= since_ms)
        result: dict[int, dict[str, int]] = {}
        for device, outcome, count in connection.execute(
            query.group_by(table.c.device_id, table.c.outcome)
        ):
            result.setdefault(device, {})[outcome] = int(count)
        return result

    def _last_models(self, connection: Connection) -> dict[int, sa.RowMapping]:
        last = sa.select(sa.func.max(windows.c.id)).group_by(windows.c.device_id)
        rows = connection.execute(sa.select(windows).where(windows.c.id.in_(last))).mappings()
        return {row["device_id"]: row for row in rows}


def _of_device(query: Any, site: str, device: str) -> Any:
    if site:
        query = query.where(devices.c.site == site)
    return query.where(devices.c.device == device) if device else query


def _stream(row: dict[str, Any]) -> StreamView:
    tested = row["last_js"] is not None
    row["stuck"] = msgspec.json.decode(row["stuck"], type=Repeats).why
    values = {name: row[name] for name in StreamView.__struct_fields__ if name in row}
    last = {name: row[f"last_{name}"] for name in _LAST}
    return StreamView(
        **values,
        armed=row["phase"] != "collecting",
        last=last if tested else None,
    )


def _device(
    row: dict[str, Any],
    *,
    outcomes: dict[str, int],
    recent: dict[str, int],
    streams: list[StreamView],
    last: sa.RowMapping | None,
) -> DeviceView:
    status = msgspec.json.decode(row["status"], type=Status) if row["status"] else None
    reported = msgspec.json.decode(row["reported"], type=Reported) if row["reported"] else None
    models: list[ModelView] = []
    if reported is not None:
        models = [
            ModelView(
                name=m.name,
                version=m.version,
                bundle=m.bundle,
                artifact=m.artifact,
                phase=m.phase,
                error=m.error,
                memory_limit=m.memory_limit,
                building=m.building,
            )
            for m in reported.models
        ]
    elif status is not None:
        models = [
            ModelView(name=m.name, version=m.version, bundle=m.bundle, artifact=m.artifact)
            for m in status.models
        ]
    if not models and last is not None:
        models = [
            ModelView(
                name=last["model"],
                version=last["version"],
                bundle=last["bundle"],
                artifact=last["artifact"],
            )
        ]
    current = {(m.name, m.version, m.artifact) for m in models}
    live = [s for s in streams if (s.model, s.version, s.artifact) in current] or streams
    state, reason = _state(live)
    ranked = [s for s in live if s.armed]
    worst = max(ranked, key=lambda s: s.relative_evidence, default=None)
    return DeviceView(
        site=row["site"],
        device=row["device"],
        first_seen_ms=row["first_seen_ms"],
        last_seen_ms=row["last_seen_ms"],
        online=row["online"],
        agent=status.agent if status else "",
        machine=status.facts.machine if status else "",
        system=status.facts.system if status else "",
        cores=status.facts.cores if status else 0,
        memory_mb=status.facts.memory_mb if status else 0,
        started_ms=status.started_ms if status else 0,
        models=models,
        outcomes=outcomes,
        recent_outcomes=recent,
        state=state,
        reason=reason,
        streams=len(live),
        armed=sum(s.armed for s in live),
        alarms=sum(s.phase == "alarm" for s in live),
        worst=worst.stream if worst else "",
        worst_relative_evidence=worst.relative_evidence if worst else None,
    )


def _state(streams: list[StreamView]) -> tuple[str, str]:
    """One word for a device, and why."""
    in_alarm = [s.stream for s in streams if s.phase == "alarm"]
    if in_alarm:
        return "alarm", f"drift in {', '.join(in_alarm)}"
    stuck = [f"{s.stream}: {s.stuck}" for s in streams if s.stuck]
    if stuck:
        more = f" (and {len(stuck) - 1} more)" if len(stuck) > 1 else ""
        return "stuck", stuck[0] + more
    if not streams:
        return "unknown", "no statistics yet, or their bundle is not known here"
    unarmed = [s for s in streams if not s.armed]
    if not unarmed:
        return "armed", ""
    more = f" (and {len(unarmed) - 1} more)" if len(unarmed) > 1 else ""
    why = f"{unarmed[0].stream}: {unarmed[0].reason}{more}"
    # A few statistics that are not watched do not make a device that is not.
    return ("armed" if 4 * len(unarmed) <= len(streams) else "not armed"), why
