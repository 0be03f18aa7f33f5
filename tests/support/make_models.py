"""Makes the tiny models in ``models/``: one classifier, softmax(W·x + b), for each target.

They are checked in, so that tests of agent and collector need no converter. Run this in the
toolchain's environment (openvino, onnx and tensorflow) to make them again:

    python tests/support/make_models.py
"""

from __future__ import annotations

from pathlib import Path

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
    make_openvino()
    make_tflite()
