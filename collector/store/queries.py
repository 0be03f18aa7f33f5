"""What is read from the database, for the API and the pages. Never writes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from edgeml.collector.drift.saved import Saved
from edgeml.collector.drift.stuck import Repeats
from edgeml.collector.keep.rule import DAY_MS, HOUR_MS, Kept, Rule
from edgeml.collector.keep.trim import file_size
from edgeml.collector.store.faults import STREAM, faults, unjudged_windows
from edgeml.collector.store.histograms import two_baselines
from edgeml.collector.store.overview import is_last_test, standings, with_outcomes
from edgeml.collector.store.packing import unpack
from edgeml.collector.store.tables import (
    alarms,
    bundles,
    count_rollups,
    devices,
    events,
    streams,
    tests,
    windows,
)
from edgeml.collector.store.unjudged import may_wait
from edgeml.collector.views import (
    AlarmView,
    BundleView,
    DeviceView,
    EventView,
    FaultView,
    Histogram,
    KeptView,
    Point,
    StreamView,
)
from edgeml.decoding import from_json, from_msgpack
from edgeml.statistics import Baseline
from edgeml.statistics import unpack as unpack_counts

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
        return self.with_outcomes(self.standings(), now_ms=now_ms)

    def device(self, site: str, device: str, *, now_ms: int) -> DeviceView | None:
        """One of them; None where nobody has heard of it."""
        of_it = sa.and_(devices.c.site == site, devices.c.device == device)
        with self._engine.begin() as connection:
            found = standings(connection, of_it)
        return self.with_outcomes(found, now_ms=now_ms)[0] if found else None

    def standings(self) -> list[DeviceView]:
        """The fleet, by site and name, without the requests of each device, which are the sum of
        all its hours."""
        with self._engine.begin() as connection:
            return standings(connection)

    def with_outcomes(self, views: Sequence[DeviceView], *, now_ms: int) -> list[DeviceView]:
        """The same devices with their requests."""
        with self._engine.begin() as connection:
            return with_outcomes(connection, views, recent_ms=now_ms - RECENT_MS)

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
            query = sa.select(streams, bundles.c.baseline).join(
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
            stream = _decoded(row.baseline).streams[row.stream]
            lately = _lately(connection, row) if stream.grid.kind == "categorical" else None
        past = np.asarray(from_msgpack(row.saved, Saved).reference, dtype=np.int64)
        return two_baselines(
            stream,
            unpack(last),
            past,
            lately=None if lately is None else unpack_counts(lately, stream.grid),
        )

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
            .where(may_wait())
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
            EventView(details=from_json(row["details"]), **{name: row[name] for name in names})
            for row in rows
        ]

    def faults(self, *, site: str = "", device: str = "") -> list[FaultView]:
        """What was refused or could not be judged, see :func:`faults`."""
        with self._engine.begin() as connection:
            return faults(connection, site=site, device=device)

    def kept(self, rule: Rule, done: Kept) -> KeptView:
        """What is kept, and how much room it takes."""
        w = windows.c
        oldest: dict[str, int] = {}
        with self._engine.begin() as connection:
            for name, span_ms in (("windows", 0), ("hours", HOUR_MS), ("days", DAY_MS)):
                first = sa.select(sa.func.min(w.received_ms)).where(w.resolution_ms == span_ms)
                if (at_ms := connection.execute(first).scalar()) is not None:
                    oldest[name] = at_ms
            size, free = file_size(connection)
        return KeptView(
            oldest_ms=oldest,
            bytes=size,
            free_bytes=free,
            **msgspec.structs.asdict(rule),
            **msgspec.structs.asdict(done),
        )

    def _streams(
        self, connection: Connection, *, site: str = "", device: str = ""
    ) -> list[StreamView]:
        open_alarms = sa.select(alarms).where(alarms.c.closed_ms.is_(None)).subquery()
        last = tests.alias()
        failed = unjudged_windows()
        query = (
            sa.select(
                *(c for c in streams.c if c.name not in {"evidence", "threshold", "saved"}),
                devices.c.site,
                devices.c.device,
                open_alarms.c.opened_ms.label("alarm_ms"),
                # Evidence starts anew with an alarm; what raised it is what counts while it is
                # open.
                sa.func.coalesce(open_alarms.c.evidence, streams.c.evidence).label("evidence"),
                sa.func.coalesce(open_alarms.c.threshold, streams.c.threshold).label("threshold"),
                *(last.c[name].label(f"last_{name}") for name in _LAST),
                sa.func.coalesce(failed.c.windows, 0).label("unjudged"),
            )
            .join(devices, devices.c.id == streams.c.device_id)
            .outerjoin(last, is_last_test(last))
            .outerjoin(open_alarms, open_alarms.c.stream_id == streams.c.id)
            .outerjoin(failed, sa.and_(*(failed.c[n] == streams.c[n] for n in STREAM)))
            .order_by(devices.c.site, devices.c.device, streams.c.model, streams.c.id)
        )
        rows = connection.execute(_of_device(query, site, device)).mappings()
        return [_stream(dict(row)) for row in rows]


def _lately(connection: Connection, stream: sa.Row[Any]) -> bytes | None:
    """A stream's counts of the last hour or day that has some."""
    of = ("device_id", "model", "version", "stream", "grid")
    query = sa.select(count_rollups.c.packed).where(
        *(count_rollups.c[name] == getattr(stream, name) for name in of)
    )
    return connection.execute(query.order_by(count_rollups.c.hour_ms.desc()).limit(1)).scalar()


@lru_cache(maxsize=8)
def _decoded(baseline: bytes) -> Baseline:
    """Of a bundle, which all cards of a page are of."""
    return Baseline.decode(baseline)


def _of_device(query: Any, site: str, device: str) -> Any:
    if site:
        query = query.where(devices.c.site == site)
    return query.where(devices.c.device == device) if device else query


def _stream(row: dict[str, Any]) -> StreamView:
    tested = row["last_js"] is not None
    row["stuck"] = from_json(row["stuck"], Repeats).why
    values = {name: row[name] for name in StreamView.__struct_fields__ if name in row}
    last = {name: row[f"last_{name}"] for name in _LAST}
    return StreamView(
        **values,
        armed=row["phase"] != "collecting",
        last=last if tested else None,
    )
