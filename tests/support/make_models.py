"""Makes the tiny models in ``models/``: one classifier, softmax(W·x + b), for each target.

They are checked in, so that tests of agent and collector need no converter. Run this in the
toolchain's environment (openvino, onnx and tensorflow) to make them again:

    python tests/support/make_models.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from weights import BIAS, CLASSES, PIXELS, WEIGHTS  # beside this script

MODELS = Path(__file__).with_name("models")


def make_onnx() -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["image"], ["flat"], axis=1),
            helper.make_node("Gemm", ["flat", "w", "b"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["scores"], axis=1),
        ],
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, 8, 8])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, CLASSES])],
        [numpy_helper.from_array(WEIGHTS, "w"), numpy_helper.from_array(BIAS, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(MODELS / "tiny.onnx"))


def make_endless() -> None:
    """The classifier behind a loop that runs as often as the first pixel says: some are endless."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    def value(name: str, kind: int, shape: list[int]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, shape)

    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Abs", ["before"], ["after"]),
        ],
        "turn",
        [
            value("turn", TensorProto.INT64, []),
            value("go", TensorProto.BOOL, []),
            value("before", TensorProto.FLOAT, [1, CLASSES]),
        ],
        [value("go_on", TensorProto.BOOL, []), value("after", TensorProto.FLOAT, [1, CLASSES])],
    )
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["image"], ["flat"], axis=1),
            helper.make_node("Gemm", ["flat", "w", "b"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["once"], axis=1),
            helper.make_node("Gather", ["flat", "first"], ["pixel"], axis=1),
            helper.make_node("Reshape", ["pixel", "scalar"], ["number"]),
            helper.make_node("Cast", ["number"], ["turns"], to=TensorProto.INT64),
            helper.make_node("Loop", ["turns", "yes", "once"], ["scores"], body=body),
        ],
        "endless",
        [value("image", TensorProto.FLOAT, [1, 1, 8, 8])],
        [value("scores", TensorProto.FLOAT, [1, CLASSES])],
        [
            numpy_helper.from_array(WEIGHTS, "w"),
            numpy_helper.from_array(BIAS, "b"),
            numpy_helper.from_array(np.array([0], dtype=np.int64), "first"),
            numpy_helper.from_array(np.array([], dtype=np.int64), "scalar"),
            numpy_helper.from_array(np.array(True), "yes"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(MODELS / "endless.onnx"))


def make_beside(name: str, nodes: list[Any], constants: dict[str, np.ndarray]) -> None:
    """The classifier, to whose scores nothing is added: zero times what some nodes make of the
    image, their ``[1]`` output ``more``."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    given = {"w": WEIGHTS, "b": BIAS, "zero": np.zeros(1, dtype=np.float32), **constants}
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["image"], ["flat"], axis=1),
            helper.make_node("Gemm", ["flat", "w", "b"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["once"], axis=1),
            *nodes,
            helper.make_node("Mul", ["more", "zero"], ["nothing"]),
            helper.make_node("Add", ["once", "nothing"], ["scores"]),
        ],
        name,
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, 8, 8])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, CLASSES])],
        [numpy_helper.from_array(array, key) for key, array in given.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(MODELS / f"{name}.onnx"))


def make_hungry() -> None:
    """One that takes half a gigabyte to answer: two million copies of the image."""
    from onnx import helper

    make_beside(
        "hungry",
        [
            helper.make_node("Expand", ["image", "copies"], ["many"]),
            helper.make_node("Sqrt", ["many"], ["roots"]),
            helper.make_node("ReduceMax", ["roots"], ["most"], keepdims=0),
            helper.make_node("Reshape", ["most", "one"], ["more"]),
        ],
        {
            "copies": np.array([2_000_000, 1, 8, 8], dtype=np.int64),
            "one": np.array([1], dtype=np.int64),
        },
    )


def make_divided() -> None:
    """One with an operator, Det, that ONNX Runtime has for the CPU alone."""
    from onnx import helper

    make_beside(
        "divided",
        [
            helper.make_node("Det", ["image"], ["determinant"]),
            helper.make_node("Reshape", ["determinant", "one"], ["more"]),
        ],
        {"one": np.array([1], dtype=np.int64)},
    )


def make_ragged() -> None:
    """One in which a shape depends on values: how many pixels are not zero."""
    from onnx import TensorProto, helper

    make_beside(
        "ragged",
        [
            helper.make_node("NonZero", ["image"], ["places"]),
            helper.make_node("Cast", ["places"], ["numbers"], to=TensorProto.FLOAT),
            helper.make_node("ReduceSum", ["numbers"], ["most"], keepdims=0),
            helper.make_node("Reshape", ["most", "one"], ["more"]),
        ],
        {"one": np.array([1], dtype=np.int64)},
    )


def make_openvino() -> None:
    import openvino as ov
    from openvino import opset13 as ops

    image = ops.parameter([1, 1, 8, 8], np.float32, name="image")
    image.output(0).tensor.set_names({"image"})
    flat = ops.reshape(image, np.array([1, PIXELS], dtype=np.int64), special_zero=False)
    logits = ops.add(ops.matmul(flat, WEIGHTS, False, False), BIAS.reshape(1, -1))
    scores = ops.softmax(logits, 1)
    scores.output(0).tensor.set_names({"scores"})
    ov.save_model(
        ov.Model([scores], [image], "tiny"), str(MODELS / "tiny.xml"), compress_to_fp16=False
    )


def make_tflite() -> None:
    import tensorflow as tf

    class Tiny(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([1, 1, 8, 8], tf.float32, name="image")])
        def __call__(self, image):
            logits = tf.matmul(tf.reshape(image, [1, PIXELS]), WEIGHTS) + BIAS
            return {"scores": tf.nn.softmax(logits)}

    tiny = Tiny()
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [tiny.__call__.get_concrete_function()], tiny
    )
    (MODELS / "tiny.tflite").write_bytes(converter.convert())


if __name__ == "__main__":
    MODELS.mkdir(exist_ok=True)
    make_onnx()
    make_endless()
    make_hungry()
    make_divided()
    make_ragged()
    make_openvino()
    make_tflite()
