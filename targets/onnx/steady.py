"""Graphs of tf2onnx in an order, and with names, that follow from what they compute alone.

It numbers what it makes with a counter, and goes through sets of nodes, whose order is that of
their addresses: the same model came out with its constants exchanged, or with other numbers.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any

from edgeml.targets.onnx_graph import bodies, put

_NUMBER = re.compile(r"(?<=__)\d+(?=(:\d+)?$)")
"""Of a name that tf2onnx made: ``…/convolution__22``, and ``…/convolution__22:0`` that it gives."""


def steady(model: Any) -> Any:
    """The model with its nodes in the order in which its outputs ask for them, without those that
    none asks for, and its values numbered in that order; changed in place.

    Inputs and outputs keep their names.
    """
    _sort(model.graph)
    ends = [_NUMBER.search(value.name) for value in (*model.graph.input, *model.graph.output)]
    numbers = {found[0]: int(found[0]) for found in ends if found is not None}
    fresh = itertools.count(max(numbers.values(), default=0) + 1)

    def renamed(name: str) -> str:
        found = _NUMBER.search(name)
        if found is None:
            return name
        if found[0] not in numbers:
            numbers[found[0]] = next(fresh)
        return f"{name[: found.start()]}{numbers[found[0]]}{name[found.end() :]}"

    _rename(model.graph, renamed)
    del model.graph.value_info[:]
    return model


def _sort(graph: Any) -> None:
    for node in graph.node:
        for body in bodies(node):
            _sort(body)
    makers = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    asked = [list(_reads(node)) for node in graph.node]
    order: list[int] = []
    seen: set[int] = set()
    stack = [(makers.get(value.name), False) for value in reversed(graph.output)]
    while stack:
        index, complete = stack.pop()
        if index is None or (index in seen and not complete):
            continue
        if complete:
            order.append(index)
            continue
        seen.add(index)
        stack.append((index, True))
        stack += [(makers.get(name), False) for name in reversed(asked[index])]
    names = [name for index in order for name in asked[index]]
    names += [value.name for value in graph.output]
    place = {name: index for index, name in reversed(list(enumerate(names)))}  # its first
    put(graph.node, [graph.node[index] for index in order])
    weights = [tensor for tensor in graph.initializer if tensor.name in place]
    put(graph.initializer, sorted(weights, key=lambda tensor: place[tensor.name]))


def _rename(graph: Any, renamed: Callable[[str], str]) -> None:
    for value in graph.input:
        value.name = renamed(value.name)
    for node in graph.node:
        node.name = renamed(node.name)
        node.input[:] = map(renamed, node.input)
        for body in bodies(node):
            _rename(body, renamed)
        node.output[:] = map(renamed, node.output)
    for value in (*graph.initializer, *graph.output):
        value.name = renamed(value.name)


def _reads(node: Any) -> Iterator[str]:
    """Names that a node reads, its bodies included."""
    yield from filter(None, node.input)
    for body in bodies(node):
        for inner in body.node:
            yield from _reads(inner)
        for value in body.output:
            yield value.name
