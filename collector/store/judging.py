"""From a stored window's counts to rollups and evidence, and what becomes of counts that fail.

What is refused, since it does not fit the bundle, is the device's fault; what cannot be evaluated
is ours. Shared by windows that just came, windows that waited for their bundle, and windows that
are judged again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError

from edgeml.collector.ingest.validate import read_statistics
from edgeml.collector.store.arrivals import Arrived
from edgeml.collector.store.evaluation import Evaluator
from edgeml.collector.store.known import Known
from edgeml.collector.store.rollups import Rollups
from edgeml.collector.store.tables import boots
from edgeml.collector.store.unjudged import WHOLE, EvaluationError, Failures, Reasons, Run
from edgeml.errors import StatisticsError
from edgeml.statistics import Counts

T = TypeVar("T")
Aside = dict[str, dict[str, str]]
"""Why statistics are not judged, by the key of their window."""

log = logging.getLogger(__name__)


class Judging:
    """What the writer's thread remembers of the database: streams, rollups, failures.

    Args:
        engine: of the database.
        evaluator: has the streams.
    """

    def __init__(self, engine: Engine, evaluator: Evaluator) -> None:
        self._engine = engine
        self.evaluator = evaluator
        self.rollups = Rollups()
        self.failures = Failures()
        self._merged: dict[tuple[int, str], int] = {}

    def forget(self) -> None:
        """Drop what is remembered of the database."""
        self.rollups.forget()
        self.evaluator.forget()
        self._merged.clear()

    def forget_devices(self, device_ids: Collection[int]) -> None:
        """Old windows of these devices were merged or deleted; their streams are as they were."""
        self.rollups.forget_devices(device_ids)
        self._merged = {at: n for at, n in self._merged.items() if at[0] not in device_ids}

    def merged(self, connection: Connection, device_id: int, boot: str) -> int:
        """The highest sequence of a boot's windows that were merged: at and below it all is
        settled, though not every window is there to be recognised."""
        at = device_id, boot
        if at not in self._merged:
            query = sa.select(boots.c.merged).filter_by(device_id=device_id, boot=boot)
            self._merged[at] = connection.execute(query).scalar() or 0
        return self._merged[at]

    def flush(self, connection: Connection) -> None:
        """Write what came of the windows since the last time."""
        self.rollups.flush(connection)
        self.evaluator.flush(connection)

    def in_transaction(
        self, work: Callable[[Connection, Aside], T], forget: Callable[[], None] | None = None
    ) -> T:
        """Carry something out in a transaction, and once more without each statistic of a window
        whose evaluation fails.

        Args:
            work: what to do; does not judge what is set aside.
            forget: besides :meth:`forget`, after each transaction that failed.
        """
        aside: Aside = {}
        while True:
            try:
                with self._engine.begin() as connection:
                    return work(connection, aside)
            except EvaluationError as error:  # noqa: PERF203
                self._drop(forget)
                if error.stream in aside.get(error.key, {}):
                    raise
                self._note(error, aside)
            except BaseException:
                self._drop(forget)
                raise

    def _drop(self, forget: Callable[[], None] | None) -> None:
        self.forget()
        if forget is not None:
            forget()

    def _note(self, fault: EvaluationError, aside: Aside) -> None:
        log.error("%s", fault, exc_info=fault.__cause__)
        self.failures.note(fault)
        aside.setdefault(fault.key, {})[fault.stream] = fault.reason

    def reasons(self, aside: Aside, key: str, run: Run) -> Reasons:
        """Why statistics of a window are not to be judged."""
        return {**self.failures.untried(run), **aside.get(key, {})}

    def take(self, connection: Connection, window: Arrived, reasons: Reasons) -> None:
        """Add a window's counts to the rollups, and test them."""
        self.rollups.add_counts(
            device_id=window.device_id,
            model=window.model,
            version=window.version,
            start_ms=window.start_ms,
            windows=window.merged,
            counts=window.counts,
        )
        self.evaluator.evaluate(connection, window, without=frozenset(reasons))


def read(
    known: Known | None, baseline: str, statistics: Sequence[bytes], *, key: str, run: Run
) -> tuple[dict[str, Counts], str]:
    """The counts of a window by stream, or why they are refused. None of either, while its bundle
    is not known.

    Raises:
        EvaluationError: neither can be said.
    """
    if known is None:
        return {}, ""
    try:
        counts = read_statistics(baseline, statistics, known=known.hash, streams=known.streams)
    except StatisticsError as error:
        return {}, str(error)
    except Exception as error:
        raise EvaluationError(key, run, WHOLE, error) from error
    return counts, ""


def is_fault(error: Exception) -> bool:
    """Whether it is over what is to be stored, and not over the database as such."""
    if isinstance(error, DBAPIError):
        return isinstance(error, (DataError, IntegrityError))
    return not isinstance(error, EvaluationError)
