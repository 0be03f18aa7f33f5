"""Keeps web pages from the local call. Pure.

Where there is no token, the address is the guard: whoever is on the device may call. A browser on
the device is, and runs what any web site sends it. Such a page gives itself away in two headers,
which it cannot set: ``Origin`` names its site (RFC 6454, section 7), and ``Host`` the name under
which it called. A site may have its own name point to 127.0.0.1 (DNS rebinding), and then has an
origin of its own there; it has no power over ``localhost``, nor over an address.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit


def refusal(*, host: str, origin: str) -> str:
    """Why a call without a token is not answered; empty where it is.

    Args:
        host: the header, with or without a port; empty where there is none, as HTTP/1.0 allows.
        origin: the header; empty where there is none, as in calls by programs.
    """
    if host and not _is_address(host):
        return (
            f"The call is for the host {host[:100]!r}. Expected localhost or an IP address; with "
            "token_file in the agent's configuration callers show a token, and any name will do."
        )
    if origin and origin.lower() != f"http://{host}".lower():
        return (
            f"The call comes from a web page of {origin[:100]!r}. Expected a program, or a token: "
            "set token_file in the agent's configuration."
        )
    return ""


def _is_address(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or bool(ipaddress.ip_address(name))
    except ValueError:
        return False
