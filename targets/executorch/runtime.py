"""Runs ExecuTorch programs by its Python runtime, whose tensors are torch's.

A program's inputs and outputs have places and no names: they are called ``input_0``, …,
``output_0``, … here.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import tempfile
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeml.errors import RefusedError, SourceError
from edgeml.targets.runtime import Array, Session, TensorInfo

# By the numbers of torch's ScalarType, which the program's own description has.
_DTYPES = {
    0: "uint8",
    1: "int8",
    2: "int16",
    3: "int32",
    4: "int64",
    5: "float16",
    6: "float32",
    7: "float64",
    11: "bool",
}


def open_session(entry: Path, *, threads: int, options: Mapping[str, str]) -> Session:
    """Loads a ``.pte`` file. There are no options.

    The number of threads is that of the whole process: the session opened last sets it.

    Raises:
        SourceError: the file is no ExecuTorch program, or an option was given.
        RefusedError: the runtime cannot be imported, or the program needs an operator that it does
            not have.
    """
    if options:
        raise SourceError(f"executorch has no session option {sorted(options)}", expected="none")
    torch, runtime, bindings = library()
    try:
        with _quiet():
            bindings._unsafe_reset_threadpool(threads)  # noqa: SLF001 - there is no other way
            program = runtime.Runtime.get().load_program(entry)
    except RuntimeError as error:
        raise SourceError(
            f"{entry.name} is no ExecuTorch program: {error}", expected="an artifact for executorch"
        ) from error
    words = ""
    try:
        with _quiet() as printed:
            try:
                method = program.load_method("forward")
            finally:
                words = printed()
    except RuntimeError as error:
        # Which operator it lacks stands in what it prints, and not in the error.
        said = " ".join([*words.splitlines(), str(error)])
        raise RefusedError(
            f"ExecuTorch cannot prepare {entry.name}: {said}",
            remedy="Export the model again with this version of edgeml.",
        ) from error
    return _ExecutorchSession(torch, program, method)


def library() -> tuple[Any, Any, Any]:
    """Imports torch, ExecuTorch's runtime, and what that is bound to.

    Raises:
        RefusedError: one of them cannot be imported.
    """
    try:
        with _quiet():
            return (
                importlib.import_module("torch"),
                importlib.import_module("executorch.runtime"),
                importlib.import_module("executorch.extension.pybindings.portable_lib"),
            )
    except ImportError as error:
        raise RefusedError(
            f"ExecuTorch's runtime cannot be imported ({error})",
            remedy="pip install 'edgeml[executorch]'",
        ) from error


class _ExecutorchSession:
    def __init__(self, torch: Any, program: Any, method: Any) -> None:
        self._torch = torch
        self._program: Any = program  # the method lives in its memory
        self._method: Any = method
        about: Any = method.metadata
        self.inputs = tuple(
            _info(f"input_{index}", about.input_tensor_meta(index))
            for index in range(about.num_inputs())
        )
        self.outputs = tuple(
            _info(f"output_{index}", about.output_tensor_meta(index))
            for index in range(about.num_outputs())
        )

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        tensors = [
            self._torch.from_numpy(np.require(feeds[info.name], requirements=("C", "W")))
            for info in self.inputs
        ]
        results: Any = self._method.execute(tensors)
        # The runtime gives the next call's results in the same memory.
        return {
            info.name: np.array(result.numpy())
            for info, result in zip(self.outputs, results, strict=True)
        }

    def close(self) -> None:
        self._method = None
        self._program = None


def _info(name: str, tensor: Any) -> TensorInfo:
    dtype = _DTYPES.get(int(tensor.dtype()), "unknown")
    return TensorInfo(name, tuple(int(size) for size in tensor.sizes()), dtype)


@contextlib.contextmanager
def _quiet() -> Generator[Callable[[], str]]:
    """Keeps from the terminal what the library writes to standard error: when it starts it tells
    which files about the processor it could not find. Gives a function that returns it."""
    kept = os.dup(2)
    with tempfile.TemporaryFile() as words:
        os.dup2(words.fileno(), 2)
        try:
            yield lambda: os.pread(words.fileno(), 10_000, 0).decode(errors="replace")
        finally:
            os.dup2(kept, 2)
            os.close(kept)
