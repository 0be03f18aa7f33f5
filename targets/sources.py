"""What the converters share: reading sources and calibration samples.

Heavy: imports torch or TensorFlow, whichever the source needs, and runs in the toolchain only.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edgeml.errors import SourceError
from edgeml.targets.blame import Place, refuse_operator
from edgeml.targets.blame.of_onnx import locate_onnx
from edgeml.targets.blame.of_tensorflow import locate_tensorflow
from edgeml.targets.blame.of_torch import (
    locate,
    locate_branch,
    locate_complex,
    refuse_unregistered,
)
from edgeml.targets.compiling import CompileJob, first_line
from edgeml.targets.frameworks import framework, hints_once
from edgeml.targets.onnx_graph import onnx_model
from edgeml.targets.runtime import Array

__all__ = [
    "Place",
    "flat_examples",
    "flat_module",
    "framework",
    "locate",
    "locate_branch",
    "locate_complex",
    "locate_onnx",
    "locate_tensorflow",
    "onnx_model",
    "refuse_operator",
    "sample_count",
    "samples",
    "savedmodel",
    "torch_program",
]

# Ranges settle long before this, and the slowest quantizer takes about 20 ms a sample.
MAX_CALIBRATION_SAMPLES = 512


def samples(job: CompileJob) -> Iterator[dict[str, Array]]:
    """The calibration samples, one at a time with a batch axis of 1, under the source's names.

    Where there are more than :data:`MAX_CALIBRATION_SAMPLES`, as many are taken at even distance,
    so that data sorted by class or by time is represented whole.

    The files are mapped, and only what is asked for is read.

    Raises:
        SourceError: the folder lacks the file of one of the job's inputs, or holds no samples.
    """
    assert job.calibration is not None
    files = [job.calibration / f"{index}.npy" for index in range(len(job.inputs))]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise SourceError(
            f"The calibration folder lacks {', '.join(missing)}",
            expected=f"a file for each of the model's inputs, {list(job.inputs)}, in their order",
        )
    arrays = {
        name: np.load(file, mmap_mode="r", allow_pickle=False)
        for name, file in zip(job.inputs, files, strict=True)
    }
    count = min(len(array) for array in arrays.values())
    if count == 0:
        raise SourceError("The calibration data is empty", expected="at least one sample")
    for index in evenly(count, MAX_CALIBRATION_SAMPLES):
        yield {name: np.array(array[index : index + 1]) for name, array in arrays.items()}


def evenly(count: int, most: int) -> list[int]:
    """At most ``most`` of ``count`` rows, at even distance, the first and the last among them."""
    return [int(row) for row in np.linspace(0, count - 1, min(count, most)).round()]


def sample_count(job: CompileJob) -> int:
    """How many samples :func:`samples` yields."""
    return sum(1 for _ in samples(job))


@functools.lru_cache(maxsize=1)
def torch_program(path: Path) -> Any:
    """The ``ExportedProgram`` of a ``.pt2``.

    Raises:
        SourceError: the file is none.
    """
    torch = framework("torch")

    try:
        with hints_once():
            return torch.export.load(str(path))
    except Exception as error:
        refuse_unregistered(path, torch, error)
        raise SourceError(
            f"{path.name} cannot be read as an exported torch program: {first_line(error)}",
            expected="a file that torch.export.save wrote",
        ) from error


def flat_module(program: Any) -> tuple[Any, tuple[Any, ...]]:
    """A module that takes a program's inputs and gives its outputs as flat tuples, with examples.

    Programs may take keyword arguments and nest tensors in dicts and lists; converters name and
    order those each in its own way. Flat, the order is torch's own, which is that of the job.
    """
    torch = framework("torch")
    _pytree = framework("torch.utils._pytree")

    inner = program.module()
    in_spec = program.call_spec.in_spec

    class Flat(torch.nn.Module):
        def __init__(self) -> None:
            torch.nn.Module.__init__(self)
            self.model = inner

        def forward(self, *tensors: Any) -> Any:
            args, kwargs = _pytree.tree_unflatten(list(tensors), in_spec)
            return tuple(_pytree.tree_leaves(self.model(*args, **kwargs)))

    module = Flat()
    module.training = False  # eval() recurses into the program, which refuses it
    return module, flat_examples(program)


def flat_examples(program: Any) -> tuple[Any, ...]:
    """A program's example inputs, in torch's own order, which is that of the job."""
    _pytree = framework("torch.utils._pytree")
    args, kwargs = program.example_inputs
    flat, _ = _pytree.tree_flatten((args, kwargs))
    return tuple(flat)


def savedmodel(job: CompileJob) -> Path:
    """A SavedModel of one signature with a fixed batch of 1: the job's, if it is that, or one made
    from it.

    Written once to the job's ``workdir``. Inputs and outputs keep the signature's names.

    Raises:
        SourceError: the folder is no SavedModel, has no single signature to serve, lacks the
            job's names, or leaves another axis than the batch open.
    """
    if _is_fixed(job):
        return job.source
    return _fixed_savedmodel(job.source, job.inputs, job.outputs, job.workdir / "savedmodel-1")


def _is_fixed(job: CompileJob) -> bool:
    """By what the file declares: to load the model and write it anew takes seconds."""
    file = job.source / "saved_model.pb"
    if not file.is_file():
        return False
    message = framework("tensorflow.core.protobuf.saved_model_pb2").SavedModel()
    try:
        message.ParseFromString(file.read_bytes())
    except framework("google.protobuf.message").DecodeError:
        return False  # loading it says so better
    declared: dict[str, Any] = {
        name: signature
        for graph in message.meta_graphs
        for name, signature in graph.signature_def.items()
        if name != "__saved_model_init_op"
    }
    if list(declared) != ["serving_default"]:
        return False
    signature = declared["serving_default"]
    sizes = [
        [axis.size for axis in each.tensor_shape.dim]
        for each in signature.inputs.values()
        if not each.tensor_shape.unknown_rank
    ]
    return (
        set(signature.inputs) == set(job.inputs)
        and set(signature.outputs) == set(job.outputs)
        and len(sizes) == len(job.inputs)
        and all(size[:1] in ([1], []) and -1 not in size for size in sizes)
    )


@functools.lru_cache(maxsize=1)
def _fixed_savedmodel(
    source: Path, inputs: tuple[str, ...], outputs: tuple[str, ...], folder: Path
) -> Path:
    tf = framework("tensorflow")

    try:
        loaded = tf.saved_model.load(str(source))
    except Exception as error:
        raise SourceError(
            f"{source.name} cannot be read as a SavedModel: {error}",
            expected="a folder with saved_model.pb and variables",
        ) from error
    signatures = dict(loaded.signatures)
    signature = signatures.get("serving_default")
    if signature is None and len(signatures) == 1:
        signature = next(iter(signatures.values()))
    if signature is None:
        raise SourceError(
            f"{source.name} has the signatures {sorted(signatures)}",
            expected="one called serving_default",
            remedy="Save it again with model.export(...) or with signatures=...",
        )
    specs: dict[str, Any] = signature.structured_input_signature[1]
    have_outputs = set(signature.structured_outputs)
    if set(specs) != set(inputs) or not set(outputs) <= have_outputs:
        raise SourceError(
            f"{source.name} has inputs {sorted(specs)} and outputs {sorted(have_outputs)}",
            expected=f"inputs {sorted(inputs)} and outputs {sorted(outputs)}",
        )
    fixed: dict[str, Any] = {}
    for name in inputs:
        shape: list[int | None] = specs[name].shape.as_list()
        shape = [1, *shape[1:]] if shape else shape
        if None in shape:
            raise SourceError(
                f"Input {name!r} of {source.name} has the shape {specs[name].shape}",
                expected="no open axis but the batch",
                remedy="Save the model with a fixed shape.",
            )
        fixed[name] = tf.TensorSpec(shape, specs[name].dtype, name=name)

    def serve(**feeds: Any) -> dict[str, Any]:
        results = signature(**feeds)
        return {name: results[name] for name in outputs}

    module = tf.Module()
    module.loaded = loaded
    module.serve = tf.function(serve)
    concrete = module.serve.get_concrete_function(**fixed)
    tf.saved_model.save(module, str(folder), signatures={"serving_default": concrete})
    return folder
