"""Decides what becomes of a payload, and touches nothing.

A refusal has a *reason* from a short fixed list, so that reasons can be counted, and a sentence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from edgeml.errors import StatisticsError, TelemetryError
from edgeml.statistics import Counts, Stream, unpack
from edgeml.statistics.grid import UNITS
from edgeml.statistics.places import MARGIN
from edgeml.statistics.vector import UNITY
from edgeml.telemetry import Event, Message, Reported, Status, Topic, Window, decode, parse_topic

Reason = Literal["topic", "oversized", "schema", "garbage", "name", "value"]
REASONS: tuple[Reason, ...] = ("topic", "oversized", "schema", "garbage", "name", "value")

KINDS: dict[str, type[Message]] = {
    "stats": Window,
    "status": Status,
    "reported": Reported,
    "event": Event,
}

LARGEST = 2**48
"""Counts, sequences and times above it are a fault of the sender's, and would overflow our sums."""


LARGEST_SUM = 2**60
"""Likewise for a sum of squares."""


class Received(msgspec.Struct, frozen=True):
    """A message that keeps to the contract."""

    topic: Topic
    message: Message
    received_ms: int
    retained: bool = False


class Refused(msgspec.Struct, frozen=True):
    """One that does not."""

    reason: Reason
    detail: str


def validate(
    topic: str, payload: bytes, *, received_ms: int, retained: bool = False
) -> Received | Refused:
    """Check a payload as it came from the broker."""
    try:
        parsed = parse_topic(topic)
    except TelemetryError as error:
        return Refused("topic", str(error))
    kind = KINDS.get(parsed.leaf)
    if kind is None:
        return Refused("topic", f"nothing is expected on {parsed.leaf}")
    if len(payload) > kind.MAX_BYTES:
        return Refused("oversized", f"{len(payload):,} bytes, at most {kind.MAX_BYTES:,}")
    try:
        message = decode(payload, kind)
    except TelemetryError as error:
        return Refused("schema" if "schema" in error.expected else "garbage", str(error))
    wrong = _contradiction(parsed, message)
    return wrong or Received(parsed, message, received_ms, retained)


def _contradiction(topic: Topic, message: Message) -> Refused | None:
    match message:
        case Window():
            if message.model != topic.name:
                return Refused("name", f"model {message.model!r} on the topic of {topic.name!r}")
            return _bad_window(message)
        case Event():
            if message.kind != topic.name:
                return Refused("name", f"kind {message.kind!r} on the topic of {topic.name!r}")
            if message.time_ms > LARGEST:
                return Refused("value", f"time {message.time_ms}")
        case _:
            pass
    return None


def _bad_window(window: Window) -> Refused | None:
    numbers = (window.sequence, window.start_ms, window.duration_ms, window.rows, window.merged)
    if max(*numbers, *window.outcomes.values(), 0) > LARGEST:
        return Refused("value", f"a number above {LARGEST:,}")
    if window.oldest > window.sequence:
        return Refused("value", f"oldest {window.oldest} after sequence {window.sequence}")
    if window.statistics and not window.baseline:
        return Refused("value", "statistics of no baseline")
    return None


def read_statistics(
    baseline: str, statistics: Sequence[bytes], *, known: str, streams: Mapping[str, Stream]
) -> dict[str, Counts]:
    """The counts of a window by stream.

    Args:
        baseline: hash of the baseline that the device says it counted on.
        statistics: its packed counts.
        known: hash of the baseline in the window's bundle.
        streams: of that baseline, in its order.

    Raises:
        StatisticsError: they are of another baseline, are no counts, or such as no values can have.
    """
    if not statistics:
        return {}
    if baseline != known or len(statistics) != len(streams):
        raise StatisticsError(
            f"{len(statistics)} statistics of the baseline {baseline[:12] or '(none)'}",
            expected=f"the {len(streams)} of the baseline {known[:12] or '(none)'} in the bundle",
            remedy="The device runs another bundle than it says: deploy it again.",
        )
    found: dict[str, Counts] = {}
    for packed, (name, stream) in zip(statistics, streams.items(), strict=True):
        found[name] = counts = unpack(packed, stream.grid)
        if counts.cells.max(initial=0) > LARGEST or not _possible(stream, counts):
            raise StatisticsError(
                f"sums in {name} that {counts.total:,} values cannot have",
                expected=f"what clipped values add up to, of at most {LARGEST:,} values a cell",
            )
    return found


def _possible(stream: Stream, counts: Counts) -> bool:
    """Whether so many values can have such sums: one forged sum would spoil every one after it."""
    n, sums = counts.total, [abs(each) for each in counts.sums.tolist()]
    match stream.grid.kind:
        case "numeric":
            most = (stream.grid.bins + MARGIN) * UNITS
            return sums[0] <= n * most and sums[1] <= n * most * most <= LARGEST_SUM
        case "categorical":
            return max(sums) <= int(counts.cells[stream.grid.other])
        case "vector":
            return max(sums) <= 2 * n * UNITY
