"""Two windows as one: counts add, so nothing is lost but the resolution in time. Pure."""

from __future__ import annotations

import hashlib
from collections import Counter

import msgspec

from edgeml.errors import TelemetryError
from edgeml.telemetry.messages import StreamCounts, Window


def merge_key(window: Window) -> str:
    """What two windows must have in common to be merged: model, version, bundle, artifact, and the
    grids of all their streams. 16 hexadecimal digits; neither boot nor sequence is in it."""
    streams = [(entry.stream, entry.grid, len(entry.cells)) for entry in window.statistics]
    names = (window.model, window.version, window.bundle, window.artifact, streams)
    return hashlib.sha256(msgspec.json.encode(names)).hexdigest()[:16]


def merge(first: Window, second: Window) -> Window:
    """Both windows as one, exactly: it begins when ``first`` began, all else is added.

    Neither may have been sent: who has one of them already would count it twice. The numbers of
    the result are those of ``first``, and mean nothing.

    Raises:
        TelemetryError: they differ in what :func:`merge_key` holds.
    """
    if merge_key(first) != merge_key(second):
        raise TelemetryError(
            f"a window of {second.model} {second.version}, {second.artifact}, was to be merged "
            f"with one of {first.model} {first.version}, {first.artifact}",
            expected="the same model, version, bundle, artifact and grids",
        )
    return msgspec.structs.replace(
        first,
        duration_ms=first.duration_ms + second.duration_ms,
        merged=first.merged + second.merged,
        rows=first.rows + second.rows,
        outcomes=dict(_sum(first.outcomes, second.outcomes)),
        statistics=[
            StreamCounts(one.stream, one.grid, _added(one.cells, two.cells))
            for one, two in zip(first.statistics, second.statistics, strict=True)
        ],
    )


def _sum(first: dict[str, int], second: dict[str, int]) -> Counter[str]:
    total = Counter(first)
    total.update(second)  # unlike +, it keeps the zeros
    return total


def _added(first: list[int], second: list[int]) -> list[int]:
    return [one + two for one, two in zip(first, second, strict=True)]
