"""Two windows as one: counts add, so nothing is lost but the resolution in time. Pure.

It needs no baseline: packed counts say themselves how many numbers they are.
"""

from __future__ import annotations

import hashlib
from collections import Counter

import msgspec

from edgeml.errors import StatisticsError, TelemetryError
from edgeml.telemetry.messages import WINDOW_SCHEMA, Window


def merge_key(window: Window) -> str:
    """What two windows must have in common to be merged: model, version, bundle, artifact, and the
    baseline that their statistics are counted on. 16 hexadecimal digits; neither boot nor sequence
    is in it."""
    streams = (window.baseline, len(window.statistics))
    names = (window.model, window.version, window.bundle, window.artifact, streams)
    return hashlib.sha256(msgspec.json.encode(names)).hexdigest()[:16]


def merge(first: Window, second: Window) -> Window:
    """Both windows as one, exactly: it begins when ``first`` began, all else is added.

    Neither may have been sent: who has one of them already would count it twice. The numbers of
    the result are those of ``first``, and mean nothing.

    Raises:
        TelemetryError: they differ in what :func:`merge_key` holds, or one has counts that cannot
            be read.
    """
    if merge_key(first) != merge_key(second):
        raise TelemetryError(
            f"a window of {second.model} {second.version}, {second.artifact}, was to be merged "
            f"with one of {first.model} {first.version}, {first.artifact}",
            expected="the same model, version, bundle, artifact and baseline",
        )
    from edgeml.statistics.packed import merged  # an agent without a model needs no statistics

    try:
        statistics = list(map(merged, first.statistics, second.statistics))
    except StatisticsError as error:
        raise TelemetryError(
            f"two windows of {first.model} {first.version} cannot be merged: {error}"
        ) from error
    return msgspec.structs.replace(
        first,
        schema=WINDOW_SCHEMA,
        duration_ms=first.duration_ms + second.duration_ms,
        merged=first.merged + second.merged,
        rows=first.rows + second.rows,
        outcomes=dict(_sum(first.outcomes, second.outcomes)),
        statistics=statistics,
    )


def _sum(first: dict[str, int], second: dict[str, int]) -> Counter[str]:
    total = Counter(first)
    total.update(second)  # unlike +, it keeps the zeros
    return total
