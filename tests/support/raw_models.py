"""Models that return their input, for what is put in front of them. Each is saved by a child."""

from __future__ import annotations

from edgeml.exporter.sources.forms import Opened


def save_torch(opened: Opened) -> int:
    import torch

    class Same(torch.nn.Module):
        def forward(self, x):
            return x + 0

    example = (torch.zeros(opened.inputs[0].shape),)
    torch.export.save(torch.export.export(Same(), example), opened.path)
    return 1


def save_onnx(opened: Opened) -> int:
    from onnx import TensorProto, helper, save

    name, shape = opened.inputs[0].name, opened.inputs[0].shape
    float32 = TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("Identity", [name], ["out"])],
        "same",
        [helper.make_tensor_value_info(name, float32, shape)],
        [helper.make_tensor_value_info("out", float32, shape)],
    )
    save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9),
        opened.path,
    )
    return 1


def save_savedmodel(opened: Opened) -> int:
    import tensorflow as tf

    name = opened.inputs[0].name
    module = tf.Module()
    module.same = tf.function(lambda **feeds: {"out": tf.identity(feeds[name])})
    spec = tf.TensorSpec(opened.inputs[0].shape, tf.float32, name=name)
    concrete = module.same.get_concrete_function(**{name: spec})
    tf.saved_model.save(module, str(opened.path), signatures={"serving_default": concrete})
    return 1
