"""ONNX graphs written anew: loops that read nothing from outside, and one order of all others."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from edgeml.targets.onnx.steady import steady
from edgeml.targets.tflite.loops import close_loops

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
ROW = np.float32([[1, 2, -3, 4]])


def value(name: str, *shape: int, kind: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def model() -> onnx.ModelProto:
    """A loop of five turns that reads ``x`` and a constant from outside, without a condition, and
    gives each turn's result; a node that nobody asks for; names numbered as tf2onnx does."""
    node = helper.make_node
    body = helper.make_graph(
        [
            node("Div", ["v", "two"], ["half__3"]),
            node("Add", ["half__3", "x"], ["w"]),
            node("Identity", ["more"], ["again"]),
            node("Identity", ["w"], ["kept"]),
        ],
        "body",
        [value("turn", kind=INT64), value("more", kind=BOOL), value("v", 1, 4)],
        [value("again", kind=BOOL), value("w", 1, 4), value("kept", 1, 4)],
    )
    graph = helper.make_graph(
        [
            node("Sub", ["x", "x"], ["start__9"]),
            node("Relu", ["x"], ["nobody"]),
            node("Loop", ["five", "", "start__9"], ["last", "all__4"], body=body),
            node("ReduceSum", ["all__4", "axis__12"], ["y__1"], keepdims=0),
        ],
        "net",
        [value("x", 1, 4)],
        [value("y__1", 1, 4)],
        [
            numpy_helper.from_array(np.int64([0]), "axis__12"),
            numpy_helper.from_array(np.float32(2), "two"),
            numpy_helper.from_array(np.int64(5), "five"),
        ],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(made, full_check=True)
    return made


def answer(made: onnx.ModelProto) -> np.ndarray:
    return onnxruntime.InferenceSession(made.SerializeToString()).run(None, {"x": ROW})[0]


def test_the_body_of_a_loop_is_closed_and_computes_the_same():
    closed = copy.deepcopy(model())
    close_loops(closed)
    onnx.checker.check_model(closed)
    (loop,) = (node for node in closed.graph.node if node.op_type == "Loop")
    body = next(each.g for each in loop.attribute if each.name == "body")
    inside = {each.name for each in body.input} | {name for n in body.node for name in n.output}
    assert {name for n in body.node for name in n.input} <= inside
    assert loop.input[1]  # the condition is written down
    np.testing.assert_array_equal(answer(closed), answer(model()))


def test_a_graph_comes_out_in_one_order_whatever_its_numbers_were():
    other = model()
    constants = [copy.deepcopy(each) for each in reversed(other.graph.initializer)]
    del other.graph.initializer[:]
    other.graph.initializer.extend(constants)
    text = other.SerializeToString().replace(b"start__9", b"start__6").replace(b"all__4", b"all__8")
    one, again = steady(model()), steady(onnx.load_from_string(text))
    assert again.SerializeToString() == one.SerializeToString()
    assert [node.op_type for node in one.graph.node] == ["Sub", "Loop", "ReduceSum"]
    assert [each.name for each in one.graph.output] == ["y__1"]
    np.testing.assert_array_equal(answer(one), answer(model()))
