"""Stands before everything that the collector serves, web sockets included."""

from __future__ import annotations

import time
from collections.abc import Collection
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.requests import HTTPConnection
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from edgeml.collector.access import session
from edgeml.collector.access.browsers import Call, refusal
from edgeml.collector.access.login import LOGIN, LOGOUT, again_page, login_page, read_form
from edgeml.errors import CollectorError

SESSION = "edgeml.session"
"""In the scope of a request that a session's cookie let in."""
FORM_BYTES = 4096
_POLICY = 1008  # RFC 6455, section 7.4.1: uvicorn answers the handshake with 403


class Guard:
    """ASGI middleware; to be the outermost.

    Args:
        app: what is behind it.
        token: that callers must show, as ``Authorization: Bearer`` or at the login; empty for none.
        names: hosts under which the collector is called, besides localhost and addresses.
    """

    def __init__(self, app: ASGIApp, *, token: str, names: Collection[str]) -> None:
        self._app = app
        self._token = token
        self._names = frozenset(name.lower() for name in names)
        self._cookie = session.cookie_name(token)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer in place of the application, or pass on."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        answer = await self._refused(HTTPConnection(scope), receive)
        if answer is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await answer(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": _POLICY})

    async def _refused(self, caller: HTTPConnection, receive: Receive) -> Response | None:
        call = _call(caller)
        names = self._names
        if error := refusal(call, names=names, any_name=bool(self._token) and not names):
            return _error(error, 403)
        if not self._token or self._shows_token(caller):
            return None
        path = caller.scope["path"]
        if call.method == "POST" and path == LOGIN:
            return await self._log_in(Request(caller.scope, receive))
        if call.method == "POST" and path == LOGOUT:
            answer = RedirectResponse("/", 303)
            answer.delete_cookie(self._cookie)
            return answer
        if session.is_valid(self._token, caller.cookies.get(self._cookie, ""), now_s=time.time()):
            caller.scope[SESSION] = True
            return RedirectResponse("/", 303) if path == LOGIN else None
        return _unknown(caller, call)

    def _shows_token(self, caller: HTTPConnection) -> bool:
        scheme, _, shown = caller.headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and session.same(shown.strip(), self._token)

    async def _log_in(self, request: Request) -> Response:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > FORM_BYTES:
                return _error(CollectorError("the form is too long", expected="a token"), 413)
        shown, after = read_form(body)
        if not session.same(shown, self._token):
            return _page(login_page(after, wrong=True), 403)
        answer = RedirectResponse(after, 303)
        answer.set_cookie(
            self._cookie,
            session.issue(self._token, now_s=time.time()),
            max_age=session.SESSION_S,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return answer


def _call(caller: HTTPConnection) -> Call:
    headers = caller.headers
    return Call(
        method=caller.scope.get("method", "GET"),
        host=headers.get("host", "").strip(),
        origin=headers.get("origin", "").strip(),
        fetch_site=headers.get("sec-fetch-site", "").strip(),
        websocket=caller.scope["type"] == "websocket",
    )


def _unknown(caller: HTTPConnection, call: Call) -> Response:
    """To a person the login, to a program what it lacks."""
    if call.method == "GET" and "text/html" in caller.headers.get("accept", ""):
        query = caller.scope["query_string"].decode("latin-1")
        path = quote(caller.scope["path"]) + (f"?{query}" if query else "")
        if call.fetch_site == "cross-site":
            return _page(again_page(path), 200)
        return _page(login_page(path, wrong=False), 401)
    answer = _error(
        CollectorError(
            "the call shows no valid token",
            expected="the collector's token, in the header Authorization: Bearer …",
            remedy="For `edgeml fleet` put it into EDGEML_COLLECTOR_TOKEN, or the name of a file "
            "with it into EDGEML_COLLECTOR_TOKEN_FILE.",
        ),
        401,
    )
    answer.headers["WWW-Authenticate"] = "Bearer"
    return answer


def _page(text: str, status: int) -> Response:
    headers = {"Cache-Control": "no-store", "X-Frame-Options": "DENY"}
    return HTMLResponse(text, status, headers=headers)


def _error(error: CollectorError, status: int) -> Response:
    document = {"found": error.found, "expected": error.expected, "remedy": error.remedy}
    return JSONResponse({"error": document}, status)
