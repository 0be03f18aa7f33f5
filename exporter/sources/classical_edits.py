"""Changes to a converted estimator's graph, in place: input, label, scores and names."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeml.targets.frameworks import framework

INPUT = "X"
"""What the one input is called."""


def gather_columns(model: Any, width: int) -> None:
    """One input in place of one a column."""
    onnx = framework("onnx")
    graph = model.graph
    names = [value.name for value in graph.input]
    split = onnx.helper.make_node("Split", [INPUT], names, axis=1, num_outputs=width)
    graph.node.insert(0, split)
    del graph.input[:]
    kind = onnx.TensorProto.FLOAT
    graph.input.append(onnx.helper.make_tensor_value_info(INPUT, kind, [1, width]))


def number_classes(model: Any, classes: list[str]) -> None:
    """The label as a number, where the classes are text."""
    onnx = framework("onnx")
    label = model.graph.output[0]
    version = next(each.version for each in model.opset_import if each.domain == "ai.onnx.ml")
    table: dict[str, Any] = {"keys_strings": classes, "values_int64s": list(range(len(classes)))}
    node = onnx.helper.make_node(
        "LabelEncoder",
        [label.name],
        [f"{label.name}_number"],
        domain="ai.onnx.ml",
        default_int64=-1,
        **(table if version >= 2 else {"classes_strings": classes}),
    )
    model.graph.node.append(node)
    label.name = f"{label.name}_number"
    label.type.tensor_type.elem_type = onnx.TensorProto.INT64


def give_both_sides(model: Any, *, second_first: bool) -> None:
    """Scores [n, 2], a column a class, in place of one column that speaks for one of two.

    Args:
        model: its second output has the scores.
        second_first: whether their first column speaks for the second class.
    """
    onnx = framework("onnx")
    graph, scores = model.graph, model.graph.output[1]
    index = onnx.numpy_helper.from_array(np.array([0]), "edgeml_first")
    graph.initializer.append(index)
    made = onnx.helper.make_node
    sides = ["edgeml_one", "edgeml_other"]
    graph.node.append(made("Gather", [scores.name, "edgeml_first"], [sides[0]], axis=1))
    graph.node.append(made("Neg", sides[:1], sides[1:]))
    order = sides[::-1] if second_first else sides
    graph.node.append(made("Concat", order, ["edgeml_scores"], axis=1))
    scores.name = "edgeml_scores"


def rename(model: Any, names: dict[str, str]) -> None:
    """Outputs under other names, and whatever has one of these under another."""
    changes = {old: new for old, new in names.items() if old != new}
    used = {value for node in model.graph.node for value in node.output}
    changes |= {
        new: f"{new}_inner" for new in list(changes.values()) if new in used and new not in changes
    }
    for node in model.graph.node:
        node.input[:] = [changes.get(value, value) for value in node.input]
        node.output[:] = [changes.get(value, value) for value in node.output]
    for value in model.graph.output:
        value.name = changes.get(value.name, value.name)
