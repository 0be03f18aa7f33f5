"""Keeps the web pages of others from the collector. Pure.

A browser runs what any web site sends it, and stands where the collector trusts its callers: on the
same machine, or with a session's cookie. Such a page gives itself away in headers that it cannot
set: ``Sec-Fetch-Site`` (W3C Fetch Metadata; over TLS and on loopback) and ``Origin`` (RFC 6454,
section 7) say whose page it is, and ``Host`` the name under which it called. A site may have its
own name point to 127.0.0.1 (DNS rebinding), and is then of the same origin there; it has no power
over ``localhost``, nor over an address. The order of the checks is that of Go's
``net/http.CrossOriginProtection``.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

import msgspec

from edgeml.errors import CollectorError

_READS = {"GET", "HEAD", "OPTIONS"}
_OWN = {"same-origin", "none"}
"""``none``: a person typed the address, or opened a bookmark."""


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """What a request says of itself; headers are empty where there are none.

    Args:
        method: of HTTP.
        host: ``Host``, with or without a port.
        origin: ``Origin``; programs send none, nor does a browser that follows a link.
        fetch_site: ``Sec-Fetch-Site``; only browsers send it.
        websocket: whether it opens a connection that goes on.
    """

    method: str = "GET"
    host: str
    origin: str = ""
    fetch_site: str = ""
    websocket: bool = False


def refusal(call: Call, *, names: Collection[str], any_name: bool) -> CollectorError | None:
    """Why a call is not answered, whoever makes it; None where it may be.

    Args:
        call: the request.
        names: under which it is called besides its addresses, in lower case; their pages are its.
        any_name: where callers show a token, a name proves nothing and none is asked for.
    """
    name = _name(call.host)
    if call.host and not (any_name or name in names or _is_address(name)):
        return CollectorError(
            f"the call is for the host {call.host[:100]!r}",
            expected=f"one of {', '.join(('localhost', *sorted(names)))}, or an IP address",
            remedy="Name the host in http.allowed_hosts, where it is yours.",
        )
    if _name(call.origin.partition("://")[2]) in names:
        return None
    reads = call.method in _READS and not call.websocket
    if call.fetch_site in _OWN or (call.fetch_site and reads and not call.origin):
        return None  # what others may do is follow a link
    same = bool(call.host) and call.origin.lower().partition("://")[2] == call.host.lower()
    if call.fetch_site or (call.origin and not same):
        site = call.origin or f"another site (Sec-Fetch-Site: {call.fetch_site})"
        return CollectorError(
            f"the call comes from a web page of {site[:100]}",
            expected="a page of the collector's own, or a program",
            remedy="Where that page is the collector's behind a proxy, name its host in "
            "http.allowed_hosts.",
        )
    return None


def _name(netloc: str) -> str:
    """``Fleet.example.org:443`` → ``fleet.example.org``."""
    try:
        return urlsplit(f"//{netloc}").hostname or ""
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        return name == "localhost" or bool(ipaddress.ip_address(name))
    except ValueError:
        return False
