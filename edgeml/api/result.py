"""What an export came to, gathered from its events."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from edgeml import errors
from edgeml.errors import EdgemlError
from edgeml.exporter.events import (
    AnyEvent,
    Collapse,
    Done,
    Failure,
    Note,
    Parted,
    Refusal,
    Row,
    Started,
)


class ExportResult(msgspec.Struct, frozen=True, kw_only=True):
    """A finished export: the fields of the document that ``edgeml export --json`` prints."""

    bundle: Path
    """Absolute."""
    name: str
    version: str
    artifacts: tuple[Row, ...]
    """All that were tried; those with ``chosen`` are in the bundle."""
    refused: tuple[Refusal, ...]
    """Targets that could not be made."""
    notes: tuple[Note, ...] = ()
    collapses: tuple[Collapse, ...] = ()
    """Where integer artifacts that failed their check lose the signal."""
    partings: tuple[Parted, ...] = ()
    """Where float artifacts that failed theirs part from the source."""
    source_accuracy: float | None = None
    """Of the source model on the evaluation samples."""
    metric: str | None = None
    """Which one that is; None where nothing was judged."""
    machine: str | None = None
    isa: str | None = None
    log: Path | None = None
    """What the converters printed."""

    @property
    def chosen(self) -> tuple[Row, ...]:
        """The artifacts in the bundle."""
        return tuple(row for row in self.artifacts if row.chosen)


class Gathering:
    """An export's events, taken in one by one.

    Attributes:
        rows: the artifacts.
        refusals: the targets that could not be made.
        notes: what the user should know.
        collapses: where integer artifacts that failed their check lose the signal.
        partings: where float artifacts that failed theirs part from the source.
        done: the last event, where there is a bundle.
        error: why there is none.
        log: path of the log, or empty.
    """

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.refusals: list[Refusal] = []
        self.notes: list[Note] = []
        self.collapses: list[Collapse] = []
        self.partings: list[Parted] = []
        self.done: Done | None = None
        self.error: EdgemlError | None = None
        self.log = ""

    @property
    def status(self) -> int:
        """Exit status: 0 when every target was made, 1 when one was not, 2 for wrong usage."""
        if self.error is not None:
            return self.error.exit_code
        return self.done.status if self.done is not None else 1

    def take(self, event: AnyEvent) -> None:
        """Take in one event."""
        match event:
            case Started():
                self.log = event.log
            case Row():
                self.rows.append(event)
            case Refusal():
                self.refusals.append(event)
            case Note():
                self.notes.append(event)
            case Collapse():
                self.collapses.append(event)
            case Parted():
                self.partings.append(event)
            case Done():
                self.done = event
            case Failure():
                self.error = revived(event)
            case _:
                pass

    def document(self) -> dict[str, Any]:
        """What ``--json`` prints, also where there is no bundle."""
        done = self.done
        return {
            "bundle": done.bundle if done else None,
            "name": done.name if done else None,
            "version": done.version if done else None,
            "source_accuracy": done.source_accuracy if done else None,
            "metric": (done.metric or None) if done else None,
            "machine": done.machine if done else None,
            "isa": done.isa if done else None,
            "artifacts": [_fields(row) for row in self.rows],
            "refused": [_fields(refusal) for refusal in self.refusals],
            "notes": [_fields(note) for note in self.notes],
            "collapses": [msgspec.to_builtins(each) for each in self.collapses],
            "partings": [msgspec.to_builtins(each) for each in self.partings],
            "error": str(self.error) if self.error else None,
            "log": self.log or None,
        }

    def result(self) -> ExportResult:
        """The whole.

        Raises:
            EdgemlError: there is no bundle.
        """
        if self.error is not None:
            raise self.error
        done = self.done
        assert done is not None
        return ExportResult(
            bundle=Path(done.bundle),
            name=done.name,
            version=done.version,
            artifacts=tuple(self.rows),
            refused=tuple(self.refusals),
            notes=tuple(self.notes),
            collapses=tuple(self.collapses),
            partings=tuple(self.partings),
            source_accuracy=done.source_accuracy,
            metric=done.metric or None,
            machine=done.machine or None,
            isa=done.isa or None,
            log=Path(self.log) if self.log else None,
        )


def revived(event: Failure) -> EdgemlError:
    """The exporter's error, again of its own class."""
    kind = getattr(errors, event.error, EdgemlError)
    remedy = event.remedy
    if event.log and event.log not in remedy:
        remedy = f"{remedy} The log is {event.log}.".strip()
    error: EdgemlError = kind(event.found, expected=event.expected, remedy=remedy)
    error.exit_code = event.status
    return error


def _fields(event: Row | Refusal | Note) -> dict[str, Any]:
    """An event as an object of the document, every field present."""
    return {name: msgspec.to_builtins(v) for name, v in msgspec.structs.asdict(event).items()}
