"""Files that are whole when their name appears."""

from __future__ import annotations

from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Write a file in place of what is there.

    Raises:
        OSError: it cannot be written; what was there stays, and nothing else is left.
    """
    temporary = path.with_name(f".{path.name}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
