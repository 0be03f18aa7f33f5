"""Folders for temporary files, claimed by a process, and removed after it however it ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

PREFIX = "edgeml-export-"
"""Of the name of an export's."""


def remove_leftovers() -> None:
    """Remove the folders of exports that were killed."""
    remove_abandoned(Path(tempfile.gettempdir()).glob(f"{PREFIX}*"))


@contextlib.contextmanager
def claimed(make: Any) -> Generator[Path]:
    """A new folder, locked (flock) for as long as this process lives; gone afterwards.

    The kernel lets go of the lock however the process ends, and so tells the folders of the dead.

    Args:
        make: gives a new, empty folder.
    """
    while True:
        folder: Path = make()
        # Until it is locked it looks like one of the dead, and somebody may tidy it up.
        try:
            handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        fcntl.flock(handle, fcntl.LOCK_EX)
        if folder.exists():
            break
        os.close(handle)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def remove_abandoned(folders: Iterable[Path]) -> None:
    """Remove those folders of :func:`claimed` whose process is gone."""
    for folder in folders:
        with contextlib.suppress(OSError):
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                if os.fstat(handle).st_uid == os.getuid():
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(handle)
