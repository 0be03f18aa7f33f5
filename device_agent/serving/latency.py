"""How long the next inference will take: order statistics over the latest ones. Pure."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque

SPAN = 256
"""Inferences remembered: the 99th percentile then rests on the three slowest, so a single hiccup
does not turn requests away, and a device that heats up is noticed within some hundred frames."""


Z99 = 2.33
"""The normal distribution's 99th percentile, in standard deviations."""


class Latency:
    """Percentiles of the last :data:`SPAN` service times, in seconds."""

    def __init__(self, span: int = SPAN) -> None:
        self._recent: deque[float] = deque(maxlen=span)
        self._sorted: list[float] = []
        self._sum = self._squares = 0.0
        self._added = 0

    def add(self, seconds: float) -> None:
        """Take in a service time."""
        if len(self._recent) == self._recent.maxlen:
            oldest = self._recent[0]
            del self._sorted[bisect_left(self._sorted, oldest)]
            self._sum -= oldest
            self._squares -= oldest * oldest
        self._recent.append(seconds)
        insort(self._sorted, seconds)
        self._sum += seconds
        self._squares += seconds * seconds
        self._added += 1
        if self._added % SPAN == 0:  # what rounding has added up is gone
            self._sum = math.fsum(self._recent)
            self._squares = math.fsum(value * value for value in self._recent)

    def clear(self) -> None:
        """Forget them all."""
        self._recent.clear()
        self._sorted.clear()
        self._sum = self._squares = 0.0

    def of_several(self, count: int) -> float:
        """What so many one after another will hardly exceed: the 99th percentile of their sum,
        taken as normal, and never more than each at its own."""
        seen = len(self._recent)
        if not count or not seen:
            return 0.0
        mean = self._sum / seen
        variance = max(0.0, self._squares / seen - mean * mean)
        return min(count * mean + Z99 * math.sqrt(count * variance), count * self.p99)

    def quantile(self, share: float) -> float:
        """Smallest time that this share of the inferences did not exceed; 0 before the first."""
        if not self._sorted:
            return 0.0
        return self._sorted[max(0, math.ceil(share * len(self._sorted)) - 1)]

    @property
    def p50(self) -> float:
        """The median."""
        return self.quantile(0.5)

    @property
    def p99(self) -> float:
        """What to reckon with."""
        return self.quantile(0.99)
