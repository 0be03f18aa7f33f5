"""One batch of messages, one transaction: windows stored once, rolled up, tested; marks advanced.

A window counts as *settled* once its key is in ``windows``, even where its counts were refused
because they do not fit the bundle: the device must not send it for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn, TypeVar

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from edgeml.bundle import Bundle
from edgeml.bundle.archive import BASELINE, MANIFEST
from edgeml.collector.ingest.validate import Received
from edgeml.collector.store.arrivals import Arrived, window_key
from edgeml.collector.store.boots import note_boot
from edgeml.collector.store.bulk import Bulk
from edgeml.collector.store.change import Change, carry_out
from edgeml.collector.store.database import insert
from edgeml.collector.store.evaluation import Evaluator
from edgeml.collector.store.events import store_event
from edgeml.collector.store.judging import Aside, Judging, is_fault, read
from edgeml.collector.store.late import Late
from edgeml.collector.store.marks import Boot, Mark, advance_all
from edgeml.collector.store.tables import bundles, counts, devices, windows
from edgeml.collector.store.unjudged import WHOLE, EvaluationError, Run, may_wait, set_aside
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
    sa.select(windows.c.id).where(may_wait(), windows.c.bundle == sa.bindparam("bundle")).limit(1)
)
_SEEN = Bulk(
    lambda _: (
        sa.update(devices)
        .where(devices.c.id == sa.bindparam("at_device"))
        .values(last_seen_ms=sa.bindparam("at_ms"))
    )
)


class Outcome(msgspec.Struct, kw_only=True):
    """What a batch came to."""

    accepted: int = 0
    duplicates: int = 0
    off_grid: int = 0
    unjudged: int = 0
    """Of those accepted: their evaluation failed, of some of their statistics at least."""
    status: int = 0
    reported: int = 0
    events: int = 0
    marks: list[Mark] = []


class Intake:
    """Writes. One thread only."""

    def __init__(self, engine: Engine, evaluator: Evaluator) -> None:
        self._engine = engine
        self.judging = Judging(engine, evaluator)
        self.late = Late(self.judging)
        self._devices: dict[Topics, int] = {}
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
        """Store a batch, all of it or nothing. What of a window cannot be evaluated is set aside.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: nothing was stored.
        """
        return self.judging.in_transaction(
            lambda connection, aside: self._store(connection, batch, aside), self._forget
        )

    def _store(self, connection: Connection, batch: Sequence[Received], aside: Aside) -> Outcome:
        outcome = Outcome()
        self._waiting.clear()
        self.judging.evaluator.count_live(connection, max(r.received_ms for r in batch))
        heard: dict[Boot, int] = {}
        try:
            for received in batch:
                device_id = self._store_one(connection, received, outcome, aside)
                if isinstance(received.message, Window):
                    at = Boot(device_id, _topics(received), received.message.boot)
                    heard[at] = max(heard.get(at, 0), received.message.oldest)
            self._flush(connection)
        except Exception as error:
            if len(batch) > 1 or not is_fault(error):
                raise
            self._blame(batch[0], error)
        outcome.marks = advance_all(connection, heard)
        return outcome

    def _blame(self, received: Received, error: Exception) -> NoReturn:
        """A window over which alone something failed is stored without being judged."""
        if not isinstance(received.message, Window):
            raise error
        run = Run(self._devices.get(_topics(received), 0), _of_model(received.message))
        raise EvaluationError(_key(received, received.message), run, WHOLE, error) from error

    def forget(self) -> None:
        """Drop what is remembered of the database."""
        self.judging.forget()
        self._forget()

    def _forget(self) -> None:
        self._devices.clear()
        self._seen.clear()
        self._counts.clear()

    def add_bundle(self, bundle: Bundle, *, size: int, now_ms: int) -> bool:
        """Learn a bundle's baseline; False where it was known. Its waiting windows are evaluated by
        :attr:`late`."""
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

    def change(self, work: Change[T]) -> T:
        """See :func:`carry_out`."""
        self.forget()
        return carry_out(self._engine, self.judging.evaluator, work)

    def _store_one(
        self, connection: Connection, received: Received, outcome: Outcome, aside: Aside
    ) -> int:
        """Store a message; the number of its device."""
        device_id = self._device(connection, received)
        match received.message:
            case Window() as window:
                self._store_window(connection, device_id, received, window, outcome, aside)
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
                store_event(connection, device_id, event, received_ms=received.received_ms)
            case _:  # no other kind passes validation
                raise TypeError(type(received.message))
        return device_id

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
        aside: Aside,
    ) -> None:
        judging, key = self.judging, _key(received, window)
        self._touch(connection, device_id, received.received_ms)
        if window.sequence <= judging.merged(connection, device_id, window.boot):
            outcome.duplicates += 1  # of one that was merged
            return
        run = Run(device_id, _of_model(window))
        known = judging.evaluator.baseline(connection, window.bundle)
        reasons = judging.reasons(aside, key, run)
        waiting = known is None or self._has_waiting(connection, window.bundle)
        found, refused = {}, ""
        if WHOLE in reasons:
            waiting = True
        else:
            found, refused = read(known, window.baseline, window.statistics, key=key, run=run)
        row = {
            **{name: getattr(window, name) for name in _COPIED},
            "device_id": device_id,
            "outcomes": msgspec.json.encode(window.outcomes).decode(),
            "received_ms": received.received_ms,
            "evaluated": bool(refused) or not waiting,
            "refused": refused or None,
        }
        window_id = connection.execute(self._add_window, row).scalar()
        if window_id is None:
            outcome.duplicates += 1
            return
        if refused:
            outcome.off_grid += 1
            return
        outcome.accepted += 1
        judging.rollups.add_outcomes(
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
            came = _arrived(received, window, found, device_id=device_id, window_id=window_id)
            judging.take(connection, came, reasons)
        if reasons and (WHOLE in reasons or not waiting):
            set_aside(connection, window_id, reasons, judging.failures.start)
            outcome.unjudged += 1

    def _has_waiting(self, connection: Connection, bundle: str) -> bool:
        """Whether older windows of the bundle have yet to be evaluated: then the order is
        theirs. Within a batch that stays as it is."""
        if bundle not in self._waiting:
            found = connection.execute(_WAITING, {"bundle": bundle}).first()
            self._waiting[bundle] = found is not None
        return self._waiting[bundle]

    def _flush(self, connection: Connection) -> None:
        _ADD_COUNTS(connection, self._counts)
        self._counts.clear()
        self.judging.flush(connection)
        _SEEN(connection, [{"at_device": d, "at_ms": ms} for d, ms in self._seen.items()])
        self._seen.clear()


def _topics(received: Received) -> Topics:
    return Topics(received.topic.site, received.topic.device)


def _key(received: Received, window: Window) -> str:
    topics = _topics(received)
    return window_key(topics.site, topics.device, window.boot, window.start_ms, window.sequence)


def _of_model(window: Window) -> tuple[str, str]:
    return window.model, window.version


def _arrived(
    received: Received,
    window: Window,
    found: dict[str, Counts],
    *,
    device_id: int,
    window_id: int,
) -> Arrived:
    return Arrived(
        window_id=window_id,
        device_id=device_id,
        site=received.topic.site,
        key=_key(received, window),
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
