"""Faults at one step of everything that installs, stores and sends, and what was seen before one:
see test_crash_table.

A step is an operation on a file that must survive a power cut, or one of the outbox's. A fault
comes *at* a step: before it is done, and for a file that is written, after half of it.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal

from edgeml.device_agent.install.disk import Disk

Kind = Literal["kill", "exception", "no space", "I/O error"]
KINDS: tuple[Kind, ...] = ("kill", "exception", "no space", "I/O error")

_ERRNO = {"no space": errno.ENOSPC, "I/O error": errno.EIO}
_SQLITE = {"no space": "database or disk is full", "I/O error": "disk I/O error"}


class FaultError(Exception):
    """A fault of ours, of which nobody thought."""


class Faults:
    """Counts steps, and lets one of them fail.

    Args:
        step: which one, from 0; -1 for none.
        kind: how.
    """

    def __init__(self, step: int = -1, kind: Kind = "kill") -> None:
        self._step = step
        self._kind: Kind = kind
        self.steps: list[str] = []
        """Names of those that were reached."""

    def file(self, name: str) -> None:
        """A step of a :class:`FaultyDisk`."""
        if self._is_now(name):
            number = _ERRNO[self._kind]
            raise OSError(number, os.strerror(number), name)

    def outbox(self, name: str) -> None:
        """A step of the outbox, in which SQLite would say what is wrong with the disk."""
        if self._is_now(name):
            raise sqlite3.OperationalError(_SQLITE[self._kind])

    def _is_now(self, name: str) -> bool:
        self.steps.append(name)
        if len(self.steps) - 1 != self._step:
            return False
        if self._kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self._kind == "exception":
            raise FaultError(name)
        return True


class FaultyDisk(Disk):
    """The real one, but for one step."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults

    def write(self, path: Path, content: bytes) -> None:
        self._faults.file(f"open {path.name}")
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
            file.flush()
            self._faults.file(f"write {path.name}")
            file.write(content[len(content) // 2 :])
            self.flush(file)

    def copy(self, source: Path, path: Path) -> str:
        self._faults.file(f"open {path.name}")
        path.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
        self._faults.file(f"write {path.name}")
        return super().copy(source, path)

    def flush(self, file: IO[bytes]) -> None:
        self._faults.file(f"flush {Path(file.name).name}")
        super().flush(file)

    def rename(self, source: Path, target: Path) -> None:
        self._faults.file(f"rename to {_short(target)}")
        super().rename(source, target)

    def flush_folder(self, folder: Path) -> None:
        self._faults.file(f"flush folder {folder.name}")
        super().flush_folder(folder)

    def remove(self, path: Path) -> None:
        self._faults.file(f"remove {_short(path)}")
        super().remove(path)

    def remove_tree(self, folder: Path) -> None:
        self._faults.file(f"remove {folder.parent.name}/…")
        for path in sorted(folder.rglob("*"))[:1]:
            path.unlink()
        self._faults.file(f"remove the rest of {folder.parent.name}/…")
        super().remove_tree(folder)


def _short(path: Path) -> str:
    return f"{path.parent.name}/…" if len(path.stem) == 64 else path.name


class Journal:
    """What an onlooker has seen: survives the device, and is never at fault."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "journal"

    def note(self, **entry: Any) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps(entry) + "\n")

    def read(self) -> Iterator[dict[str, Any]]:
        if self._path.exists():
            yield from map(json.loads, self._path.read_text().splitlines())
