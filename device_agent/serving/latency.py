"""How long the next inferences will take: order statistics over the latest ones. Pure."""

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
        self._ends: deque[float] = deque([0.0], maxlen=span + 1)
        """Of those before the latest and of each of them, when it ended, had all run in one go."""
        self._added = 0
        self._longest: dict[int, _Longest] = {}
        self._several: dict[int, float] = {}
        """What :meth:`of_several` has said since the latest: it is asked at each change."""
        self._p99: float | None = None

    def add(self, seconds: float) -> None:
        """Take in a service time."""
        if len(self._recent) == self._recent.maxlen:
            del self._sorted[bisect_left(self._sorted, self._recent[0])]
        self._recent.append(seconds)
        insort(self._sorted, seconds)
        self._ends.append(self._ends[-1] + seconds)
        self._added += 1
        self._several.clear()
        self._p99 = None

    def clear(self) -> None:
        """Forget them all."""
        self._recent.clear()
        self._sorted.clear()
        self._ends.clear()
        self._ends.append(0.0)
        self._added = 0
        self._longest.clear()
        self._several.clear()
        self._p99 = None

    def of_several(self, count: int) -> float:
        """The longest that so many one after another took lately. Slow inferences come in spells,
        so the sum of several is worse than that of independent ones: by the percentiles of those, 3
        % of what was admitted under overload came late where neighbours correlate with .9. More
        than half of what is remembered at once is reckoned in parts.
        """
        several = self._several.get(count)
        if several is None:
            several = self._several[count] = self._reckon(count)
        return several

    def _reckon(self, count: int) -> float:
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
            longest = self._longest[count] = _Longest(count)
        return longest.of(self._ends, self._added)

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


class _Longest:
    """The most that so many inferences one after another took, of the latest.

    A queue of the sums that none after them exceeds, the oldest in front: the largest of a sliding
    window. It takes in what is new when it is asked, mostly one or two: under overload it is asked
    for each request that is refused, with cold caches, where a look at all sums took NumPy .13 ms.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._seen = 0
        self._queue: deque[tuple[int, float]] = deque()

    def of(self, ends: deque[float], added: int) -> float:
        """Args:
        ends: of the latest inferences and of the one before them; more than ``count``.
        added: number of the latest, counted from 1.
        """
        count, queue = self._count, self._queue
        first = added - len(ends) + 1 + count
        for end in range(max(self._seen + 1, first), added + 1):
            place = end - added - 1
            took = ends[place] - ends[place - count]
            while queue and queue[-1][1] <= took:
                queue.pop()
            queue.append((end, took))
        self._seen = added
        while queue[0][0] < first:
            queue.popleft()
        return queue[0][1]
