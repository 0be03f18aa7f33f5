"""Windows to evidence, inside the transaction that stores them.

Owns the monitors of all streams. They live in memory and are rebuilt from the database when first
needed, and after a transaction that failed: what they know is exactly what is committed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from edgeml.collector.drift.budget import MS_A_DAY, Budget, Scope
from edgeml.collector.drift.monitor import Monitor
from edgeml.collector.drift.peers import Scores, comparable
from edgeml.collector.drift.policy import RUNGS, Policy
from edgeml.collector.drift.saved import Record, Saved, Step
from edgeml.collector.drift.scores import numbers
from edgeml.collector.drift.stuck import Repeats, watch
from edgeml.collector.drift.track import Point
from edgeml.collector.store.arrivals import Arrived, Place
from edgeml.collector.store.bulk import Bulk
from edgeml.collector.store.database import upsert
from edgeml.collector.store.fleet_tables import groups
from edgeml.collector.store.groups import Groups, Scored, Series
from edgeml.collector.store.known import Known
from edgeml.collector.store.past import StreamPast, replay, unpack_state
from edgeml.collector.store.rows import (
    Followed,
    add_effects,
    alarm_row,
    stream_row,
    test_row,
    track_row,
)
from edgeml.collector.store.spending import spend
from edgeml.collector.store.tables import alarms, bundles, streams, tests, tracks
from edgeml.collector.store.unjudged import EvaluationError, Run
from edgeml.decoding import from_json, from_msgpack
from edgeml.statistics import Baseline, Counts, Stream

Cells = NDArray[np.int64]
Commons = Mapping[int, Scores | None]
"""What peers' scores were, by stream."""

LIVE_MS = 30 * MS_A_DAY
"""A stream that was silent for longer has no share in the alarm budget."""
RECOUNTED_MS = 3_600_000
"""Counting them looks at every stream of the fleet, which is not for each batch."""


SAVED_EVERY = 16
"""Windows after which the state of a track is stored again: it is kilobytes, and what came since is
taken in anew from the windows' scores, which are stored anyway."""

_ADD_TESTS = Bulk(lambda _: sa.insert(tests))
_EXCLUDE_TESTS = (
    sa.update(tests)
    .where(tests.c.stream_id == sa.bindparam("at_stream"), tests.c.role == "reference")
    .where(tests.c.index + tests.c.rung > sa.bindparam("at_index"))
    .values(role="excluded")
)
_STREAM = (
    *("saved", "phase", "reason", "reference", "offset_js"),
    *("evidence", "windows", "threshold", "last_ms", "stuck"),
)
_CHANGE_STREAMS = Bulk(
    lambda _: (
        sa.update(streams)
        .where(streams.c.id == sa.bindparam("at_stream"))
        .values({name: sa.bindparam(name) for name in _STREAM})
    )
)
_SAVE_TRACKS = Bulk(
    lambda connection: upsert(connection, tracks, key=("stream_id", "rung"), values=("state",))
)
_CLOSE_ALARM = (
    sa.update(alarms)
    .where(alarms.c.stream_id == sa.bindparam("at_stream"), alarms.c.closed_ms.is_(None))
    .values(closed_ms=sa.bindparam("at_ms"))
)


class Evaluator:
    """Feeds windows to the monitors of their streams. One thread only.

    What it learns goes to the database when the batch is complete (:meth:`flush`), in few
    statements of many rows each.
    """

    def __init__(self, policy: Policy, budget: Budget) -> None:
        self.policy = policy
        self._budget = budget
        self.groups = Groups(policy, self._threshold)
        self._known: dict[tuple[object, ...], Followed] = {}
        self._baselines: dict[str, Known] = {}
        self._live: dict[Scope, int] = {}
        self._counted: tuple[int, int] | None = None
        """Streams and groups that we knew when we counted, …"""
        self._counted_ms = 0
        self._thresholds: dict[tuple[Scope, int, int], float] = {}
        self._changed: dict[int, Followed] = {}
        self._learned: dict[tuple[int, int], Followed] = {}
        self._added: list[tuple[Monitor, Cells, dict[str, Any]]] = []
        self._unwritten: dict[tuple[int, int], list[Point]] = {}
        """Reference windows among those, by stream and rung."""
        self._excluded: list[dict[str, Any]] = []
        self._watched: list[float] = []
        self._alarms: list[tuple[sa.Executable, dict[str, Any]]] = []

    def forget(self) -> None:
        """Drop what is in memory: a transaction failed, and the database knows better."""
        for held in (self._known, self._baselines, self._changed, self._learned, self._unwritten):
            held.clear()
        for noted in (self._added, self._excluded, self._watched, self._alarms):
            noted.clear()
        self.groups.forget()
        self._counted = None

    def baseline(self, connection: Connection, bundle: str) -> Known | None:
        """The baseline of a bundle; None where the bundle is unknown."""
        if bundle not in self._baselines:
            query = sa.select(bundles.c.baseline).where(bundles.c.sha256 == bundle)
            row = connection.execute(query).first()
            if row is None:  # it may come any moment: not remembered
                return None
            self._baselines[bundle] = Known(Baseline.decode(row[0]) if row[0] else None)
        return self._baselines[bundle]

    def count_live(self, connection: Connection, now_ms: int) -> None:
        """Count the streams that share the budget: where one came to those we know, and again after
        an hour, in which others may have been silent for too long."""
        there = len(self._known), len(self.groups)
        if there == self._counted and now_ms < self._counted_ms + RECOUNTED_MS:
            return
        self._counted, self._counted_ms = there, now_ms

        def live(table: sa.Table, *which: sa.ColumnElement[bool]) -> int:
            query = sa.select(sa.func.count()).where(table.c.last_ms > now_ms - LIVE_MS, *which)
            return connection.execute(query.select_from(table)).scalar_one()

        self._live = {
            "device": live(streams),
            "site": live(groups, groups.c.site != ""),
            "version": live(groups, groups.c.site == ""),
        }
        self._thresholds.clear()

    def _threshold(self, scope: Scope, duration_ms: int) -> float:
        devices = max(self._live.get("device", 0), len(self._known))
        at = scope, devices, duration_ms
        if at not in self._thresholds:
            there: dict[Scope, int] = {**self._live, "device": devices}
            found = self._budget.threshold(scope, streams=there, duration_ms=duration_ms)
            self._thresholds[at] = found
        return self._thresholds[at]

    def evaluate(
        self,
        connection: Connection,
        window: Arrived,
        *,
        replay: Commons | None = None,
        without: Collection[str] = (),
    ) -> None:
        """Compare a window with its baseline, stream by stream.

        Args:
            connection: of the transaction.
            window: a stored one.
            replay: where streams are rebuilt, what peers' scores were when the window first came,
                by stream; its peers have seen it already, and its budget is spent.
            without: streams that are not to be judged.

        Raises:
            EvaluationError: over which stream; nothing of the transaction is to be kept.
        """
        known = self.baseline(connection, window.bundle) or Known()
        place = Place.of(window, self.policy)
        for name, counts in window.counts.items():
            if name in without:
                continue
            try:
                self._evaluate_stream(
                    connection, window, place, known.streams[name], counts, replay
                )
            except DBAPIError:
                raise
            except Exception as error:
                run = Run(window.device_id, (window.model, window.version))
                raise EvaluationError(window.key, run, name, error) from error

    def flush(self, connection: Connection) -> None:
        """Write what came of the windows since the last time."""
        now_ms = max((known.last_ms for known in self._changed.values()), default=0)
        spend(connection, [*self._watched, *self.groups.watched()], at_ms=now_ms)
        self._watched.clear()
        self.groups.flush(connection)
        self._flush_tests(connection)
        for statement, values in self._alarms:
            connection.execute(statement, values)
        _CHANGE_STREAMS(connection, [stream_row(known) for known in self._changed.values()])
        learned = [track_row(known, rung) for (_, rung), known in self._learned.items()]
        _SAVE_TRACKS(connection, learned)
        self._changed.clear()
        self._learned.clear()
        self._alarms.clear()

    def _flush_tests(self, connection: Connection) -> None:
        if self._added:
            add_effects(self._added)
            _ADD_TESTS(connection, [row for _, _, row in self._added])
        if self._excluded:
            connection.execute(_EXCLUDE_TESTS, self._excluded)
        self._added.clear()
        self._unwritten.clear()
        self._excluded.clear()

    def past(self, connection: Connection, stream_id: int) -> StreamPast:
        """What is stored of a stream, with what has yet to be written."""

        def unwritten(rung: int) -> list[Point] | None:
            return None if self._excluded else self._unwritten.get((stream_id, rung), [])

        return StreamPast(connection, stream_id, unwritten, lambda: self._flush_tests(connection))

    def _evaluate_stream(
        self,
        connection: Connection,
        window: Arrived,
        place: Place,
        stream: Stream,
        counts: Counts,
        replay: Commons | None,
    ) -> None:
        known = self._stream(connection, window, stream)
        self._changed[known.stream_id] = known
        known.last_ms = window.received_ms
        known.threshold = self._threshold("device", place.test_ms)
        if self._is_stuck(known, window, counts):  # no drift, and no reference to anything
            return
        cells = numbers(stream.grid, counts)
        if replay is not None:
            common = replay.get(known.stream_id)
            self._step(connection, known, window, place, stream, cells, common)
            return
        series = Series(window.model, window.version, stream.name, place.slot_ms)
        since_ms = known.monitor.saved.pending_since_ms
        since_ms = since_ms if since_ms >= 0 else window.start_ms
        common = self.groups.common(connection, series, place.device, since_ms)
        for record in self._step(connection, known, window, place, stream, cells, common):
            if record.rung == 1 and record.point.evidence is not None:
                self._watched.append(known.threshold)
            if record.rung == 1:
                self._tell_peers(connection, known, window, place, series, record)

    def _is_stuck(self, known: Followed, window: Arrived, counts: Counts) -> bool:
        reference = known.monitor.reference_cells[: counts.cells.size]
        known.repeats = watch(
            known.repeats,
            counts.cells,
            reference=reference if reference.any() else known.monitor.baseline.cells,
            start_ms=window.start_ms,
            # A run goes on from window to window: it is longer than the one that it fills.
            longest_run=int(counts.extremes[-1]) if counts.extremes.size else 0,
            merged=window.merged,
        )
        return bool(known.repeats.why)

    def _step(
        self,
        connection: Connection,
        known: Followed,
        window: Arrived,
        place: Place,
        stream: Stream,
        cells: Cells,
        common: Scores | None,
    ) -> list[Record]:
        """The test windows that it completed."""
        monitor = known.monitor
        was_armed = monitor.phase != "collecting"
        step = monitor.step(
            cells,
            key=f"{window.key}/{stream.name}",
            start_ms=window.start_ms,
            length_ms=place.length_ms,
            merged=window.merged,
            threshold=known.threshold,
            source=self.past(connection, known.stream_id),
            common=common,
        )
        self._note_records(known, window, step)
        if not was_armed and monitor.phase == "armed":
            known.offset_js = None if stream.temporal else monitor.offset
        if step.opened:
            self._alarms.append(
                (sa.insert(alarms), alarm_row(known, step, received_ms=window.received_ms))
            )
        if step.opened or step.closed:
            self._learned |= {(known.stream_id, rung): known for rung in RUNGS}
        if step.closed:
            values = {"at_stream": known.stream_id, "at_ms": window.received_ms}
            self._alarms.append((_CLOSE_ALARM, values))
        return step.records

    def _tell_peers(
        self,
        connection: Connection,
        known: Followed,
        window: Arrived,
        place: Place,
        series: Series,
        record: Record,
    ) -> None:
        scores = tuple(record.point.scores)
        if not comparable(scores):
            return
        scored = Scored(
            series=series,
            device=place.device,
            start_ms=record.point.start_ms,
            scores=scores,
            received_ms=window.received_ms,
            duration_ms=place.test_ms,
            least=known.monitor.scorer.least(self.policy.min_effect),
        )
        self.groups.add(connection, scored)

    def _stream(self, connection: Connection, window: Arrived, stream: Stream) -> Followed:
        run = (window.device_id, window.model, window.version, window.artifact)
        key = (*run, stream.name, stream.grid.hash)
        found = self._known.get(key)
        if found is None:
            names = ("device_id", "model", "version", "artifact", "stream", "grid")
            found = self._load(connection, dict(zip(names, key, strict=True)), window, stream)
            self._known[key] = found
        return found

    def _load(
        self, connection: Connection, key: dict[str, Any], window: Arrived, stream: Stream
    ) -> Followed:
        bundle = self._baselines[window.bundle]
        baseline, shared = bundle.counts[stream.name], bundle.scorers[stream.name]
        query = sa.select(streams.c.id, streams.c.saved, streams.c.offset_js, streams.c.stuck)
        row = connection.execute(query.filter_by(**key)).first()
        if row is not None:
            saved = from_msgpack(row.saved, Saved)
            states = sa.select(tracks.c.rung, tracks.c.state).filter_by(stream_id=row.id)
            found = {rung: unpack_state(state) for rung, state in connection.execute(states)}
            monitor = Monitor(stream.grid, baseline, self.policy, saved, found, shared)
            replay(connection, row.id, monitor)
            repeats = from_json(row.stuck, Repeats)
            return Followed(row.id, monitor, row.offset_js, repeats=repeats)
        monitor = Monitor(stream.grid, baseline, self.policy, scorers=shared)
        known = Followed(0, monitor, last_ms=window.received_ms)
        values = {**key, **stream_row(known), "bundle": window.bundle}
        del values["at_stream"]
        added = sa.insert(streams).values(**values).returning(streams.c.id)
        known.stream_id = connection.execute(added).scalar_one()
        return known

    def _is_due(self, known: Followed, rung: int) -> bool:
        """Whether a track is to be stored: each once in :data:`SAVED_EVERY` windows, not all of a
        fleet in the same one."""
        count = known.monitor.tracks[RUNGS.index(rung)].state.count
        return (count * rung + known.stream_id) % SAVED_EVERY < rung

    def _note_records(self, known: Followed, window: Arrived, step: Step) -> None:
        """Note the test windows that are new, and from where on others are no reference."""
        after = step.excluded_from
        for record in step.records:
            excluded = after is not None and record.point.index + record.rung > after
            row = test_row(known, record, window_id=window.window_id, excluded=excluded)
            self._added.append((known.monitor, record.cells, row))
            if not excluded:
                at = known.stream_id, record.rung
                self._unwritten.setdefault(at, []).append(record.point)
            if record.learned or self._is_due(known, record.rung):
                self._learned[known.stream_id, record.rung] = known
        if step.opened:
            self._excluded.append({"at_stream": known.stream_id, "at_index": after})
