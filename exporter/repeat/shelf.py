"""Conversions in the cache: found, put back where the export wants their files, and kept."""

from __future__ import annotations

import threading
from collections.abc import Callable

import msgspec

from edgeml.exporter.candidates import Candidate
from edgeml.exporter.events import Event, Note
from edgeml.exporter.repeat import keys
from edgeml.exporter.repeat.cache import Cache, Damaged
from edgeml.targets.compiling import CompileJob, CompileResult


class Shelf:
    """The conversions of one export. For use by several threads.

    Args:
        cache: where they are.
        model: what to call the model in the cache.
    """

    def __init__(self, cache: Cache, model: str) -> None:
        self._cache = cache
        self._model = model
        self._lock = threading.Lock()
        self._taken: list[str] = []
        self._trouble = ""

    def tell(self, emit: Callable[[Event], None]) -> None:
        """Say what came from the cache, and what could not be put there."""
        if self._taken:
            emit(Note(text=f"Taken from the cache: {', '.join(sorted(self._taken))}."))
        if self._trouble:
            emit(Note(text=f"Conversions were not kept in the cache: {self._trouble}"))

    def key(self, target: str, job: CompileJob) -> str:
        """What a conversion is found by."""
        return keys.conversion_key(target, job)

    def find(self, key: str, job: CompileJob) -> CompileResult | None:
        """A conversion that was made before, its files in the job's folder."""
        entry = self._cache.find("conversion", key)
        if entry is None:
            return None
        try:
            made = entry.value(CompileResult)
            job.workdir.mkdir(parents=True, exist_ok=True)
            for name in entry.record.files:
                to = job.workdir / name
                to.parent.mkdir(parents=True, exist_ok=True)
                entry.copy(name, to)
        except Damaged:
            self._cache.drop(entry)
            return None
        entry.count()
        with self._lock:
            self._taken.append(entry.record.target)
        files = tuple(job.workdir / path for path in made.files)
        return msgspec.structs.replace(made, files=files)

    def keep(self, key: str, candidate: Candidate, job: CompileJob, made: CompileResult) -> None:
        """Keep what was made, where that is possible."""
        if not all(path.is_relative_to(job.workdir) for path in made.files):
            return
        named = {str(path.relative_to(job.workdir)): path for path in made.files}
        inside = msgspec.structs.replace(
            made, files=tuple(path.relative_to(job.workdir) for path in made.files)
        )
        why = self._cache.keep(
            "conversion", key, named, inside, model=self._model, target=str(candidate)
        )
        with self._lock:
            self._trouble = self._trouble or why
