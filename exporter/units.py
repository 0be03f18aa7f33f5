"""Quantities and shapes as people write them: ``1%``, ``20ms``, ``64MB``, ``input=1,3,224,224``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from edgeml.errors import UsageError

_NUMBER = re.compile(r"([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*(\D*)")

_SHARES = {"": 1.0, "%": 0.01, "points": 0.01, "point": 0.01}
_MILLISECONDS = {"ms": 1.0, "s": 1000.0, "us": 0.001, "µs": 0.001}
_BYTES = {
    "b": 1.0,
    "kb": 1e3,
    "mb": 1e6,
    "gb": 1e9,
    "kib": 1024.0,
    "mib": 1024.0**2,
    "gib": 1024.0**3,
}


def parse_drop(text: str) -> float:
    """``1%`` or ``.01``: a share, 0 to 1. A bare ``1`` is refused: it is written for one point.

    Raises:
        UsageError: it is none.
    """
    share = _quantity(text, _SHARES, "a loss of accuracy", "1% or .01, the same")
    if share == 1 and text.strip()[-1] in "0123456789.":
        raise UsageError(
            f"{text!r} is all of the accuracy, as a share",
            expected="1% or .01, the same",
            remedy="Write 1% for one point, or 100%.",
        )
    if share > 1:
        raise UsageError(
            f"{text!r} is more than all of the accuracy",
            expected="1% or .01, the same",
            remedy="A bare number is a share: write 1% for one point.",
        )
    return share


def parse_confidence(text: str) -> float:
    """``95%`` or ``.95``: a share, .5 to .9999.

    Raises:
        UsageError: it is none.
    """
    share = _quantity(text, {"": 1.0, "%": 0.01}, "a confidence", "95% or .95, the same")
    if not 0.5 <= share <= 0.9999:
        raise UsageError(
            f"{text!r} is no confidence that a certificate can have",
            expected="50% to 99.99%, or .5 to .9999, the same",
            remedy="A bare number is a share: write 95% or .95." if share > 1 else "",
        )
    return share


def parse_latency(text: str) -> float:
    """``20ms``, ``0.5s``: milliseconds.

    Raises:
        UsageError: it is no time.
    """
    return _quantity(text, _MILLISECONDS, "a latency", "20ms, say, or .5s; with its unit")


def parse_bytes(text: str, what: str) -> int:
    """``2MB``, ``512 KiB``: bytes; kB, MB and GB are powers of 1000, KiB, MiB and GiB of 1024.

    Args:
        text: as it was written.
        what: what to call it in an error: "a size", say.

    Raises:
        UsageError: it is no size.
    """
    return round(_quantity(text, _BYTES, what, "64MB, say, or 512KiB; with its unit"))


def parse_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """``NAME=1,3,224,224``, -1 for an axis that stays open. The name may hold an ``=``.

    Raises:
        UsageError: it is written otherwise.
    """
    name, equals, sizes = text.rpartition("=")
    try:
        shape = tuple(int(size) for size in sizes.split(","))
    except ValueError:
        shape = (0,)
    if not equals or not name or any(size < 1 and size != -1 for size in shape):
        raise UsageError(
            f"{text!r} is no shape of an input",
            expected="NAME=1,3,224,224: the input's name, and its sizes from 1 on, batch axis "
            "included (-1 where an axis is to stay open)",
        )
    return name, shape


def parse_family(text: str) -> tuple[str, str]:
    """``NAME=FAMILY``: an input and the statistics that are counted of it. The name may hold an
    ``=``.

    Raises:
        UsageError: it is written otherwise.
    """
    name, equals, family = text.rpartition("=")
    if not equals or not name or not family:
        raise UsageError(
            f"{text!r} names no statistics of an input",
            expected="NAME=FAMILY, such as image=embedding, or NAME=none",
        )
    return name, family


def _quantity(text: str, units: Mapping[str, float], what: str, example: str) -> float:
    found = _NUMBER.fullmatch(text.strip())
    unit = found.group(2).strip().lower() if found else ""
    if found is None or unit not in units:
        raise UsageError(f"{text!r} is not {what}", expected=example)
    value = float(found.group(1)) * units[unit]
    if not math.isfinite(value):
        raise UsageError(f"{text!r} is not {what}", expected=example)
    return value
