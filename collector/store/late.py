"""Windows that are stored and not judged yet: they wait for their bundle, or their evaluation
failed and is tried again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from edgeml.collector.store.arrivals import arrived, key_of
from edgeml.collector.store.judging import Aside, Judging, is_fault, read
from edgeml.collector.store.tables import bundles, counts, devices, windows
from edgeml.collector.store.unjudged import (
    WHOLE,
    EvaluationError,
    Run,
    may_wait,
    set_aside,
    set_aside_of,
    to_try,
)
from edgeml.statistics import Counts

Find = Callable[[Connection, int], Sequence[sa.RowMapping]]
Settle = Callable[[Connection, sa.RowMapping, Aside], None]


class Late:
    """Judges them. One thread only."""

    def __init__(self, judging: Judging) -> None:
        self._judging = judging

    def evaluate_waiting(self, *, limit: int = 200) -> int:
        """Evaluate up to ``limit`` windows whose bundle came after them, oldest first.

        Returns:
            How many were; 0 when none is waiting.
        """
        return self._settle(_waiting, self._evaluate, limit)

    def judge_again(self, *, limit: int = 50) -> int:
        """Judge up to ``limit`` windows again whose evaluation failed before this start.

        Returns:
            How many were tried; 0 when none is left.
        """
        start = self._judging.failures.start

        def failed(connection: Connection, limit: int) -> Sequence[sa.RowMapping]:
            return _rows(connection, windows.c.id.in_(to_try(connection, start, limit=limit)))

        return self._settle(failed, self._judge_rest, limit)

    def _settle(self, find: Find, settle: Settle, limit: int) -> int:
        def work(connection: Connection, aside: Aside) -> int:
            rows = find(connection, limit)
            if not rows:
                return 0
            newest = max(row["received_ms"] for row in rows)
            self._judging.evaluator.count_live(connection, newest)
            try:
                for row in rows:
                    settle(connection, row, aside)
                self._judging.flush(connection)
            except Exception as error:
                if len(rows) > 1 or not is_fault(error):
                    raise
                raise EvaluationError(key_of(rows[0]), _run(rows[0]), WHOLE, error) from error
            return len(rows)

        try:
            return self._judging.in_transaction(work)
        except Exception as error:
            if limit == 1 or not is_fault(error):
                raise
        return self._settle(find, settle, 1)  # over one of them: it is found by itself

    def _evaluate(self, connection: Connection, row: sa.RowMapping, aside: Aside) -> None:
        judging, key, run = self._judging, key_of(row), _run(row)
        reasons = judging.reasons(aside, key, run)
        set_aside(connection, row["id"], reasons, judging.failures.start)
        if WHOLE in reasons:
            return
        found, refused = self._read(connection, row)
        mark = sa.update(windows).where(windows.c.id == row["id"])
        connection.execute(mark.values(evaluated=True, refused=refused or None))
        if not refused:
            judging.take(connection, arrived(row, found), reasons)

    def _judge_rest(self, connection: Connection, row: sa.RowMapping, aside: Aside) -> None:
        """What of a window is not judged yet; its counts are in the rollups."""
        if not row["evaluated"]:
            self._evaluate(connection, row, aside)
            return
        judging = self._judging
        reasons = judging.reasons(aside, key_of(row), _run(row))
        wanted = set_aside_of(connection, windows.c.id == row["id"])[row["id"]]
        still = {stream: why for stream, why in reasons.items() if stream in wanted}
        set_aside(connection, row["id"], still, judging.failures.start)
        found, _ = self._read(connection, row)
        rest = frozenset(found.keys() - (wanted - still.keys()))
        judging.evaluator.evaluate(connection, arrived(row, found), without=rest)

    def _read(self, connection: Connection, row: sa.RowMapping) -> tuple[dict[str, Counts], str]:
        query = sa.select(counts.c.packed).filter_by(window_id=row["id"]).order_by(counts.c.place)
        stored = connection.execute(query).scalars().all()
        known = self._judging.evaluator.baseline(connection, row["bundle"])
        return read(known, row["baseline"], stored, key=key_of(row), run=_run(row))


def _rows(connection: Connection, condition: Any) -> Sequence[sa.RowMapping]:
    query = sa.select(windows, devices.c.site, devices.c.device).join(
        devices, devices.c.id == windows.c.device_id
    )
    return connection.execute(query.where(condition).order_by(windows.c.id)).mappings().all()


def _waiting(connection: Connection, limit: int) -> Sequence[sa.RowMapping]:
    known = windows.c.bundle.in_(sa.select(bundles.c.sha256))
    ids = sa.select(windows.c.id).where(may_wait(), known).order_by(windows.c.id).limit(limit)
    return _rows(connection, windows.c.id.in_(ids))


def _run(row: sa.RowMapping) -> Run:
    return Run(row["device_id"], (row["model"], row["version"]))
