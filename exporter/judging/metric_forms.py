"""``--metric`` as people write it."""

from __future__ import annotations

from pathlib import Path

import msgspec

from edgeml.errors import SourceError, UsageError

NAMES = ("top-1", "auc", "f1", "mse", "agreement")
PAIRED = ("top-1", "agreement")


class Metric(msgspec.Struct, frozen=True):
    """``--metric``, taken apart."""

    name: str
    """One of :data:`NAMES`, or the name of a user's function."""
    path: Path | None = None
    """Of a user's file."""


def parse_metric(text: str) -> Metric | None:
    """Take ``--metric`` apart; None where it was not given.

    Raises:
        UsageError: it is none that edgeml knows.
        SourceError: there is no such file.
    """
    if not text:
        return None
    head, colon, attribute = text.rpartition(":")
    if colon and head.endswith(".py"):
        if not attribute.isidentifier():
            raise UsageError(f"{text!r} names no function", expected="FILE.py:FUNCTION")
        if not Path(head).is_file():
            raise SourceError(f"There is no file {head}", remedy="Check the path.")
        return Metric(attribute, Path(head))
    if text not in NAMES:
        raise UsageError(
            f"There is no metric {text!r}",
            expected=f"one of {', '.join(NAMES)}, or FILE.py:FUNCTION",
        )
    return Metric(text)
