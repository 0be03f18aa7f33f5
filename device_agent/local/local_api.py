"""The local call over HTTP/1.1: a thread a connection.

On a loopback address every user of the device may call, unless there is a token, but no web page
(:mod:`~edgeml.device_agent.local.browsers`); any other address needs one. What is answered stands
in :mod:`~edgeml.device_agent.local.routes`.
"""

from __future__ import annotations

import contextlib
import hmac
import ipaddress
import threading
import time
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec

from edgeml import __version__
from edgeml.device_agent import config as bounds
from edgeml.device_agent.local import browsers, oip
from edgeml.device_agent.local.routes import Call, RefusedCall, Reply, Routes
from edgeml.errors import AgentError, UsageError

_REST_S = 0.25
"""Before another try to take a caller that there was no descriptor for."""

_WINDOW_BITS = {"gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}


class LocalApi:
    """The HTTP server and its threads.

    Args:
        host: an address of this machine, or ``localhost``.
        port: 0 for any.
        routes: what to answer.
        token: that a caller must show; empty for none, which only a loopback address allows.

    Raises:
        UsageError: the address is not loopback, and there is no token.
        AgentError: it is taken.
    """

    def __init__(self, host: str, port: int, routes: Routes, *, token: str = "") -> None:
        if not token and not _is_loopback(host):
            raise UsageError(
                f"The local call is to listen on {host} without a token",
                expected="127.0.0.1, ::1 or localhost, or else a token that callers must show",
                remedy="Set token_file in the configuration, and put a reverse proxy with TLS "
                "before it where others share the network.",
            )
        try:
            self._server = _Server((host, port), routes, token)
        except OSError as error:
            raise AgentError(
                f"The local call cannot listen on {host}:{port}: {error.strerror}",
                expected="a free port",
                remedy="Choose another with --http HOST:PORT; port 0 takes a free one.",
            ) from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name="http"
        )

    @property
    def url(self) -> str:
        """Where it listens."""
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Take no new connection; what is being answered goes on."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def drain(self, timeout_s: float) -> None:
        """Wait for the answers that are being written, at most this long."""
        self._server.drain(timeout_s)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Threads of callers that keep their connection open must not hold up the end.
    block_on_close = False

    def __init__(self, address: tuple[str, int], routes: Routes, token: str) -> None:
        self.routes = routes
        self.token = f"Bearer {token}".encode() if token else b""
        self._callers = threading.Semaphore(bounds.MAX_CALLERS)
        self._busy = 0
        self._quiet = threading.Condition()
        super().__init__(address, _Handler)

    def get_request(self) -> tuple[Any, Any]:
        try:
            return super().get_request()
        except OSError:  # no descriptor is to be had: the caller waits, and would be seen at once
            time.sleep(_REST_S)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._callers.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # there is no thread to be had
            self._callers.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._callers.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that went away is nothing to print a trace for."""

    @contextlib.contextmanager
    def answering(self) -> Any:
        with self._quiet:
            self._busy += 1
        try:
            yield
        finally:
            with self._quiet:
                self._busy -= 1
                self._quiet.notify_all()

    def drain(self, timeout_s: float) -> None:
        with self._quiet:
            self._quiet.wait_for(lambda: not self._busy, timeout=timeout_s)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = f"edgeml/{__version__}"
    sys_version = ""
    timeout = bounds.CALLER_IDLE_S
    # Head and body leave in one segment: with two, Nagle and a delayed ACK cost 40 ms a call.
    wbufsize = -1
    disable_nagle_algorithm = True
    server: _Server  # type: ignore[assignment]

    def handle_expect_100(self) -> bool:
        """A caller that first wants to hear that its body is welcome hears it when it is: curl,
        above a megabyte, otherwise waits for a second."""
        return True

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Requests are counted in windows, not logged."""

    def _answer(self) -> None:
        with self.server.answering():
            try:
                reply = self.server.routes.answer(self._call())
            except RefusedCall as refusal:
                reply = Reply(refusal.status, msgspec.json.encode({"error": str(refusal)}))
            self.send_response(reply.status)
            self.send_header("Content-Type", reply.kind)
            self.send_header("Content-Length", str(len(reply.body)))
            if reply.header_length is not None:
                self.send_header(oip.HEADER_LENGTH, str(reply.header_length))
            if reply.status == 401:
                self.send_header("WWW-Authenticate", "Bearer")
            if reply.status == 503:
                self.send_header("Retry-After", "1")
            self.end_headers()
            self.wfile.write(reply.body)
            self.wfile.flush()

    def _call(self) -> Call:
        self._check_caller()
        body = self._body() if self.command == "POST" else b""
        length = self.headers.get(oip.HEADER_LENGTH)
        cut = None if length is None else _number(length)
        if length is not None and cut is None:
            raise RefusedCall(400, f"{oip.HEADER_LENGTH} is {length[:40]!r}. Expected a number.")
        return Call(self.command, self.path, body, cut, trusted=bool(self.server.token))

    def _check_caller(self) -> None:
        shown = self.headers.get("Authorization", "").encode("latin-1", "replace")
        if self.server.token:
            if not hmac.compare_digest(shown, self.server.token):
                self.close_connection = True
                raise RefusedCall(
                    401,
                    "The call shows no valid token. Expected the header Authorization: Bearer …",
                )
            return
        host, origin = self.headers.get("Host", ""), self.headers.get("Origin", "")
        if reason := browsers.refusal(host=host.strip(), origin=origin.strip()):
            self.close_connection = True
            raise RefusedCall(403, reason)

    def _body(self) -> bytes:
        length = _number(self.headers.get("Content-Length", ""))
        if length is None:
            self.close_connection = True
            raise RefusedCall(411, "The request has no Content-Length.")
        if length > bounds.MAX_BODY:
            self.close_connection = True
            raise _too_long(length)
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(100)
            self.end_headers()
            self.wfile.flush()
        body = self.rfile.read(length)
        encoding = self.headers.get("Content-Encoding", "identity").lower()
        return body if encoding == "identity" else _unpacked(body, encoding)


def _number(text: str) -> int | None:
    """Of a header. Python takes more for digits than HTTP does, and refuses very many of them."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def _unpacked(body: bytes, encoding: str) -> bytes:
    bits = _WINDOW_BITS.get(encoding)
    if bits is None:
        raise RefusedCall(415, f"The body is {encoding!r}. Expected gzip, deflate or identity.")
    unpacker = zlib.decompressobj(bits)
    try:
        whole = unpacker.decompress(body, bounds.MAX_BODY)
    except zlib.error as error:
        raise RefusedCall(400, f"The body is no {encoding}: {error}.") from error
    if unpacker.unconsumed_tail:
        raise _too_long(bounds.MAX_BODY + 1)
    if not unpacker.eof:
        raise RefusedCall(400, f"The body ends in the middle of its {encoding}.")
    return whole


def _too_long(length: int) -> RefusedCall:
    return RefusedCall(
        413, f"The request has {length:,} bytes. At most {bounds.MAX_BODY:,} are read."
    )
