"""Models with a branch or a loop, one for each framework: ``branch``, ``turns``, a loop of five
turns that reads a value from outside, and ``until``, one that ends when the numbers say so.

All take x [1, 4] and give y [1, 4] in float32. What they compute stands in :data:`EXPECTED`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tensorflow as tf
import torch
from onnx import TensorProto, helper, numpy_helper
from torch._higher_order_ops.while_loop import while_loop

from support.conversions import Source, save_torch

ROWS = np.float32([[1, 2, -1, 3], [-1, -2, -1, 3], [0.1, 0.2, 0.3, 0.4]])


def branch(x: np.ndarray) -> np.ndarray:
    return -x if x.sum() > 0 else np.abs(x)


def turns(x: np.ndarray) -> np.ndarray:
    v = np.zeros_like(x)
    for _ in range(5):
        v = v / 2 + x
    return v


def until(x: np.ndarray) -> np.ndarray:
    v = np.abs(x)
    while v.sum() < 50:
        v = v + v
    return v


EXPECTED: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "branch": branch,
    "turns": turns,
    "until": until,
}


class Branch(torch.nn.Module):
    def forward(self, x):
        return torch.cond(x.sum() > 0, lambda x: -x, lambda x: x.abs(), (x,))


class Turns(torch.nn.Module):
    def forward(self, x):
        def more(turn, _):
            return turn < 5

        def body(turn, v):
            return turn + 1, v / 2 + x

        return while_loop(more, body, (torch.tensor(0), torch.zeros_like(x)))[1]


class Until(torch.nn.Module):
    def forward(self, x):
        return while_loop(lambda v: v.sum() < 50, lambda v: (v + v,), (x.abs(),))[0]


MODULES = {"branch": Branch, "turns": Turns, "until": Until}
FUNCTIONS = {
    "branch": lambda x: tf.cond(tf.reduce_sum(x) > 0, lambda: -x, lambda: tf.abs(x)),
    "turns": lambda x: tf.while_loop(
        lambda turn, _: turn < 5,
        lambda turn, v: (turn + 1, v / 2 + x),
        (tf.constant(0), tf.zeros_like(x)),
    )[1],
    "until": lambda x: tf.while_loop(
        lambda v: tf.reduce_sum(v) < 50, lambda v: (v + v,), (tf.abs(x),)
    )[0],
}


def value(name: str, *shape: int, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def body(nodes: list[onnx.NodeProto]) -> onnx.GraphProto:
    """Of a Loop that carries ``v``."""
    more = [value(name, kind=TensorProto.BOOL) for name in ("more", "again")]
    turn = value("turn", kind=TensorProto.INT64)
    return helper.make_graph(
        nodes, "body", [turn, more[0], value("v", 1, 4)], [more[1], value("w", 1, 4)]
    )


def graphs() -> Mapping[str, list[onnx.NodeProto]]:
    node = helper.make_node
    negated = helper.make_graph([node("Neg", ["x"], ["a"])], "then", [], [value("a", 1, 4)])
    absolute = helper.make_graph([node("Abs", ["x"], ["b"])], "else", [], [value("b", 1, 4)])
    halve = [
        node("Div", ["v", "two"], ["half"]),
        node("Add", ["half", "x"], ["w"]),
        node("Identity", ["more"], ["again"]),
    ]
    double = [
        node("Add", ["v", "v"], ["w"]),
        node("ReduceSum", ["w"], ["total"], keepdims=0),
        node("Less", ["total", "fifty"], ["again"]),
    ]
    return {
        "branch": [
            node("ReduceSum", ["x"], ["s"], keepdims=0),
            node("Greater", ["s", "zero"], ["positive"]),
            node("If", ["positive"], ["y"], then_branch=negated, else_branch=absolute),
        ],
        "turns": [
            node("Sub", ["x", "x"], ["start"]),
            node("Loop", ["five", "", "start"], ["y"], body=body(halve)),
        ],
        "until": [
            node("Abs", ["x"], ["start"]),
            node("ReduceSum", ["start"], ["s"], keepdims=0),
            node("Less", ["s", "fifty"], ["first"]),
            node("Loop", ["", "first", "start"], ["y"], body=body(double)),
        ],
    }


CONSTANTS = {
    "zero": np.float32(0),
    "two": np.float32(2),
    "fifty": np.float32(50),
    "five": np.int64(5),
}


def save(kind: str, name: str, folder: Path) -> Source:
    """The model of a kind of source, on disk."""
    expected = np.concatenate([EXPECTED[name](row[np.newaxis]) for row in ROWS])
    path = folder / {"torch": "net.pt2", "savedmodel": "net", "onnx": "net.onnx"}[kind]
    if kind == "torch":
        save_torch(MODULES[name](), {"x": ROWS[:1]}, path)
    elif kind == "savedmodel":
        module: Any = tf.Module()
        spec = tf.TensorSpec([1, 4], tf.float32, name="x")
        module.serve = tf.function(lambda x: {"y": FUNCTIONS[name](x)}, input_signature=[spec])
        tf.saved_model.save(module, str(path), signatures={"serving_default": module.serve})
    else:
        weights = [numpy_helper.from_array(array, key) for key, array in CONSTANTS.items()]
        graph = helper.make_graph(
            graphs()[name], "net", [value("x", 1, 4)], [value("y", 1, 4)], weights
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, str(path))
    return Source(kind, path, {"x": ROWS}, {"y": expected})  # type: ignore[arg-type]
