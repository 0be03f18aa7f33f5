"""What is kept for how long, and when the clock is not to be believed. Pure.

Ages go by the collector's clock, as of when a window came in: a device whose clock is wrong by
years loses nothing by it. The collector's own clock may jump, too; nothing is merged or deleted for
a day after that was seen, so that somebody, or NTP, can put it right.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS

JUMP_MS = DAY_MS
"""By so much the clock may differ from what was to be expected."""
HELD_S = 86_400.0
"""How long a clock that jumped has to go on before it is believed."""


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """How many days what is kept at which resolution; 0 is for ever."""

    windows_days: float = 14.0
    hours_days: float = 90.0
    days_days: float = 730.0

    @property
    def stages(self) -> tuple[Stage, ...]:
        """What is done to old windows, the first thing first."""
        spans = ((self.windows_days, HOUR_MS), (self.hours_days, DAY_MS))
        merged = [Stage(round(days * DAY_MS), span) for days, span in spans if days]
        gone = [Stage(round(self.days_days * DAY_MS), 0)] if self.days_days else []
        return (*merged, *gone)


class Stage(NamedTuple):
    """What becomes of windows of an age."""

    age_ms: int
    span_ms: int
    """They are merged by so much time; 0: they go."""

    def due_before(self, now_ms: int) -> int:
        """Windows that came in before this are due. Whole hours or days become so at once, so that
        none of them is merged again and again as its windows grow old one by one."""
        cutoff = now_ms - self.age_ms
        return cutoff - cutoff % (self.span_ms or DAY_MS)


class Watch(msgspec.Struct):
    """Watches the clock.

    Args:
        seen_ms: Unix time when it was last believed, maybe in an earlier life …
        seen_s: … and the monotonic clock then; in a new life, now.
    """

    seen_ms: int
    seen_s: float
    held_s: float | None = None
    """Since when it is not believed, on the monotonic clock."""

    def believes(self, now_ms: int, now_s: float) -> bool:
        """Whether ages can be told by it."""
        expected = self.seen_ms + 1000 * (now_s - self.seen_s)
        if abs(now_ms - expected) > JUMP_MS:
            if self.held_s is None:
                self.held_s = now_s
            if now_s - self.held_s < HELD_S:
                return False
        self.seen_ms, self.seen_s, self.held_s = now_ms, now_s, None
        return True


class Kept(msgspec.Struct):
    """What retention did since the start."""

    merged: int = 0
    """Windows that others stand for."""
    gone: int = 0
    waiting: int = 0
    """Pieces of the pass that is going on; 0 between two."""
    held: bool = False
    """The clock jumped: nothing is merged or deleted until it has gone on for a day."""
