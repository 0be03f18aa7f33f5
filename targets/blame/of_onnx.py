"""Finds an operator in an ONNX graph."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeml.targets.blame import Place, class_name, tensor_text, users_line
from edgeml.targets.frameworks import framework
from edgeml.targets.onnx_graph import nodes


def locate_onnx(path: Path, operator: str, node: str = "") -> Place | None:
    """An ONNX graph's first node of an operator type, or the one of that name where it is given.

    Args:
        path: of the graph.
        operator: with or without its domain.
        node: the node's name, where the target told it.
    """
    model = framework("onnx").load(str(path), load_external_data=False)
    tensors = tensor_texts(model)
    name = operator.rpartition(".")[2].rpartition(":")[2]
    found = [each for each in nodes(model.graph) if each.op_type == name]
    found = [each for each in found if node and each.name == node] or found
    return place_of(found[0], tensors) if found else None


def place_of(node: Any, tensors: Mapping[str, str]) -> Place:
    """What a node knows of itself; graphs that torch made carry modules and lines.

    Args:
        node: the NodeProto.
        tensors: what is known of the graph's tensors, by :func:`tensor_texts`.
    """
    told = {str(each.key): str(each.value) for each in node.metadata_props}
    module, kind = _module(told)
    return Place(
        node=f"node {str(node.name)!r}"
        if node.name
        else f"the node that makes {str(node.output[0])!r}",
        inputs=tuple(tensors.get(str(name), "") for name in node.input if name),
        outputs=tuple(tensors.get(str(name), "") for name in node.output if name),
        module=module,
        kind=kind,
        line=users_line(told.get("pkg.torch.onnx.stack_trace", "")),
    )


def tensor_texts(model: Any) -> dict[str, str]:
    """Dtype and shape of every tensor of which they are known, as people read them."""
    onnx = framework("onnx")
    try:
        graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    except Exception:  # noqa: BLE001 - what is blamed may well be what cannot be inferred
        graph = model.graph
    found: dict[str, str] = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        if value.type.WhichOneof("value") == "tensor_type":
            axes = tensor.shape.dim if tensor.HasField("shape") else None
            sizes = axes and [a.dim_value if a.HasField("dim_value") else None for a in axes]
            found[str(value.name)] = tensor_text(_element(tensor.elem_type), sizes)
    for tensor in graph.initializer:
        found[str(tensor.name)] = tensor_text(_element(tensor.data_type), tensor.dims)
    return found


def _element(code: int) -> str:
    name = str(framework("onnx").TensorProto.DataType.Name(code)).lower()
    return {"float": "float32", "double": "float64"}.get(name, name)


def _module(told: Mapping[str, str]) -> tuple[str, str]:
    """Path and class of the torch module; empty where the graph does not say."""
    try:
        scopes = ast.literal_eval(told["pkg.torch.onnx.name_scopes"])
        classes = ast.literal_eval(told["pkg.torch.onnx.class_hierarchy"])
        # The last of both is the operator itself.
        return str(scopes[-2]), class_name(str(classes[-2]))
    except (KeyError, IndexError, ValueError, SyntaxError):
        return "", ""
