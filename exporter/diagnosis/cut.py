"""Cuts nodes out of an ONNX graph as a model of their own. In a child."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from edgeml.errors import SourceError
from edgeml.exporter.diagnosis.parting import Array
from edgeml.targets.compiling import first_line
from edgeml.targets.frameworks import framework


class Cutter:
    """A graph to cut from.

    Args:
        path: of the model, its inputs of fixed shapes.
        feeds: one sample, which tells the shapes and dtypes between the nodes; where ONNX Runtime
            cannot run the model, ONNX's inference does.
    """

    def __init__(self, path: Path, feeds: dict[str, Array]) -> None:
        onnx = framework("onnx")
        model: Any = onnx.shape_inference.infer_shapes(onnx.load(str(path)), data_prop=True)
        self._model = model
        graph = model.graph
        self._weights: dict[str, Any] = {tensor.name: tensor for tensor in graph.initializer}
        self.nodes: list[Any] = []
        for node in graph.node:
            value = {each.name: each for each in node.attribute}.get("value")
            if node.op_type == "Constant" and value is not None:
                tensor = onnx.TensorProto()
                tensor.CopyFrom(value.t)
                tensor.name = node.output[0]
                self._weights[tensor.name] = tensor
            else:
                self.nodes.append(node)
        self._infos: dict[str, Any] = {
            value.name: value for value in (*graph.input, *graph.value_info, *graph.output)
        }
        self._ends = {value.name for value in graph.output}
        self.values = dict(feeds)
        self.values |= _values(model, feeds)
        for name, array in self.values.items():
            kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
            self._infos[name] = onnx.helper.make_tensor_value_info(name, kind, array.shape)

    def cut(self, kept: Sequence[int]) -> Any | None:
        """A model of some nodes, ascending; None where a type between them is not known.

        What they read of others becomes an input, what nobody among them reads an output.
        """
        onnx = framework("onnx")
        nodes = [self.nodes[index] for index in kept]
        made = {name for node in nodes for name in node.output if name}
        read = dict.fromkeys(name for node in nodes for name in _reads(node))
        needed = [name for name in read if name not in made]
        inputs = [name for name in needed if name not in self._weights]
        outputs = [name for name in made if name in self._ends or name not in read]
        order = [name for node in nodes for name in node.output if name in set(outputs)]
        known = [name for name in inputs if name in self._infos]
        if inputs != known or not order:
            return None
        graph = onnx.helper.make_graph(
            nodes,
            self._model.graph.name or "smallest",
            [self._infos[name] for name in inputs],
            [self._infos.get(name) or onnx.ValueInfoProto(name=name) for name in order],
            [self._weights[name] for name in needed if name in self._weights],
        )
        return onnx.helper.make_model(
            graph,
            opset_imports=list(self._model.opset_import),
            functions=list(self._model.functions),
            ir_version=self._model.ir_version,
            producer_name="edgeml",
        )


def _values(model: Any, feeds: dict[str, Array]) -> dict[str, Array]:
    """What every node makes of a sample; empty where ONNX Runtime cannot run the model."""
    onnx = framework("onnx")
    runtime = framework("onnxruntime")
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    have = {value.name for value in copy.graph.output}
    names = [name for node in copy.graph.node for name in node.output if name]
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in have)
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    try:
        session = runtime.InferenceSession(
            copy.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        found = dict(zip(names, session.run(names, feeds), strict=True))
    except Exception:  # noqa: BLE001 - what is cut may be just what it cannot run
        return {}
    return {name: array for name, array in found.items() if hasattr(array, "dtype")}


def _reads(node: Any) -> Iterator[str]:
    """The tensors that a node reads, those that its bodies take from around them among them."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for body in (attribute.g, *attribute.graphs):
            own = {value.name for value in (*body.input, *body.initializer)}
            for inner in body.node:
                yield from (name for name in _reads(inner) if name not in own)
                own |= set(inner.output)
            yield from (value.name for value in body.output if value.name not in own)


def save(model: Any, path: Path) -> None:
    """Writes a model to a file.

    Raises:
        SourceError: it cannot be written.
    """
    try:
        framework("onnx").save(model, str(path))
    except OSError as error:
        raise SourceError(
            f"{path} cannot be written: {first_line(error)}",
            remedy="Name another file with --minimize.",
        ) from error
