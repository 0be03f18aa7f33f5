"""What the local call answers, whatever carries it: HTTP, or the Unix socket.

Refusals have status codes of their own: 400 for input that does not fit, 404 for no such model, 503
for a request that was shed or a model that does not serve, 504 for a deadline that passed, 500 for
a failed inference.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from edgeml import __version__
from edgeml.decoding import from_json
from edgeml.device_agent.install.installer import Installer
from edgeml.device_agent.install.lifecycle import Mode
from edgeml.device_agent.local import metrics, oip
from edgeml.device_agent.local.status import AgentStatus
from edgeml.device_agent.serving import requests
from edgeml.device_agent.serving.admission import Outcome
from edgeml.device_agent.serving.tickets import Ticket
from edgeml.errors import AgentError, EdgemlError, SourceError, UsageError

if TYPE_CHECKING:
    from edgeml.device_agent.serving.service import Service

STATUS: Mapping[Outcome, int] = {"served": 200, "shed": 503, "late": 504, "failed": 500}

JSON = "application/json"
BINARY = "application/octet-stream"


_WISHES = frozenset({"versions", "rollback", "dismiss"})
"""What may be posted to a model, beside requests."""


class RefusedCall(Exception):  # noqa: N818 - it is an answer
    """A call that ends with this status and sentence."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Call(NamedTuple):
    """What was asked."""

    method: str
    path: str
    body: bytes = b""
    header_length: int | None = None
    """Of the JSON in the body, where bytes follow it."""
    trusted: bool = False
    """It came over the socket, or with the token: it may change what runs."""


class Reply(NamedTuple):
    """The answer to it."""

    status: int
    body: bytes
    kind: str = JSON
    header_length: int | None = None


class Deploy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``POST /edgeml/v1/models/NAME/versions``.

    Attributes:
        bundle: its path on this device.
        mode: what it is to be.
        share: of the requests, for ``split``.
    """

    bundle: str
    mode: Mode = "active"
    share: float = 0.0


class Routes:
    """Args:
    services: by model name; asked anew with each call.
    status: the whole agent's, likewise.
    installer: changes versions.
    """

    def __init__(
        self,
        services: Callable[[], Mapping[str, Service]],
        status: Callable[[], AgentStatus],
        installer: Installer,
    ) -> None:
        self._services = services
        self._status = status
        self._installer = installer

    def answer(self, call: Call) -> Reply:
        """Answer a call; a refusal is an answer, too."""
        try:
            return self._answer(call)
        except RefusedCall as refusal:
            return Reply(refusal.status, msgspec.json.encode({"error": str(refusal)}))

    def service(self, name: str, version: str = "") -> Service:
        """A model that was brought up at least as far as its manifest.

        Raises:
            RefusedCall: there is none.
        """
        services = self._services()
        service = services.get(name)
        if service is None:
            raise _no_model(name, services)
        try:
            manifest = service.manifest
        except AgentError as error:
            raise RefusedCall(503, f"{error} {service.state.error}") from error
        if version not in {"", manifest.version}:
            raise RefusedCall(
                404, f"{name} has no version '{version}'. Expected {manifest.version}."
            )
        return service

    def _answer(self, call: Call) -> Reply:
        path = call.path.partition("?")[0].strip("/").split("/")
        reply = self._own(call, path) or self._protocol(call, path)
        if reply is None:
            raise RefusedCall(
                404,
                f"There is no {call.method} {call.path}. Expected /v2/health/live, "
                "/v2/health/ready, /v2/models/MODEL, /v2/models/MODEL/infer, /metrics or "
                "/edgeml/v1/status, /edgeml/v1/models/MODEL/versions.",
            )
        return reply

    def _own(self, call: Call, path: list[str]) -> Reply | None:
        """What edgeml has beside the protocol."""
        match call.method, *path:
            case "GET", "metrics":
                return Reply(200, metrics.render(self._status()), metrics.CONTENT_TYPE)
            case "GET", "edgeml", "v1", "status":
                return _json(self._status())
            case "GET", "edgeml", "v1", "models", name, "versions":
                record = self._installer.records.get(name)
                if record is None:
                    raise _no_model(name, self._installer.records)
                return _json(record)
            case "POST", "edgeml", "v1", "models", name, wish if wish in _WISHES:
                return self._change(call, name, wish)
            case _:
                return None

    def _change(self, call: Call, name: str, wish: str) -> Reply:
        """Make another version serve, or take part. The answer comes when it does, or when it was
        refused."""
        if not call.trusted:
            raise RefusedCall(
                403, "Versions are changed over the agent's socket, or over HTTP with a token."
            )
        installer = self._installer
        if name not in installer.records:
            raise _no_model(name, installer.records)
        try:
            if wish == "rollback":
                return _json(installer.rollback(name))
            if wish == "dismiss":
                return _json(installer.dismiss(name))
            deploy = from_json(call.body, Deploy)
            bundle = Path(deploy.bundle)
            return _json(installer.install(name, bundle, mode=deploy.mode, share=deploy.share))
        except (msgspec.DecodeError, UsageError) as error:
            raise RefusedCall(400, str(error)) from error
        except EdgemlError as error:
            raise RefusedCall(409, str(error)) from error

    def _protocol(self, call: Call, path: list[str]) -> Reply | None:
        """The Open Inference Protocol."""
        reply: Reply | None = None
        match call.method, *_without_version(path):
            case "GET", _, "v2":
                about = {"name": "edgeml", "version": __version__, "extensions": oip.EXTENSIONS}
                reply = _json(about)
            case "GET", _, "v2", "health", "live":
                reply = _json({"live": True})
            case "GET", _, "v2", "health", "ready":
                services = self._services().values()
                if not services or not all(service.ready for service in services):
                    raise RefusedCall(503, "Not every model serves.")
                reply = _json({"ready": True})
            case "GET", version, "v2", "models", name, "ready":
                if not self.service(name, version).ready:
                    raise RefusedCall(503, f"{name} does not serve.")
                reply = _json({"name": name, "ready": True})
            case "GET", version, "v2", "models", name:
                reply = self._metadata(self.service(name, version))
            case "POST", version, "v2", "models", name, "infer":
                reply = self._infer(self.service(name, version), call)
            case _:
                pass
        return reply

    def _metadata(self, service: Service) -> Reply:
        manifest = service.manifest
        platform = f"edgeml_{service.state.artifact}"
        return _json(
            oip.metadata(
                manifest.name, manifest.version, platform, manifest.inputs, manifest.outputs
            )
        )

    def _infer(self, service: Service, call: Call) -> Reply:
        manifest = service.manifest
        try:
            request, arrays = oip.decode_request(call.body, header_length=call.header_length)
            oip.check_outputs(request, [tensor.name for tensor in manifest.outputs])
            feed = requests.feed(arrays, manifest.inputs)
        except SourceError as error:
            service.unfit()
            raise RefusedCall(400, str(error)) from error
        stream = request.parameters.stream
        ticket = service.call(feed, stream=f"http:{stream}" if stream else "")
        encoded = oip.encode_response(
            served(ticket), model=manifest.name, version=manifest.version, request=request
        )
        kind = JSON if encoded.header_length is None else BINARY
        return Reply(200, encoded.body, kind, encoded.header_length)


def served(ticket: Ticket) -> dict[str, oip.Array]:
    """The outputs of a request, once it has ended.

    Raises:
        RefusedCall: it was not served.
    """
    outcome = ticket.outcome or ticket.wait()
    if outcome != "served":
        raise RefusedCall(STATUS[outcome], f"{outcome}: {ticket.message}")
    return ticket.outputs


def _without_version(path: list[str]) -> list[str]:
    """The path with the version that it names, or an empty one, before it."""
    if path[:2] == ["v2", "models"] and path[3:4] == ["versions"] and len(path) > 4:
        return [path[4], *path[:3], *path[5:]]
    return ["", *path]


def _no_model(name: str, have: Collection[str]) -> RefusedCall:
    expected = ", ".join(have) or "none"
    return RefusedCall(404, f"There is no model '{name}'. Expected one of: {expected}.")


def _json(document: object) -> Reply:
    return Reply(200, msgspec.json.encode(document))
