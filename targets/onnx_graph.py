"""A source's ONNX graph as the converters read it: checked, of fixed shapes, of usable types."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from edgeml.errors import RefusedError, SourceError
from edgeml.targets.compiling import CompileJob, first_line
from edgeml.targets.frameworks import framework

# What numpy has, and with it every runtime's Python interface, samples and golden vectors.
_TYPES = {
    "FLOAT",
    "DOUBLE",
    "FLOAT16",
    "BOOL",
    *(f"{sign}INT{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)),
}

_LOWEST = 18

_RANDOM = {
    "Bernoulli",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
}


def onnx_model(job: CompileJob) -> Any:
    """The job's ONNX graph, checked, with a fixed batch of 1 and every shape inferred.

    Raises:
        SourceError: the file is no valid ONNX model, lacks the job's names, leaves another axis
            than the batch open, or takes or gives something else than tensors of plain numbers.
        RefusedError: it draws random numbers.
    """
    onnx = framework("onnx")

    try:
        model = onnx.load(str(job.source))
        onnx.checker.check_model(model)
    except Exception as error:
        raise SourceError(
            f"{job.source.name} is no valid ONNX model: {first_line(error)}",
            expected="a model that onnx.checker accepts",
            remedy="Export it again with current tools.",
        ) from error
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    names = [value.name for value in inputs], [value.name for value in model.graph.output]
    if set(names[0]) != set(job.inputs) or not set(job.outputs) <= set(names[1]):
        raise SourceError(
            f"{job.source.name} has inputs {names[0]} and outputs {names[1]}",
            expected=f"inputs {list(job.inputs)} and outputs {list(job.outputs)}",
        )
    kept = [value for value in model.graph.output if value.name in job.outputs]
    for side, values in (("input", inputs), ("output", kept)):
        for value in values:
            _check_type(value, side)
    _refuse_random(model)
    for value in inputs:
        _fix_axes(value)
    lower_opset(model)
    # Shapes that were inferred under an open batch would contradict the fixed one.
    del model.graph.value_info[:]
    for value in model.graph.output:
        for axis in value.type.tensor_type.shape.dim:
            axis.Clear()
    model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    kept = [value for value in model.graph.output if value.name in job.outputs]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    return model


KEPT_OPEN = "edgeml_open_"
"""How the symbol of an axis begins that stays open, because the user asked for it."""


def _fix_axes(value: Any) -> None:
    for index, axis in enumerate(value.type.tensor_type.shape.dim):
        # A length of 0 that stands there is one: an empty tensor.
        if axis.HasField("dim_value") and axis.dim_value >= 0:
            continue
        if axis.dim_param.startswith(KEPT_OPEN):
            continue
        if index > 0:
            raise SourceError(
                f"Axis {index} of input {value.name!r} is open ({axis.dim_param or '?'})",
                expected="no open axis but the batch",
                remedy="Export the model with a fixed shape.",
            )
        axis.dim_value = 1


def _check_type(value: Any, side: str) -> None:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        raise SourceError(
            f"The {side} {value.name!r} is {_article(str(kind).removesuffix('_type'))}",
            expected="tensors at the inputs and outputs",
            remedy="Inside the model it may stay; take its tensors in and give them out one by "
            "one.",
        )
    tensor = framework("onnx").TensorProto
    element = str(tensor.DataType.Name(value.type.tensor_type.elem_type))
    if element not in _TYPES:
        raise SourceError(
            f"The {side} {value.name!r} holds {element.lower()}",
            expected="numbers that numpy has: float16 to float64, integers of 8 to 64 bits, bool",
            remedy="Number the strings before the model, and their kinds after it."
            if element == "STRING"
            else "Add a Cast beside it; inside the model the type may stay.",
        )


def _refuse_random(model: Any) -> None:
    for node in nodes(model.graph):
        if node.op_type in _RANDOM or (node.op_type == "Dropout" and _trains(model, node)):
            raise RefusedError(
                f"The model draws random numbers: {describe(node)}",
                expected="the same outputs for the same inputs, or no artifact can be checked "
                "against the model",
                remedy="Give the random numbers as an input."
                if node.op_type != "Dropout"
                else "Export it for inference, with the dropout's training_mode false.",
            )


def _trains(model: Any, node: Any) -> bool:
    """Whether a Dropout of opset 12 or later is told to train, or may be by an input."""
    if len(node.input) < 3 or not node.input[2]:
        return False
    found = constant(model, node.input[2])
    return found is None or bool(found)


def constant(model: Any, name: str) -> Any:
    """The array of an initialiser or a Constant node of the main graph; None where it is none."""
    onnx = framework("onnx")
    for tensor in model.graph.initializer:
        if tensor.name == name:
            return onnx.numpy_helper.to_array(tensor)
    for node in model.graph.node:
        if node.op_type == "Constant" and node.output[0] == name:
            given = {each.name: each for each in node.attribute}
            if "value" in given:
                return onnx.numpy_helper.to_array(given["value"].t)
            return onnx.helper.get_attribute_value(next(iter(given.values())))
    return None


def output_shapes(path: Path) -> dict[str, tuple[int | None, ...]]:
    """What ONNX infers of a file's outputs, where it does; None for an open axis."""
    onnx = framework("onnx")
    model = onnx.shape_inference.infer_shapes(onnx.load(str(path), load_external_data=False))
    return {
        str(value.name): tuple(
            axis.dim_value if axis.HasField("dim_value") else None
            for axis in value.type.tensor_type.shape.dim
        )
        for value in model.graph.output
        if value.type.tensor_type.HasField("shape")
    }


def lower_opset(model: Any) -> None:
    """Calls a graph's opset the lowest, from 18 on, that defines all its operators as its own does.

    Runtimes refuse an opset that is newer than they are, whatever the graph uses of it.
    """
    onnx = framework("onnx")
    own = next((each for each in model.opset_import if each.domain in {"", "ai.onnx"}), None)
    if own is None or own.version <= _LOWEST or len(model.functions):
        return
    since = (
        onnx.defs.get_schema(node.op_type, own.version, "").since_version
        for node in nodes(model.graph)
        if node.domain in {"", "ai.onnx"} and onnx.defs.has(node.op_type, own.version, "")
    )
    own.version = max((_LOWEST, *since))


def nodes(graph: Any) -> Iterator[Any]:
    """All nodes, those of the bodies of If, Loop and Scan among them."""
    for node in graph.node:
        yield node
        for body in bodies(node):
            yield from nodes(body)


def bodies(node: Any) -> list[Any]:
    """The graphs inside a node: of If, Loop and Scan."""
    return [
        body
        for attribute in node.attribute
        for body in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs)
    ]


def put(field: Any, items: Sequence[Any]) -> None:
    """Items in place of what a repeated field of Protobuf has; some of that may be among them."""
    copies = copy.deepcopy(list(items))
    del field[:]
    field.extend(copies)


def describe(node: Any) -> str:
    """A node for people: its name, or what it makes, and its operator."""
    operator = f"{node.domain}.{node.op_type}" if node.domain else str(node.op_type)
    where = f"node {node.name!r}" if node.name else f"the node that makes {node.output[0]!r}"
    return f"{where} ({operator})"


def _article(noun: str) -> str:
    return f"an {noun}" if noun[:1] in "aeiou" else f"a {noun}"
