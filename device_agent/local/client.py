"""A small client of the local call, for programs on the same device. NumPy and the stdlib only."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from math import prod
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from edgeml.errors import AgentError

_DATATYPES = {
    "bool": "BOOL",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    **{
        f"{sign}int{bits}": f"{sign}int{bits}".upper()
        for sign in ("", "u")
        for bits in (8, 16, 32, 64)
    },
}
_DTYPES = {name: dtype for dtype, name in _DATATYPES.items()}


class CallError(AgentError):
    """The agent did not serve a call.

    Attributes:
        status: of HTTP: 400 the input does not fit, 404 no such model, 503 shed or not serving,
            504 late, 500 failed; 0 where there was no answer at all.
    """

    def __init__(self, found: str, *, status: int, remedy: str = "") -> None:
        super().__init__(found, remedy=remedy)
        self.status = status


class Client:
    """One connection, kept open. Not for use by two threads at once.

    Args:
        url: what the agent says at its start, such as ``http://127.0.0.1:8700``.
        model: the name of the model to call; each call may name another.
        timeout_s: for an answer.
    """

    def __init__(self, url: str, model: str = "", *, timeout_s: float = 30.0) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise CallError(f"{url!r} is no address of an agent", status=0)
        self._model = model
        self._connection = http.client.HTTPConnection(
            parts.hostname, parts.port or 80, timeout=timeout_s
        )

    def infer(
        self, inputs: Mapping[str, NDArray[Any]], *, model: str = "", stream: str = ""
    ) -> dict[str, NDArray[Any]]:
        """Run one sample.

        Args:
            inputs: arrays by input name, with or without the batch axis of one.
            model: another one than the client's own.
            stream: names a camera; of the frames that wait only its newest is kept.

        Returns:
            Outputs by name, with the batch axis.

        Raises:
            CallError: it was not served, with the status that says why.
        """
        document: dict[str, Any] = {
            "inputs": [
                {
                    "name": name,
                    "shape": list(array.shape),
                    "datatype": _DATATYPES[str(array.dtype)],
                    "data": array.ravel().tolist(),
                }
                for name, array in inputs.items()
            ]
        }
        if stream:
            document["parameters"] = {"stream": stream}
        path = f"/v2/models/{model or self._model}/infer"
        answer = self._call("POST", path, json.dumps(document))
        return {output["name"]: _array(output) for output in answer["outputs"]}

    def ready(self) -> bool:
        """Whether every model serves."""
        try:
            self._call("GET", "/v2/health/ready")
        except CallError:
            return False
        return True

    def metadata(self, model: str = "") -> dict[str, Any]:
        """Inputs and outputs of a model, as the protocol describes them."""
        return self._call("GET", f"/v2/models/{model or self._model}")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _call(self, method: str, path: str, body: str | None = None) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"} if body else {}
        try:
            self._connection.request(method, path, body, headers)
            response = self._connection.getresponse()
            answer: dict[str, Any] = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._connection.close()  # the next call opens a new one
            raise CallError(
                f"The agent at {self._connection.host}:{self._connection.port} did not answer: "
                f"{error or type(error).__name__}",
                status=0,
                remedy="Check that it runs: its log names the address.",
            ) from error
        if response.status != 200:
            raise CallError(str(answer.get("error", response.reason)), status=response.status)
        return answer


def _array(output: Mapping[str, Any]) -> NDArray[Any]:
    shape: list[int] = output["shape"]
    flat = np.array(output["data"], dtype=_DTYPES[output["datatype"]])  # null becomes NaN
    assert flat.size == prod(shape)
    return flat.reshape(shape)
