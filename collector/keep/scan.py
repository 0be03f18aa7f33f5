"""Goes over the windows that are due for something, a bucket (an hour or day of a device's model)
at a time, so that each step is short."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from edgeml.collector.keep.merge import delete, drop_tests, due, merge
from edgeml.collector.keep.places import Day, day_of, forget_day, merge_day
from edgeml.collector.keep.rule import DAY_MS, HOUR_MS, Stage
from edgeml.collector.store.evaluation import Evaluator
from edgeml.collector.store.tables import tests, windows

REMEMBERED = 100_000


class Bucket(NamedTuple):
    """Windows of a model on a device that are merged together."""

    day: Day
    start_ms: int
    span_ms: int


class Done(NamedTuple):
    """What was done in a bucket."""

    merged: int = 0
    """Windows that there are fewer of, for others stand for them."""
    gone: int = 0
    device_id: int = 0
    more: bool = False
    """There is more to do in it."""


class Mark(NamedTuple):
    """A place of a scan."""

    at: tuple[int, int]
    again: Bucket | None


class Scan:
    """Over the windows of one resolution that are due for one stage, the oldest first.

    Args:
        stage: what is to be done.
        resolution_ms: of the windows that are looked at.
        before_ms: those that came in before then.
        kept: test windows of each stream that are kept whatever their age.
    """

    def __init__(self, stage: Stage, *, resolution_ms: int, before_ms: int, kept: int) -> None:
        self._stage = stage
        self._resolution_ms = resolution_ms
        self._before_ms = before_ms
        self._kept = kept
        self._at = (-1, -1)
        self._again: Bucket | None = None
        """There was more to do in it."""
        self._seen: set[Bucket] = set()

    def mark(self) -> Mark:
        """Where it is, for :meth:`back`."""
        return Mark(self._at, self._again)

    def back(self, mark: Mark) -> None:
        """Go on from an earlier place: what was done since has not been kept."""
        self._at, self._again = mark
        self._seen.clear()

    def step(self, connection: Connection, evaluator: Evaluator) -> Done | None:
        """Deal with the next bucket; None where there is none left."""
        bucket = self._again or self._next(connection)
        if bucket is None:
            return None
        if bucket in self._seen and bucket != self._again:
            return Done()
        self._again = None
        if len(self._seen) >= REMEMBERED:
            self._seen.clear()
        self._seen.add(bucket)
        settle: Callable[[Connection, Evaluator, Bucket], Done]
        settle = self._merge if self._stage.span_ms else self._delete
        done = settle(connection, evaluator, bucket)
        if done.more:
            self._again = bucket
        return done

    def _next(self, connection: Connection) -> Bucket | None:
        columns = ("received_ms", "id", "device_id", "model", "version", "start_ms")
        query = (
            sa.select(*(windows.c[name] for name in columns))
            .where(windows.c.resolution_ms == self._resolution_ms)
            .where(windows.c.received_ms >= self._at[0], windows.c.received_ms < self._before_ms)
            .where(sa.tuple_(windows.c.received_ms, windows.c.id) > sa.tuple_(*self._at))
            .order_by(windows.c.received_ms, windows.c.id)
            .limit(1)
        )
        row = connection.execute(query).first()
        if row is None:
            return None
        self._at = (row.received_ms, row.id)
        span_ms = self._stage.span_ms or DAY_MS
        day = day_of(row.device_id, row.model, row.version, row.start_ms)
        return Bucket(day, row.start_ms - row.start_ms % span_ms, span_ms)

    def _merge(self, connection: Connection, evaluator: Evaluator, bucket: Bucket) -> Done:
        meant = due(*bucket, self._before_ms)
        drop_tests(connection, meant, kept=self._kept)
        fewer, more = merge(connection, evaluator, meant, bucket.start_ms, bucket.span_ms)
        if bucket.span_ms > HOUR_MS:
            merge_day(connection, bucket.day)
        return Done(merged=fewer, device_id=bucket.day.device_id, more=more)

    def _delete(self, connection: Connection, _evaluator: Evaluator, bucket: Bucket) -> Done:
        meant = due(*bucket, self._before_ms)
        drop_tests(connection, meant, kept=self._kept)
        # What was merged into a day goes when the last of it has grown old.
        old = sa.and_(meant, windows.c.received_ms < self._before_ms)
        tested = sa.exists(sa.select(tests.c.window_id).where(tests.c.window_id == windows.c.id))
        gone = delete(connection, sa.and_(old, ~tested))
        rest = sa.select(windows.c.id).where(due(*bucket, 2**62), windows.c.refused.is_(None))
        if connection.execute(rest.limit(1)).first() is None:
            forget_day(connection, bucket.day)
        return Done(gone=gone, device_id=bucket.day.device_id)
