"""How long the next inferences will take: order statistics over the latest ones. Pure."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque

import numpy as np

SPAN = 256
"""Inferences remembered: the 99th percentile then rests on the three slowest, so a single hiccup
does not turn requests away, and a device that heats up is noticed within some hundred frames."""


class Latency:
    """Percentiles of the last :data:`SPAN` service times, in seconds."""

    def __init__(self, span: int = SPAN) -> None:
        self._recent: deque[float] = deque(maxlen=span)
        self._sorted: list[float] = []
        self._longest: dict[int, float] = {}
        self._sums = np.zeros(1)
        self._p99: float | None = None

    def add(self, seconds: float) -> None:
        """Take in a service time."""
        if len(self._recent) == self._recent.maxlen:
            del self._sorted[bisect_left(self._sorted, self._recent[0])]
        self._recent.append(seconds)
        insort(self._sorted, seconds)
        self._longest.clear()
        self._p99 = None

    def clear(self) -> None:
        """Forget them all."""
        self._recent.clear()
        self._sorted.clear()
        self._longest.clear()
        self._p99 = None

    def of_several(self, count: int) -> float:
        """The longest that so many one after another took lately. Slow inferences come in spells,
        so the sum of several is worse than that of independent ones: by the percentiles of those, 3
        % of what was admitted under overload came late where neighbours correlate with .9. More
        than half of what is remembered at once is reckoned in parts.
        """
        seen = len(self._recent)
        if not count or not seen:
            return 0.0
        if count == 1:
            return self._sorted[-1]
        most = max(1, seen // 2)
        if count > most:
            whole, rest = divmod(count, most)
            return whole * self.of_several(most) + self.of_several(rest)
        longest = self._longest.get(count)
        if longest is None:
            if not self._longest:
                self._sums = np.cumsum([0.0, *self._recent])
            longest = float(np.max(self._sums[count:] - self._sums[:-count]))
            self._longest[count] = longest
        return longest

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
        if self._p99 is None:
            self._p99 = self.quantile(0.99)
        return self._p99
