"""Makes ``models/cheap-*.onnx``: a mean over the image and a small product, as good as free to run.

Checked in, so that the benchmark of the agent needs no converter. With ``onnx`` installed they can
be made again:

    python benchmarks/make_models.py
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

MODELS = Path(__file__).with_name("models")
CLASSES = 10
SIZES: dict[str, tuple[int, ...]] = {"8x8": (1, 1, 8, 8), "224x224x3": (1, 3, 224, 224)}


def main() -> None:
    """Write one a size."""
    onnx: Any = import_module("onnx")
    helper, real = onnx.helper, onnx.TensorProto.FLOAT
    for name, shape in SIZES.items():
        weights = np.random.default_rng(5).normal(0, 3, (shape[1], CLASSES)).astype(np.float32)
        graph = helper.make_graph(
            [
                helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
                helper.make_node("Flatten", ["pooled"], ["means"], axis=1),
                helper.make_node("MatMul", ["means", "weights"], ["logits"]),
                helper.make_node("Softmax", ["logits"], ["scores"], axis=1),
            ],
            "cheap",
            [helper.make_tensor_value_info("image", real, list(shape))],
            [helper.make_tensor_value_info("scores", real, [1, CLASSES])],
            [onnx.numpy_helper.from_array(weights, "weights")],
        )
        opset = [helper.make_opsetid("", 17)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=8)
        onnx.checker.check_model(model)
        onnx.save(model, str(MODELS / f"cheap-{name}.onnx"))


if __name__ == "__main__":
    main()
