"""Makes ``models/cheap-*.onnx``: a mean over the image and a small product, as good as free to run.

Checked in, so that the benchmarks of the agent need no converter. With ``onnx`` installed they can
be made again:

    python benchmarks/make_models.py

    python benchmarks/make_models.py mobilenet.onnx

writes MobileNetV2 for a camera's frame, as a model that costs what models cost; torch is needed.
Its weights are random, which takes as long as trained ones.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

MODELS = Path(__file__).with_name("models")
CLASSES = 10
SIZES: dict[str, tuple[int, ...]] = {"8x8": (1, 1, 8, 8), "224x224x3": (1, 3, 224, 224)}
"""Of float32, as most converters make them."""

CAMERA = "224x224x3-uint8"
"""A camera's frame, [1, 224, 224, 3]."""

PRODUCTS = 6
"""Of 512x512 matrices, in the busy model: some milliseconds, in a file of a kilobyte."""


def main() -> None:
    """Write one a size, the camera's, and one that keeps a processor busy."""
    camera()
    busy()
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


def camera() -> None:
    """Each eighth row's mean, as float32, and the same small product."""
    onnx: Any = import_module("onnx")
    helper, real = onnx.helper, onnx.TensorProto.FLOAT
    constants = {
        "from": np.array([0], dtype=np.int64),
        "to": np.array([224], dtype=np.int64),
        "axis": np.array([1], dtype=np.int64),
        "step": np.array([8], dtype=np.int64),
        "plane": np.array([1, 2], dtype=np.int64),
        "scale": np.array(1 / 255, dtype=np.float32),
        "weights": np.random.default_rng(5).normal(0, 3, (3, CLASSES)).astype(np.float32),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Slice", ["image", "from", "to", "axis", "step"], ["rows"]),
            helper.make_node("Cast", ["rows"], ["real"], to=real),
            helper.make_node("ReduceMean", ["real", "plane"], ["pooled"], keepdims=0),
            helper.make_node("Mul", ["pooled", "scale"], ["means"]),
            helper.make_node("MatMul", ["means", "weights"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["scores"], axis=1),
        ],
        "cheap",
        [helper.make_tensor_value_info("image", onnx.TensorProto.UINT8, [1, 224, 224, 3])],
        [helper.make_tensor_value_info("scores", real, [1, CLASSES])],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opset = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(MODELS / f"cheap-{CAMERA}.onnx"))


def busy() -> None:
    """A product of matrices after another, which ends in the mean of the image."""
    onnx: Any = import_module("onnx")
    helper, real = onnx.helper, onnx.TensorProto.FLOAT
    square = np.array([512, 512], dtype=np.int64)
    constants = {
        "all": np.array([1, 2, 3], dtype=np.int64),
        "square": square,
        "ten": np.array([1, CLASSES], dtype=np.int64),
    }
    value = onnx.numpy_helper.from_array(np.array([1 / 512], dtype=np.float32), "value")
    products = [
        helper.make_node("MatMul", [f"m{n}", "weights"], [f"m{n + 1}"]) for n in range(PRODUCTS)
    ]
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["image", "all"], ["mean"], keepdims=0),
            helper.make_node("ConstantOfShape", ["square"], ["weights"], value=value),
            helper.make_node("Expand", ["mean", "square"], ["m0"]),
            *products,
            helper.make_node("ReduceMean", [f"m{PRODUCTS}"], ["last"], keepdims=0),
            helper.make_node("Expand", ["last", "ten"], ["scores"]),
        ],
        "busy",
        [helper.make_tensor_value_info("image", real, [1, 1, 8, 8])],
        [helper.make_tensor_value_info("scores", real, [1, CLASSES])],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opset = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(MODELS / "busy-8x8.onnx"))


def mobilenet(path: Path) -> None:
    """MobileNetV2 on [1, 224, 224, 3] uint8, as ``image`` → ``scores``."""
    torch: Any = import_module("torch")
    sys.path.insert(0, str(Path(__file__).with_name("peers")))
    net: Any = import_module("mobilenet").MobileNetV2().eval()
    own_forward: Any = net.forward

    def forward(image: Any) -> Any:
        """With what prepares a frame for the net."""
        photo = image.permute(0, 3, 1, 2).float() / 127.5 - 1
        return own_forward(photo)["logits"].softmax(1)

    net.forward = forward
    frame = torch.zeros((1, 224, 224, 3), dtype=torch.uint8)
    torch.onnx.export(
        net, (frame,), str(path), input_names=["image"], output_names=["scores"],
        opset_version=18, dynamo=True, external_data=False,
    )  # fmt: skip


if __name__ == "__main__":
    if len(sys.argv) > 1:
        mobilenet(Path(sys.argv[1]))
    else:
        main()
