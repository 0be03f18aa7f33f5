"""All children of one export: started as they are needed or ahead of that, and ended together."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path

from edgeml.errors import ToolchainError
from edgeml.exporter.child import IDLE_S, Child
from edgeml.exporter.origin import Origin, possible
from edgeml.exporter.repeat.dependencies import read_record


class Children:
    """All children of one export. Thread-safe; closing it ends every one of them.

    Args:
        log: takes their standard output and error; appended to.
        temporary: their folder for temporary files, which outlive a child that is killed.
        record: takes the paths of what they read (:mod:`edgeml.exporter.repeat.recording`).
        idle_s: see :data:`IDLE_S`.
    """

    def __init__(
        self,
        log: Path,
        *,
        temporary: Path | None = None,
        record: Path | None = None,
        idle_s: float = IDLE_S,
    ) -> None:
        self.log = log
        self._temporary = temporary
        self._record = record
        self._idle_s = idle_s
        self._lock = threading.Lock()
        self._live: set[Child] = set()
        self._ahead: list[Child] = []
        self._origins: dict[str, Origin] = {}
        self._closed = False
        self.used = False
        """Whether there was ever one, so that the log may say something."""

    def ahead(self, count: int) -> None:
        """Start the processes of the next children, which takes a fifth of a second on another
        core. The thread that calls this must outlive them."""
        for _ in range(count):
            with self._lock:
                child = self._new()
                self._ahead.append(child)
            child.start()

    def foresee(self, framework: str, modules: Sequence[str]) -> None:
        """Have a process import a framework now, of which children can be copies then. Where there
        are no copies, or this was foreseen before, nothing happens. The thread that calls this must
        outlive them.

        Args:
            framework: the name that :meth:`child` is asked for it by.
            modules: its parts, in their order.
        """
        if not possible():
            return
        with self._lock:
            if framework in self._origins:
                return
            child = self._ahead.pop(0) if self._ahead and not self._closed else self._new()
            self._live.discard(child)
            self._origins[framework] = Origin(child, modules)

    @property
    def foreseen(self) -> bool:
        """Whether any framework was."""
        return bool(self._origins)

    @property
    def waiting(self) -> tuple[int, ...]:
        """Processes that were started ahead, and are nobody's yet."""
        with self._lock:
            return tuple(child.pid for child in self._ahead if child.pid is not None)

    def _new(self, origin: Origin | None = None) -> Child:
        if self._closed:
            raise ToolchainError("The export was interrupted")
        child = Child(
            self.log,
            temporary=self._temporary,
            record=self._record,
            idle_s=self._idle_s,
            origin=origin,
        )
        self._live.add(child)
        return child

    @contextlib.contextmanager
    def child(self, framework: str = "") -> Generator[Child, None, None]:
        """A new child, gone when the block ends.

        Args:
            framework: what it will import first. It is a copy of the process that has imported it,
                where that was foreseen.
        """
        origin = self._origins.get(framework)
        with self._lock:
            ahead = origin is None and self._ahead and not self._closed
            child = self._ahead.pop(0) if ahead else self._new(origin)
            self.used = True
        try:
            yield child
        finally:
            child.close()
            with self._lock:
                self._live.discard(child)

    @contextlib.contextmanager
    def ended_by_errors(self) -> Generator[None, None, None]:
        """Have an error or a Ctrl-C that leaves the block end all children before anything else is
        closed, so that nobody waits for what one of them is at, an import of seconds, say."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    def dependencies(self) -> tuple[str, ...]:
        """Paths of what they have read so far outside the environment and their own folder."""
        if self._record is None:
            return ()
        own = () if self._temporary is None else (self._temporary,)
        return read_record(self._record, ignore=own)

    def depend_on(self, folders: Iterable[Path]) -> None:
        """Note that the names in some folders are among what the export hangs on, too."""
        if self._record is not None:
            with self._record.open("ab", buffering=0) as stream:
                stream.write(b"".join(os.fsencode(f"{folder}/\n") for folder in folders))

    def close(self) -> None:
        """Kill all children; no more can be started. Calls that wait for one fail."""
        with self._lock:
            self._closed = True
            live = list(self._live)
            waiting, self._ahead = self._ahead, []
            origins = list(self._origins.values())
        for child in live:
            child.kill()
        for child in waiting:  # nobody else waits for those
            child.close()
        for origin in origins:  # last: it is they who know how their copies ended
            origin.close()
