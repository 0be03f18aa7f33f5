"""In which order a search tries what a target makes, and what it need not try. Pure.

float32 comes first: it is a step of every other conversion, and what all others are expected to
cost is a share of what it costs. Then come the others, the cheapest first. A precision is left out
where even at its best it would be beyond a limit, or could not beat what already satisfies
everything: the shares below say how good it can be at best. They are deliberately optimistic, so
that nothing is left out that might have won.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from edgeml.bundle.manifest import Precision
from edgeml.exporter.judging.figures import Figures, satisfies
from edgeml.exporter.judging.pace import SAME_LATENCY
from edgeml.exporter.request import Limits

ORDER: tuple[Precision, ...] = (
    "fp32",
    "int8",
    "mixed",
    "int8-dynamic",
    "int4-weights",
    "int8-weights",
    "int16x8",
    "fp16",
)

LEAST_LATENCY: Mapping[Precision, Mapping[Precision, float]] = {
    "int8": {"fp32": 0.15},
    "mixed": {"fp32": 0.15, "int8": 0.9},
    "int8-dynamic": {"fp32": 0.25, "int8": 1.0},
    "int16x8": {"fp32": 0.5, "int8": 1.0},
    "int8-weights": {"fp32": 0.9},
    "int4-weights": {"fp32": 0.9},
    "fp16": {"fp32": 0.9},
}
"""Of the latency of another precision on the same target, the share that this one takes at best.
Weights alone are unpacked into floats before they are used, and processors without arithmetic in
half precision do the same with float16."""

LEAST_BYTES: Mapping[Precision, Mapping[Precision, float]] = {
    "int8": {"fp32": 0.24},
    "mixed": {"int8": 1.0},
    "int8-dynamic": {"fp32": 0.24},
    "int16x8": {"fp32": 0.24},
    "int8-weights": {"fp32": 0.24},
    "int4-weights": {"fp32": 0.12},
    "fp16": {"fp32": 0.48},
}
"""Likewise of the bytes: what is rounded to 8 bits has a quarter of them, and its scales beside."""

WORTH_BYTES = 0.9
"""An equally fast one is tried where it could have a tenth of the bytes less."""

NEAR_LATENCY = 1.25
"""Of a limit on latency: what was measured alone, perhaps in a slow spell of the core, and is
beyond the limit by less, is measured again beside the others before it is given up."""

FIRST_FLOATS = 1
"""Layers that stay float in the first ``mixed`` one; doubled with each that falls short."""


def ordered(precisions: Sequence[Precision]) -> list[Precision]:
    """Precisions in the order in which they are tried, ``mixed`` left out: see :func:`mixable`."""
    return [each for each in ORDER if each in precisions and each != "mixed"]


def pointless(precision: Precision, tried: Sequence[Figures], limits: Limits) -> str:
    """Why a precision need not be tried, given what was; empty where it may win.

    Args:
        precision: the next one.
        tried: of the same target.
        limits: what it would have to keep within.
    """
    latency = _least(precision, tried, LEAST_LATENCY, {f.candidate: f.p50_ms for f in tried})
    size = _least(precision, tried, LEAST_BYTES, {f.candidate: float(f.bytes) for f in tried})
    if limits.latency_ms is not None and latency > limits.latency_ms:
        return f"at best {latency:.3g} ms, more than the limit of {limits.latency_ms:.4g} ms"
    if limits.size_bytes is not None and size > limits.size_bytes:
        least, most = size / 1e6, limits.size_bytes / 1e6
        return f"at best {least:.3g} MB, more than the limit of {most:.4g} MB"
    for each in tried:
        if each.p50_ms is None or not satisfies(each, limits):
            continue
        slower = latency > each.p50_ms * SAME_LATENCY
        same = latency >= each.p50_ms / SAME_LATENCY and size >= each.bytes * WORTH_BYTES
        if slower or same:
            name = each.candidate.precision
            return f"{name} satisfies everything, and this one is expected to be no faster"
    return ""


def nearly(limits: Limits) -> Limits:
    """Limits that also hold what is only just too slow: see :data:`NEAR_LATENCY`."""
    if limits.latency_ms is None:
        return limits
    return msgspec.structs.replace(limits, latency_ms=limits.latency_ms * NEAR_LATENCY)


def contenders(tried: Sequence[Figures], limits: Limits) -> list[Figures]:
    """Those between which latency decides, so that they must be measured in turns.

    Args:
        tried: all of a target, each measured alone.
        limits: what they have to keep within.

    Returns:
        Those within the limits or only just too slow; none where a single one is left that is fast
        enough.
    """
    near = [each for each in tried if each.p50_ms is not None and satisfies(each, nearly(limits))]
    settled = len(near) == 1 and satisfies(near[0], limits)
    return [] if settled else near


def mixable(int8: Figures, limits: Limits) -> bool:
    """Whether layers that stay float could mend what int8 lacks: accuracy, and nothing else."""
    short = bool(int8.shortfall) or int8.verdict == "beyond"
    slow = limits.latency_ms is not None and (int8.p50_ms or 0) * 0.9 > limits.latency_ms
    large = limits.size_bytes is not None and int8.bytes > limits.size_bytes
    return short and not slow and not large


def next_floats(results: Mapping[int, bool], most: int) -> int | None:
    """How many layers are to stay float next: doubled while too few, then halved in between.

    Args:
        results: number of float layers to whether that sufficed.
        most: how many there could be.

    Returns:
        The number, or None when the least that suffices is known to a quarter, or nothing does.
    """
    short = max((count for count, enough in results.items() if not enough), default=0)
    enough = min((count for count, good in results.items() if good), default=None)
    if enough is None:
        if short >= most:
            return None
        return min(most, max(FIRST_FLOATS, 2 * short))
    middle = (short + enough) // 2
    return middle if middle not in results and enough - short > max(1, enough // 4) else None


def _least(
    precision: Precision,
    tried: Sequence[Figures],
    shares: Mapping[Precision, Mapping[Precision, float]],
    values: Mapping[object, float | None],
) -> float:
    least = 0.0
    for each in tried:
        share = shares.get(precision, {}).get(each.candidate.precision)
        value = values[each.candidate]
        if share is not None and value is not None:
            least = max(least, share * value)
    return least
