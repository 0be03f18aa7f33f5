"""``--report``: what was tried, drawn to a PNG or an HTML page, in a child of its own."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec

from edgeml.exporter import naming
from edgeml.exporter.events import Done, Refusal, Row
from edgeml.exporter.plan import Workshop
from edgeml.exporter.request import Limits


class Contents(msgspec.Struct, frozen=True, kw_only=True):
    """All that a report shows."""

    path: str
    """Ends in ``.png`` or ``.html``."""
    rows: tuple[Row, ...]
    refusals: tuple[Refusal, ...]
    done: Done
    limits: Limits


def draw(contents: Contents, shop: Workshop) -> Path:
    """Draw it into the export's own folder, for the child that does may be killed.

    Raises:
        EdgemlError: it cannot be drawn.
    """
    drawn = shop.folder / f"report{Path(contents.path).suffix}"
    with shop.children.child() as child:
        child.call(
            "edgeml.exporter.reporting.drawing:draw",
            msgspec.structs.replace(contents, path=str(drawn)),
            int,
            step="Drawing the report",
        )
    return drawn


def put(drawn: Path, path: Path) -> None:
    """Put it where it was asked for.

    Raises:
        SourceError: the file cannot be written.
    """
    naming.put(drawn, path, "--report")


def beside(drawn: Path | None, path: Path) -> contextlib.AbstractContextManager[None]:
    """Put it there when the block ends, which packs the bundle it belongs to: an error or a Ctrl-C
    that leaves the block leaves the report that stood there before."""
    return naming.laid_beside(drawn, path, "--report") if drawn else contextlib.nullcontext()
