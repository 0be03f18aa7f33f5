"""What a person's browser keeps after the login: an expiry, signed with the token. Pure.

Nothing is stored here, so a session outlives the collector's restart, and ends with the token: a
new token is the end of all of them.
"""

from __future__ import annotations

import hashlib
import hmac

SESSION_S = 7 * 86_400


def cookie_name(token: str) -> str:
    """Cookies know no ports: two collectors of one host have a name each."""
    return f"edgeml-{_sign(token, 'name')[:8]}"


def issue(token: str, *, now_s: float) -> str:
    """A session that begins now."""
    expiry = f"{int(now_s) + SESSION_S}"
    return f"{expiry}.{_sign(token, expiry)}"


def is_valid(token: str, cookie: str, *, now_s: float) -> bool:
    """Whether a session is ours and not over."""
    expiry, _, signature = cookie.partition(".")
    return same(signature, _sign(token, expiry)) and now_s < float(expiry)


def same(given: str, wanted: str) -> bool:
    """Whether two secrets are equal, in a time that does not depend on where they differ."""
    return hmac.compare_digest(given.encode(), wanted.encode())


def _sign(token: str, what: str) -> str:
    return hmac.new(token.encode(), f"edgeml session {what}".encode(), hashlib.sha256).hexdigest()
