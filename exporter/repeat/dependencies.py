"""Files that an export hangs on beside those it was given, and whether they are as they were.

:mod:`edgeml.exporter.repeat.recording` notes them while a user's code runs; here they are hashed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

ABSENT = "absent"
"""Stands for the hash of what was asked for and did not exist: a file that appears is a change."""

_CHUNK = 1 << 20


def read_record(path: Path, *, ignore: Iterable[Path] = ()) -> tuple[str, ...]:
    """The paths in a record, sorted, those of folders with a slash at the end.

    Args:
        path: what :func:`edgeml.exporter.repeat.recording.record` wrote; nothing where it is
            missing.
        ignore: folders whose files do not count.
    """
    hidden = tuple(f"{each.resolve()}/" for each in ignore)
    try:
        lines = os.fsdecode(path.read_bytes()).splitlines()
    except OSError:
        return ()
    kept = {line for line in lines if line and not f"{Path(line).resolve()}/".startswith(hidden)}
    return tuple(sorted(kept))


def states(names: Iterable[str]) -> dict[str, str]:
    """Path to :func:`state` of each."""
    return {name: state(name) for name in names}


def state(name: str) -> str:
    """The SHA-256 of a file, or of the names in a folder; :data:`ABSENT` where there is none.

    Bundles, and what begins with a dot or two underscores, do not count among a folder's names:
    exports write the former, Python the latter.
    """
    try:
        if not name.endswith("/"):
            return file_hash(Path(name))
        listed = sorted(entry.name for entry in Path(name).iterdir())
    except OSError:
        return ABSENT
    kept = [n for n in listed if not n.startswith((".", "__")) and not n.endswith(".edgeml")]
    return hashlib.sha256("\0".join(kept).encode(errors="surrogateescape")).hexdigest()


def unchanged(recorded: Mapping[str, str]) -> bool:
    """Whether all of it is as it was."""
    return all(state(name) == was for name, was in recorded.items())


def written_since(names: Iterable[str], moment_ns: int) -> str:
    """The first file among them that was written at or after a moment; empty where none was."""
    for name in names:
        try:
            written = Path(name).stat().st_mtime_ns
        except OSError:
            continue
        if written >= moment_ns and not name.endswith("/"):
            return name
    return ""


def file_hash(path: Path, *, without: frozenset[str] = frozenset()) -> str:
    """SHA-256 of a file, or of a folder: over its files' paths and hashes, in order.

    Args:
        path: of either.
        without: names of files in a folder that do not count.
    """
    digest = hashlib.sha256()
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.is_file() and file.name not in without:
                digest.update(f"{file.relative_to(path)}\0{file_hash(file)}\n".encode())
        return digest.hexdigest()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
