"""When a window ends, and what became of the requests in it. Pure; both clocks come in.

Length and end go by the monotonic clock; the wall clock only says when it began, for people, and
may be wrong. A window in which no request came at all is not sent: it holds no evidence, and that
the device lives is what ``status`` says. One in which every request was refused *is* sent.
"""

from __future__ import annotations

from collections import Counter

import msgspec

from edgeml.device_agent.serving.admission import OUTCOMES, Outcome


class Closed(msgspec.Struct, frozen=True):
    """A window that has ended. ``outcomes`` are the requests in it, by what became of them."""

    start_ms: int
    duration_ms: int
    outcomes: dict[str, int]


class WindowClock:
    """One model's windows, one after another without a gap.

    Args:
        length_s: of a window.
        now: monotonic, seconds.
        wall_ms: Unix time in milliseconds.
    """

    def __init__(self, length_s: float, *, now: float, wall_ms: int) -> None:
        self._length = length_s
        self._outcomes: Counter[Outcome] = Counter()
        self._begin = now
        self._begin_ms = wall_ms

    def record(self, outcome: Outcome, count: int = 1) -> None:
        """Requests have ended."""
        self._outcomes[outcome] += count

    @property
    def due(self) -> float:
        """When the window ends, monotonic seconds."""
        return self._begin + self._length

    def close(self, *, now: float, wall_ms: int) -> Closed | None:
        """End the window and begin the next; None where no request came."""
        closed = None
        if self._outcomes.total():
            closed = Closed(
                start_ms=self._begin_ms,
                duration_ms=round((now - self._begin) * 1000),
                outcomes={name: self._outcomes[name] for name in OUTCOMES},
            )
        self._outcomes.clear()
        self._begin = now
        self._begin_ms = wall_ms
        return closed
