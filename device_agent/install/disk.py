"""The operations on files that must survive a power cut, one by one.

Everything that installs goes through a :class:`Disk`, so that a test can let any one of them fail.
A new content is written beside the old, flushed, renamed over it, and the folder flushed: at each
point either the old or the new one is there, whole.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import IO

_CHUNK = 1 << 20


class Disk:
    """The real one. Every method is a step at which the power may go."""

    def write(self, path: Path, content: bytes) -> None:
        """A whole file, on the medium when this returns."""
        with path.open("wb") as file:
            file.write(content)
            self.flush(file)

    def copy(self, source: Path, path: Path) -> str:
        """Likewise, of another file; returns its SHA-256."""
        digest = hashlib.sha256()
        with source.open("rb") as given, path.open("wb") as file:
            while chunk := given.read(_CHUNK):
                digest.update(chunk)
                file.write(chunk)
            self.flush(file)
        return digest.hexdigest()

    def flush(self, file: IO[bytes]) -> None:
        """What was written to an open file goes to the medium."""
        file.flush()
        os.fsync(file.fileno())

    def rename(self, source: Path, target: Path) -> None:
        """Atomic; replaces ``target``."""
        source.replace(target)

    def flush_folder(self, folder: Path) -> None:
        """Names in it, as they are now, go to the medium."""
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def remove(self, path: Path) -> None:
        """Where it exists."""
        path.unlink(missing_ok=True)

    def remove_tree(self, folder: Path) -> None:
        """Likewise, with all that is in it."""
        if folder.exists():
            shutil.rmtree(folder)


def free_bytes(folder: Path) -> int:
    """What the file system that holds ``folder`` has left for this process."""
    return shutil.disk_usage(folder).free
