"""Messages to bytes and back: MessagePack for windows, JSON for what a person may want to read."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from edgeml.decoding import from_json, from_msgpack
from edgeml.errors import TelemetryError
from edgeml.telemetry.messages import Message

M = TypeVar("M", bound=Message)

_json = msgspec.json.Encoder()
_msgpack = msgspec.msgpack.Encoder()


class _Head(msgspec.Struct):
    schema: int


def encode(message: Message) -> bytes:
    """A message as its payload.

    Raises:
        TelemetryError: it is longer than its kind may be.
    """
    payload = (_msgpack if message.BINARY else _json).encode(message)
    _check_length(payload, type(message))
    return payload


def decode(payload: bytes, kind: type[M]) -> M:
    """A payload as the message that its topic promises.

    Raises:
        TelemetryError: too long, no such message, or of another schema.
    """
    _check_length(payload, kind)
    read = from_msgpack if kind.BINARY else from_json
    try:
        found = read(payload, _Head).schema
        if found not in kind.SCHEMAS:
            raise TelemetryError(
                f"a {kind.__name__} of schema {found}",
                expected=f"schema {' or '.join(map(str, kind.SCHEMAS))}",
                remedy="Update the older side: the agent there or the collector here.",
            )
        return read(payload, kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise TelemetryError(
            f"a payload of {len(payload):,} bytes is no {kind.__name__}: {error}",
            expected=f"{'MessagePack' if kind.BINARY else 'JSON'} as docs/telemetry.md has it",
        ) from error


def _check_length(payload: bytes, kind: type[Message]) -> None:
    if len(payload) > kind.MAX_BYTES:
        raise TelemetryError(
            f"a {kind.__name__} of {len(payload):,} bytes",
            expected=f"at most {kind.MAX_BYTES:,}",
        )
