"""Distances of a row to many points, of which skl2onnx makes a Scan over the points, at once.

Nearest neighbours and Gaussian processes rest on them. Not every target has Scan, and none is quick
at it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeml.targets import sources
from edgeml.targets.onnx.plain import Builder
from edgeml.targets.runtime import Array

_ELEMENTWISE = {"Abs", "Add", "Div", "Identity", "Mul", "Pow", "Sqrt", "Sub"}
_REDUCING = {"ReduceL1", "ReduceL2", "ReduceMax", "ReduceSum", "ReduceSumSquare"}


def at_once(builder: Builder, attributes: Mapping[str, Any]) -> bool:
    """Writes a Scan of elementwise operators and reductions for all points; whether it is one.

    Its state is one row [1, d] and stays as it is, what it scans are points [n, d], and each turn
    makes one number [1].
    """
    onnx = sources.framework("onnx")
    body = attributes["body"]
    row, points = builder.shape(0), builder.shape(1)
    alone = set(attributes) == {"body", "num_scan_inputs"} and len(body.input) == 2
    if not alone or len(body.output) != 2 or len(points) != 2:
        return False
    if row and (len(row) != 2 or row[0] != 1):  # it is unknown behind an operator of ai.onnx.ml
        return False
    known = {each.name: onnx.numpy_helper.to_array(each) for each in body.initializer}
    kept, moving = {body.input[0].name}, {body.input[1].name}
    for node in body.node:
        if not _taken(node, known):
            return False
        if node.op_type == "Identity" and node.input[0] in kept:
            kept.add(node.output[0])
        if moving & set(node.input):
            moving.add(node.output[0])
    if body.output[0].name not in kept or body.output[1].name not in moving:
        return False
    values = dict(zip((each.name for each in body.input), builder.node.input, strict=True))
    values |= {name: builder.constant(array) for name, array in known.items()}
    for node in body.node:
        given = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
        if node.op_type in _REDUCING:
            given["keepdims"] = 1  # the axis of the points stays
        inputs = (values[name] for name in node.input)
        values[node.output[0]] = builder.add(node.op_type, *inputs, **given)
    builder.finish(0, builder.node.input[0])
    builder.finish(1, values[body.output[1].name])
    return True


def _taken(node: Any, known: Mapping[str, Array]) -> bool:
    """Whether a node of a body does the same to all points at once."""
    constants = [known[name] for name in node.input if name in known]
    if node.op_type in _ELEMENTWISE:
        return all(each.size == 1 for each in constants)
    onnx = sources.framework("onnx")
    given = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
    axes = given.get("axes", constants[0].tolist() if constants else [])
    return node.op_type in _REDUCING and given.get("keepdims") == 0 and axes in ([1], [-1])
