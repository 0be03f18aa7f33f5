"""One batch of messages, one transaction: windows stored once, rolled up, tested; marks advanced.

A window counts as *settled* once its key is in ``windows``, even where its counts were refused
because they do not fit the bundle: the device must not send it for ever.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from edgeml.bundle import Bundle
from edgeml.bundle.archive import BASELINE, MANIFEST
from edgeml.collector.ingest.validate import Received, read_statistics
from edgeml.collector.store.arrivals import Arrived, arrived, window_key
from edgeml.collector.store.boots import note_boot
from edgeml.collector.store.bulk import Bulk
from edgeml.collector.store.change import Change, carry_out
from edgeml.collector.store.database import insert, upsert
from edgeml.collector.store.evaluation import Evaluator, Known
from edgeml.collector.store.marks import Mark, advance
from edgeml.collector.store.rollups import Rollups
from edgeml.collector.store.tables import (
    boots,
    bundles,
    counts,
    devices,
    events,
    windows,
)
from edgeml.errors import StatisticsError
from edgeml.statistics import Counts
from edgeml.telemetry import Event, Reported, Status, Topics, Window

T = TypeVar("T")

_COPIED = (
    *("boot", "sequence", "model", "version", "artifact", "bundle", "start_ms", "duration_ms"),
    *("rows", "merged", "baseline"),
)
_WINDOW_COLUMNS = (*_COPIED, "device_id", "outcomes", "received_ms", "evaluated", "refused")
_ADD_COUNTS = Bulk(lambda _: sa.insert(counts))
_WAITING = (
    sa.select(windows.c.id)
    .where(windows.c.evaluated.is_(False), windows.c.retraction_id.is_(None))
    .where(windows.c.bundle == sa.bindparam("bundle"))
    .limit(1)
)
_SEEN = Bulk(
    lambda _: (
        sa.update(devices)
        .where(devices.c.id == sa.bindparam("at_device"))
        .values(last_seen_ms=sa.bindparam("at_ms"))
    )
)
_THROUGH = sa.select(boots.c.through).where(
    boots.c.device_id == sa.bindparam("device_id"), boots.c.boot == sa.bindparam("boot")
)
_ABOVE = (
    sa.select(windows.c.sequence)
    .where(windows.c.device_id == sa.bindparam("device_id"))
    .where(windows.c.boot == sa.bindparam("boot"), windows.c.sequence > sa.bindparam("settled"))
    .order_by(windows.c.sequence)
)
_MARK = Bulk(
    lambda connection: upsert(connection, boots, key=("device_id", "boot"), values=("through",))
)


class Outcome(msgspec.Struct, kw_only=True):
    """What a batch came to."""

    accepted: int = 0
    duplicates: int = 0
    off_grid: int = 0
    status: int = 0
    reported: int = 0
    events: int = 0
    marks: list[Mark] = []


class Intake:
    """Writes. One thread only."""

    def __init__(self, engine: Engine, evaluator: Evaluator) -> None:
        self._engine = engine
        self._evaluator = evaluator
        self._devices: dict[Topics, int] = {}
        self._rollups = Rollups()
        self._seen: dict[int, int] = {}
        self._waiting: dict[str, bool] = {}
        self._counts: list[dict[str, Any]] = []
        self._add_window = (
            insert(engine, windows)
            .values({name: sa.bindparam(name) for name in _WINDOW_COLUMNS})
            .on_conflict_do_nothing()
            .returning(windows.c.id)
        )

    def store(self, batch: Sequence[Received]) -> Outcome:
        """Store a batch, all of it or nothing.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: nothing was stored.
        """
        outcome = Outcome()
        try:
            self._waiting.clear()
            with self._engine.begin() as connection:
                self._evaluator.count_live(connection, max(r.received_ms for r in batch))
                heard: dict[tuple[Topics, str], int] = {}
                for received in batch:
                    self._store_one(connection, received, outcome)
                    if isinstance(received.message, Window):
                        at = (_topics(received), received.message.boot)
                        heard[at] = max(heard.get(at, 0), received.message.oldest)
                self._flush(connection)
                outcome.marks = self._advance(connection, heard)
        except BaseException:
            self.forget()
            raise
        return outcome

    def forget(self) -> None:
        """Drop what is remembered of the database."""
        self._devices.clear()
        self._seen.clear()
        self._rollups.forget()
        self._counts.clear()
        self._evaluator.forget()

    def add_bundle(self, bundle: Bundle, *, size: int, now_ms: int) -> bool:
        """Learn a bundle's baseline; False where it was known. Its waiting windows are evaluated by
        :meth:`evaluate_waiting`."""
        with self._engine.begin() as connection:
            statement = insert(connection, bundles).values(
                sha256=bundle.sha256,
                name=bundle.manifest.name,
                version=bundle.manifest.version,
                added_ms=now_ms,
                bytes=size,
                manifest=bundle.read(MANIFEST),
                baseline=bundle.read(BASELINE) if bundle.manifest.baseline else None,
            )
            return connection.execute(statement.on_conflict_do_nothing()).rowcount > 0

    def evaluate_waiting(self, *, limit: int = 200) -> int:
        """Evaluate up to ``limit`` windows whose bundle came after them, oldest first.

        Returns:
            How many were; 0 when none is waiting.
        """
        try:
            with self._engine.begin() as connection:
                waiting = (
                    sa.select(windows, devices.c.site, devices.c.device)
                    .join(devices, devices.c.id == windows.c.device_id)
                    .where(windows.c.evaluated.is_(False), windows.c.retraction_id.is_(None))
                    .where(windows.c.bundle.in_(sa.select(bundles.c.sha256)))
                    .order_by(windows.c.id)
                    .limit(limit)
                )
                rows = connection.execute(waiting).mappings().all()
                if rows:
                    self._evaluator.count_live(connection, max(r["received_ms"] for r in rows))
                for row in rows:
                    self._evaluate_late(connection, row)
                self._flush(connection)
                return len(rows)
        except BaseException:
            self.forget()
            raise

    def change(self, work: Change[T]) -> T:
        """See :func:`carry_out`."""
        self.forget()
        return carry_out(self._engine, self._evaluator, work)

    def _store_one(self, connection: Connection, received: Received, outcome: Outcome) -> None:
        device_id = self._device(connection, received)
        match received.message:
            case Window() as window:
                self._store_window(connection, device_id, received, window, outcome)
            case Status() as status:
                outcome.status += 1
                # Retained: what was so some time ago. A will: the broker speaks, not the device.
                self._touch(
                    connection,
                    device_id,
                    None if received.retained or not status.online else received.received_ms,
                    online=status.online,
                    status=msgspec.json.encode(status).decode(),
                )
                note_boot(connection, device_id, status)
            case Reported() as reported:
                outcome.reported += 1
                at = None if received.retained else received.received_ms
                text = msgspec.json.encode(reported).decode()
                self._touch(connection, device_id, at, reported=text)
            case Event() as event:
                outcome.events += 1
                self._touch(connection, device_id, received.received_ms)
                self._store_event(connection, device_id, received, event)
            case _:  # no other kind passes validation
                raise TypeError(type(received.message))

    def _device(self, connection: Connection, received: Received) -> int:
        topics = _topics(received)
        if topics not in self._devices:
            new = insert(connection, devices).values(
                site=topics.site,
                device=topics.device,
                first_seen_ms=received.received_ms,
                online=False,
            )
            connection.execute(new.on_conflict_do_nothing())
            query = sa.select(devices.c.id).filter_by(site=topics.site, device=topics.device)
            self._devices[topics] = connection.execute(query).scalar_one()
        return self._devices[topics]

    def _touch(
        self, connection: Connection, device_id: int, seen_ms: int | None, **values: object
    ) -> None:
        if seen_ms is not None:
            self._seen[device_id] = max(seen_ms, self._seen.get(device_id, 0))
        if values:
            connection.execute(sa.update(devices).where(devices.c.id == device_id).values(**values))

    def _store_window(
        self,
        connection: Connection,
        device_id: int,
        received: Received,
        window: Window,
        outcome: Outcome,
    ) -> None:
        baseline = self._evaluator.baseline(connection, window.bundle)
        waiting = baseline is None or self._has_waiting(connection, window.bundle)
        found, refused = _read(baseline, window.baseline, window.statistics)
        row = {
            **{name: getattr(window, name) for name in _COPIED},
            "device_id": device_id,
            "outcomes": msgspec.json.encode(window.outcomes).decode(),
            "received_ms": received.received_ms,
            "evaluated": bool(refused) or not waiting,
            "refused": refused or None,
        }
        window_id = connection.execute(self._add_window, row).scalar()
        self._touch(connection, device_id, received.received_ms)
        if window_id is None:
            outcome.duplicates += 1
            return
        if refused:
            outcome.off_grid += 1
            return
        outcome.accepted += 1
        self._rollups.add_outcomes(
            device_id=device_id,
            model=window.model,
            version=window.version,
            start_ms=window.start_ms,
            outcomes=window.outcomes,
        )
        self._counts += (
            {"window_id": window_id, "place": place, "packed": packed}
            for place, packed in enumerate(window.statistics)
        )
        if not waiting:
            self._evaluate_now(connection, device_id, window_id, received, window, found)

    def _has_waiting(self, connection: Connection, bundle: str) -> bool:
        """Whether older windows of the bundle have yet to be evaluated: then the order is
        theirs. Within a batch that stays as it is."""
        if bundle not in self._waiting:
            found = connection.execute(_WAITING, {"bundle": bundle}).first()
            self._waiting[bundle] = found is not None
        return self._waiting[bundle]

    def _evaluate_now(
        self,
        connection: Connection,
        device_id: int,
        window_id: int,
        received: Received,
        window: Window,
        found: dict[str, Counts],
    ) -> None:
        topics = _topics(received)
        came = Arrived(
            window_id=window_id,
            device_id=device_id,
            site=topics.site,
            key=window_key(
                topics.site, topics.device, window.boot, window.start_ms, window.sequence
            ),
            model=window.model,
            version=window.version,
            artifact=window.artifact,
            bundle=window.bundle,
            start_ms=window.start_ms,
            duration_ms=window.duration_ms,
            merged=window.merged,
            received_ms=received.received_ms,
            counts=found,
        )
        self._take_counts(connection, came)

    def _evaluate_late(self, connection: Connection, row: sa.RowMapping) -> None:
        query = sa.select(counts.c.packed).filter_by(window_id=row["id"]).order_by(counts.c.place)
        stored = connection.execute(query).scalars().all()
        baseline = self._evaluator.baseline(connection, row["bundle"])
        found, refused = _read(baseline, row["baseline"], stored)
        mark = sa.update(windows).where(windows.c.id == row["id"])
        connection.execute(mark.values(evaluated=True, refused=refused or None))
        if refused:
            return
        self._take_counts(connection, arrived(row, found))

    def _take_counts(self, connection: Connection, window: Arrived) -> None:
        """Add a window's counts to the rollups, and test them."""
        self._rollups.add_counts(
            device_id=window.device_id,
            model=window.model,
            version=window.version,
            start_ms=window.start_ms,
            windows=window.merged,
            counts=window.counts,
        )
        self._evaluator.evaluate(connection, window)

    def _flush(self, connection: Connection) -> None:
        _ADD_COUNTS(connection, self._counts)
        self._counts.clear()
        self._rollups.flush(connection)
        self._evaluator.flush(connection)
        _SEEN(connection, [{"at_device": d, "at_ms": ms} for d, ms in self._seen.items()])
        self._seen.clear()

    def _store_event(
        self, connection: Connection, device_id: int, received: Received, event: Event
    ) -> None:
        details = msgspec.json.encode(event.details, order="sorted").decode()
        content = f"{event.model}\n{event.message}\n{details}"
        statement = insert(connection, events).values(
            device_id=device_id,
            boot=event.boot,
            kind=event.kind,
            time_ms=event.time_ms,
            digest=hashlib.sha256(content.encode()).hexdigest()[:16],
            model=event.model,
            message=event.message,
            details=details,
            received_ms=received.received_ms,
        )
        connection.execute(statement.on_conflict_do_nothing())

    def _advance(
        self, connection: Connection, heard: Mapping[tuple[Topics, str], int]
    ) -> list[Mark]:
        """Bring the high-water marks of boots up to what is stored.

        Args:
            connection: of the transaction.
            heard: the oldest window that each boot still has.
        """
        marks: list[Mark] = []
        rows: list[dict[str, Any]] = []
        for (topics, boot), oldest in heard.items():
            at = {"device_id": self._devices[topics], "boot": boot}
            through = connection.execute(_THROUGH, at).scalar() or 0
            above = connection.execute(_ABOVE, at | {"settled": max(through, oldest - 1)})
            mark = advance(through, oldest, above.scalars())
            marks.append(Mark(topics, boot, mark))
            rows.append(at | {"through": mark})
        _MARK(connection, rows)
        return marks


def _read(
    known: Known | None, baseline: str, statistics: Sequence[bytes]
) -> tuple[dict[str, Counts], str]:
    """The counts of a window by stream, or why they are refused. None of either, while its bundle
    is not known."""
    if known is None:
        return {}, ""
    try:
        counts = read_statistics(baseline, statistics, known=known.hash, streams=known.streams)
    except StatisticsError as error:
        return {}, str(error)
    return counts, ""


def _topics(received: Received) -> Topics:
    return Topics(received.topic.site, received.topic.device)
