"""How long the next inference will take: order statistics over the latest ones. Pure."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque

SPAN = 256
"""Inferences remembered: the 99th percentile then rests on the three slowest, so a single hiccup
does not turn requests away, and a device that heats up is noticed within some hundred frames."""


class Latency:
    """Percentiles of the last :data:`SPAN` service times, in seconds."""

    def __init__(self, span: int = SPAN) -> None:
        self._recent: deque[float] = deque(maxlen=span)
        self._sorted: list[float] = []

    def add(self, seconds: float) -> None:
        """Take in a service time."""
        if len(self._recent) == self._recent.maxlen:
            del self._sorted[bisect_left(self._sorted, self._recent[0])]
        self._recent.append(seconds)
        insort(self._sorted, seconds)

    def clear(self) -> None:
        """Forget them all."""
        self._recent.clear()
        self._sorted.clear()

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
