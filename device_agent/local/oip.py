"""The Open Inference Protocol (KServe v2, REST) as documents and bytes; HTTP is elsewhere. Pure.

Tensors are JSON numbers, or little-endian bytes after the JSON, whose length then stands in the
header :data:`HEADER_LENGTH` (the extension ``binary_tensor_data``, which ``tritonclient`` speaks).

Sources: https://github.com/kserve/open-inference-protocol, ``specification/protocol``, and
https://github.com/triton-inference-server/server, ``docs/protocol/extension_binary_data.md``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeml.bundle.manifest import Tensor
from edgeml.decoding import json_decoder
from edgeml.errors import SourceError

DATATYPES = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
}
"""The protocol's name → NumPy's. BYTES (strings) are no tensors of a model here."""

_NAMES = {numpy: name for name, numpy in DATATYPES.items()}

MAX_AXES = 8

HEADER_LENGTH = "Inference-Header-Content-Length"
"""HTTP's header with the length of the JSON, where bytes of tensors follow it."""

EXTENSIONS = ("binary_tensor_data",)

Array = NDArray[Any]


class InputParameters(msgspec.Struct):
    """Parameters of an input that edgeml knows."""

    binary_data_size: int | None = None
    """Bytes of this input after the JSON, in the order of the inputs."""


class InputTensor(msgspec.Struct):
    """One of ``inputs``; ``data`` is flat in row-major order, or nested, or after the JSON."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any] | None = None
    parameters: InputParameters = msgspec.field(default_factory=InputParameters)


class OutputParameters(msgspec.Struct, omit_defaults=True):
    """Parameters of an output: wanted in binary (a request), or how long it is (an answer)."""

    binary_data: bool | None = None
    binary_data_size: int | None = None
    classification: int = 0


class WantedOutput(msgspec.Struct):
    """One of the ``outputs`` of a request."""

    name: str
    parameters: OutputParameters = msgspec.field(default_factory=OutputParameters)


class OutputTensor(msgspec.Struct, omit_defaults=True):
    """One of the ``outputs`` of an answer: flat data, or its length after the JSON."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any] | None = None
    parameters: OutputParameters | None = None


class Parameters(msgspec.Struct):
    """Parameters that edgeml knows; others are ignored, as the protocol asks."""

    stream: str = ""
    """Names a camera: of the frames that wait under one name only the newest is kept."""
    binary_data_output: bool = False
    """All outputs as bytes, unless one says otherwise."""


class InferRequest(msgspec.Struct):
    """``POST /v2/models/{model}/infer``."""

    inputs: list[InputTensor]
    id: str = ""
    parameters: Parameters = msgspec.field(default_factory=Parameters)
    outputs: list[WantedOutput] = []
    """Which outputs are wanted; empty for all of them."""


class InferResponse(msgspec.Struct, omit_defaults=True):
    """Its answer."""

    model_name: str
    model_version: str
    outputs: list[OutputTensor]
    id: str = ""


class Encoded(NamedTuple):
    """A message, ready to send."""

    body: bytes
    header_length: int | None
    """Of the JSON, where bytes follow it."""


class ModelMetadata(msgspec.Struct):
    """``GET /v2/models/{model}``."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]


_requests = json_decoder(InferRequest)
_responses = json_decoder(InferResponse)


def decode_request(
    body: bytes, *, header_length: int | None = None
) -> tuple[InferRequest, dict[str, Array]]:
    """A request and its arrays by input name. Arrays that came as bytes lie in ``body``.

    Args:
        body: JSON, and the bytes of tensors.
        header_length: bytes of the JSON; None where there is nothing else.

    Raises:
        SourceError: not of the protocol, or data that does not fill its shape.
    """
    cut = len(body) if header_length is None else header_length
    if not 0 < cut <= len(body):
        raise SourceError(
            f"{HEADER_LENGTH} is {cut}, the body has {len(body)} bytes",
            expected="the length of the JSON at its beginning",
        )
    try:
        request = _requests.decode(memoryview(body)[:cut])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SourceError(
            f"The request cannot be read: {error}",
            expected='{"inputs": [{"name": …, "shape": […], "datatype": "FP32", "data": […]}]}, '
            "as the Open Inference Protocol has it",
        ) from error
    arrays: dict[str, Array] = {}
    for tensor in request.inputs:
        size = tensor.parameters.binary_data_size
        if size is None:
            array = _check_filled(tensor, _of_json(tensor))
        elif not 0 <= size <= len(body) - cut:
            raise SourceError(
                f"Input '{tensor.name}' is to have {size} bytes, {len(body) - cut} are left",
                expected="binary_data_size of each input to add up to what follows the JSON",
            )
        else:
            array = _check_filled(tensor, _of_bytes(tensor, body, cut, size))
            cut += size
        arrays[tensor.name] = array.reshape(tensor.shape)
    if len(arrays) != len(request.inputs):
        raise SourceError("Two inputs of the request have the same name")
    if cut != len(body):
        raise SourceError(
            f"{len(body) - cut} bytes after the JSON belong to no input",
            expected="binary_data_size of each input to add up to what follows the JSON",
        )
    return request, arrays


def check_outputs(request: InferRequest, names: Collection[str]) -> None:
    """Refuse outputs that a model does not have.

    Raises:
        SourceError: one is asked for, or something that edgeml does not make of one.
    """
    for wanted in request.outputs:
        if wanted.name not in names:
            raise SourceError(
                f"Output '{wanted.name}' was asked for", expected=f"of {', '.join(names)}"
            )
        if wanted.parameters.classification:
            raise SourceError(
                f"Output '{wanted.name}' was asked for as a classification",
                expected="the scores themselves: the extension 'classification' is not spoken here",
            )


def encode_request(
    arrays: Mapping[str, Array], *, stream: str = "", binary: bool = True
) -> Encoded:
    """A request with every input as bytes (or as numbers), and every output likewise."""
    document: dict[str, Any] = {
        "inputs": [msgspec.to_builtins(_tensor(*item, binary=binary)) for item in arrays.items()]
    }
    parameters = ({"stream": stream} if stream else {}) | (
        {"binary_data_output": True} if binary else {}
    )
    if parameters:
        document["parameters"] = parameters
    return _joined(msgspec.json.encode(document), arrays.values() if binary else ())


def encode_response(
    arrays: Mapping[str, Array],
    *,
    model: str,
    version: str,
    request: InferRequest | None = None,
) -> Encoded:
    """Outputs as the protocol's answer.

    NaN and infinity, which JSON lacks, become null there; as bytes they are what they are.

    Args:
        arrays: by name, all of the model's.
        model: its name.
        version: its version.
        request: what was asked for; None for all outputs as JSON.
    """
    outputs: list[OutputTensor] = []
    tail: list[Array] = []
    for name, binary in _choice(arrays, request).items():
        outputs.append(_tensor(name, arrays[name], binary=binary))
        if binary:
            tail.append(arrays[name])
    key = request.id if request else ""
    return _joined(msgspec.json.encode(InferResponse(model, version, outputs, key)), tail)


def decode_response(body: bytes, *, header_length: int | None = None) -> dict[str, Array]:
    """Outputs of an answer by name; those that came as bytes are read-only.

    Raises:
        SourceError: not of the protocol.
    """
    cut = len(body) if header_length is None else header_length
    try:
        response = _responses.decode(memoryview(body)[:cut])
    except msgspec.DecodeError as error:
        raise SourceError(f"The answer cannot be read: {error}") from error
    arrays: dict[str, Array] = {}
    for tensor in response.outputs:
        size = tensor.parameters.binary_data_size if tensor.parameters else None
        dtype = np.dtype(DATATYPES[tensor.datatype])
        if size is None:
            array: Array = np.array(tensor.data, dtype=dtype)  # null becomes NaN
        else:
            array = np.frombuffer(body, dtype, size // dtype.itemsize, cut)
            cut += size
        arrays[tensor.name] = array.reshape(tensor.shape)
    return arrays


def metadata(
    name: str, version: str, platform: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor]
) -> ModelMetadata:
    """What a model takes and gives."""
    return ModelMetadata(
        name=name,
        versions=[version],
        platform=platform,
        inputs=[_describe(tensor) for tensor in inputs],
        outputs=[_describe(tensor) for tensor in outputs],
    )


def _describe(tensor: Tensor) -> dict[str, Any]:
    datatype = _NAMES.get(tensor.dtype, tensor.dtype)
    return {"name": tensor.name, "datatype": datatype, "shape": list(tensor.shape)}


def _choice(arrays: Mapping[str, Array], request: InferRequest | None) -> dict[str, bool]:
    """Which outputs go into an answer, and whether as bytes."""
    if request is None:
        return dict.fromkeys(arrays, False)
    default = request.parameters.binary_data_output
    if not request.outputs:
        return dict.fromkeys(arrays, default)
    given = {wanted.name: wanted.parameters.binary_data for wanted in request.outputs}
    return {name: default if binary is None else binary for name, binary in given.items()}


def _tensor(name: str, array: Array, *, binary: bool) -> OutputTensor:
    shape, datatype = list(array.shape), _NAMES[str(array.dtype)]
    if binary:
        size = OutputParameters(binary_data_size=array.nbytes)
        return OutputTensor(name, shape, datatype, parameters=size)
    return OutputTensor(name, shape, datatype, array.ravel().tolist())


def _joined(head: bytes, tail: Iterable[Array]) -> Encoded:
    parts = [np.ascontiguousarray(array).data for array in tail]
    return Encoded(b"".join([head, *parts]), len(head)) if parts else Encoded(head, None)


def _dtype(tensor: InputTensor) -> np.dtype[Any]:
    dtype = DATATYPES.get(tensor.datatype)
    if dtype is None:
        raise SourceError(
            f"Input '{tensor.name}' has datatype '{tensor.datatype}'",
            expected=f"one of {', '.join(DATATYPES)}",
        )
    if len(tensor.shape) > MAX_AXES or any(axis < 0 for axis in tensor.shape):
        raise SourceError(
            f"Input '{tensor.name}' has shape {tensor.shape}",
            expected=f"at most {MAX_AXES} axes, none negative",
        )
    return np.dtype(dtype)


def _check_filled(tensor: InputTensor, array: Array) -> Array:
    if array.size != prod(tensor.shape):
        raise SourceError(
            f"Input '{tensor.name}' has {array.size} values",
            expected=f"{prod(tensor.shape)}, for the shape {tensor.shape}",
        )
    return array


def _of_bytes(tensor: InputTensor, body: bytes, offset: int, size: int) -> Array:
    dtype = _dtype(tensor)
    if size % dtype.itemsize:
        raise SourceError(
            f"Input '{tensor.name}' has {size} bytes",
            expected=f"a multiple of {dtype.itemsize}, for {tensor.datatype}",
        )
    array = np.frombuffer(body, dtype, size // dtype.itemsize, offset)
    # Any other byte than 0 and 1 in an array of booleans is neither for NumPy.
    return array.view(np.uint8) != 0 if dtype.kind == "b" else array


def _of_json(tensor: InputTensor) -> Array:
    dtype = _dtype(tensor)
    if tensor.data is None:
        raise SourceError(
            f"Input '{tensor.name}' has no data",
            expected="'data' in the JSON, or binary_data_size and the bytes after it",
        )
    try:
        return _values(tensor.data, dtype)
    except (ValueError, OverflowError, TypeError) as error:
        raise SourceError(
            f"The data of input '{tensor.name}' is no array of {tensor.datatype}: {error}",
            expected="numbers, flat in row-major order or nested as the shape says",
        ) from error


def _values(data: list[Any], dtype: np.dtype[Any]) -> Array:
    """Exactly these numbers: 0.5 or 300 for an INT8 is an error and not something else."""
    raw: Array = np.asarray(data)
    if not raw.size:
        return raw.astype(dtype)
    if raw.dtype.kind not in "biuf":
        raise ValueError(f"the values are {raw.dtype}")
    if dtype.kind in "iub" and raw.dtype.kind == "f":
        raise ValueError("there are fractions among integers")
    if dtype.kind in "iu" and raw.dtype.kind in "iu":
        bounds = np.iinfo(dtype)
        if int(raw.min()) < bounds.min or int(raw.max()) > bounds.max:
            raise ValueError(f"there are values outside {bounds.min} … {bounds.max}")
    return raw.astype(dtype)
