"""Operators that a runtime computes otherwise than ONNX defines them.

Where the source is ONNX, the reference that artifacts are checked against is ONNX Runtime's own
result, and a fault that shows with few values passes a check on samples. So what is known is
refused before it is converted. ``benchmarks/operators.py`` finds such faults: each row of a
target's table stands for backend tests of the ``onnx`` package that come out wrong without it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np

from edgeml.errors import RefusedError
from edgeml.targets.blame.of_onnx import place_of, tensor_texts
from edgeml.targets.frameworks import framework
from edgeml.targets.onnx_graph import constant, nodes


class View:
    """A node and what its graph knows of its tensors, for the conditions of faults."""

    def __init__(self, model: Any, node: Any, texts: dict[str, str]) -> None:
        self._model = model
        self._texts = texts
        self.node = node
        self._attributes: dict[str, Any] = {each.name: each for each in node.attribute}

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute's value; text as ``str``."""
        if name not in self._attributes:
            return default
        value = framework("onnx").helper.get_attribute_value(self._attributes[name])
        return value.decode() if isinstance(value, bytes) else value

    def attributes(self) -> set[str]:
        """The names of those that are set."""
        return set(self._attributes)

    def given(self, index: int) -> bool:
        """Whether an optional input is there."""
        return index < len(self.node.input) and bool(self.node.input[index])

    def made(self, index: int) -> bool:
        """Whether an optional output is wanted."""
        return index < len(self.node.output) and bool(self.node.output[index])

    def constant(self, index: int) -> Any:
        """An input's array where it is a constant, else None."""
        return constant(self._model, self.node.input[index]) if self.given(index) else None

    def dtype(self, index: int) -> str:
        """An input's dtype, empty where unknown."""
        return self._texts.get(self.node.input[index], "").partition("[")[0]

    def shape(self, index: int) -> tuple[int | None, ...] | None:
        """An input's shape, None for an open axis; None where it is unknown."""
        inside = self._texts.get(self.node.input[index], "").partition("[")[2].removesuffix("]")
        if "[" not in self._texts.get(self.node.input[index], ""):
            return None
        return tuple(None if size == "?" else int(size) for size in inside.split(", ") if size)

    def readers(self) -> set[str]:
        """The operators that read what the node makes, in the main graph."""
        made = set(self.node.output)
        return {each.op_type for each in self._model.graph.node if made & set(each.input)}

    def at_the_edge(self) -> bool:
        """Whether the node reads an input of the model, or makes one of its outputs."""
        graph = self._model.graph
        ends = {value.name for value in (*graph.input, *graph.output)}
        return bool(ends & {*self.node.input, *self.node.output})


class Fault(msgspec.Struct, frozen=True):
    """One way in which a runtime computes an operator wrongly.

    Attributes:
        operators: of the domain ai.onnx.
        when: whether a node is concerned.
        says: what is wrong, as the end of "OpenVINO computes Resize otherwise than ONNX defines
            it:".
    """

    operators: tuple[str, ...]
    when: Callable[[View], bool]
    says: str


def refuse_faults(target: str, model: Any, faults: Sequence[Fault]) -> None:
    """Refuses a graph with a node that the target's runtime gets wrong.

    Args:
        target: as people call it.
        model: the ModelProto, its shapes inferred.
        faults: the target's table.

    Raises:
        RefusedError: there is one.
    """
    by_operator: dict[str, list[Fault]] = {}
    for fault in faults:
        for operator in fault.operators:
            by_operator.setdefault(operator, []).append(fault)
    if not any(each.op_type in by_operator for each in nodes(model.graph)):
        return
    texts = tensor_texts(model)
    for node in nodes(model.graph):
        if node.domain not in {"", "ai.onnx"}:
            continue
        for fault in by_operator.get(node.op_type, ()):
            if fault.when(View(model, node, texts)):
                raise RefusedError(
                    f"{target} computes {node.op_type} otherwise than ONNX defines it: "
                    f"{fault.says}. It is {place_of(node, texts)}",
                    remedy="Replace the operator by an equivalent, or export to another target.",
                )


def aligned_corners_off_the_grid(view: View) -> bool:
    """Whether a Resize aligns corners with scales that give no whole number of elements.

    ONNX then counts with the fractional length, ONNX Runtime and OpenVINO with the whole one.
    """
    if view.attribute("coordinate_transformation_mode", "") != "align_corners":
        return False
    scales, shape = view.constant(2), view.shape(0)
    if not view.given(2):
        return False
    if scales is None or shape is None or None in shape or len(scales) != len(shape):
        return not view.given(3)
    lengths = np.asarray(scales, "float64") * np.asarray(shape, "float64")
    return bool(np.abs(lengths - np.round(lengths)).max() > 1e-4)
