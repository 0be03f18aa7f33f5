"""Decides what becomes of a payload, and touches nothing.

A refusal has a *reason* from a short fixed list, so that reasons can be counted, and a sentence.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from edgeml.errors import TelemetryError
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
    if len({(s.stream, s.grid) for s in window.statistics}) != len(window.statistics):
        return Refused("value", "a stream twice")
    for stream in window.statistics:
        if max(stream.cells, default=0) > LARGEST:
            return Refused("value", f"a count above {LARGEST:,} in {stream.stream}")
    return None


def off_grid(window: Window, grids: dict[str, tuple[str, int]]) -> str:
    """Why the counts of ``window`` do not fit its bundle, or an empty string.

    Args:
        window: the window.
        grids: hash and number of cells by stream of the bundle's baseline.
    """
    for stream in window.statistics:
        if stream.stream not in grids:
            return f"stream {stream.stream!r} is not in the bundle"
        grid, cells = grids[stream.stream]
        if stream.grid != grid or len(stream.cells) != cells:
            return (
                f"stream {stream.stream!r} is counted on grid {stream.grid} with "
                f"{len(stream.cells)} cells, and the bundle has {grid} with {cells}"
            )
    return ""
