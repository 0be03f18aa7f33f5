"""Windows to evidence, inside the transaction that stores them.

Owns the monitors of all streams. They live in memory and are rebuilt from the database when first
needed, and after a transaction that failed: what they know is exactly what is committed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.engine import Connection

from edgeml.collector.drift.budget import MS_A_DAY, Budget
from edgeml.collector.drift.chi2 import chi_square
from edgeml.collector.drift.effects import effects, excess_js
from edgeml.collector.drift.moments import moments
from edgeml.collector.drift.monitor import Monitor, Policy, Record, Saved, Step
from edgeml.collector.drift.peers import Device, Scores, slot_length
from edgeml.collector.drift.stuck import Repeats, watch
from edgeml.collector.store.fleet_tables import groups
from edgeml.collector.store.groups import Groups, Scored, Series, encode_scores
from edgeml.collector.store.packing import pack, unpack
from edgeml.collector.store.spending import spend
from edgeml.collector.store.tables import alarms, bundles, streams, tests
from edgeml.statistics import Baseline, Counts, Stream

Cells = NDArray[np.int64]

LIVE_MS = 30 * MS_A_DAY
"""A stream that was silent for longer has no share in the alarm budget."""


Commons = Mapping[int, Scores]
"""What the peers' scores were, by stream."""


class Arrived(msgspec.Struct, frozen=True, kw_only=True):
    """A stored window whose counts fit its bundle."""

    window_id: int
    device_id: int
    site: str
    key: str
    """The same in every replay."""
    model: str
    version: str
    artifact: str
    bundle: str
    start_ms: int
    duration_ms: int
    merged: int
    """Windows of the device that were added up to this one."""
    received_ms: int
    counts: dict[str, Counts]
    """Of each stream of the bundle's baseline."""


class Known(msgspec.Struct, frozen=True):
    """The baseline of a bundle; one without statistics has no streams and no hash."""

    hash: str
    streams: dict[str, Stream]


_ADD_TESTS = sa.insert(tests)
_CHANGE_TESTS = (
    sa.update(tests)
    .where(
        tests.c.stream_id == sa.bindparam("at_stream"), tests.c.index == sa.bindparam("at_index")
    )
    .values({name: sa.bindparam(name) for name in ("role", "distance", "mean")})
)
_CHANGE_STREAMS = (
    sa.update(streams)
    .where(streams.c.id == sa.bindparam("at_stream"))
    .values(
        {
            name: sa.bindparam(name)
            for name in (
                *("saved", "phase", "reason", "reference", "offset_js"),
                *("evidence", "threshold", "last_ms", "stuck"),
            )
        }
    )
)
_CLOSE_ALARM = (
    sa.update(alarms)
    .where(alarms.c.stream_id == sa.bindparam("at_stream"), alarms.c.closed_ms.is_(None))
    .values(closed_ms=sa.bindparam("at_ms"))
)


class _Known(msgspec.Struct):
    stream_id: int
    monitor: Monitor
    offset_js: float | None = None
    threshold: float = 0.0
    last_ms: int = 0
    repeats: Repeats = msgspec.field(default_factory=Repeats)


class Evaluator:
    """Feeds windows to the monitors of their streams. One thread only.

    What it learns goes to the database when the batch is complete (:meth:`flush`), in few
    statements of many rows each.
    """

    def __init__(self, policy: Policy, budget: Budget) -> None:
        self._policy = policy
        self._budget = budget
        self.groups = Groups(policy)
        self._known: dict[tuple[object, ...], _Known] = {}
        self._baselines: dict[str, Known] = {}
        self._live = 0
        self._changed: dict[int, _Known] = {}
        self._added: dict[tuple[int, int], dict[str, Any]] = {}
        self._updated: list[dict[str, Any]] = []
        self._watched: list[float] = []
        self._alarms: list[tuple[sa.Executable, dict[str, Any]]] = []

    def forget(self) -> None:
        """Drop what is in memory: a transaction failed, and the database knows better."""
        for held in (self._known, self._baselines, self._changed, self._added):
            held.clear()
        self._updated.clear()
        self._alarms.clear()
        self._watched.clear()
        self.groups.forget()

    def baseline(self, connection: Connection, bundle: str) -> Known | None:
        """The baseline of a bundle; None where the bundle is unknown."""
        if bundle not in self._baselines:
            query = sa.select(bundles.c.baseline).where(bundles.c.sha256 == bundle)
            row = connection.execute(query).first()
            if row is None:  # it may come any moment: not remembered
                return None
            found = Baseline.decode(row[0]) if row[0] else None
            self._baselines[bundle] = Known(found.hash, found.streams) if found else Known("", {})
        return self._baselines[bundle]

    def count_live(self, connection: Connection, now_ms: int) -> None:
        """Count the streams that share the budget; once a batch is enough."""
        self._live = sum(
            connection.execute(
                sa.select(sa.func.count()).where(table.c.last_ms > now_ms - LIVE_MS)
            ).scalar_one()
            for table in (streams, groups)
        )

    def evaluate(
        self, connection: Connection, window: Arrived, *, replay: Commons | None = None
    ) -> None:
        """Compare a window with its baseline, stream by stream.

        Args:
            connection: of the transaction.
            window: a stored one.
            replay: where streams are rebuilt, what peers' scores were when the window first came,
                by stream; its peers have seen it already, and its budget is spent.
        """
        known = self.baseline(connection, window.bundle) or Known("", {})
        for name, counts in window.counts.items():
            self._evaluate_stream(connection, window, known.streams[name], counts, replay)

    def flush(self, connection: Connection) -> None:
        """Write what came of the windows since the last time."""
        watched = self._watched + self.groups.watched()
        now_ms = max((known.last_ms for known in self._changed.values()), default=0)
        spend(connection, watched, at_ms=now_ms)
        self.groups.flush(connection)
        if self._added:
            connection.execute(_ADD_TESTS, list(self._added.values()))
        if self._updated:
            connection.execute(_CHANGE_TESTS, self._updated)
        for statement, values in self._alarms:
            connection.execute(statement, values)
        if self._changed:
            connection.execute(_CHANGE_STREAMS, [_state(k) for k in self._changed.values()])
        self._changed.clear()
        self._added.clear()
        self._updated.clear()
        self._alarms.clear()
        self._watched.clear()

    def _evaluate_stream(
        self,
        connection: Connection,
        window: Arrived,
        stream: Stream,
        counts: Counts,
        replay: Commons | None,
    ) -> None:
        known = self._stream(connection, window, stream)
        self._changed[known.stream_id] = known
        known.last_ms = window.received_ms
        known.threshold = self._budget.threshold(
            streams=max(self._live, len(self._known)),
            # A merged window is one test as any other: the budget goes by the device's windows.
            duration_ms=window.duration_ms // window.merged,
        )
        if self._is_stuck(known, window, counts):  # no drift, and no reference to anything
            return
        if replay is not None:
            self._step(known, window, stream.name, counts.cells, replay.get(known.stream_id))
            return
        series, device = _series(window, stream), Device(window.site, window.device_id)
        common = self.groups.common(connection, series, device, window.start_ms)
        record = self._step(known, window, stream.name, counts.cells, common)
        if record is not None:
            if record.evidence is not None:
                self._watched.append(known.threshold)
            scored = Scored(
                series=series,
                device=device,
                start_ms=record.start_ms,
                scores=_moments(known, record),
                received_ms=window.received_ms,
                threshold=known.threshold,
            )
            self.groups.add(connection, scored)

    def _is_stuck(self, known: _Known, window: Arrived, counts: Counts) -> bool:
        reference = known.monitor.reference_cells
        known.repeats = watch(
            known.repeats,
            counts.cells,
            reference=reference if reference.any() else known.monitor.baseline,
            start_ms=window.start_ms,
            # A run goes on from window to window: it is longer than the one that it fills.
            longest_run=int(counts.extremes[2]) if counts.extremes.size else 0,
            merged=window.merged,
        )
        return bool(known.repeats.why)

    def _step(
        self, known: _Known, window: Arrived, name: str, cells: Cells, common: Scores | None
    ) -> Record | None:
        """The test window that it completed, if it did."""
        monitor = known.monitor
        was_armed = monitor.phase != "collecting"
        step = monitor.step(
            cells,
            key=f"{window.key}/{name}",
            threshold=known.threshold,
            start_ms=window.start_ms,
        )
        self._note_records(known, window, step, common)
        if not was_armed and monitor.phase == "armed":
            known.offset_js = excess_js(monitor.reference_cells, monitor.baseline)
        if step.opened:
            self._alarms.append((sa.insert(alarms), _alarm(known, window, step)))
        if step.closed:
            values = {"at_stream": known.stream_id, "at_ms": window.received_ms}
            self._alarms.append((_CLOSE_ALARM, values))
        return step.records[-1] if step.records else None

    def _stream(self, connection: Connection, window: Arrived, stream: Stream) -> _Known:
        key = {
            "device_id": window.device_id,
            "model": window.model,
            "version": window.version,
            "artifact": window.artifact,
            "stream": stream.name,
            "grid": stream.grid.hash,
        }
        found = self._known.get(tuple(key.values()))
        if found is None:
            found = self._load(connection, key, window, stream)
            self._known[tuple(key.values())] = found
        return found

    def _load(
        self, connection: Connection, key: dict[str, Any], window: Arrived, stream: Stream
    ) -> _Known:
        baseline = stream.baseline().cells
        query = sa.select(streams.c.id, streams.c.saved, streams.c.offset_js, streams.c.stuck)
        row = connection.execute(query.filter_by(**key)).first()
        if row is not None:
            saved = msgspec.json.decode(row.saved, type=Saved)
            records = self._records(connection, row.id, saved)
            monitor = Monitor.restore(stream.grid, baseline, self._policy, saved, records)
            repeats = msgspec.json.decode(row.stuck, type=Repeats)
            return _Known(row.id, monitor, row.offset_js, repeats=repeats)
        known = _Known(0, Monitor(stream.grid, baseline, self._policy), last_ms=window.received_ms)
        values = {**key, **_state(known), "bundle": window.bundle}
        del values["at_stream"]
        added = sa.insert(streams).values(**values).returning(streams.c.id)
        known.stream_id = connection.execute(added).scalar_one()
        return known

    def _records(self, connection: Connection, stream_id: int, saved: Saved) -> list[Record]:
        recent = saved.next_index - 2 * self._policy.close_after
        query = (
            sa.select(tests)
            .where(tests.c.stream_id == stream_id, tests.c.index >= saved.first_index)
            .where(sa.or_(tests.c.role != "excluded", tests.c.index >= recent))
            .order_by(tests.c.index)
        )
        columns = [name for name in Record.__struct_fields__ if name != "cells"]
        return [
            Record(cells=unpack(row["cells"]).tolist(), **{name: row[name] for name in columns})
            for row in connection.execute(query).mappings()
        ]

    def _note_records(
        self, known: _Known, window: Arrived, step: Step, common: Scores | None
    ) -> None:
        """Note the new test window, and older ones that changed their role or score."""
        newest = known.monitor.saved.next_index - 1
        for record in step.records:
            key = (known.stream_id, record.index)
            changes = {"role": record.role, "distance": record.distance, "mean": record.mean}
            if record.index == newest:
                self._added[key] = {
                    **self._test(known, window, record),
                    "scores": encode_scores(_moments(known, record)),
                    "common": encode_scores(common),
                }
            elif key in self._added:
                self._added[key] |= changes
            else:
                self._updated.append({"at_stream": key[0], "at_index": key[1], **changes})

    def _test(self, known: _Known, window: Arrived, record: Record) -> dict[str, Any]:
        monitor = known.monitor
        cells = np.asarray(record.cells, dtype=np.int64)
        test = chi_square(monitor.grid, cells, monitor.baseline)
        return {
            **msgspec.structs.asdict(record),
            **msgspec.structs.asdict(effects(monitor.grid, cells, monitor.baseline)),
            **{
                name: getattr(test, name) for name in ("dof", "p", "n", "m", "effect", "detectable")
            },
            "chi2": test.statistic,
            "cells": pack(record.cells),
            "stream_id": known.stream_id,
            "window_id": window.window_id,
            "threshold": known.threshold,
        }


def _series(window: Arrived, stream: Stream) -> Series:
    length = slot_length(window.duration_ms // window.merged)
    return Series(window.model, window.version, stream.name, length)


def _moments(known: _Known, record: Record) -> Scores:
    cells = np.asarray(record.cells, dtype=np.int64)
    return moments(known.monitor.grid, cells, known.monitor.baseline)


def _state(known: _Known) -> dict[str, Any]:
    monitor = known.monitor
    return {
        "at_stream": known.stream_id,
        "saved": msgspec.json.encode(monitor.saved).decode(),
        "phase": monitor.phase,
        "reason": monitor.saved.reason,
        "reference": monitor.reference_size,
        "offset_js": known.offset_js,
        "evidence": monitor.evidence,
        "threshold": known.threshold,
        "last_ms": known.last_ms,
        "stuck": msgspec.json.encode(known.repeats).decode(),
    }


def _alarm(known: _Known, window: Arrived, step: Step) -> dict[str, Any]:
    first, last = step.records[0], step.records[-1]
    return {
        "stream_id": known.stream_id,
        "opened_ms": window.received_ms,
        "since_ms": first.start_ms,
        "change": step.change,
        "evidence": last.evidence,
        "threshold": known.threshold,
        "windows": step.since,
        "first_index": first.index,
        "last_index": last.index,
    }
