"""A program's side of the local call over HTTP: tensors as bytes after the JSON."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from edgeml.device_agent.local import oip
from edgeml.device_agent.local.call_error import CallError
from edgeml.errors import SourceError


class HttpWire:
    """One connection, opened again where it broke.

    Args:
        url: such as ``http://127.0.0.1:8700``.
        token: to show; empty for none.
        timeout_s: for an answer.
    """

    def __init__(self, url: str, *, token: str, timeout_s: float) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise CallError(
                f"{url!r} is no address of an agent", status=0, remedy="http://HOST:PORT is one."
            )
        self.address = f"{parts.hostname}:{parts.port or 80}"
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._connection = http.client.HTTPConnection(
            parts.hostname, parts.port or 80, timeout=timeout_s
        )

    def places(self, model: str) -> dict[str, oip.Array]:
        """Arrays of the shapes and dtypes of the model's inputs."""
        document = json.loads(self.get(f"/v2/models/{model}"))
        return {
            tensor["name"]: np.zeros(tensor["shape"], dtype=oip.DATATYPES[tensor["datatype"]])
            for tensor in document["inputs"]
        }

    def infer(
        self, model: str, inputs: Mapping[str, oip.Array], *, stream: str, copy: bool
    ) -> dict[str, oip.Array]:
        """Run one sample."""
        request = oip.encode_request(inputs, stream=stream)
        headers = {"Content-Type": "application/json"}
        if request.header_length is not None:
            headers = {
                "Content-Type": "application/octet-stream",
                oip.HEADER_LENGTH: str(request.header_length),
            }
        path = f"/v2/models/{model}/infer"
        body, answer = self._call("POST", path, request.body, headers)
        length = answer.getheader(oip.HEADER_LENGTH)
        try:
            outputs = oip.decode_response(body, header_length=int(length) if length else None)
        except (SourceError, ValueError) as error:
            raise CallError(
                f"The answer of {self.address} cannot be read: {error}",
                status=0,
                remedy="Check that an agent listens there, of this version of edgeml or a newer.",
            ) from error
        return {name: array.copy() for name, array in outputs.items()} if copy else outputs

    def get(self, path: str) -> bytes:
        """The document at a path."""
        return self._call("GET", path, b"", {})[0]

    def post(self, path: str, body: bytes) -> bytes:
        """What the agent answers to a document."""
        return self._call("POST", path, body, {"Content-Type": "application/json"})[0]

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _call(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str]
    ) -> tuple[bytes, http.client.HTTPResponse]:
        try:
            self._connection.request(method, path, body or None, {**headers, **self._headers})
            response = self._connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException, ValueError, SourceError) as error:
            self._connection.close()  # the next call opens a new one
            raise CallError(
                f"The agent at {self.address} did not answer: {error or type(error).__name__}",
                status=0,
                remedy="Check that it runs: its log names the address.",
            ) from error
        if response.status != 200:
            raise CallError(_reason(answer, response), status=response.status)
        return answer, response


def _reason(answer: bytes, response: http.client.HTTPResponse) -> str:
    try:
        document: dict[str, Any] = json.loads(answer)
        return str(document["error"])
    except (ValueError, KeyError, TypeError):
        return response.reason
