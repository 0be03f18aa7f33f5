"""Windows that are stored and could not be judged: the evaluation of a statistic failed.

That is a fault of ours, and the window is data: it is kept and counted as any other, its statistic
is marked with the reason, and it is judged again after each start, for a new version may know
better.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple
from uuid import uuid4

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from edgeml import __version__
from edgeml.collector.store.tables import unjudged, windows
from edgeml.errors import CollectorError

WHOLE = ""
"""In the place of a statistic: the window could not even be taken apart."""
TRIED_ALIKE = 3
"""Windows of one device's statistic whose evaluation fails before the next are set aside untried
until the next start: each failure costs the whole batch again."""
TRIED_OF_ALL = 10
"""Likewise of that statistic of a model version, on all devices together."""

Reasons = Mapping[str, str]
"""Why statistics of a window are not judged."""


class Run(NamedTuple):
    """A device with a model version."""

    device_id: int
    of: tuple[str, str]
    """Model and version."""


class EvaluationError(CollectorError):
    """The evaluation of a window failed; nothing of its transaction is to be kept.

    Args:
        key: of the window.
        run: whose it is.
        stream: the statistic; :data:`WHOLE` where it is all of them.
        error: what happened.
    """

    def __init__(self, key: str, run: Run, stream: str, error: Exception) -> None:
        self.key = key
        self.run = run
        self.stream = stream
        self.reason = f"{type(error).__name__}: {error}"[:500]
        super().__init__(
            f"{stream or 'the counts'} of the window {key} cannot be evaluated: {self.reason}",
            expected="counts that the evaluation knows what to do with",
            remedy="That is a fault of edgeml's: report it. The window is kept.",
        )


class Failures:
    """What failed since the start, so that one fault is not met for ever."""

    def __init__(self) -> None:
        self.start = uuid4().hex
        """Names this start of the collector: what others tried is tried again."""
        self._alike: Counter[tuple[Run, str]] = Counter()
        self._of_all: Counter[tuple[tuple[str, str], str]] = Counter()
        self._reasons: dict[tuple[str, str], dict[str, str]] = {}

    def note(self, fault: EvaluationError) -> None:
        """One more."""
        self._alike[fault.run, fault.stream] += 1
        self._of_all[fault.run.of, fault.stream] += 1
        self._reasons.setdefault(fault.run.of, {})[fault.stream] = fault.reason

    def untried(self, run: Run) -> dict[str, str]:
        """Statistics that are not to be tried any more, with the last reason."""
        return {
            stream: reason
            for stream, reason in self._reasons.get(run.of, {}).items()
            if self._alike[run, stream] >= TRIED_ALIKE
            or self._of_all[run.of, stream] >= TRIED_OF_ALL
        }


def set_aside(connection: Connection, window_id: int, reasons: Reasons, start: str) -> None:
    """Have exactly these statistics of a stored window not judged.

    Args:
        connection: of the transaction.
        window_id: whose.
        reasons: by statistic; empty: all are judged.
        start: see :attr:`Failures.start`.
    """
    connection.execute(sa.delete(unjudged).filter_by(window_id=window_id))
    rows = [
        {"window_id": window_id, "stream": s, "reason": r, "start": start, "edgeml": __version__}
        for s, r in reasons.items()
    ]
    if rows:
        connection.execute(sa.insert(unjudged), rows)


def set_aside_of(connection: Connection, condition: Any) -> dict[int, set[str]]:
    """Statistics that are not judged, by window, of the windows that are meant."""
    query = sa.select(unjudged.c.window_id, unjudged.c.stream).join(
        windows, windows.c.id == unjudged.c.window_id
    )
    found: dict[int, set[str]] = {}
    for row in connection.execute(query.where(condition)):
        found.setdefault(row.window_id, set()).add(row.stream)
    return found


def may_wait() -> Any:
    """A condition on ``windows``: it waits for its bundle, and is not set aside as a whole."""
    aside = sa.select(unjudged.c.window_id).where(
        unjudged.c.window_id == windows.c.id, unjudged.c.stream == WHOLE
    )
    return sa.and_(
        windows.c.evaluated.is_(False), windows.c.retraction_id.is_(None), ~sa.exists(aside)
    )


def to_try(connection: Connection, start: str, *, limit: int) -> dict[int, set[str]]:
    """Statistics that were not tried since this start, by window, the oldest windows first."""
    query = (
        sa.select(unjudged.c.window_id, unjudged.c.stream)
        .join(windows, windows.c.id == unjudged.c.window_id)
        .where(unjudged.c.start != start, windows.c.retraction_id.is_(None))
        .order_by(unjudged.c.window_id)
        .limit(limit)
    )
    found: dict[int, set[str]] = {}
    for row in connection.execute(query):
        found.setdefault(row.window_id, set()).add(row.stream)
    return found
