"""Runs OpenVINO artifacts (IR: an ``.xml`` with its ``.bin`` beside it) on the CPU."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeml.errors import RefusedError, SourceError
from edgeml.targets.openvino.reports import withhold
from edgeml.targets.runtime import Array, Session, TensorInfo, dtype_name

_NARROWED = {"int64", "uint32", "uint64"}


def open_session(entry: Path, *, threads: int, options: Mapping[str, str]) -> Session:
    """Loads an IR.

    Args:
        entry: the ``.xml``.
        threads: of the one stream that there is.
        options: OpenVINO properties by name. ``INFERENCE_PRECISION_HINT`` is ``f32`` unless the
            artifact says otherwise: a CPU with AMX would compute float32 in bfloat16.

    Raises:
        SourceError: the file is no IR, its ``.bin`` is missing, or an option is unknown.
    """
    core: Any = library().Core()
    try:
        model = core.read_model(str(entry))
    except RuntimeError as error:
        raise SourceError(
            f"{entry.name} cannot be read as an OpenVINO model: {_reason(error)}",
            expected="an artifact for openvino, its .bin beside the .xml",
        ) from error
    config = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": str(threads),
        **options,
    }
    try:
        compiled = core.compile_model(model, "CPU", config)
    except RuntimeError as error:
        reason = _reason(error)
        if "Unsupported property" in reason or "property" in reason.lower():
            raise SourceError(f"OpenVINO does not take the options {config}: {reason}") from error
        raise RefusedError(
            f"OpenVINO cannot compile {entry.name} for this CPU: {reason}",
            remedy="Use another target's artifact on this machine.",
        ) from error
    return _OpenVinoSession(model, compiled)


def library() -> Any:
    """Imports OpenVINO."""
    withhold()
    return importlib.import_module("openvino")


class _OpenVinoSession:
    def __init__(self, model: Any, compiled: Any) -> None:
        self._request: Any = compiled.create_infer_request()
        # Names are the model's: compiling merges those of tensors that it makes one.
        self.inputs = tuple(map(_info, model.inputs, compiled.inputs))
        self.outputs = tuple(map(_info, model.outputs, compiled.outputs))

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        request = self._request
        given = dict(feeds)
        for info in self.inputs:
            if info.dtype in _NARROWED:
                _check_narrow(info, given[info.name])
                # OpenVINO knows int64 as a C long alone, ONNX Runtime gives out long longs.
                given[info.name] = given[info.name].view(np.dtype(info.dtype))
        # Shared inputs save a copy of each; outputs are copied, since the request writes over them.
        # Only a request that was started so can be cancelled; the hand-over costs some 20 µs.
        request.start_async([given[info.name] for info in self.inputs], share_inputs=True)
        request.wait()
        return {
            info.name: request.get_output_tensor(index).data.copy()
            for index, info in enumerate(self.outputs)
        }

    def cancel(self) -> None:
        self._request.cancel()

    def close(self) -> None:
        self._request = None


def _check_narrow(info: TensorInfo, array: Array) -> None:
    """Refuses integers that the CPU plugin would clip in silence."""
    bounds = np.iinfo(np.int32)
    for value in (array.min(initial=0), array.max(initial=0)):
        if not bounds.min <= int(value) <= bounds.max:
            raise RefusedError(
                f"Input {info.name!r} holds {int(value)}, and OpenVINO computes {info.dtype} in 32 "
                "bits on the CPU",
                expected=f"integers from {bounds.min} to {bounds.max}",
                remedy="Give smaller ones, or use another target's artifact.",
            )


def _info(named: Any, port: Any) -> TensorInfo:
    shape = tuple(axis.get_length() if axis.is_static else -1 for axis in port.get_partial_shape())
    dtype = dtype_name(port.get_element_type().to_dtype())
    return TensorInfo(str(named.get_any_name()), shape, dtype)


def _reason(error: BaseException) -> str:
    """The last line of OpenVINO's message, which says why; those above say where in its source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300]
