"""How a program on the device calls the agent: ``edgeml.Client``. NumPy, msgspec and the stdlib."""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from numpy.typing import NDArray

from edgeml.device_agent.local.call_error import CallError
from edgeml.device_agent.local.http_wire import HttpWire
from edgeml.device_agent.local.socket_address import SYSTEM, VARIABLE, candidates
from edgeml.device_agent.local.socket_client import SocketWire

__all__ = ["CallError", "Client"]


class Client:
    """One connection, kept open. Not for use by two threads at once. A process that is forked has
    one of its own from then on.

    Args:
        address: path of the agent's socket, or its URL (``http://127.0.0.1:8700``). Empty for the
            socket that the variable ``EDGEML_SOCKET`` names, that of the service, or that of the
            one agent which this user runs.
        model: the name of the model to call; each call may name another.
        token: for an agent that wants one over HTTP.
        timeout_s: for an answer.

    Raises:
        CallError: no agent, or more than one, can be meant.
    """

    def __init__(
        self,
        address: str | os.PathLike[str] = "",
        model: str = "",
        *,
        token: str = "",
        timeout_s: float = 30.0,
    ) -> None:
        self._model = model
        self._wire: HttpWire | SocketWire
        if "://" in os.fspath(address):
            self._wire = HttpWire(os.fspath(address), token=token, timeout_s=timeout_s)
        else:
            path = Path(address) if os.fspath(address) else _the_socket()
            self._wire = SocketWire(path, timeout_s=timeout_s)
        _clients.add(self)

    def infer(
        self,
        inputs: Mapping[str, NDArray[Any]],
        *,
        model: str = "",
        stream: str = "",
        copy: bool = True,
    ) -> dict[str, NDArray[Any]]:
        """Run one sample.

        Args:
            inputs: arrays by input name, with or without the batch axis of one. Those of
                :meth:`places`, filled in place, are not copied over the socket.
            model: another one than the client's own.
            stream: names a camera; of the frames that wait only its newest is kept.
            copy: the outputs are yours to keep. False: over the socket they lie in shared memory,
                and the next call of this model writes over them.

        Returns:
            Outputs by name, with the batch axis.

        Raises:
            CallError: it was not served, with the status that says why.
        """
        return self._wire.infer(model or self._model, inputs, stream=stream, copy=copy)

    def places(self, model: str = "") -> dict[str, NDArray[Any]]:
        """Arrays of the shapes and dtypes of the model's inputs, to fill and give to :meth:`infer`.

        Over the socket they are the memory that the agent reads, until :meth:`close`; where another
        version of the model took its place with other inputs, ask for them again.
        """
        return self._wire.places(model or self._model)

    def ready(self) -> bool:
        """Whether every model serves."""
        try:
            self._wire.get("/v2/health/ready")
        except CallError:
            return False
        return True

    def metadata(self, model: str = "") -> dict[str, Any]:
        """Inputs and outputs of a model, as the protocol describes them."""
        return self.get(f"/v2/models/{model or self._model}")

    def get(self, path: str) -> Any:
        """The JSON document at a path of the agent's HTTP, over whichever wire this is."""
        return json.loads(self._wire.get(path))

    def post(self, path: str, document: object) -> Any:
        """What the agent answers to a JSON document at a path."""
        return json.loads(self._wire.post(path, json.dumps(document).encode()))

    def close(self) -> None:
        """Close the connection."""
        self._wire.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


_clients: weakref.WeakSet[Client] = weakref.WeakSet()


def _in_a_fork() -> None:
    """Over one connection two processes would be given each other's answers."""
    for client in _clients:
        client.close()


os.register_at_fork(after_in_child=_in_a_fork)


def _the_socket() -> Path:
    found = candidates()
    if len(found) == 1:
        return found[0]
    if not found:
        raise CallError(
            f"No agent's socket was found: neither {SYSTEM}, nor in the usual state folder",
            status=0,
            remedy="Start an agent, or name its socket, which is in the first lines of its log: "
            f"Client(PATH), --socket, or the variable {VARIABLE}.",
        )
    raise CallError(
        f"There are {len(found)} agents: {', '.join(map(str, found))}",
        status=0,
        remedy=f"Name the socket of one: Client(PATH), or {VARIABLE}.",
    )
