"""The token that callers show: out of a file that is its owner's alone, or the environment."""

from __future__ import annotations

import ipaddress
import os
import stat
from pathlib import Path

from edgeml.errors import UsageError

VARIABLE = "EDGEML_COLLECTOR_TOKEN"
FILE_VARIABLE = "EDGEML_COLLECTOR_TOKEN_FILE"
SHORTEST = 16
"""Characters: who may ask as often as they like must not guess it."""
_MAKES_ONE = "`openssl rand -hex 32` makes one"


def find_token(path: str = "") -> str:
    """The token in ``path``, else in the file or the value that the environment names; empty where
    there is none.

    Raises:
        UsageError: the file cannot be read, others can read it too, or it holds no good token.
    """
    path = path or os.environ.get(FILE_VARIABLE, "")
    if path:
        return _checked(_read(Path(path)), f"the token file {path}")
    token = os.environ.get(VARIABLE, "").strip()
    return _checked(token, VARIABLE) if token else ""


def require_token(host: str, token: str) -> None:
    """Refuse to serve everybody on the network.

    Raises:
        UsageError: ``host`` is beyond loopback, and there is no token.
    """
    if not token and not is_loopback(host):
        raise UsageError(
            f"the pages are to be served on {host} without a token",
            expected="127.0.0.1, ::1 or localhost, or else a token that callers must show",
            remedy="`(umask 77; openssl rand -hex 32 >token)` makes one for --token-file token.",
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _read(path: Path) -> str:
    try:
        with path.open(encoding="ascii") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(10_000).strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no ASCII text"
        raise UsageError(
            f"the token file {path} cannot be read: {why}",
            expected="a file of one line",
            remedy=f"{_MAKES_ONE}.",
        ) from error
    if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise UsageError(
            f"others can read the token file {path} (mode {stat.S_IMODE(mode):03o})",
            expected="a file that only its owner can read",
            remedy=f"`chmod 600 {path}`; where something else sets its mode, put the token into "
            f"{VARIABLE}.",
        )
    return text


def _checked(token: str, where: str) -> str:
    good = token.isascii() and token.isprintable() and " " not in token
    if len(token) < SHORTEST or not good:
        raise UsageError(
            f"{where} holds {len(token)} characters{'' if good else ', not all of them plain'}",
            expected=f"a token of at least {SHORTEST} ASCII characters without white space",
            remedy=f"{_MAKES_ONE}.",
        )
    return token
