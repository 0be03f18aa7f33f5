"""The fleet device by device: what each runs, how it stands, what became of its requests.

A fleet of a thousand devices has tens of thousands of streams, and its page is asked for again and
again: so of a stream only what tells its state is read, and of its test windows none but the last
one of a stream in alarm.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from edgeml.collector.drift.stuck import Repeats
from edgeml.collector.store.faults import refusing
from edgeml.collector.store.tables import (
    devices,
    outcome_rollups,
    streams,
    tests,
    windows,
)
from edgeml.collector.views import DeviceView, ModelView
from edgeml.decoding import from_json
from edgeml.telemetry import Reported, Status

_NOT_STUCK = '"why":""'
"""In the record of repeats of a stream that is not."""


class Standing(NamedTuple):
    """Where a stream stands, as far as its device's state goes by it."""

    model: str
    version: str
    artifact: str
    bundle: str
    stream: str
    phase: str
    reason: str
    stuck: str
    """Why it is stuck, in a sentence; empty while it is not."""
    last_ms: int
    relative_evidence: float
    """log evidence / log threshold: 0 none, 1 an alarm. An open alarm ranks above all."""


def is_last_test(last: Any) -> Any:
    """Whether a row of ``last`` (an alias of ``tests``) is the last test window of its stream."""
    other = tests.alias()
    newest = sa.select(sa.func.max(other.c.index)).where(
        other.c.stream_id == streams.c.id, other.c.rung == 1
    )
    return sa.and_(
        last.c.stream_id == streams.c.id,
        last.c.rung == 1,
        last.c.index == newest.correlate(streams).scalar_subquery(),
    )


def standings(connection: Connection, chosen: Any = None) -> list[DeviceView]:
    """Devices by site and name, but for their requests.

    Args:
        connection: to the database.
        chosen: a condition on ``devices``; None means all.
    """
    wanted = sa.true() if chosen is None else chosen
    query = sa.select(devices).where(wanted).order_by(devices.c.site, devices.c.device)
    rows = connection.execute(query).mappings().all()
    of_device = _standings(connection, wanted)
    silent = [row["id"] for row in rows if row["id"] not in of_device]
    last = _last_models(connection, silent)
    judged = {number: max(s.last_ms for s in found) for number, found in of_device.items()}
    refused = refusing(connection, judged)
    views: list[DeviceView] = []
    for row in rows:
        number = row["id"]
        view = _view(row, of_device.get(number, []), last.get(number))
        if number in refused and view.state != "alarm":
            view = msgspec.structs.replace(view, state="refused", reason=refused[number])
        views.append(view)
    return views


def with_outcomes(
    connection: Connection, views: Sequence[DeviceView], *, recent_ms: int
) -> list[DeviceView]:
    """Devices with their requests by what became of them: all, and those since the hour in which
    ``recent_ms`` lies has begun."""
    table = outcome_rollups
    recent = sa.case((table.c.hour_ms >= recent_ms, table.c["count"]), else_=0)
    query = (
        sa.select(devices.c.site, devices.c.device, table.c.outcome)
        .add_columns(sa.func.sum(table.c["count"]), sa.func.sum(recent))
        .join(devices, devices.c.id == table.c.device_id)
        .group_by(devices.c.site, devices.c.device, table.c.outcome)
    )
    if len(views) <= 100:  # of more, SQLite reads all as fast
        names = [(view.site, view.device) for view in views]
        query = query.where(sa.tuple_(devices.c.site, devices.c.device).in_(names))
    found: dict[tuple[str, str], tuple[dict[str, int], dict[str, int]]] = {}
    for site, device, outcome, total, lately in connection.execute(query):
        ever, now = found.setdefault((site, device), ({}, {}))
        ever[outcome] = int(total)
        if lately:
            now[outcome] = int(lately)
    nothing: tuple[dict[str, int], dict[str, int]] = ({}, {})
    return [
        msgspec.structs.replace(view, outcomes=ever, recent_outcomes=now)
        for view in views
        for ever, now in [found.get((view.site, view.device), nothing)]
    ]


def _standings(connection: Connection, wanted: Any) -> dict[int, list[Standing]]:
    """Of all streams of the devices that are meant, by device."""
    names = ("model", "version", "artifact", "bundle", "stream", "phase", "reason", "stuck")
    last = tests.alias()
    query = (
        sa.select(streams.c.device_id, *(streams.c[name] for name in names))
        .add_columns(streams.c.last_ms, streams.c.evidence, streams.c.threshold, last.c.excess_js)
        .join(devices, devices.c.id == streams.c.device_id)
        .outerjoin(last, sa.and_(streams.c.phase == "alarm", is_last_test(last)))
        .where(wanted)
        .order_by(streams.c.model, streams.c.id)
    )
    found: dict[int, list[Standing]] = {}
    for row in connection.execute(query):
        calm = row.phase != "alarm"
        near = relative(row.evidence, row.threshold) if calm else 1.0 + (row.excess_js or 0.0)
        standing = Standing(
            model=row.model,
            version=row.version,
            artifact=row.artifact,
            bundle=row.bundle,
            stream=row.stream,
            phase=row.phase,
            reason=row.reason,
            stuck="" if row.stuck == "{}" or _NOT_STUCK in row.stuck else _why(row.stuck),
            last_ms=row.last_ms,
            relative_evidence=near,
        )
        found.setdefault(row.device_id, []).append(standing)
    return found


def _why(stuck: str) -> str:
    return from_json(stuck, Repeats).why


def relative(evidence: float, threshold: float) -> float:
    """log evidence / log threshold, at least 0."""
    if evidence <= 1 or threshold <= 1:
        return 0.0
    return math.log(evidence) / math.log(threshold)


def _last_models(connection: Connection, silent: Iterable[int]) -> dict[int, ModelView]:
    """What the last windows of devices were of, that have no streams."""
    last = (
        sa.select(sa.func.max(windows.c.id))
        .where(windows.c.device_id.in_(silent))
        .group_by(windows.c.device_id)
    )
    rows = connection.execute(sa.select(windows).where(windows.c.id.in_(last))).mappings()
    return {
        row["device_id"]: ModelView(
            name=row["model"],
            version=row["version"],
            bundle=row["bundle"],
            artifact=row["artifact"],
        )
        for row in rows
    }


def _view(row: sa.RowMapping, streams: Sequence[Standing], last: ModelView | None) -> DeviceView:
    status = from_json(row["status"], Status) if row["status"] else None
    reported = from_json(row["reported"], Reported) if row["reported"] else None
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
    if not models and streams:
        newest = max(streams, key=lambda s: s.last_ms)
        models = [
            ModelView(
                name=newest.model,
                version=newest.version,
                bundle=newest.bundle,
                artifact=newest.artifact,
            )
        ]
    if not models and last is not None:
        models = [last]
    current = {(m.name, m.version, m.artifact) for m in models}
    live = [s for s in streams if (s.model, s.version, s.artifact) in current] or streams
    state, reason = _state(live)
    ranked = [s for s in live if s.phase != "collecting"]
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
        outcomes={},
        recent_outcomes={},
        state=state,
        reason=reason,
        streams=len(live),
        armed=len(ranked),
        alarms=sum(s.phase == "alarm" for s in live),
        worst=worst.stream if worst else "",
        worst_relative_evidence=worst.relative_evidence if worst else None,
    )


def _state(streams: Sequence[Standing]) -> tuple[str, str]:
    """One word for a device, and why."""
    in_alarm = [s.stream for s in streams if s.phase == "alarm"]
    if in_alarm:
        return "alarm", f"drift in {', '.join(in_alarm)}"
    stuck = [s for s in streams if s.stuck]
    if stuck:
        return "stuck", f"{_first(stuck)}: {stuck[0].stuck}"
    if not streams:
        return "unknown", "no statistics yet, or their bundle is not known here"
    unarmed = [s for s in streams if s.phase == "collecting"]
    if not unarmed:
        return "armed", ""
    why = f"{_first(unarmed)}: {unarmed[0].reason}"
    # A few statistics that are not watched do not make a device that is not.
    return ("armed" if 4 * len(unarmed) <= len(streams) else "not armed"), why


def _first(found: Sequence[Standing]) -> str:
    """One statistic by its name, and how many more."""
    return found[0].stream + (f" and {len(found) - 1} more" if len(found) > 1 else "")
