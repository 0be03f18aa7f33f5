"""Answering an export from the cache, and keeping one there."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from edgeml.errors import BundleError
from edgeml.exporter.events import AnyEvent, Done, Event, Note, Refusal, Row
from edgeml.exporter.naming import destination
from edgeml.exporter.repeat import keys
from edgeml.exporter.repeat.cache import Cache, Damaged, Entry
from edgeml.exporter.repeat.dependencies import states, written_since
from edgeml.exporter.request import ExportRequest

Emit = Callable[[Event], None]

_BUNDLE = "bundle.edgeml"
_SIDE_FILES = ("report", "minimize")
"""Fields of a request that name a file to be written beside the bundle."""


class Kept(msgspec.Struct, frozen=True):
    """The document of an entry: how the export ended."""

    events: tuple[AnyEvent, ...]
    done: Done
    created: str
    """When it was made: RFC 3339, UTC."""


class Again:
    """One export and its place in the cache.

    Args:
        request: the export.
        cache: where to look and to keep.
    """

    def __init__(self, request: ExportRequest, cache: Cache) -> None:
        self._request = request
        self._cache = cache
        self._key = keys.export_key(request) if request.cache else ""
        self._said: list[AnyEvent] = []

    def find(self, emit: Emit) -> Done | None:
        """The end of the same export made before, its bundle in place; None where there is none.

        Emits what was said at its end, and where it comes from.

        Raises:
            UsageError, SourceError, BundleError: the bundle cannot be put where it is wanted.
        """
        entry = self._cache.find("export", self._key) if self._key else None
        if entry is None:
            return None
        try:
            kept = entry.value(Kept)
            done = self._put(entry, kept)
        except Damaged:
            self._cache.drop(entry)
            return None
        entry.count()
        for event in kept.events:
            emit(event)
        emit(
            Note(
                text=f"Nothing has changed since {kept.created}: the bundle made then was taken "
                "from the cache, with the figures measured then. --no-cache makes it anew."
            )
        )
        return done

    def listening(self, emit: Emit) -> Emit:
        """``emit``, with what is to be said again noted."""

        def both(event: Event) -> None:
            if isinstance(event, Row | Refusal | Note):
                self._said.append(event)
            emit(event)

        return both

    def keep(self, done: Done, dependencies: Sequence[str], *, began_ns: int, created: str) -> str:
        """Keep an export that has ended well.

        Args:
            done: its end.
            dependencies: what its code read.
            began_ns: when it began, by the file system's clock.
            created: the same for people.

        Returns:
            Why it was not kept, where a person should know; else empty.
        """
        if not self._key:
            return ""
        given = [str(path) for path in map(self._path, keys.NAMED) if path is not None]
        if written_since([*dependencies, *given], began_ns):
            return ""  # its content may be younger than what was exported
        files = {_BUNDLE: Path(done.bundle)}
        for field in _SIDE_FILES:
            side = Path(getattr(self._request, field))
            if getattr(self._request, field) and side.is_file():
                files[field] = side
        return self._cache.keep(
            "export",
            self._key,
            files,
            Kept(tuple(self._said), done, created),
            model=f"{done.name} {done.version}",
            target=", ".join(self._request.targets),
            dependencies=states(dependencies),
        )

    def _path(self, field: str) -> Path | None:
        return keys.named_path(getattr(self._request, field) or "")[0]

    def _put(self, entry: Entry, kept: Kept) -> Done:
        bundle = destination(self._request.output, kept.done.name, kept.done.version)
        places = {
            field: Path(getattr(self._request, field))
            for field in _SIDE_FILES
            if field in entry.record.files
        }
        places[_BUNDLE] = bundle  # last: where the others cannot be written there is none
        for name, to in places.items():
            _copy(entry, name, to)
        return msgspec.structs.replace(kept.done, bundle=os.fspath(bundle), cached=True)


def _copy(entry: Entry, name: str, to: Path) -> None:
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        entry.copy(name, to)
    except OSError as error:
        raise BundleError(
            f"{to} could not be written: {error.strerror or error}",
            expected="a folder that may be written and has room",
            remedy="Nothing was left behind; free some space or choose another place.",
        ) from error
