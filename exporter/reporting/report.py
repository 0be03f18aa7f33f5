"""``--report``: what was tried, drawn to a PNG or an HTML page, in a child of its own."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Generator
from pathlib import Path

import msgspec

from edgeml.errors import SourceError
from edgeml.exporter.events import Done, Refusal, Row
from edgeml.exporter.plan import Workshop
from edgeml.exporter.repeat.cache import atomic
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
    """Put it where it was asked for, whole or not at all.

    Raises:
        SourceError: the file cannot be written.
    """
    try:
        with drawn.open("rb") as content, atomic(path) as stream:
            shutil.copyfileobj(content, stream)
    except OSError as error:
        raise SourceError(
            f"The report {path} could not be written: {error.strerror or error}",
            expected="a folder that may be written and has room",
            remedy="Free some space there, or choose another place with --report.",
        ) from error


@contextlib.contextmanager
def beside(drawn: Path | None, path: Path) -> Generator[None]:
    """The report stands where it was asked for when the block begins, and stays there unless an
    error or a Ctrl-C leaves it: without the bundle no report of it."""
    if drawn is None:
        yield
        return
    put(drawn, path)
    try:
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise
