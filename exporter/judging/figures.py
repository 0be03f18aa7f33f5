"""What is known of a candidate when it is judged, and which limits it misses. Pure."""

from __future__ import annotations

import msgspec

from edgeml.exporter.candidates import Candidate
from edgeml.exporter.judging.certificate import Verdict, points
from edgeml.exporter.request import Limits


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What choice and search go by."""

    candidate: Candidate
    bytes: int
    shortfall: str = ""
    """Which figures missed the tolerance; empty where it passed."""
    accuracy: float | None = None
    drop: float | None = None
    """Of the metric, against the source."""
    verdict: Verdict = "open"
    """Whether the drop is within the limit."""
    samples: int = 0
    """How many the check saw."""
    p50_ms: float | None = None
    turns_ms: tuple[float, ...] = ()
    """Medians of the turns that it took with others; empty where it was measured alone."""
    peak_rss_mb: float | None = None
    not_measured: str = ""


class Missed(msgspec.Struct, frozen=True):
    """A limit that a candidate is beyond."""

    limit: str
    """``latency``, ``memory``, ``size`` or ``accuracy``."""
    text: str
    """``latency 23.4 ms (at most 20 ms)``."""
    excess: float
    """How far beyond, as a share of the limit; for accuracy in units of ten points."""


def missed(figures: Figures, limits: Limits) -> tuple[Missed, ...]:
    """The limits that a candidate is beyond; what is not known is not missed."""
    found: list[Missed] = []
    if limits.accuracy_drop is not None and figures.verdict == "beyond":
        drop = figures.drop or 0.0
        found.append(
            Missed(
                "accuracy",
                f"accuracy drop {points(drop)} on {figures.samples:,} samples "
                f"(at most {points(limits.accuracy_drop)})",
                max(0.0, drop - limits.accuracy_drop) * 10,
            )
        )
    size = None if limits.size_bytes is None else limits.size_bytes / 1e6
    for limit, value, most, told in (
        ("latency", figures.p50_ms, limits.latency_ms, _milliseconds),
        ("memory", figures.peak_rss_mb, limits.memory_mb, _megabytes),
        ("size", figures.bytes / 1e6, size, _megabytes),
    ):
        if value is not None and most is not None and value > most:
            text = f"{limit} {told(value)} (at most {told(most)})"
            found.append(Missed(limit, text, value / most - 1 if most else float("inf")))
    return tuple(found)


def satisfies(figures: Figures, limits: Limits) -> bool:
    """Whether a candidate passed its check and is within all limits."""
    return not figures.shortfall and not missed(figures, limits)


def distance(figures: Figures, limits: Limits) -> float:
    """How far a candidate is from satisfying all, for the order in which near ones are told."""
    return sum(each.excess for each in missed(figures, limits)) + (10 if figures.shortfall else 0)


def _milliseconds(value: float) -> str:
    return f"{value:.4g} ms"


def _megabytes(value: float) -> str:
    return f"{value:.4g} MB" if value >= 1 else f"{value * 1000:.4g} kB"
