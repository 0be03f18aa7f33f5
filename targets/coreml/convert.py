"""Makes the Core ML program (ML Program, for macOS 13 and iOS 16 on) of a source, by coremltools.

coremltools 9 was tested by its makers up to torch 2.7 and TensorFlow 2.12; with those of the
toolchain it takes programs of ``torch.export`` after their decomposition into ATen's core, and
SavedModels of one signature. What it makes is looked over piece by piece (structure.py).
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple

import numpy as np

from edgeml.errors import RefusedError
from edgeml.targets import sources
from edgeml.targets.compiling import CompileJob

_TITLE = "Core ML"

_MISSING = (
    r"PyTorch convert function for op '([^']+)' not implemented",
    r"Unsupported fx node [^,]+, kind ([\w.]+)",
    r"Conversion for TF op '([^']+)' not implemented",
)

_DTYPES = {"float32", "int32"}
"""Of inputs and outputs that Core ML has as a whole and that a source may have."""


class Port(NamedTuple):
    """An input or output of the source: what the artifact's must be."""

    name: str
    shape: tuple[int, ...]
    dtype: str


class Converted(NamedTuple):
    """A model that is not saved yet, and the source's ports in the order of the model's."""

    model: Any
    inputs: list[Port]
    outputs: list[Port]


def model_of(job: CompileJob, *, half: bool) -> Converted:
    """The Core ML model of a job's source; ``half`` computes in float16.

    Raises:
        RefusedError: Core ML lacks an operator of the model, or the type of an input or output.
        SourceError: the source cannot be used.
    """
    if job.source_kind == "torch":
        return _from_torch(job, half=half)
    return _from_savedmodel(job, half=half)


def _from_torch(job: CompileJob, *, half: bool) -> Converted:
    program = sources.torch_program(job.source)
    flat, examples = sources.flat_module(program)
    inputs = [
        _port(name, tensor.shape, tensor.dtype)
        for name, tensor in zip(job.inputs, examples, strict=True)
    ]
    torch = sources.framework("torch")
    with torch.no_grad():
        results = flat(*examples)
    outputs = [
        _port(name, tensor.shape, tensor.dtype)
        for name, tensor in zip(job.outputs, results, strict=True)
    ]
    _refuse_dtypes(inputs, outputs)
    lowered = torch.export.export(flat, examples).run_decompositions({})
    try:
        model = _convert(
            lowered, [f"output_{index}" for index in range(len(outputs))], outputs, half
        )
    except Exception as error:
        text = str(error)
        _refuse(error, lambda operator: sources.locate(program, f"aten.{operator}", text))
        branch = sources.locate_branch(program) if "Only torch.Tensor attr" in text else None
        if branch is not None:
            sources.refuse_operator(_TITLE, *branch, error)
        raise
    return Converted(model, inputs, outputs)


def _from_savedmodel(job: CompileJob, *, half: bool) -> Converted:
    tf = sources.framework("tensorflow")

    folder = sources.savedmodel(job)
    signature: Any = tf.saved_model.load(str(folder)).signatures["serving_default"]
    specs: dict[str, Any] = signature.structured_input_signature[1]
    inputs = [_port(name, specs[name].shape, specs[name].dtype.name) for name in job.inputs]
    results: dict[str, Any] = signature.structured_outputs
    # coremltools calls the outputs of a signature Identity, Identity_1, …, in the order in which
    # TensorFlow flattens a dict: by name.
    outputs = [
        _port(name, results[name].shape, results[name].dtype.name) for name in sorted(job.outputs)
    ]
    _refuse_dtypes(inputs, outputs)
    names = ["Identity" if index == 0 else f"Identity_{index}" for index in range(len(outputs))]
    try:
        model = _convert(
            str(folder),
            names,
            outputs,
            half,
            source="tensorflow",
            inputs=[
                coremltools().TensorType(name=port.name, shape=port.shape, dtype=_numpy(port))
                for port in inputs
            ],
        )
    except Exception as error:
        _refuse(error, lambda operator: sources.locate_tensorflow(folder, operator))
        raise
    found = [each.name for each in model.get_spec().description.input]
    order = sorted(inputs, key=lambda port: found.index(port.name))
    return Converted(model, order, outputs)


def _convert(
    original: Any, names: Sequence[str], outputs: Sequence[Port], half: bool, **options: Any
) -> Any:
    tools = coremltools()
    # It clears this at the end, unless it failed: a model's names would follow from the one before.
    sources.framework("coremltools.converters.mil").Builder.name_count.clear()
    with _no_bars():
        return tools.convert(
            original,
            convert_to="mlprogram",
            minimum_deployment_target=tools.target.iOS16,
            compute_precision=tools.precision.FLOAT16 if half else tools.precision.FLOAT32,
            # Otherwise they would follow the precision.
            outputs=[
                tools.TensorType(name=name, dtype=_numpy(port))
                for name, port in zip(names, outputs, strict=True)
            ],
            skip_model_load=True,
            **options,
        )


def _numpy(port: Port) -> Any:
    return np.dtype(port.dtype).type


def coremltools() -> Any:
    """The library, without the warnings of its import: which versions its makers did not test, and
    which parts exist on a Mac alone."""
    logging.getLogger("coremltools").setLevel(logging.ERROR)
    return sources.framework("coremltools")


@contextlib.contextmanager
def _no_bars() -> Generator[None]:
    tqdm = sources.framework("tqdm")
    was = tqdm.tqdm.__init__

    def silent(self: Any, *args: Any, **options: Any) -> None:
        was(self, *args, **{**options, "disable": True})

    tqdm.tqdm.__init__ = silent
    try:
        yield
    finally:
        tqdm.tqdm.__init__ = was


def _port(name: str, shape: Any, dtype: Any) -> Port:
    return Port(name, tuple(int(size) for size in shape), str(dtype).removeprefix("torch."))


def _refuse_dtypes(inputs: Sequence[Port], outputs: Sequence[Port]) -> None:
    for side, ports in (("input", inputs), ("output", outputs)):
        for port in ports:
            if port.dtype not in _DTYPES:
                raise RefusedError(
                    f"The {side} {port.name!r} is {port.dtype}, and Core ML takes and gives "
                    "float32 and int32 alone",
                    remedy="Convert it in the model's forward: int32 in place of int64 and of "
                    "smaller integers, float32 in place of all else.",
                )


def _refuse(error: Exception, locate: Callable[[str], Any]) -> None:
    """Raises the sentence about an operator that Core ML lacks, if that is what went wrong."""
    text = str(error)
    for pattern in _MISSING:
        found = re.search(pattern, text)
        if found is not None:
            operator = found.group(1)
            sources.refuse_operator(_TITLE, operator, locate(operator), error)
