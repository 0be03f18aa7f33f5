"""Reading a float ``.tflite`` as a source: one signature, a batch of 1, and the tensors behind it.

The signature's names are the source's. A file without a signature, or with several, goes by the
names of its main graph's tensors, as its runtime here does (runtime.py).
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import msgspec

from edgeml.errors import SourceError
from edgeml.targets.compiling import CompileJob, first_line
from edgeml.targets.frameworks import framework

# By their numbers in the schema: the types that a float model computes in.
_QUANTIZED = {9: "int8", 3: "uint8", 7: "int16", 17: "int4"}


class Lite(msgspec.Struct, frozen=True):
    """A normalised file, and the source's names to those of its graph's tensors."""

    path: Path
    inputs: dict[str, str]
    outputs: dict[str, str]


def lite_model(job: CompileJob) -> Lite:
    """The job's file with a fixed batch of 1 and one signature, written once to ``workdir``.

    Raises:
        SourceError: it is no LiteRT model, is quantized already, lacks the job's names, or leaves
            another axis than the batch open.
    """
    return _lite_model(job.source, job.inputs, job.outputs, job.workdir)


@functools.lru_cache(maxsize=1)
def _lite_model(
    source: Path, inputs: tuple[str, ...], outputs: tuple[str, ...], workdir: Path
) -> Lite:
    utils = framework("ai_edge_litert.tools.flatbuffer_utils")

    try:
        model: Any = utils.read_model(str(source))
        graph = model.subgraphs[0]
    except Exception as error:
        raise SourceError(
            f"{source.name} is no LiteRT model: {first_line(error)}", expected="a .tflite file"
        ) from error
    _refuse_quantized(source, graph)
    found = _ports(model)
    if set(found[0]) != set(inputs) or not set(outputs) <= set(found[1]):
        raise SourceError(
            f"{source.name} has inputs {sorted(found[0])} and outputs {sorted(found[1])}",
            expected=f"inputs {sorted(inputs)} and outputs {sorted(outputs)}",
        )
    for name, index in found[0].items():
        _close(source, name, graph.tensors[index])
    for tensor in graph.tensors:
        tensor.shapeSignature = None
    first, second = (
        {name: side[name] for name in names}
        for side, names in ((found[0], inputs), (found[1], outputs))
    )
    _sign(model, first, second)
    path = workdir / "source.tflite"
    utils.write_model(model, str(path))
    return Lite(path, _tensors(graph, first), _tensors(graph, second))


def _ports(model: Any) -> tuple[dict[str, int], dict[str, int]]:
    """Inputs and outputs by name, each with its tensor's index."""
    graph = model.subgraphs[0]
    signatures: list[Any] = list(model.signatureDefs or ())
    if len(signatures) == 1:
        return _of_signature(signatures[0].inputs), _of_signature(signatures[0].outputs)
    return _of_tensors(graph, graph.inputs), _of_tensors(graph, graph.outputs)


def _of_signature(entries: Any) -> dict[str, int]:
    return {entry.name.decode(): int(entry.tensorIndex) for entry in entries}


def _of_tensors(graph: Any, indices: Any) -> dict[str, int]:
    return {graph.tensors[index].name.decode(): int(index) for index in indices}


def _tensors(graph: Any, ports: dict[str, int]) -> dict[str, str]:
    return {name: graph.tensors[index].name.decode() for name, index in ports.items()}


def _sign(model: Any, inputs: dict[str, int], outputs: dict[str, int]) -> None:
    """Gives the model one signature, which a quantizer and the runtime go by."""
    schema = framework("ai_edge_litert.schema_py_generated")

    def entries(side: dict[str, int]) -> list[Any]:
        made: list[Any] = []
        for name, index in side.items():
            entry = schema.TensorMapT()
            entry.name, entry.tensorIndex = name.encode(), index
            made.append(entry)
        return made

    signature = schema.SignatureDefT()
    signature.inputs, signature.outputs = entries(inputs), entries(outputs)
    signature.signatureKey, signature.subgraphIndex = b"serving_default", 0
    model.signatureDefs = [signature]
    model.subgraphs[0].outputs = list(outputs.values())


def _refuse_quantized(source: Path, graph: Any) -> None:
    for tensor in graph.tensors:
        scale = tensor.quantization.scale if tensor.quantization is not None else None
        if tensor.type in _QUANTIZED and scale is not None and len(scale):
            raise SourceError(
                f"{source.name} is quantized already: its tensor {tensor.name.decode()!r} is "
                f"{_QUANTIZED[tensor.type]}",
                expected="a float model: what one quantizer rounded, another cannot round anew",
                remedy="Give the float .tflite that it was made from, or the model itself.",
            )


def _close(source: Path, name: str, tensor: Any) -> None:
    """Takes the batch for 1, as the file's own shapes do; refuses any other open axis."""
    signature: Any = tensor.shapeSignature
    axes: list[int] = [] if signature is None else [int(size) for size in signature]
    for axis, size in enumerate(axes):
        if axis > 0 and size < 0:
            raise SourceError(
                f"Axis {axis} of input {name!r} of {source.name} is open",
                expected="no open axis but the batch",
                remedy="Convert the model with a fixed shape.",
            )
    shape: list[int] = [int(size) for size in tensor.shape]
    if shape and shape[0] != 1:
        raise SourceError(
            f"Input {name!r} of {source.name} has the shape {shape}",
            expected="a batch of 1",
            remedy="Convert the model with a batch of 1, or with an open one.",
        )


def locate_lite(path: Path, operator: str) -> str:
    """The tensor that a file's first node of an operator type makes; else empty."""
    utils = framework("ai_edge_litert.tools.flatbuffer_utils")

    model: Any = utils.read_model(str(path))
    wanted = operator.removeprefix("TFL_").upper()
    for graph in model.subgraphs:
        for node in graph.operators:
            name = utils.opcode_to_name(model, node.opcodeIndex)
            if name in {operator, wanted}:
                return f"the node that makes {graph.tensors[node.outputs[0]].name.decode()!r}"
    return ""
