"""Carries out the retention rule in the writer's thread, a short step at a time.

A step is a transaction of its own: whoever is killed in the middle of one finds the database as
before it. Once an hour it goes over what has grown old.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import OperationalError

from edgeml.collector.drift.monitor import LOOKED_BACK
from edgeml.collector.drift.policy import RUNGS, Policy
from edgeml.collector.keep.rule import DAY_MS, HOUR_MS, Kept, Rule, Stage, Watch
from edgeml.collector.keep.scan import Done, Scan
from edgeml.collector.keep.trim import give_back, trim_events, trim_points
from edgeml.collector.store.database import upsert
from edgeml.collector.store.fleet_tables import groups, keeping
from edgeml.collector.store.judging import Judging

log = logging.getLogger(__name__)

STEP_S = 0.1
"""A step ends after so long, once what it is at is done."""
PASS_S = 3600.0
"""From one pass to the next."""
SHARE = 0.1
"""Of the writer's time while windows are waiting to be stored."""

Job = Callable[[Connection], bool]
"""Does a bounded piece of work; False once there is none left."""


def needed(policy: Policy) -> int:
    """Test windows that a stream may ask for again: it learns from them, and looks back."""
    return max(policy.longest_reference, LOOKED_BACK) + max(RUNGS)


class Keeper:
    """Merges and deletes what is old. One thread only, the writer's.

    Args:
        engine: of the database.
        judging: what is remembered of it.
        rule: what is kept for how long.
        kept: the newest test windows of each stream, and slots of each group, that are kept
            whatever their age.
        clock: the monotonic one, seconds.
    """

    def __init__(
        self,
        engine: Engine,
        judging: Judging,
        rule: Rule,
        *,
        kept: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._judging = judging
        self._rule = rule
        self._kept = kept
        self._clock = clock
        self._watch: Watch | None = None
        self._jobs: deque[Job | Scan] = deque()
        self._careful = False
        self._next_s = 0.0
        self._idle_until_s = 0.0
        self.done = Kept()

    def step(self, now_ms: int, *, busy: bool = False) -> bool:
        """Do some of what is due.

        Args:
            now_ms: the wall clock.
            busy: windows are waiting to be stored: a share of the time only.

        Returns:
            Whether there is more to do at once.
        """
        begin = self._clock()
        if not self._rule.stages or (busy and begin < self._idle_until_s):
            return False
        if not self._jobs:
            if begin < self._next_s:
                return False
            self._next_s = begin + PASS_S
            self._careful = False
            if self._believes(now_ms):
                self._jobs.extend(self._plan(now_ms))
        if self._jobs:
            self._work(begin + STEP_S)
        self.done.waiting = len(self._jobs)
        self._idle_until_s = self._clock() + (self._clock() - begin) / SHARE
        return bool(self._jobs)

    def _believes(self, now_ms: int) -> bool:
        """Whether the clock is to be believed; notes that it is."""
        with self._engine.begin() as connection:
            if self._watch is None:
                seen = connection.execute(sa.select(keeping.c.seen_ms)).scalar()
                self._watch = Watch(seen_ms=now_ms if seen is None else seen, seen_s=self._clock())
            held, self.done.held = self.done.held, not self._watch.believes(now_ms, self._clock())
            if self.done.held:
                if not held:
                    log.warning(
                        "the clock jumped, or the collector was away for over a day: nothing old "
                        "is merged or deleted until the clock has gone on for a day"
                    )
                return False
            noted = upsert(connection, keeping, key=("id",), values=("seen_ms",))
            connection.execute(noted.values(id=1, seen_ms=now_ms))
        return True

    def _plan(self, now_ms: int) -> Iterator[Job | Scan]:
        """What a pass does."""
        for stage in self._rule.stages:
            before_ms = stage.due_before(now_ms)
            for resolution_ms in (0, HOUR_MS, DAY_MS):
                if resolution_ms < (stage.span_ms or 2 * DAY_MS):
                    yield Scan(
                        stage, resolution_ms=resolution_ms, before_ms=before_ms, kept=self._kept
                    )
        yield from self._trims(now_ms, self._rule.stages)
        yield give_back

    def _trims(self, now_ms: int, stages: tuple[Stage, ...]) -> Iterator[Job]:
        if stages[0].span_ms:
            with self._engine.begin() as connection:
                ids = deque(connection.execute(sa.select(groups.c.id)).scalars())

            def points(connection: Connection) -> bool:
                if ids:
                    before_ms = stages[0].due_before(now_ms)
                    trim_points(connection, ids.popleft(), before_ms=before_ms, kept=self._kept)
                return bool(ids)

            yield points
        if not stages[-1].span_ms:

            def events(connection: Connection) -> bool:
                trim_events(connection, before_ms=stages[-1].due_before(now_ms))
                return False

            yield events

    def _work(self, until_s: float) -> None:
        job = self._jobs[0]
        mark = job.mark() if isinstance(job, Scan) else None
        done: list[Done] = []
        try:
            with self._engine.begin() as connection:
                while self._piece(connection, job, done):
                    if self._careful or self._clock() >= until_s:
                        break
                else:
                    self._jobs.popleft()
        except OperationalError:
            if isinstance(job, Scan) and mark is not None:
                job.back(mark)
            raise
        except Exception:  # noqa: BLE001 - over what is stored: it is left as it is
            self._stumble(job, mark)
        else:
            self._note(done)

    def _piece(self, connection: Connection, job: Job | Scan, done: list[Done]) -> bool:
        if not isinstance(job, Scan):
            return job(connection)
        found = job.step(connection, self._judging.evaluator)
        if found is not None:
            done.append(found)
        return found is not None

    def _stumble(self, job: Job | Scan, mark: Any) -> None:
        """Over something in what was not kept: go over it again, one by one, and leave that out."""
        if isinstance(job, Scan) and not self._careful:
            self._careful = True
            job.back(mark)
            return
        log.exception("some of what is old cannot be merged or deleted; it stays as it is")
        if not isinstance(job, Scan):
            self._jobs.popleft()

    def _note(self, done: list[Done]) -> None:
        self.done.merged += sum(each.merged for each in done)
        self.done.gone += sum(each.gone for each in done)
        self._judging.forget_devices({each.device_id for each in done})
