"""Whether one artifact is slower than another, as far as measuring can tell. Pure.

Latencies within 5 % of each other are the same. Those of artifacts that took turns are compared
turn by turn: one is slower where it took more than that in so many turns that chance, for which
more and less are the same, would seldom give so many (the sign test: 15 of 20). Otherwise nothing
is shown but noise.
"""

from __future__ import annotations

import math
import statistics

from edgeml.exporter.judging.figures import Figures

SAME_LATENCY = 1.05
ERROR = 0.05
"""Of calling an artifact slower that is as fast as the other one."""


def slower(one: Figures, other: Figures) -> bool:
    """Whether ``one`` is shown to take longer than ``other``; both were measured."""
    ratios = _ratios(one, other)
    if not ratios:
        assert one.p50_ms is not None
        assert other.p50_ms is not None
        return one.p50_ms > other.p50_ms * SAME_LATENCY
    over = sum(ratio > SAME_LATENCY for ratio in ratios)
    return _by_chance(over, len(ratios)) <= ERROR


def told(one: Figures, other: Figures) -> str:
    """How long one takes, in times of the other."""
    ratios = _ratios(one, other)
    if not ratios:
        assert one.p50_ms is not None
        assert other.p50_ms is not None
        return f"{one.p50_ms / other.p50_ms:.2f} of its time"
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return f"{middle:.2f} of its time in {len(ratios)} turns, half of them {low:.2f} to {high:.2f}"


def _ratios(one: Figures, other: Figures) -> list[float]:
    if len(one.turns_ms) != len(other.turns_ms):
        return []
    pairs = zip(one.turns_ms, other.turns_ms, strict=True)
    return [mine / theirs for mine, theirs in pairs if theirs]


def _by_chance(over: int, count: int) -> float:
    """The probability of so many heads or more."""
    return sum(math.comb(count, heads) for heads in range(over, count + 1)) / 2**count
