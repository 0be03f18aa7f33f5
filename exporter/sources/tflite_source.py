"""A float ``.tflite``, taken as it is: its batch is one, or open and then one.

Inputs and outputs keep the names of its signature, or of its main graph's tensors where it has none
or several. Runs in a child process; the interpreter of ``ai-edge-litert`` gives the reference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml.bundle.manifest import Tensor
from edgeml.errors import EdgemlError, SourceError
from edgeml.exporter.child import first_line
from edgeml.exporter.sources.forms import (
    Opened,
    OpenJob,
    ReferenceJob,
    damaged,
)
from edgeml.exporter.sources.shapes import fixed_tensor, refuse_open, refuse_unknown
from edgeml.targets.frameworks import framework
from edgeml.targets.runtime import TensorInfo
from edgeml.targets.tflite.runtime import open_session

Array = NDArray[Any]

_TITLE = "a LiteRT (TensorFlow Lite) model"


def open_source(job: OpenJob) -> Opened:
    """Look a ``.tflite`` over.

    Raises:
        SourceError: it is damaged, quantized already, leaves an axis open or needs an operator that
            LiteRT's own interpreter does not have.
    """
    interpreter = _interpreter(job.path)
    _refuse_quantized(job.path, interpreter.get_tensor_details())
    try:
        session = open_session(job.path, threads=1, options={})
    except EdgemlError as error:
        raise SourceError(
            f"LiteRT cannot run {job.path}: {error.found}",
            expected="a model of LiteRT's own operators",
            remedy="Convert it again without Select TensorFlow or custom operators, or give the "
            "model that it was made from.",
        ) from error
    refuse_unknown(job, [info.name for info in session.inputs])
    refuse_open(job)
    opened = Opened(
        kind="tflite",
        path=job.path.resolve(),
        inputs=_tensors(session.inputs, "input", job.path),
        outputs=_tensors(session.outputs, "output", job.path),
        title="LiteRT model",
    )
    session.close()
    return opened


def reference(job: ReferenceJob) -> int:
    """Run samples through the file; returns how many samples."""
    session = open_session(job.source.path, threads=1, options={})
    columns = {
        tensor.name: np.load(file, mmap_mode="r")
        for tensor, file in zip(job.source.inputs, job.inputs, strict=True)
    }
    results: list[list[Array]] = [[] for _ in job.outputs]
    count = len(next(iter(columns.values())))
    for row in range(count):
        found: Mapping[str, Array] = session.run(
            {name: np.array(column[row : row + 1]) for name, column in columns.items()}
        )
        for into, tensor in zip(results, job.source.outputs, strict=True):
            into.append(found[tensor.name])
    for file, parts in zip(job.outputs, results, strict=True):
        np.save(file, np.concatenate(parts))
    session.close()
    return count


def _interpreter(path: Path) -> Any:
    try:
        return framework("ai_edge_litert.interpreter").Interpreter(model_path=str(path))
    except ValueError as error:
        raise damaged(path, _TITLE, first_line(error)) from error


def _refuse_quantized(path: Path, tensors: Sequence[Mapping[str, Any]]) -> None:
    for tensor in tensors:
        kind = np.dtype(tensor["dtype"])
        if kind.kind in "iu" and len(tensor["quantization_parameters"]["scales"]):
            raise SourceError(
                f"{path} is quantized already: its tensor {tensor['name']!r} is {kind}",
                expected="a float model: what one quantizer has rounded, another cannot round anew",
                remedy="Give the float .tflite of before the quantization, or the model that it "
                "was made from.",
            )


def _tensors(infos: Sequence[TensorInfo], side: str, path: Path) -> tuple[Tensor, ...]:
    made: list[Tensor] = []
    for info in infos:
        shape = [1 if axis == 0 and size < 0 else size for axis, size in enumerate(info.shape)]
        if side == "input" and any(size < 0 for size in shape):
            raise SourceError(
                f"The input {info.name!r} of {path} has the shape "
                f"{['any' if size < 0 else size for size in shape]}",
                expected="no open axis but the batch: what a .tflite leaves open cannot be fixed "
                "afterwards",
                remedy="Convert it again from its model, with a fixed shape.",
            )
        shown: list[object] = ["any" if size < 0 else size for size in shape]
        made.append(fixed_tensor(info.name, shown, info.dtype, side=side, path=path))
    return tuple(made)
