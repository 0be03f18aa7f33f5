"""The local call: the Open Inference Protocol over HTTP/1.1, on loopback only.

There is no authentication, so no other address is listened on. Refusals have status codes of their
own: 400 for input that does not fit, 404 for no such model, 503 for a request that was shed or a
model that does not serve, 504 for a deadline that passed, 500 for a failed inference.
"""

from __future__ import annotations

import contextlib
import ipaddress
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec

from edgeml import __version__
from edgeml.device_agent import config as bounds
from edgeml.device_agent.local import oip
from edgeml.device_agent.serving import requests
from edgeml.device_agent.serving.admission import Outcome
from edgeml.device_agent.serving.service import Service
from edgeml.errors import AgentError, SourceError, UsageError

STATUS: Mapping[Outcome, int] = {"served": 200, "shed": 503, "late": 504, "failed": 500}

_EXTENSIONS: tuple[str, ...] = ()


class HttpError(Exception):
    """A request that ends with this status and sentence."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class LocalApi:
    """The HTTP server and its threads.

    Args:
        host: a loopback address, or ``localhost``.
        port: 0 for any.
        services: by model name; asked anew with each request.

    Raises:
        UsageError: the address is not loopback.
        AgentError: it is taken.
    """

    def __init__(self, host: str, port: int, services: Callable[[], Mapping[str, Service]]) -> None:
        if not _is_loopback(host):
            raise UsageError(
                f"The local call is to listen on {host}",
                expected="127.0.0.1, ::1 or localhost: it knows no passwords",
                remedy="Put a reverse proxy with authentication before it to call from elsewhere.",
            )
        try:
            self._server = _Server((host, port), services)
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

    def __init__(
        self, address: tuple[str, int], services: Callable[[], Mapping[str, Service]]
    ) -> None:
        self.services = services
        self._callers = threading.Semaphore(bounds.MAX_CALLERS)
        self._busy = 0
        self._quiet = threading.Condition()
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._callers.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

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

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Requests are counted in windows, not logged."""

    def _answer(self, work: Callable[[list[str]], bytes]) -> None:
        with self.server.answering():
            try:
                path = self.path.partition("?")[0].strip("/")
                status, body = 200, work(path.split("/"))
            except HttpError as error:
                status, body = error.status, msgspec.json.encode({"error": str(error)})
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            if status == 503:
                self.send_header("Retry-After", "1")
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()

    def _get(self, path: list[str]) -> bytes:
        services = self.server.services()
        match path:
            case ["v2"]:
                return msgspec.json.encode(
                    {"name": "edgeml", "version": __version__, "extensions": _EXTENSIONS}
                )
            case ["v2", "health", "live"]:
                return b'{"live":true}'
            case ["v2", "health", "ready"]:
                if services and all(service.ready for service in services.values()):
                    return b'{"ready":true}'
                raise HttpError(503, "Not every model serves.")
            case ["v2", "models", name, "ready"]:
                if self._service(name).ready:
                    return b'{"ready":true}'
                raise HttpError(503, f"{name} does not serve.")
            case ["v2", "models", name]:
                service = self._service(name)
                manifest, state = service.manifest, service.state
                platform = f"edgeml_{state.artifact}"
                document = oip.metadata(
                    manifest.name, manifest.version, platform, manifest.inputs, manifest.outputs
                )
                return msgspec.json.encode(document)
            case _:
                raise self._no_such_path()

    def _post(self, path: list[str]) -> bytes:
        body = self._body()
        match path:
            case ["v2", "models", name, "infer"]:
                return self._infer(self._service(name), body)
            case _:
                raise self._no_such_path()

    def _infer(self, service: Service, body: bytes) -> bytes:
        try:
            request, arrays = oip.decode_request(body)
            feed = requests.feed(arrays, service.manifest.inputs)
        except SourceError as error:
            service.unfit()
            raise HttpError(400, str(error)) from error
        stream = request.parameters.stream
        ticket = service.submit(feed, stream=f"http:{stream}" if stream else "")
        outcome = ticket.wait()
        if outcome != "served":
            raise HttpError(STATUS[outcome], f"{outcome}: {ticket.message}")
        manifest = service.manifest
        return oip.encode_response(
            ticket.outputs, model=manifest.name, version=manifest.version, key=request.id
        )

    def _service(self, name: str) -> Service:
        services = self.server.services()
        service = services.get(name)
        if service is None:
            have = ", ".join(services) or "none"
            raise HttpError(404, f"There is no model '{name}'. Expected one of: {have}.")
        try:
            _ = service.manifest
        except AgentError as error:
            raise HttpError(503, f"{error} {service.state.error}") from error
        return service

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not length.isdigit():
            self.close_connection = True
            raise HttpError(411, "The request has no Content-Length.")
        if int(length) > bounds.MAX_BODY:
            self.close_connection = True
            raise HttpError(
                413, f"The request has {int(length):,} bytes. At most {bounds.MAX_BODY:,} are read."
            )
        return self.rfile.read(int(length))

    def _no_such_path(self) -> HttpError:
        return HttpError(
            404,
            f"There is no {self.command} {self.path}. Expected /v2/health/live, "
            "/v2/health/ready, /v2/models/MODEL or /v2/models/MODEL/infer.",
        )
