"""Hashes that name what counts mean, by content alone: equal things have one hash, however they
were made, copied or sent. (msgspec's ``omit_defaults`` asks whether a number *is* the default.)"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from functools import cache
from typing import Any

import msgspec

# A collector asks for each count that it reads, and each time the annotations would be evaluated.
_fields = cache(msgspec.structs.fields)


def digest(document: Any) -> str:
    """16 hexadecimal digits of SHA-256 over canonical JSON."""
    return hashlib.sha256(msgspec.json.encode(document, order="sorted")).hexdigest()[:16]


def changed(struct: msgspec.Struct, *, besides: Collection[str] = ()) -> dict[str, Any]:
    """The fields that are not what they are by default, and some that are taken as they are."""
    found: dict[str, Any] = {}
    for field in _fields(type(struct)):
        value = getattr(struct, field.name)
        if value != field.default or field.name in besides:
            # 1.0 for 1, as it comes back from JSON, and 0.0 for −0.0, which is equal.
            found[field.name] = value + 0.0 if field.type is float else value
    return found
