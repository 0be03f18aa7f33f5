"""Stores the weights of an ONNX graph in fewer bits, behind an operator that unpacks them.

ONNX Runtime unpacks them once, when the session is made, and then computes as in fp32: of float16
because it folds constants, of integers where the session has :data:`OPTIONS`. Without that option
it unpacks integers on every run (p50 ms: MobileNetV2 46 for 12, DS-CNN .68 for .09).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from edgeml.bundle.manifest import Precision
from edgeml.errors import RefusedError
from edgeml.targets.frameworks import framework
from edgeml.targets.runtime import Array

OPTIONS = {"session.disable_quant_qdq": "1"}

# Below, the operator and its names take as many bytes as are saved.
_LEAST_ELEMENTS = 256

_BLOCK = 32
"""Weights that share a scale in four bits."""

_INT4_OPSET = 21


def packed(model: Any, precision: Precision, *, keep: Collection[str] = ()) -> Any:
    """The model with the weights of convolutions and matrix products in fewer bits.

    ``fp16``: a cast behind them. ``int8-weights``: symmetric, a scale a channel. ``int4-weights``:
    symmetric, a scale for 32 weights of an output channel, chosen among nine for the least squared
    error; transposed and depthwise convolutions get eight bits.

    Args:
        model: an ``onnx.ModelProto`` in float32; changed in place but for ``int4-weights``.
        keep: names of nodes whose weights stay as they are.

    Raises:
        RefusedError: four bits need opset 21, which the graph cannot be lifted to.
    """
    onnx = framework("onnx")
    if precision == "int4-weights":
        model = _lifted(model)
    graph: Any = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    unpacking: list[Any] = []
    for node in graph.node:
        axis = _output_axis(node)
        name = node.input[1] if axis is not None else ""
        tensor = constants.pop(name, None)
        if axis is None or node.name in keep:
            continue
        if tensor is None or tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        weights: Array = onnx.numpy_helper.to_array(tensor)
        if weights.size < _LEAST_ELEMENTS or weights.ndim < 2:
            continue
        if precision == "fp16":
            made = _half(name, weights)
        elif precision == "int4-weights" and _takes_blocks(node, weights):
            made = _four(name, weights, axis % weights.ndim)
        else:
            made = _eight(name, weights, axis % weights.ndim)
        if made is not None:
            graph.initializer.remove(tensor)
            graph.initializer.extend(made[0])
            unpacking += made[1]
    computing = list(graph.node)
    del graph.node[:]
    graph.node.extend([*unpacking, *computing])
    return model


def _lifted(model: Any) -> Any:
    onnx = framework("onnx")
    (opset,) = (each.version for each in model.opset_import if each.domain in {"", "ai.onnx"})
    if opset >= _INT4_OPSET:
        return model
    try:
        return onnx.version_converter.convert_version(model, _INT4_OPSET)
    except Exception as error:
        raise RefusedError(
            f"The graph is of opset {opset}, and weights of four bits need {_INT4_OPSET}, to which "
            "it cannot be lifted",
            remedy=f"Export it with opset {_INT4_OPSET}, or ask for int8-weights.",
        ) from error


def _output_axis(node: Any) -> int | None:
    """The axis of a node's weights that is its output channel; None where it has no weights."""
    if len(node.input) < 2:
        return None
    if node.op_type == "Gemm":
        return 0 if any(each.name == "transB" and each.i for each in node.attribute) else 1
    return {"Conv": 0, "ConvTranspose": 1, "MatMul": -1}.get(node.op_type)


def _takes_blocks(node: Any, weights: Array) -> bool:
    inside = weights.size // weights.shape[0]
    if node.op_type == "Conv":
        return inside > _BLOCK / 2
    return weights.ndim == 2 and node.op_type != "ConvTranspose"


Made = tuple[Sequence[Any], Sequence[Any]]


def _half(name: str, weights: Array) -> Made | None:
    onnx = framework("onnx")
    if np.abs(weights).max() > np.finfo(np.float16).max:
        return None
    tensor = onnx.numpy_helper.from_array(weights.astype(np.float16), f"{name}_half")
    cast = onnx.helper.make_node("Cast", [tensor.name], [name], to=onnx.TensorProto.FLOAT)
    return [tensor], [cast]


def _eight(name: str, weights: Array, axis: int) -> Made:
    onnx = framework("onnx")
    others = tuple(other for other in range(weights.ndim) if other != axis)
    largest = np.abs(weights).max(axis=others, keepdims=True)
    scales = np.where(largest == 0, 1, largest / 127).astype(np.float32)
    integers = np.clip(np.round(weights / scales), -127, 127).astype(np.int8)
    return _dequantized(onnx, name, name, integers, scales.ravel(), axis=axis)


def _four(name: str, weights: Array, axis: int) -> Made:
    """Of a matrix, blocks along the other axis; of a kernel, along all but the output channel."""
    onnx = framework("onnx")
    ml_dtypes = framework("ml_dtypes")
    flat = weights.reshape(weights.shape[0], -1) if weights.ndim > 2 else weights
    rows = flat if axis == 0 else flat.T
    count = -(-rows.shape[1] // _BLOCK)
    whole = np.pad(rows, [(0, 0), (0, count * _BLOCK - rows.shape[1])])
    integers, scales = _rounded(whole.reshape(len(rows), count, _BLOCK))
    integers = integers.reshape(whole.shape)[:, : rows.shape[1]]
    if axis == 1:
        integers, scales = integers.T, scales.T
    integers = np.ascontiguousarray(integers).astype(ml_dtypes.int4)
    along = 1 - axis
    if flat.shape == weights.shape:
        return _dequantized(onnx, name, name, integers, scales, axis=along, block_size=_BLOCK)
    tensors, nodes = _dequantized(
        onnx, name, f"{name}_flat", integers, scales, axis=along, block_size=_BLOCK
    )
    shape = onnx.numpy_helper.from_array(np.array(weights.shape, np.int64), f"{name}_shape")
    reshape = onnx.helper.make_node("Reshape", [f"{name}_flat", shape.name], [name])
    return [*tensors, shape], [*nodes, reshape]


def _rounded(blocks: Array) -> tuple[Array, Array]:
    """Blocks [rows, n, 32] in −8 … 7, and a scale a block."""
    largest = np.abs(blocks).max(axis=-1, keepdims=True)
    best = np.full(largest.shape, np.inf)
    integers, scales = np.zeros_like(blocks), np.ones_like(largest)
    for share in np.linspace(0.6, 1, 9):
        scale = np.where(largest == 0, 1, largest * share / 7).astype(np.float32)
        tried = np.clip(np.round(blocks / scale), -8, 7)
        error = ((tried * scale - blocks) ** 2).sum(axis=-1, keepdims=True)
        better = error < best
        best = np.where(better, error, best)
        integers = np.where(better, tried, integers)
        scales = np.where(better, scale, scales)
    return integers, scales[..., 0]


def _dequantized(
    onnx: Any, name: str, output: str, integers: Array, scales: Array, **attributes: int
) -> Made:
    tensors = [
        onnx.numpy_helper.from_array(integers, f"{name}_q"),
        onnx.numpy_helper.from_array(np.ascontiguousarray(scales), f"{name}_scale"),
    ]
    inputs = [tensor.name for tensor in tensors]
    return tensors, [onnx.helper.make_node("DequantizeLinear", inputs, [output], **attributes)]
