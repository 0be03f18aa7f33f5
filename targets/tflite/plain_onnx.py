"""An ONNX graph in the terms of the toolchain ``onnx2tf``, and what it asks for beyond them."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np

from edgeml.targets.frameworks import framework
from edgeml.targets.onnx_graph import nodes
from edgeml.targets.tflite.loops import close_loops

# Of the ONNX Runtime in the toolchain, and of what it writes.
_IR_VERSION = 10
# The newest that it runs whole, and the newest that it runs in part.
_OPSETS = (22, 23)

# What a Constant may hold in place of a tensor, and of which type it is.
_NUMBERS = {
    "value_float": "float32",
    "value_floats": "float32",
    "value_int": "int64",
    "value_ints": "int64",
}

# Inputs by their positions that are weights or settle shapes; LiteRT's operators, or onnx2tf, want
# them known when the model is converted.
_PARAMETERS: dict[str, tuple[int, ...]] = {
    "AffineGrid": (1,),
    "BlackmanWindow": (0,),
    "CenterCropPad": (1,),
    "Col2Im": (1, 2),
    "ConstantOfShape": (0,),
    "Conv": (1,),
    "ConvTranspose": (1,),
    "CumSum": (1,),
    "DFT": (1, 2),
    "DeformConv": (1,),
    "Expand": (1,),
    "GRU": (1, 2, 3),
    "HammingWindow": (0,),
    "HannWindow": (0,),
    "LSTM": (1, 2, 3),
    "LayerNormalization": (1, 2),
    "MaxUnpool": (2,),
    "NonMaxSuppression": (2, 3, 4),
    "OneHot": (1,),
    "Pad": (1, 3),
    "RNN": (1, 2, 3),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "STFT": (1, 2, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Trilu": (1,),
    "Unsqueeze": (1,),
    "Upsample": (1,),
}


def plain(model: Any) -> Any:
    """The same function in an opset that the toolchain's ONNX Runtime runs, as far as there is one,
    without what onnx2tf lacks (CastLike, constants that are no tensors, a Sum of unlike ranks), and
    with loops that read nothing from outside.

    Args:
        model: with fixed shapes; it may be changed.
    """
    onnx = framework("onnx")
    if any(node.op_type == "CastLike" for node in nodes(model.graph)):
        _cast(model)
    close_loops(model)
    for node in nodes(model.graph):
        if node.op_type == "Constant":
            _tensor(node)
        elif node.op_type == "Sum" and len(node.input) == 2:
            node.op_type = "Add"
    own = next((each.version for each in model.opset_import if each.domain in {"", "ai.onnx"}), 0)
    for opset in _OPSETS:
        if own <= opset:
            break
        # It raises where an operator, a type or an attribute is newer than that.
        with contextlib.suppress(Exception):
            converted = onnx.version_converter.convert_version(model, opset)
            onnx.checker.check_model(converted, full_check=True)
            model = converted
            break
    model.ir_version = min(model.ir_version, _IR_VERSION)
    return model


def _cast(model: Any) -> None:
    """Makes each CastLike of the main graph, to a type that is known, the Cast that it comes to."""
    onnx = framework("onnx")
    graph = onnx.shape_inference.infer_shapes(model).graph
    types = {
        value.name: int(value.type.tensor_type.elem_type)
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
    types |= {tensor.name: int(tensor.data_type) for tensor in graph.initializer}
    for node in model.graph.node:
        if node.op_type != "CastLike" or node.domain not in {"", "ai.onnx"}:
            continue
        like = types.get(node.input[1], 0)
        if like:
            node.op_type = "Cast"
            del node.input[1:]
            node.attribute.append(onnx.helper.make_attribute("to", like))


def _tensor(node: Any) -> None:
    """Makes a Constant of a number, or a list of them, one of a tensor."""
    onnx = framework("onnx")
    given = node.attribute[0]
    dtype = _NUMBERS.get(given.name)
    if dtype is not None:
        array = np.asarray(onnx.helper.get_attribute_value(given), dtype)
        tensor = onnx.numpy_helper.from_array(array)
        given.CopyFrom(onnx.helper.make_attribute("value", tensor))


def fed_parameter(path: Path, operators: set[str] | None = None) -> str:
    """What of a file's graph is fed while it should be a constant, as a clause; empty where none.

    Args:
        path: a graph that could not be converted.
        operators: to look at; all where left out.
    """
    graph = framework("onnx").load(str(path), load_external_data=False).graph
    fed = {value.name for value in graph.input} - {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        if operators is not None and node.op_type not in operators:
            continue
        reduces = (1,) if node.op_type.startswith("Reduce") else ()
        for index in _PARAMETERS.get(node.op_type, reduces):
            if index < len(node.input) and node.input[index] in fed:
                return f"{node.op_type} is fed its input {index} ({node.input[index]!r})"
    return ""
