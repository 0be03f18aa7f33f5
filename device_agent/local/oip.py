"""The Open Inference Protocol (KServe v2, JSON over REST) as documents; HTTP is elsewhere. Pure.

Source: https://github.com/kserve/open-inference-protocol, ``specification/protocol``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeml.bundle.manifest import Tensor
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

Array = NDArray[Any]


class InputTensor(msgspec.Struct):
    """One of ``inputs``; ``data`` is flat in row-major order, or nested."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any]


class OutputTensor(msgspec.Struct):
    """One of ``outputs``, flat."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any]


class Parameters(msgspec.Struct):
    """Parameters that edgeml knows; others are ignored, as the protocol asks."""

    stream: str = ""
    """Names a camera: of the frames that wait under one name only the newest is kept."""


class InferRequest(msgspec.Struct):
    """``POST /v2/models/{model}/infer``."""

    inputs: list[InputTensor]
    id: str = ""
    parameters: Parameters = msgspec.field(default_factory=Parameters)


class InferResponse(msgspec.Struct, omit_defaults=True):
    """Its answer."""

    model_name: str
    model_version: str
    outputs: list[OutputTensor]
    id: str = ""


class ModelMetadata(msgspec.Struct):
    """``GET /v2/models/{model}``."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]


_requests = msgspec.json.Decoder(InferRequest)


def decode_request(body: bytes) -> tuple[InferRequest, dict[str, Array]]:
    """A request and its arrays by input name.

    Raises:
        SourceError: no JSON, not of the protocol, or data that does not fill its shape.
    """
    try:
        request = _requests.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SourceError(
            f"The request cannot be read: {error}",
            expected='{"inputs": [{"name": …, "shape": […], "datatype": "FP32", "data": […]}]}, '
            "as the Open Inference Protocol has it",
        ) from error
    arrays = {tensor.name: _array(tensor) for tensor in request.inputs}
    if len(arrays) != len(request.inputs):
        raise SourceError("Two inputs of the request have the same name")
    return request, arrays


def encode_response(
    arrays: Mapping[str, Array], *, model: str, version: str, key: str = ""
) -> bytes:
    """Outputs as the protocol's answer. NaN and infinity, which JSON lacks, become null."""
    outputs = [
        OutputTensor(name, list(array.shape), _NAMES[str(array.dtype)], array.ravel().tolist())
        for name, array in arrays.items()
    ]
    return msgspec.json.encode(InferResponse(model, version, outputs, key))


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


def _array(tensor: InputTensor) -> Array:
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
    try:
        array = _values(tensor.data, np.dtype(dtype))
    except (ValueError, OverflowError, TypeError) as error:
        raise SourceError(
            f"The data of input '{tensor.name}' is no array of {tensor.datatype}: {error}",
            expected="numbers, flat in row-major order or nested as the shape says",
        ) from error
    if array.size != prod(tensor.shape):
        raise SourceError(
            f"Input '{tensor.name}' has {array.size} values",
            expected=f"{prod(tensor.shape)}, for the shape {tensor.shape}",
        )
    return array.reshape(tensor.shape)


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
