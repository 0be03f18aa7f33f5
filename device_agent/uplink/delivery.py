"""Which stored windows to send now, and which to send again. Pure; time comes in.

The broker's acknowledgement says only that the broker has a window. It stays in the outbox, and is
sent again, until the collector says that it is stored: after a reconnect at once, and otherwise
after an interval that doubles while nothing is acknowledged.

A live window is sent as soon as it is closed; what piled up before trickles behind it
(:class:`Trickle`), so that a fleet that was cut off does not come down on its collector at once.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

PASSED_OVER = 8
"""A window that the collector had so often, each time telling a mark that does not pass it, will
never be stored: it is one that the collector refuses. Everything behind it would wait for ever."""


class Key(NamedTuple):
    """A window of this device."""

    boot: str
    sequence: int


class Delivery:
    """What is on its way to the collector.

    Args:
        in_flight: windows that may be on their way at once; bounds what a broker or a collector
            that is down has to hold.
        resend_s: first interval before a window is sent again.
        resend_cap_s: longest interval.
    """

    def __init__(self, *, in_flight: int, resend_s: float, resend_cap_s: float) -> None:
        self._limit = in_flight
        self._first = resend_s
        self._cap = resend_cap_s
        self._interval = resend_s
        self._expires: dict[Key, float] = {}
        self._sends: dict[Key, int] = {}
        self._unjudged: set[Key] = set()
        """Sent since a mark was last held against them."""
        self._passed: dict[Key, int] = {}

    def connected(self) -> None:
        """A new connection: nothing that was sent on the old one may be relied upon."""
        self._expires.clear()
        self._sends.clear()
        self._interval = self._first

    def due(self, pending: Sequence[Key], now: float) -> list[Key]:
        """Windows to send now, those sent least often first, then in the outbox's order."""
        known = set(pending)
        lapsed = [key for key, end in self._expires.items() if end <= now]
        for key in lapsed:
            del self._expires[key]
        if lapsed:
            self._interval = min(self._cap, self._interval * 2)
        for key in (*self._expires, *self._sends):
            if key not in known:  # acknowledged, or given up by the outbox
                self._expires.pop(key, None)
                self._sends.pop(key, None)
                self._passed.pop(key, None)
                self._unjudged.discard(key)
        waiting = [key for key in pending if key not in self._expires]
        waiting.sort(key=lambda key: self._sends.get(key, 0))
        return waiting[: max(0, self._limit - len(self._expires))]

    def sent(self, key: Key, now: float) -> None:
        """A window went out."""
        self._expires[key] = now + self._interval
        self._sends[key] = self._sends.get(key, 0) + 1
        self._unjudged.add(key)

    def stored(self) -> None:
        """The collector acknowledged something: it is there."""
        self._interval = self._first

    def refused(self, lowest: Key) -> bool:
        """The collector told a mark of this boot, and this window is the lowest above it: whether
        to give it up."""
        if lowest in self._unjudged:  # once for each time that it was sent
            self._unjudged.discard(lowest)
            self._passed[lowest] = self._passed.get(lowest, 0) + 1
        return self._passed.get(lowest, 0) >= PASSED_OVER

    def next_due(self) -> float | None:
        """When the next window is to be sent again, or None where nothing is on its way."""
        return min(self._expires.values(), default=None)


class Trickle:
    """When the next window of the backlog may go: after delays uniform in [0, 2·mean].

    Args:
        mean_s: on average one window in so many seconds.
        random_source: of the jitter.
    """

    def __init__(self, mean_s: float, random_source: random.Random) -> None:
        self._mean = mean_s
        self._random = random_source
        self.due = 0.0
        """From when on one may go."""

    def pause(self, now: float) -> None:
        """One has gone, or the connection has just been made."""
        self.due = now + self._random.uniform(0.0, 2 * self._mean)
