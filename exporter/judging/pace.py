"""Whether one artifact is slower than another, as far as measuring can tell. Pure.

Latencies within 5 % of each other are the same. Those of artifacts that took turns are compared
turn by turn, and the median of those ratios counts: a slow spell of the core falls on both, and
what falls on one alone is less than half of the turns.
"""

from __future__ import annotations

import statistics

from edgeml.exporter.judging.figures import Figures

SAME_LATENCY = 1.05


def slower(one: Figures, other: Figures) -> bool:
    """Whether ``one`` takes longer than ``other``; both were measured."""
    if ratios := _ratios(one, other):
        return statistics.median(ratios) > SAME_LATENCY
    assert one.p50_ms is not None
    assert other.p50_ms is not None
    return one.p50_ms > other.p50_ms * SAME_LATENCY


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
