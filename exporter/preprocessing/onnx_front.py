"""Programs as ONNX nodes in front of a graph. Their names begin with ``preprocess/``."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingImports=false
# pyright: reportMissingTypeStubs=false, reportUnknownParameterType=false

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgeml.errors import SourceError
from edgeml.exporter.preprocessing.front import FrontJob
from edgeml.exporter.preprocessing.program import Op, Program, compile_input
from edgeml.exporter.sources.forms import Opened

_OPSET = 13
"""The oldest in which all operators used here have the form used here."""

_NAMES = {
    "square": "Mul",
    "sqrt": "Sqrt",
    "log": "Log",
    "floor": "Floor",
    "scale": "Mul",
    "shift": "Add",
    "product": "MatMul",
    "bands": "Concat",
    "least": "Max",
    "most": "Min",
    "take": "Gather",
    "slice": "Slice",
    "reshape": "Reshape",
    "transpose": "Transpose",
    "cast": "Cast",
}


def put_in_front(job: FrontJob) -> Opened:
    """In the child: write an ``.onnx`` that takes raw input.

    Raises:
        SourceError: the model's opset is too old and cannot be raised.
    """
    model = _modern(onnx.load(str(job.source.path)), job)
    front: list[Any] = []
    for name, declared in job.inputs.items():
        program = compile_input(declared)
        made = f"preprocess/{name}/made"
        _rename(model.graph, name, made)
        value = next(value for value in model.graph.input if value.name == name)
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(program.dtype))
        value.CopyFrom(helper.make_tensor_value_info(name, kind, program.raw))
        nodes, constants = _nodes(program, name, made)
        front += nodes
        model.graph.initializer.extend(constants)
    nodes = [*front, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, str(job.path), save_as_external_data=model.ByteSize() >= 2**31 - 1024)
    onnx.checker.check_model(str(job.path))
    return msgspec.structs.replace(job.source, path=job.path)


def _modern(model: Any, job: FrontJob) -> Any:
    opset = next((e.version for e in model.opset_import if e.domain in {"", "ai.onnx"}), _OPSET)
    if opset >= _OPSET:
        return model
    try:
        return onnx.version_converter.convert_version(model, _OPSET)
    except Exception as error:
        raise SourceError(
            f"{job.source.path.name} has opset {opset}, which cannot be raised: {error}",
            expected=f"opset {_OPSET} or newer, for the preprocessing in front of it",
            remedy="Export the model again with a newer opset.",
        ) from error


def _nodes(program: Program, name: str, made: str) -> tuple[list[Any], list[Any]]:
    nodes: list[Any] = []
    constants: list[Any] = []
    x = name
    for index, op in enumerate(program.ops):
        place = f"preprocess/{name}/{index}_{op.kind}"
        out = made if index == len(program.ops) - 1 else f"{place}/out"
        extra: list[str] = []
        for number, array in enumerate(_arrays(op)):
            extra.append(f"{place}/constant{number}")
            constants.append(numpy_helper.from_array(array, extra[-1]))
        inputs = [x, x] if op.kind == "square" else [x, *extra]
        if op.kind == "bands":
            made_before, inputs = _bands(op, x, place, extra)
            nodes += made_before
        attributes: dict[str, Any] = {}
        if op.kind == "cast":
            attributes["to"] = onnx.TensorProto.FLOAT
        elif op.kind in {"take", "bands"}:
            attributes["axis"] = op.axis if op.kind == "take" else -1
        elif op.kind == "transpose":
            attributes["perm"] = [int(number) for number in op.numbers]
        nodes.append(helper.make_node(_NAMES[op.kind], inputs, [out], name=place, **attributes))
        x = out
    return nodes, constants


def _bands(op: Op, x: str, place: str, constants: list[str]) -> tuple[list[Any], list[str]]:
    """A Slice and a MatMul for each band, and the names of what they make.

    Args:
        op: the operation.
        x: what it reads.
        place: of its names.
        constants: those of :func:`_arrays`: for each band where it begins, where it ends, and its
            weights; then the axis.
    """
    *each, axis = constants
    nodes: list[Any] = []
    made: list[str] = []
    for number in range(len(op.bands)):
        first, last, weights = each[3 * number : 3 * number + 3]
        part, out = f"{place}/part{number}", f"{place}/band{number}"
        nodes += [
            helper.make_node("Slice", [x, first, last, axis], [part], name=part),
            helper.make_node("MatMul", [part, weights], [out], name=out),
        ]
        made.append(out)
    return nodes, made


def _arrays(op: Op) -> list[Any]:
    """The constant inputs of an operation, after x."""
    if op.kind == "bands":
        found: list[Any] = []
        for band in op.bands:
            found += [np.array([band.first], np.int64), np.array([band.last], np.int64)]
            found.append(band.weights)
        return [*found, np.array([-1], np.int64)]
    if op.array is not None:
        return [np.ascontiguousarray(op.array)]
    if op.kind == "slice":
        first, last = (int(number) for number in op.numbers)
        return [np.array([each], np.int64) for each in (first, last, op.axis)]
    if op.kind == "reshape":
        return [np.array(op.numbers, np.int64)]
    if op.kind in {"least", "most"}:
        return [np.array(op.numbers[0], np.float32)]
    return []


def _rename(graph: Any, old: str, new: str) -> None:
    """Wherever a graph reads ``old`` it reads ``new``, bodies of If and Loop included."""
    for node in graph.node:
        node.input[:] = [new if value == old else value for value in node.input]
        for attribute in node.attribute:
            for body in [attribute.g, *attribute.graphs]:
                if not any(value.name == old for value in body.input):
                    _rename(body, old, new)
