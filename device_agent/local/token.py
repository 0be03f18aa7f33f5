"""The token that guards the local call over HTTP."""

from __future__ import annotations

from pathlib import Path

from edgeml.errors import UsageError


def read_token(path: Path | None) -> str:
    """The token in a file, without the white space around it; empty where there is no file.

    Raises:
        UsageError: the file cannot be read, or is empty.
    """
    if path is None:
        return ""
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"The token cannot be read from {path}: {error}", expected="a file of ASCII text"
        ) from error
    if not token:
        raise UsageError(f"The token file {path} is empty", remedy="openssl rand -hex 32 makes one")
    return token
