"""The one thread that writes: takes batches from the inbox, commits, acknowledges, tells devices.

A database that does not take a batch (disk full, locked, a server gone) is tried again with
back-off for as long as it takes; nothing is acknowledged meanwhile, so nothing is lost. Whoever
wants a change meanwhile is refused it, rather than to wait for as long.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import msgspec
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError

from edgeml.bundle import open_bundle
from edgeml.collector.ingest.counters import Counters
from edgeml.collector.ingest.queueing import Inbox, Item
from edgeml.collector.keep.keeper import Keeper
from edgeml.collector.store.change import Change, not_taken
from edgeml.collector.store.intake import Intake, Outcome
from edgeml.collector.store.marks import Mark

T = TypeVar("T")

log = logging.getLogger(__name__)

BATCH = 500
IDLE_S = 0.1
"""How soon the thread looks up from an empty inbox."""
LONGEST_PAUSE_S = 15.0


class AddedBundle(msgspec.Struct, frozen=True):
    """What became of a bundle that was handed in."""

    sha256: str
    name: str
    version: str
    new: bool
    streams: int


class Writer:
    """Owns the writing side of the database.

    Args:
        intake: what writes.
        keeper: merges and deletes what is old.
        inbox: where messages wait.
        counters: of what came in.
        tell: publishes a mark to a device; must not block, and may drop it.
        clock_ms: Unix time.
    """

    def __init__(
        self,
        *,
        intake: Intake,
        keeper: Keeper | None = None,
        inbox: Inbox,
        counters: Counters,
        tell: Callable[[Mark], None],
        clock_ms: Callable[[], int],
    ) -> None:
        self._intake = intake
        self._keeper = keeper
        self._inbox = inbox
        self._counters = counters
        self._tell = tell
        self._clock_ms = clock_ms
        self._tasks: SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = SimpleQueue()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="collector-writer")
        self.trouble = ""
        """Why nothing can be stored just now; empty while all is well."""

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Store what is in the inbox, if the database takes it, and end."""
        self._stopping.set()
        self._thread.join()

    @property
    def alive(self) -> bool:
        """Whether the thread runs; it should until :meth:`stop`."""
        return self._thread.is_alive()

    def add_bundle(self, path: Path) -> Future[AddedBundle]:
        """Check and learn a bundle; the future ends when its baseline is stored."""
        return self._queue(lambda: self._add_bundle(path))

    def change(self, work: Change[T]) -> Future[T]:
        """Have something in the store changed, in a transaction of its own between two batches."""
        return self._queue(lambda: self._intake.change(work))

    def _queue(self, work: Callable[[], T]) -> Future[T]:
        future: Future[T] = Future()
        self._tasks.put((work, future))
        return future

    def _run(self) -> None:
        waiting, old = True, False
        while True:
            waiting = self._do_tasks() or waiting
            batch = self._inbox.take(limit=BATCH, timeout_s=0.0 if waiting or old else IDLE_S)
            if batch:
                self._settle(batch)
            elif waiting:
                waiting = self._evaluate_waiting()
            elif self._stopping.is_set():
                return
            if self._stopping.is_set() and not batch:
                return
            if not waiting and not self._stopping.is_set():
                old = self._keep(busy=bool(batch))

    def _settle(self, batch: Sequence[Item]) -> None:
        outcome = self._store(batch)
        if outcome is None:
            return
        for name in ("accepted", "duplicates", "unjudged", "status", "reported", "events"):
            self._counters.add(name, getattr(outcome, name))
        for _ in range(outcome.off_grid):
            self._counters.refuse("grid")
        for item in batch:
            item.acknowledge()
        for mark in outcome.marks:
            self._tell(mark)

    def _store(self, batch: Sequence[Item]) -> Outcome | None:
        """Store a batch, whatever it takes; None where there was nothing to be done with it."""
        pause = 0.5
        while True:
            try:
                outcome = self._intake.store([item.received for item in batch])
            except (DataError, IntegrityError):  # noqa: PERF203
                return self._one_by_one(batch)  # the database took it, and found fault with it
            except DBAPIError as error:
                self._refuse_tasks(str(error.orig or error))
                if not self._pause(error, pause):
                    return None
                pause = min(pause * 2, LONGEST_PAUSE_S)
            except Exception:  # noqa: BLE001 - a fault of ours over some message
                return self._one_by_one(batch)
            else:
                self._recovered()
                return outcome

    def _one_by_one(self, batch: Sequence[Item]) -> None:
        """Find the message that cannot be stored, so that it does not block the others."""
        if len(batch) > 1:
            for item in batch:
                self._settle([item])
            return
        log.exception("a message on %s cannot be stored", batch[0].received.topic)
        self._counters.refuse("fault")
        batch[0].acknowledge()

    def _pause(self, error: DBAPIError, seconds: float) -> bool:
        """Say what is wrong and wait; False when there is no more time, since we stop."""
        reason = str(error.orig or error)
        if self.trouble != reason:
            log.error(
                "the database does not take what comes in (%s); nothing is acknowledged, and the "
                "devices keep it, until it does",
                reason,
            )
        self.trouble = reason
        return not self._stopping.wait(seconds)

    def _recovered(self) -> None:
        if self.trouble:
            log.warning("the database takes what comes in again")
        self.trouble = ""

    def _evaluate_waiting(self) -> bool:
        """Judge some of what is stored and not judged; False when there is none left."""
        try:
            count = self._intake.late.evaluate_waiting() or self._intake.late.judge_again()
        except DBAPIError as error:
            return self._pause(error, 1.0)
        except Exception:
            log.exception("fault over windows that waited for their bundle")
            return False
        self._recovered()
        return count > 0

    def _keep(self, *, busy: bool) -> bool:
        """Do some of what is due with what is old; False when there is none left."""
        if self._keeper is None:
            return False
        try:
            more = self._keeper.step(self._clock_ms(), busy=busy)
        except DBAPIError as error:
            return self._pause(error, 1.0)
        if more:  # it wrote
            self._recovered()
        return more

    def _refuse_tasks(self, reason: str) -> None:
        with contextlib.suppress(Empty):
            while True:
                _, future = self._tasks.get_nowait()
                future.set_exception(not_taken(reason))

    def _do_tasks(self) -> bool:
        done = False
        while True:
            try:
                work, future = self._tasks.get_nowait()
            except Empty:
                return done
            try:
                result = work()
            except DBAPIError as error:
                future.set_exception(not_taken(str(error.orig or error)))
            except Exception as error:  # noqa: BLE001 - goes to whoever asked for it
                future.set_exception(error)
            else:
                done = True
                future.set_result(result)

    def _add_bundle(self, path: Path) -> AddedBundle:
        bundle = open_bundle(path)
        baseline = bundle.baseline()
        new = self._intake.add_bundle(bundle, size=path.stat().st_size, now_ms=self._clock_ms())
        manifest = bundle.manifest
        streams = len(baseline.streams) if baseline else 0
        return AddedBundle(bundle.sha256, manifest.name, manifest.version, new, streams)
