"""Writing plain ONNX operators in the place of one that is lowered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgeml.errors import RefusedError
from edgeml.targets import sources
from edgeml.targets.runtime import Array


def refused(node: Any, reason: str) -> RefusedError:
    """The error for an operator of ai.onnx.ml that cannot be lowered."""
    where = f"node {node.name!r}" if node.name else f"the node that makes {list(node.output)}"
    return RefusedError(
        f"{node.op_type} of ai.onnx.ml ({where}) cannot be written in plain ONNX: {reason}",
        remedy="Export to onnx, which runs the model as it is; or take that step out of the "
        "pipeline and do it in the program around the model.",
    )


class Builder:
    """Puts nodes and constants into a graph, in the place of one node.

    Args:
        graph: to append to.
        node: the one that is lowered.
        shapes: of the original's tensors, as far as they are known.
    """

    def __init__(self, graph: Any, node: Any, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.node = node
        self._graph = graph
        self._shapes = shapes
        self._stem = next(name for name in node.output if name)
        self._count = 0

    def shape(self, index: int) -> tuple[int, ...]:
        """Of an input of the node."""
        return self._shapes.get(self.node.input[index], ())

    def constant(self, value: Any) -> str:
        """A tensor; float64 becomes float32."""
        onnx = sources.framework("onnx")
        array = np.asarray(value)
        array = array.astype(np.float32) if array.dtype == np.float64 else array
        name = self._name("constant")
        self._graph.initializer.append(onnx.numpy_helper.from_array(array, name))
        return name

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """A node of one output, which is returned."""
        onnx = sources.framework("onnx")
        name = self._name(operator)
        node = onnx.helper.make_node(operator, list(inputs), [name], name=name, **attributes)
        self._graph.node.append(node)
        return name

    def cast(self, value: str, dtype: str) -> str:
        """As another type, by its name in ONNX."""
        onnx = sources.framework("onnx")
        return self.add("Cast", value, to=int(getattr(onnx.TensorProto, dtype)))

    def floats(self, index: int) -> str:
        """An input of the node as float32."""
        return self.cast(self.node.input[index], "FLOAT")

    def flat(self, value: str) -> str:
        """As one axis."""
        return self.add("Reshape", value, self.constant(np.array([-1])))

    def finish(self, index: int, value: str) -> None:
        """Gives the node's output its value, where anybody asks for it."""
        onnx = sources.framework("onnx")
        if index < len(self.node.output) and self.node.output[index]:
            node = onnx.helper.make_node("Identity", [value], [self.node.output[index]])
            self._graph.node.append(node)

    def labels(self, attributes: Mapping[str, Any]) -> Array:
        """The classes; their numbers where they are words, which only a lowered label may not be.

        Raises:
            RefusedError: they are words, and the label is asked for.
        """
        numbers = attributes.get("classlabels_int64s") or attributes.get("classlabels_ints")
        if numbers is not None:
            return np.asarray(numbers, np.int64)
        words = attributes.get("classlabels_strings") or ()
        if self.node.output[0]:
            raise refused(self.node, "its labels are words: take the scores in their place")
        return np.arange(len(words), dtype=np.int64)

    def label(self, decision: str, labels: Array) -> None:
        """Finishes output 0 with the label of each decision, which is a class's index [1]."""
        if self.node.output[0]:
            self.finish(0, self.add("Gather", self.constant(labels), decision))

    def label_by(self, score: str, threshold: float, labels: Array) -> None:
        """Finishes output 0 with the second label where a score [1, 1] is above the threshold, else
        with the first."""
        if not self.node.output[0]:
            return
        above = self.add("Greater", self.flat(score), self.constant(np.float32(threshold)))
        # Not a Gather by the decision as a number: what onnx2tf makes of that, TensorFlow's
        # converter takes for zeros of a boolean, which LiteRT does not have.
        first, second = (self.constant(labels[i : i + 1]) for i in (0, 1))
        self.finish(0, self.add("Where", above, second, first))

    def transformed(self, scores: str, transform: str) -> str:
        """Scores [1, n] after a ``post_transform``.

        Raises:
            RefusedError: it has no plain form.
        """
        if transform == "NONE":
            return scores
        if transform == "LOGISTIC":
            return self.add("Sigmoid", scores)
        if transform == "SOFTMAX":
            return self.add("Softmax", scores, axis=-1)
        raise refused(self.node, f"its post_transform {transform} has no form written here")

    def normalized(self, x: str, norm: str) -> str:
        """Each row over its largest absolute value, sum or length; a row of zeros stays."""
        axes = self.constant(np.array([1]))
        size = self.add("Abs", x)
        if norm == "MAX":
            # The largest value as it is, not its size, as ONNX Runtime has it.
            total = self.add("ReduceMax", x, keepdims=1)  # of all: the batch is 1
        elif norm == "L1":
            total = self.add("ReduceSum", size, axes, keepdims=1)
        else:
            squares = self.add("ReduceSum", self.add("Mul", x, x), axes, keepdims=1)
            total = self.add("Sqrt", squares)
        zero = self.add("Equal", total, self.constant(np.float32(0)))
        divisor = self.add("Where", zero, self.constant(np.float32(1)), total)
        return self.add("Div", x, divisor)

    def _name(self, what: str) -> str:
        self._count += 1
        return f"{self._stem}/{what}_{self._count}"
