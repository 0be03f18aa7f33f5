"""Loops of an ONNX graph in the form that onnx2tf takes: bodies that read nothing from outside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgeml.targets.frameworks import framework
from edgeml.targets.onnx_graph import bodies, nodes, put


def close_loops(model: Any) -> None:
    """Makes the body of each Loop read its own inputs and constants alone, in place.

    A constant that it reads from the graph around it is copied into it; any other value becomes
    one that is carried, unchanged, from turn to turn. A number of turns or a condition that is left
    out is written down.
    """
    onnx = framework("onnx")
    if any(node.op_type == "Loop" for node in nodes(model.graph)):
        known = onnx.shape_inference.infer_shapes(model).graph
        types = {value.name: value.type for value in (*known.input, *known.value_info)}
        _close_all(model.graph, {}, types)


def _close_all(graph: Any, constants: Mapping[str, Any], types: Mapping[str, Any]) -> None:
    constants = {**constants, **{tensor.name: tensor for tensor in graph.initializer}}
    made: list[Any] = []
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
        for body in bodies(node):
            _close_all(body, constants, types)
        if node.op_type == "Loop":
            made += _complete(node)
            _close(node, constants, types)
        made.append(node)
    put(graph.node, made)


def _complete(loop: Any) -> list[Any]:
    """Constants for the two inputs of a Loop that may be left out."""
    helper = framework("onnx.helper")
    numpy_helper = framework("onnx.numpy_helper")
    made: list[Any] = []
    for place, most in enumerate((np.int64(2**31 - 1), np.bool_(True))):
        if not loop.input[place]:
            loop.input[place] = f"{_name(loop)}/{('turns', 'condition')[place]}"
            tensor = numpy_helper.from_array(np.asarray(most))
            made.append(helper.make_node("Constant", [], [loop.input[place]], value=tensor))
    return made


def _close(loop: Any, constants: Mapping[str, Any], types: Mapping[str, Any]) -> None:
    helper = framework("onnx.helper")
    body = bodies(loop)[0]
    own: list[Any] = []
    for name in _read_from_outside(body):
        inside = f"{_name(loop)}/{name}"
        if name in constants:
            own.append(helper.make_node("Constant", [], [inside], value=constants[name]))
        elif name in types:
            carried = len(loop.input) - 2
            loop.input.append(name)
            loop.output.insert(carried, f"{inside}/after")
            body.input.add(name=inside, type=types[name])
            body.node.append(helper.make_node("Identity", [inside], [f"{inside}/next"]))
            body.output.insert(
                1 + carried, type(body.input[0])(name=f"{inside}/next", type=types[name])
            )
        else:
            continue  # of a type that is not known: onnx2tf says so
        _rename(body, name, inside)
    put(body.node, [*own, *body.node])


def _name(loop: Any) -> str:
    """Of the first of its outputs that is not left out: no other node has it."""
    return next(name for name in loop.output if name)


def _read_from_outside(graph: Any) -> list[str]:
    """Names that a body reads and does not make, each once."""
    known = {"", *(value.name for value in (*graph.input, *graph.initializer))}
    found: dict[str, None] = {}
    for node in graph.node:
        inner = [name for body in bodies(node) for name in _read_from_outside(body)]
        found |= dict.fromkeys(name for name in (*node.input, *inner) if name not in known)
        known |= set(node.output)
    return [*found, *(value.name for value in graph.output if value.name not in {*known, *found})]


def _rename(graph: Any, old: str, new: str) -> None:
    for node in graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        for body in bodies(node):
            _rename(body, old, new)
    for value in graph.output:
        value.name = new if value.name == old else value.name
