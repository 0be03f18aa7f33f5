"""Which artifacts nothing beats: the Pareto front of latency, accuracy and bytes. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class Merits(msgspec.Struct, frozen=True, kw_only=True):
    """What an artifact is compared by."""

    latency_ms: float | None
    loss: float | None
    """Of accuracy, or else of agreement with the source."""
    bytes: int


def front(merits: Sequence[Merits]) -> list[bool]:
    """Whether each is on the front: none is better in one merit and no worse in the others.

    One whose latency or loss is not known is compared by the rest, with those that lack the same.
    """
    return [
        not any(_beats(other, one) for j, other in enumerate(merits) if j != i)
        for i, one in enumerate(merits)
    ]


def _beats(one: Merits, other: Merits) -> bool:
    pairs = [
        (one.latency_ms, other.latency_ms),
        (one.loss, other.loss),
        (float(one.bytes), float(other.bytes)),
    ]
    if any((a is None) != (b is None) for a, b in pairs):
        return False
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    return all(a <= b for a, b in known) and any(a < b for a, b in known)
