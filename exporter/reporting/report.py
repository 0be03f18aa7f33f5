"""``--report``: what was tried, drawn to a PNG or an HTML page, in a child of its own."""

from __future__ import annotations

from pathlib import Path

import msgspec

from edgeml.exporter.children import Children
from edgeml.exporter.events import Done, Refusal, Row
from edgeml.exporter.request import Limits


class Contents(msgspec.Struct, frozen=True, kw_only=True):
    """All that a report shows."""

    path: str
    """Ends in ``.png`` or ``.html``."""
    rows: tuple[Row, ...]
    refusals: tuple[Refusal, ...]
    done: Done
    limits: Limits


def write(contents: Contents, children: Children) -> None:
    """Draw it.

    Raises:
        EdgemlError: the file cannot be written.
    """
    path = str(Path(contents.path).resolve())
    with children.child() as child:
        child.call(
            "edgeml.exporter.reporting.drawing:draw",
            msgspec.structs.replace(contents, path=path),
            int,
            step="Drawing the report",
        )
