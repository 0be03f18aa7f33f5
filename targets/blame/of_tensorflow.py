"""Finds an operator in a SavedModel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeml.targets.blame import Place, tensor_text
from edgeml.targets.frameworks import framework


def locate_tensorflow(folder: Path, operator: str) -> Place | None:
    """A SavedModel's first node of an operator type, its name with its scopes.

    Shapes are those that TensorFlow wrote beside the node; a converter's fixed copy may have the
    batch still open there.
    """
    message = framework("tensorflow.core.protobuf.saved_model_pb2").SavedModel()
    message.ParseFromString((folder / "saved_model.pb").read_bytes())
    graph = message.meta_graphs[0].graph_def
    for nodes in (*(function.node_def for function in graph.library.function), graph.node):
        known = {str(node.name): node for node in nodes}
        for node in nodes:
            if node.op == operator:
                return Place(
                    node=f"node {str(node.name)!r}",
                    inputs=tuple(
                        _output(known.get(str(port).partition(":")[0]), _index(str(port)))
                        for port in node.input
                        if not str(port).startswith("^")
                    ),
                    outputs=tuple(_output(node, index) for index in range(len(_shapes(node)))),
                )
    return None


def _index(port: str) -> int:
    last = port.rpartition(":")[2]
    return int(last) if last.isdigit() else 0


def _shapes(node: Any) -> Sequence[Any]:
    return node.attr["_output_shapes"].list.shape if "_output_shapes" in node.attr else ()


def _output(node: Any, index: int) -> str:
    if node is None or index >= len(_shapes(node)):
        return ""
    shape = _shapes(node)[index]
    sizes = None if shape.unknown_rank else [axis.size for axis in shape.dim]
    return tensor_text(_dtype(node), sizes)


def _dtype(node: Any) -> str:
    """What most operators give out; those that say it in no attribute are left without."""
    dtypes = framework("tensorflow").dtypes
    for name in ("DstT", "dtype", "out_type", "output_type", "Tcomplex", "T"):
        if name in node.attr and node.attr[name].type:
            return str(dtypes.as_dtype(node.attr[name].type).name)
    outputs = node.attr["Tout"].list.type if "Tout" in node.attr else ()
    return str(dtypes.as_dtype(outputs[0]).name) if outputs else ""
