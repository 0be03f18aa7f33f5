"""When to serve with a cheaper artifact of the same model, and when with the better one. Pure.

Misses, memory pressure or heat that last for a whole span lead one step down; a longer quiet leads
up again. A step up that does not hold doubles the quiet that the next one needs, so that a device
at its limit does not swing to and fro.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import msgspec


class Reading(NamedTuple):
    """What the device says of itself since the reading before.

    Attributes:
        served: requests that were.
        strained: requests that were late, or refused since they would have been.
        pressure: share of time in which something waited for memory, 0..1; None where unknown.
        celsius: the hottest zone; None where unknown.
    """

    served: int
    strained: int
    pressure: float | None = None
    celsius: float | None = None


class Move(NamedTuple):
    """A step on the ladder: +1 is down, to a cheaper artifact, -1 up."""

    by: int
    reason: str
    kind: str
    """``misses``, ``memory``, ``heat`` or ``quiet``."""


class Thresholds(msgspec.Struct, frozen=True, kw_only=True):
    """Where the ladder's steps lie. Between each pair is the hysteresis."""

    span_s: float = 10.0
    """What leads down must last for this long."""
    quiet_s: float = 60.0
    """What leads up must; doubles with each step up that did not hold."""
    quiet_cap_s: float = 3600.0
    misses: float = 0.1
    """Share of requests that were strained, over which a step down is due."""
    misses_low: float = 0.01
    """And under which it is quiet."""
    least: int = 10
    """Requests in a span below which a share of them says nothing."""
    pressure: float = 0.2
    pressure_low: float = 0.05
    celsius: float = 85.0
    celsius_low: float = 75.0


class Ladder:
    """The step of one model.

    Args:
        thresholds: of its moves.
        now: monotonic seconds.
    """

    def __init__(self, thresholds: Thresholds, *, now: float) -> None:
        self._at = thresholds
        self._recent: deque[tuple[float, Reading]] = deque()
        self._quiet_s = thresholds.quiet_s
        self._risen = float("-inf")
        self._restart(now)

    def update(self, reading: Reading, *, now: float, lower: bool, upper: bool) -> Move | None:
        """Take in a reading.

        Args:
            reading: since the one before.
            now: monotonic seconds.
            lower: whether there is a step down.
            upper: whether there is one up.

        Returns:
            The step that is due. Report back with :meth:`moved` once it was made, or tried.
        """
        at = self._at
        self._recent.append((now, reading))
        while self._recent and now - self._recent[0][0] > at.span_s:
            self._recent.popleft()
        share = self._strained()
        if share is not None and share > at.misses_low:
            self._quiet_since = now
        self._pressed_since = _since(self._pressed_since, reading.pressure, at.pressure, now)
        self._hot_since = _since(self._hot_since, reading.celsius, at.celsius, now)
        if (reading.pressure or 0) > at.pressure_low or (reading.celsius or 0) > at.celsius_low:
            self._quiet_since = now
        if lower and now - self._moved >= at.span_s and (down := self._down(share, now)):
            return down
        if upper and now - self._quiet_since >= self._quiet_s:
            return Move(-1, f"it was quiet for {self._quiet_s:.0f} s", "quiet")
        return None

    def moved(self, move: Move, *, now: float) -> None:
        """A step was made: what was seen before it says nothing of the new artifact."""
        if move.by < 0:
            self._risen = now
        elif now - self._risen < self._quiet_s:  # the step up did not hold
            self._quiet_s = min(self._at.quiet_cap_s, 2 * self._quiet_s)
        else:
            self._quiet_s = self._at.quiet_s
        self._restart(now)

    def _restart(self, now: float) -> None:
        self._recent.clear()
        self._moved = self._quiet_since = now
        self._pressed_since: float | None = None
        self._hot_since: float | None = None

    def _strained(self) -> float | None:
        """Share of the requests in the span; None where there were too few."""
        strained = sum(reading.strained for _, reading in self._recent)
        total = strained + sum(reading.served for _, reading in self._recent)
        return strained / total if total >= self._at.least else None

    def _down(self, share: float | None, now: float) -> Move | None:
        at = self._at
        if share is not None and share > at.misses:
            reason = f"{share:.0%} of the requests of {at.span_s:g} s were late or refused"
            return Move(1, reason, "misses")
        if self._pressed_since is not None and now - self._pressed_since >= at.span_s:
            return Move(1, f"memory was short for {at.span_s:g} s", "memory")
        if self._hot_since is not None and now - self._hot_since >= at.span_s:
            return Move(1, f"it was hotter than {at.celsius:g} °C for {at.span_s:g} s", "heat")
        return None


def _since(since: float | None, value: float | None, limit: float, now: float) -> float | None:
    """Since when a value has been over its limit; None where it is not."""
    if value is None or value <= limit:
        return None
    return now if since is None else since
