"""Which windows to merge when there is no room for all. Pure.

The neighbours that together cover the shortest time go first, so that resolution is lost evenly:
after a month in a space for a day all windows are about a month's thirtieth of a day's long, and
windows of like length are what the collector compares best. Neighbours are two windows that may be
merged (one :func:`edgeml.telemetry.merge_key`) with none of their kind between them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from edgeml.telemetry import Window, merge, merge_key


class Waiting(NamedTuple):
    """A window that was never sent."""

    id: int
    """In the order in which they were closed."""
    key: str
    duration_ms: int
    size: int
    """Bytes."""


def pairs_to_merge(windows: Iterable[Waiting], excess: int) -> list[tuple[int, int]]:
    """Pairs of ids, no id twice, earlier one first: enough to free ``excess`` bytes, or all that
    there are. What a pair frees is taken to be its smaller window; a sum is hardly ever shorter.

    Args:
        windows: by id.
        excess: bytes.
    """
    last: dict[str, Waiting] = {}
    pairs: list[tuple[int, Waiting, Waiting]] = []
    for window in windows:
        before = last.get(window.key)
        if before is not None:
            pairs.append((before.duration_ms + window.duration_ms, before, window))
        last[window.key] = window
    pairs.sort(key=lambda pair: (pair[0], pair[1].id))
    chosen: list[tuple[int, int]] = []
    used: set[int] = set()
    for _, first, second in pairs:
        if excess <= 0:
            break
        if used.isdisjoint((first.id, second.id)):
            used |= {first.id, second.id}
            chosen.append((first.id, second.id))
            excess -= min(first.size, second.size)
    return chosen


def thinned(windows: Sequence[Window], limit: int) -> list[Window]:
    """At most ``limit`` windows with the same counts, where merging can bring them to that.

    Never drops one: there are more where too many differ in their keys.
    """
    kept = list(windows)
    while len(kept) > limit:
        rows = [Waiting(n, merge_key(w), w.duration_ms, 1) for n, w in enumerate(kept)]
        pairs = pairs_to_merge(rows, 1)
        if not pairs:
            break
        ((first, second),) = pairs
        kept[first] = merge(kept[first], kept[second])
        del kept[second]
    return kept
