"""How much of a core's time something may take. Pure; time comes in.

A token bucket, as Turner gave it for rates of packets ("New directions in communications", 1986),
with seconds of a processor for tokens. What is spent is known only afterwards, so it may run into
debt, and nothing more is allowed before time has paid for that: over any stretch of time no more is
taken than the share of it, what had been saved, and the last thing that was begun.
"""

from __future__ import annotations

SAVED_S = 1.0
"""The share of so much time is saved up, at most: what was not used in a quiet hour must not come
as a burst afterwards."""


class Allowance:
    """Args:
    share: of one core's time, over 0; 1 is as much as one thread can take.
    now: monotonic seconds. What can be saved is there to begin with.
    """

    def __init__(self, share: float, *, now: float) -> None:
        self._share = share
        self._most = share * SAVED_S
        self._credit = self._most
        self._at = now

    def allows(self, *, now: float) -> bool:
        """Whether something may begin."""
        return self._credit_at(now) > 0

    def spend(self, seconds: float, *, now: float) -> None:
        """Seconds of a processor were taken, or given back where they are negative."""
        self._credit = self._credit_at(now) - seconds
        self._at = max(self._at, now)

    def _credit_at(self, now: float) -> float:
        return min(self._most, self._credit + self._share * max(0.0, now - self._at))
