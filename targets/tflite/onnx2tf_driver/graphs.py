"""What the driver asks of a graph, and the names that it gives."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Iterator
from typing import Any

CHANNELS = {
    "AveragePool",
    "BatchNormalization",
    "Conv",
    "ConvTranspose",
    "DeformConv",
    "DepthToSpace",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "GridSample",
    "GroupNormalization",
    "InstanceNormalization",
    "LRN",
    "LpPool",
    "MaxPool",
    "MaxUnpool",
    "PRelu",
    "Resize",
    "RoiAlign",
    "SpaceToDepth",
    "Upsample",
}
"""Operators that TensorFlow has for channels at the end alone."""


def operators() -> set[str]:
    """Those that onnx2tf has a module for."""
    spec = importlib.util.find_spec("onnx2tf.ops")
    assert spec is not None
    return {each.name for each in pkgutil.iter_modules(spec.submodule_search_locations)}


def nodes(graph: Any) -> Iterator[Any]:
    """All nodes, those of the bodies of If, Loop and Scan among them."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                yield from nodes(body)


def rename(model: Any) -> None:
    """Gives inputs and outputs names that every tool takes; a graph may pass one through."""
    onnx: Any = importlib.import_module("onnx")
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    kept = {value.name: f"input_{index}" for index, value in enumerate(inputs)}
    # A name that is to be given may be taken already, by a tensor inside.
    ours = {*kept.values(), *(f"output_{index}" for index in range(len(model.graph.output)))}
    inside = {name for node in nodes(model.graph) for name in (*node.input, *node.output)}
    inside |= constants
    kept |= {name: f"inner_{name}" for name in (inside & ours) - set(kept)}
    for node in nodes(model.graph):
        node.input[:] = [kept.get(name, name) for name in node.input]
        node.output[:] = [kept.get(name, name) for name in node.output]
    for value in (*inputs, *model.graph.initializer, *model.graph.value_info):
        value.name = kept.get(value.name, value.name)
    for index, value in enumerate(model.graph.output):
        inner = kept.get(value.name, value.name)
        value.name = f"output_{index}"
        model.graph.node.append(onnx.helper.make_node("Identity", [inner], [value.name]))
