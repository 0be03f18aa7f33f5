"""The most frequent of names that come without end, in a bounded number of counters.

Misra and Gries, "Finding repeated elements" (1982), in the form that takes many rows at once
(Agarwal and others, "Mergeable summaries", 2012): of more names than counters the largest stay,
each less what the first one that goes had. So no count is above the true one, and after n rows none
is below it by more than n / (:data:`KEPT` + 1): whatever more rows than that had is there.
"""

from __future__ import annotations

from collections.abc import Mapping

KEPT = 128
"""Counters."""


class Frequent:
    """Counts the most frequent names, each at most as often as it came."""

    def __init__(self) -> None:
        self._times: dict[str, int] = {}
        self.lost = 0
        """At most so often a name came that is not here, and another one more than it says."""

    def add(self, names: Mapping[str, int]) -> None:
        """Take in names with how often each came."""
        times = self._times
        for name, often in names.items():
            times[name] = times.get(name, 0) + often
        if len(times) > KEPT:
            least = sorted(times.values(), reverse=True)[KEPT]
            self.lost += least
            self._times = {name: often - least for name, often in times.items() if often > least}

    def most(self) -> dict[str, int]:
        """How often each surely came, the most frequent first."""
        return dict(sorted(self._times.items(), key=lambda item: (-item[1], item[0])))

    def of(self, least: int) -> list[str]:
        """Names that surely came so often, the most frequent first."""
        return [name for name, often in self.most().items() if often >= least]
