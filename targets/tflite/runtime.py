"""Runs LiteRT artifacts: ai-edge-litert where it is installed, else tflite-runtime.

Both hold the same interpreter, which puts what it can on XNNPACK by itself. Tensors go in and out
under the names of the model's signature.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeml.errors import RefusedError, SourceError
from edgeml.targets.runtime import Array, Session, TensorInfo, dtype_name

_MODULES = ("ai_edge_litert.interpreter", "tflite_runtime.interpreter")


def open_session(entry: Path, *, threads: int, options: Mapping[str, str]) -> Session:
    """Loads a ``.tflite`` file. There are no options.

    Raises:
        SourceError: the file is no LiteRT model, or an option was given.
        RefusedError: neither interpreter can be imported, or the model needs an operator that it
            does not have.
    """
    if options:
        raise SourceError(f"tflite has no session option {sorted(options)}", expected="none")
    interpreter_module = library()
    try:
        interpreter = interpreter_module.Interpreter(model_path=str(entry), num_threads=threads)
    except ValueError as error:
        raise SourceError(
            f"{entry.name} is no LiteRT model: {error}", expected="an artifact for tflite"
        ) from error
    try:
        interpreter.allocate_tensors()
    except RuntimeError as error:
        raise RefusedError(
            f"LiteRT cannot prepare {entry.name}: {error}",
            remedy="Export the model again with this version of edgeml.",
        ) from error
    return _LiteRtSession(interpreter)


class _LiteRtSession:
    def __init__(self, interpreter: Any) -> None:
        self._interpreter: Any = interpreter
        signatures = interpreter.get_signature_list()
        if len(signatures) == 1:
            # A single signature is subgraph 0, whose tensors the interpreter's own calls address
            # by index; the signature runner would look each name up on every call.
            runner = interpreter.get_signature_runner(next(iter(signatures)))
            inputs: dict[str, Any] = runner.get_input_details()
            outputs: dict[str, Any] = runner.get_output_details()
        else:
            inputs = {tensor["name"]: tensor for tensor in interpreter.get_input_details()}
            outputs = {tensor["name"]: tensor for tensor in interpreter.get_output_details()}
        self._in = {name: int(tensor["index"]) for name, tensor in inputs.items()}
        self._out = {name: int(tensor["index"]) for name, tensor in outputs.items()}
        self.inputs = tuple(_info(name, tensor) for name, tensor in inputs.items())
        self.outputs = tuple(_info(name, tensor) for name, tensor in outputs.items())

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        interpreter = self._interpreter
        for name, index in self._in.items():
            interpreter.set_tensor(index, feeds[name])
        interpreter.invoke()
        return {name: interpreter.get_tensor(index) for name, index in self._out.items()}

    def close(self) -> None:
        self._interpreter = None


def _info(name: str, tensor: Any) -> TensorInfo:
    shape = tuple(int(axis) for axis in tensor["shape_signature"])
    return TensorInfo(name, shape, dtype_name(tensor["dtype"]))


def library() -> Any:
    """Imports the interpreter.

    Raises:
        RefusedError: neither can be imported.
    """
    errors: list[str] = []
    for name in _MODULES:
        try:
            return importlib.import_module(name)
        except ImportError as error:  # noqa: PERF203 - two modules at most
            errors.append(f"{name}: {error}")
    raise RefusedError(
        f"No LiteRT interpreter can be imported ({'; '.join(errors)})",
        remedy="pip install 'edgeml[tflite]'",
    )
