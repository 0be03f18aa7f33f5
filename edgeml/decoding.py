"""Documents as the types that they are to be, in processes that have threads.

msgspec learns what a type is made of when it is first asked for. While one thread has it learn, it
gives others what it knows so far, and they crash the process: of forty with six threads that first
read a baseline, three did (msgspec 0.22). So whatever reads a document as a type asks here, where
one type is learned at a time, before it is read.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar, overload

import msgspec

T = TypeVar("T")
Hook = Callable[[type, Any], Any]
"""Makes what msgspec cannot of a type and a plain value."""

_learning = threading.Lock()
_json: dict[Any, msgspec.json.Decoder[Any]] = {}
_msgpack: dict[Any, msgspec.msgpack.Decoder[Any]] = {}


@overload
def from_json(data: bytes | str, kind: type[T], *, hook: Hook | None = None) -> T: ...
@overload
def from_json(data: bytes | str, kind: Any = Any, *, hook: Hook | None = None) -> Any: ...
def from_json(data: bytes | str, kind: Any = Any, *, hook: Hook | None = None) -> Any:
    """Read JSON.

    Raises:
        msgspec.DecodeError: it is something else.
    """
    decoder = json_decoder(kind)
    return (
        decoder.decode(data)
        if hook is None
        else msgspec.json.decode(data, type=kind, dec_hook=hook)
    )


def from_msgpack(data: bytes, kind: type[T]) -> T:
    """Read MessagePack.

    Raises:
        msgspec.DecodeError: it is something else.
    """
    return msgpack_decoder(kind).decode(data)


@overload
def from_toml(data: bytes | str, kind: type[T]) -> T: ...
@overload
def from_toml(data: bytes | str, kind: Any = Any) -> Any: ...
def from_toml(data: bytes | str, kind: Any = Any) -> Any:
    """Read TOML.

    Raises:
        msgspec.DecodeError: it is something else.
    """
    json_decoder(kind)
    return msgspec.toml.decode(data, type=kind)


@overload
def from_plain(value: object, kind: type[T], *, hook: Hook | None = None) -> T: ...
@overload
def from_plain(value: object, kind: Any, *, hook: Hook | None = None) -> Any: ...
def from_plain(value: object, kind: Any, *, hook: Hook | None = None) -> Any:
    """Make plain dictionaries, lists and numbers what they are to be.

    Raises:
        msgspec.ValidationError: they are something else.
    """
    json_decoder(kind)
    return msgspec.convert(value, kind, dec_hook=hook)


@overload
def json_decoder(kind: type[T]) -> msgspec.json.Decoder[T]: ...
@overload
def json_decoder(kind: Any) -> msgspec.json.Decoder[Any]: ...
def json_decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    """The one of this type, which threads share."""
    found = _json.get(kind)
    if found is None:
        with _learning:
            found = _json[kind] = msgspec.json.Decoder(kind)
    return found


@overload
def msgpack_decoder(kind: type[T]) -> msgspec.msgpack.Decoder[T]: ...
@overload
def msgpack_decoder(kind: Any) -> msgspec.msgpack.Decoder[Any]: ...
def msgpack_decoder(kind: Any) -> msgspec.msgpack.Decoder[Any]:
    """The one of this type, which threads share."""
    found = _msgpack.get(kind)
    if found is None:
        with _learning:
            found = _msgpack[kind] = msgspec.msgpack.Decoder(kind)
    return found


def json_schema(kind: Any) -> bytes:
    """The JSON Schema (2020-12) of a type, indented, as it is published in docs/schema."""
    import inspect  # which programs on devices do without

    schema = msgspec.json.schema(kind)
    # Python 3.13 takes a docstring's indentation away, earlier ones leave it.
    for definition in schema["$defs"].values():
        if "description" in definition:
            definition["description"] = inspect.cleandoc(definition["description"])
    return msgspec.json.format(msgspec.json.encode(schema, order="sorted"), indent=2) + b"\n"
