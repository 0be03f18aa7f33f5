"""Answering an export from the cache, and keeping one there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path

import msgspec

from edgeml.errors import BundleError
from edgeml.exporter.events import AnyEvent, Done, Event, Note, Refusal, Row
from edgeml.exporter.naming import destination, smallest_models
from edgeml.exporter.repeat import keys
from edgeml.exporter.repeat.cache import Cache, Damaged, Entry
from edgeml.exporter.repeat.changes import since_kept
from edgeml.exporter.repeat.dependencies import WEIGHTS, beside_code, changed, states, written_since
from edgeml.exporter.request import ExportRequest

Emit = Callable[[Event], None]

_BUNDLE = "bundle.edgeml"
_LOOKED_AT = 32
"""So many exports, those used last, are looked through for the nearest one."""


class Kept(msgspec.Struct, frozen=True):
    """The document of an entry: how the export ended."""

    events: tuple[AnyEvent, ...]
    done: Done
    created: str
    """When it was made: RFC 3339, UTC."""
    basis: keys.Basis
    """What it hung on, beside the entry's dependencies."""
    model: str
    """The place of MODEL, by which an earlier export of the same one is known."""


class Again:
    """One export and its place in the cache.

    Args:
        request: the export.
        cache: where to look and to keep.
    """

    def __init__(self, request: ExportRequest, cache: Cache) -> None:
        self._request = request
        self._cache = cache
        self._basis = keys.basis(request) if request.cache else None
        self._said: list[AnyEvent] = []
        self._stood = _identities(self._beside())

    def find(self, emit: Emit) -> Done | None:
        """The end of the same export made before, its bundle in place; None where there is none.

        Emits what was said at its end, and where it comes from; or what differs from the nearest
        earlier export of the same model.

        Raises:
            UsageError, SourceError, BundleError: the bundle cannot be put where it is wanted.
        """
        if self._basis is None:
            return None
        entry = self._cache.find("export", self._basis.key)
        if entry is None:
            self._say_why(self._basis, emit)
            return None
        try:
            kept = entry.value(Kept)
            done = self._put(entry, kept)
        except Damaged:
            self._cache.drop(entry)
            emit(Note(text="What the cache kept of this export is damaged: it is made anew."))
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
        if self._basis is None:
            return ""
        given = [str(path) for path in map(self._path, keys.NAMED) if path is not None]
        if younger := written_since([*dependencies, *given], began_ns):
            return f"{younger} was written after it had begun"  # and perhaps after it was read
        beside = self._beside()
        stands = _identities(beside)
        written = {name: beside[name] for name in stands if stands[name] != self._stood.get(name)}
        files = {_BUNDLE: Path(done.bundle), **written}
        return self._cache.keep(
            "export",
            self._basis.key,
            files,
            Kept(tuple(self._said), done, created, self._basis, self._model()),
            model=f"{done.name} {done.version}",
            target=", ".join(self._request.targets),
            dependencies=states((*dependencies, *sorted(beside_code(dependencies)))),
        )

    def _say_why(self, basis: keys.Basis, emit: Emit) -> None:
        """Say what differs from the nearest earlier export of the same model, where there is one.

        Of those as near as each other it is the one used last.
        """
        found: list[tuple[tuple[str, ...], Entry, Kept]] = []
        for entry in self._cache.latest("export", _LOOKED_AT):
            with contextlib.suppress(Damaged):  # it may be of another edgeml
                kept = entry.value(Kept)
                if kept.model == self._model():
                    found.append((since_kept(kept.basis, basis), entry, kept))
        if not found:
            return
        differs, entry, kept = min(found, key=lambda each: len(each[0]))
        if not differs:
            name = changed(entry.record.dependencies)
            differs = (
                f"what it reads: {name.replace(f'/{WEIGHTS}', ', a file of weights in it')}",
            )
        since = f"Changed since the export of {kept.created}"
        emit(Note(text=f"Made anew. {since}: {'; '.join(differs)}."))

    def _model(self) -> str:
        path = self._path("model")
        return "" if path is None else str(path.resolve())

    def _path(self, field: str) -> Path | None:
        return keys.named_path(getattr(self._request, field) or "")[0]

    def _beside(self) -> dict[str, Path]:
        """The files that may be written beside the bundle, each by its name in an entry."""
        report, request = self._request.report, self._request
        return {
            **({"report": Path(report)} if report else {}),
            **{f"minimize{i}": path for i, path in enumerate(smallest_models(request))},
        }

    def _put(self, entry: Entry, kept: Kept) -> Done:
        bundle = destination(self._request.output, kept.done.name, kept.done.version)
        places = {**self._beside(), _BUNDLE: bundle}
        with contextlib.ExitStack() as stack:  # all of them or none
            for name in entry.record.files:
                stack.enter_context(_laid_beside(entry, name, places[name]))
        return msgspec.structs.replace(kept.done, bundle=os.fspath(bundle), cached=True)


def _identities(files: Mapping[str, Path]) -> dict[str, tuple[int, int]]:
    """What tells a file from the one that takes its place; without those that are not there."""
    found: dict[str, tuple[int, int]] = {}
    for name, path in files.items():
        with contextlib.suppress(OSError):
            stat = path.stat()
            found[name] = (stat.st_ino, stat.st_mtime_ns)
    return found


@contextlib.contextmanager
def _laid_beside(entry: Entry, name: str, to: Path) -> Generator[None]:
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        with entry.laid_beside(name, to):
            yield
    except OSError as error:
        raise BundleError(
            f"{to} could not be written: {error.strerror or error}",
            expected="a folder that may be written and has room",
            remedy="Nothing was left behind; free some space or choose another place.",
        ) from error
