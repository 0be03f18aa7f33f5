"""ONNX, normalised to a checked ``.onnx`` whose inputs have fixed shapes and a batch of 1.

Inputs and outputs keep the graph's names. Runs in a child process.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingImports=false
# pyright: reportMissingTypeStubs=false, reportUnknownParameterType=false

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import shape_inference

from edgeml.bundle.manifest import Tensor
from edgeml.columns import rows, writers
from edgeml.errors import SourceError
from edgeml.exporter.child import first_line
from edgeml.exporter.sources.forms import (
    Opened,
    OpenJob,
    ReferenceJob,
    damaged,
)
from edgeml.exporter.sources.shapes import closed_shape, filled, fixed_tensor, refuse_unknown
from edgeml.targets.onnx_graph import KEPT_OPEN

_TITLE = "an ONNX model"
_ONE_FILE_BYTES = 2**31 - 1024
"""Protobuf's limit."""

_NUMPY = {
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(double)": "float64",
    "tensor(bool)": "bool",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
}

_NEWEST = re.compile(
    r"support for domain (\S+) is till opset (\d+)|max supported IR version: (\d+)"
)
"""ONNX Runtime's own words."""

_RUNNING = re.compile(r"while running (\S+) node\. Name:'([^']*)' Status Message: (.*)")
_NO_ROOM = re.compile(r"Failed to allocate memory for requested buffer of size (\d+)")
_UNKNOWN = re.compile(r"No Op registered for (\S+) with domain_version of (\d+)")
"""ONNX's and ONNX Runtime's own words."""

_STANDARD = {"", "ai.onnx", "ai.onnx.ml", "ai.onnx.preview.training"}
_RUNTIMES = ("com.microsoft", "com.ms.", "org.pytorch.aten")
"""Domains whose operators ONNX Runtime has built in."""


def open_source(job: OpenJob) -> Opened:
    """Read an ONNX model, fix its shapes, check it and write it anew.

    Raises:
        SourceError: the file is damaged, no valid model or too large; it has operators of its own;
            an axis is left open and nothing shows how long it is.
        UsageError: the shape asked for is not the model's.
    """
    model = _load(job.path)
    _refuse_custom(model, job.path)
    for value in model.graph.output:
        _refuse_other(value, "output", job.path)
    _refuse_repeated(model, job.path)
    weights = {tensor.name for tensor in model.graph.initializer}
    feeds = [value for value in model.graph.input if value.name not in weights]
    axes = {value.name: _axes(job, value) for value in feeds}
    refuse_unknown(job, list(axes))
    fixed = {name: closed_shape(job, name, each) for name, each in axes.items()}
    for value in feeds:  # ONNX Runtime's own words for one that it does not take are no help
        fixed_tensor(value.name, fixed[value.name], _dtype(value), side="input", path=job.path)
    del model.graph.input[:]  # old files list weights among the inputs, as overridable
    for value in feeds:
        for number, (axis, size) in enumerate(
            zip(value.type.tensor_type.shape.dim, fixed[value.name], strict=True)
        ):
            axis.Clear()
            if size < 0:
                axis.dim_param = f"{KEPT_OPEN}{len(model.graph.input)}_{number}"
            else:
                axis.dim_value = size
        model.graph.input.append(value)
    # What was inferred for an open batch does not hold for a batch of one.
    del model.graph.value_info[:]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    path = job.workdir / "source.onnx"
    model = shape_inference.infer_shapes(model)
    onnx.save(model, str(path))
    session = _session(path, job.path)
    opset = next(
        (entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"}), 0
    )
    outputs = _outputs(session, model, fixed)
    if _write_missing(model, outputs):
        onnx.save(model, str(path))
    stays_open = any(-1 in shape for shape in fixed.values())
    classical = any(node.domain == "ai.onnx.ml" for node in _nodes(model.graph))
    return Opened(
        kind="classical" if classical else "onnx",
        path=path,
        inputs=tuple(
            _tensor(node, "input", job.path, stays_open=stays_open) for node in session.get_inputs()
        ),
        outputs=tuple(
            _tensor(node, "output", job.path, stays_open=stays_open, shape=outputs[node.name])
            for node in session.get_outputs()
        ),
        title=f"ONNX opset {opset}",
        notes=filled(job, axes),
        reference=__name__,
    )


def _load(path: Path) -> Any:
    if path.stat().st_size >= _ONE_FILE_BYTES:  # nothing could read it
        raise _too_large(f"{path} has {path.stat().st_size / 1e9:.2f} GB")
    try:
        bare = onnx.load(str(path), load_external_data=False)
        outside = [entry for entry in map(_outside, _tensors(bare)) if entry]
        held = bare.ByteSize() + sum(int(entry.get("length", 0)) for entry in outside)
    except Exception as error:
        raise damaged(path, _TITLE, first_line(error)) from error
    if held >= _ONE_FILE_BYTES:
        raise _too_large(f"{path} holds {held / 1e9:.2f} GB of weights")
    for name in {str(entry.get("location")) for entry in outside}:
        # ONNX opens them in native code, of which no record of what is read is told.
        with contextlib.suppress(OSError, ValueError), (path.parent / name).open("rb"):
            pass
    try:
        model = onnx.load(str(path))
    except Exception as error:
        if any(words in str(error) for words in ("xternal", "stored in", "outside the directory")):
            raise SourceError(
                f"The weights of {path} in a file beside it cannot be read: {first_line(error)}",
                expected="the file of its weights, whole, in the same folder",
                remedy="Copy it there again, under the name that it was saved with.",
            ) from error
        raise damaged(path, _TITLE, first_line(error)) from error
    if not model.graph.node:
        raise damaged(path, _TITLE, "it has no nodes")
    try:
        onnx.checker.check_model(model)
    except Exception as error:
        if unknown := _UNKNOWN.search(str(error)):
            raise SourceError(
                f"{path} has the operator {unknown[1]}, which ONNX does not have in opset "
                f"{unknown[2]}",
                expected="operators of ONNX, which a device's runtime has",
                remedy="Export the model again for an opset that has it, or with that operator "
                "written in others.",
            ) from error
        raise damaged(path, "a valid ONNX model", first_line(error)) from error
    return model


def _too_large(found: str) -> SourceError:
    return SourceError(
        found,
        expected="less than 2 GB, which is all that one file of ONNX can hold and the converters "
        "pass on",
        remedy="Export the model in half precision or with weights of 8 bits, or in parts.",
    )


def _outside(tensor: Any) -> dict[str, str]:
    """Where a weight is, in a file beside the model; empty where it is in the model."""
    fields = {entry.key: entry.value for entry in tensor.external_data}
    return fields if tensor.data_location == tensor.EXTERNAL else {}


def _tensors(model: Any) -> Iterator[Any]:
    """The weights of a model, those inside nodes among them."""
    for graph in _graphs(model.graph):
        yield from graph.initializer
        for node in graph.node:
            for attribute in node.attribute:
                yield from (attribute.t, *attribute.tensors)


def _graphs(graph: Any) -> Iterator[Any]:
    """A graph and those inside its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                if inner.node:
                    yield from _graphs(inner)


def _nodes(graph: Any) -> Iterator[Any]:
    """Of a graph and of those inside its nodes."""
    for each in _graphs(graph):
        yield from each.node


def _refuse_custom(model: Any, path: Path) -> None:
    own = {(function.domain, function.name) for function in model.functions}
    for node in _nodes(model.graph):
        known = node.domain in _STANDARD or node.domain.startswith(_RUNTIMES)
        if not known and (node.domain, node.op_type) not in own:
            name = node.name or next(iter(node.output), "")
            raise SourceError(
                f"Node {name!r} of {path} is {node.domain}::{node.op_type}, an operator that is "
                "not part of ONNX",
                expected="operators of ONNX, which a device's runtime has",
                remedy="Export the model with that operator written in standard ones, or leave it "
                "out of the model and compute it before or after.",
            )


def reference(job: ReferenceJob) -> int:
    """Run samples in float, with basic optimisations; returns how many samples."""
    session = _session(job.source.path, job.source.path)
    names = [tensor.name for tensor in job.source.inputs]
    wanted = [tensor.name for tensor in job.source.outputs]
    with writers(job.outputs) as results:
        for sample in rows(job.inputs):
            feeds = dict(zip(names, sample, strict=True))
            try:
                outputs = session.run(wanted, feeds)
            except Exception as error:
                raise _failed(error) from error
            for into, found in zip(results, outputs, strict=True):
                into.append(found)
    return results[0].count


def _failed(error: Exception) -> SourceError:
    """The error for a model that fails on a sample, in fewer words than ONNX Runtime's."""
    text = " ".join(str(error).split())
    where = _RUNNING.search(text)
    node = f" at {where[1]} (node {where[2]!r})" if where else ""
    if room := _NO_ROOM.search(text):
        return SourceError(
            f"The source model fails on the samples{node}: it asks for a tensor of "
            f"{int(room[1]) / 1e9:,.1f} GB",
            expected="tensors that fit into this machine's memory",
            remedy="Give the model smaller samples, in parts, or export on a larger machine.",
        )
    return SourceError(
        f"The source model fails on the samples{node}: {(where[3] if where else text)[:300]}",
        expected="a model that takes such samples",
        remedy="Check the samples' shapes and the range of their values.",
    )


def _session(path: Path, shown: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        if newest := _NEWEST.search(str(error)):
            version, number = ("opset", newest[2]) if newest[2] else ("IR version", newest[3])
            raise SourceError(
                f"{shown} is newer than ONNX Runtime {onnxruntime.__version__} reads",
                expected=f"{version} {number} or older",
                remedy="Export it again for that one (torch.onnx.export(…, opset_version=…)), or "
                f"convert it: onnx.version_converter.convert_version(model, {newest[2]})."
                if newest[2]
                else f"Load it with onnx, set model.ir_version = {number}, and save it again.",
            ) from error
        raise SourceError(
            f"ONNX Runtime cannot load {shown} with a batch of one: {first_line(error)}",
            expected="a model whose batch axis is open, or 1, and whose operators it has",
            remedy="Export the model again for a batch of one.",
        ) from error


def _refuse_other(value: Any, side: str, path: Path) -> None:
    kind = str(value.type.WhichOneof("value")).removesuffix("_type")
    if kind != "tensor":
        raise SourceError(
            f"The {side} {value.name!r} of {path} is a {kind}, no tensor",
            expected="tensors only",
            remedy="skl2onnx makes dictionaries of probabilities: convert with "
            "options={'zipmap': False}, or give the estimator itself, as FILE.py:FACTORY.",
        )


def _refuse_repeated(model: Any, path: Path) -> None:
    """Two tensors of one name, of which a runtime would give one, or none."""
    seen = {value.name for value in model.graph.input}
    for value in model.graph.output:
        if value.name in seen:
            raise SourceError(
                f"The output {value.name!r} of {path} is an input, or another output, as well",
                expected="a name for each input and output, and outputs that are computed",
                remedy="Leave it out of the model's outputs: whoever runs the model has it.",
            )
        seen.add(value.name)


def _axes(job: OpenJob, value: Any) -> list[int | None]:
    _refuse_other(value, "input", job.path)
    kind = value.type.tensor_type
    if not kind.HasField("shape"):
        raise SourceError(
            f"Input {value.name!r} of {job.path} has no known number of axes",
            expected="tensors with a batch axis in front",
        )
    sizes = [
        axis.dim_value if axis.WhichOneof("value") == "dim_value" and axis.dim_value >= 0 else None
        for axis in kind.shape.dim
    ]
    asked = job.asked.get(value.name, ())
    # Some exporters write 0 for a length that is not known: for the batch, or where one is asked.
    return [
        None if size == 0 and (number == 0 or len(asked) == len(sizes)) else size
        for number, size in enumerate(sizes)
    ]


def _dtype(value: Any) -> str:
    name = str(onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type)).lower()
    return {"float": "float32", "double": "float64"}.get(name, name)


def _outputs(session: Any, model: Any, fixed: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Shapes of the outputs; by a run where not even the number of axes could be inferred."""
    shapes = {node.name: list(node.shape) for node in session.get_outputs()}
    inferred = {each.name: each.type.tensor_type.HasField("shape") for each in model.graph.output}
    unknown = [name for name in shapes if not inferred[name]]
    if unknown and not any(-1 in shape for shape in fixed.values()):
        feeds = {
            node.name: np.zeros(fixed[node.name], _NUMPY.get(node.type, "float32"))
            for node in session.get_inputs()
        }
        for name, array in zip(unknown, session.run(unknown, feeds), strict=True):
            shapes[name] = list(np.asarray(array).shape)
    return shapes


def _write_missing(model: Any, shapes: Mapping[str, Any]) -> bool:
    """Give outputs the shapes that inference left out, as behind a Loop: no model is valid without.
    Whether there were any."""
    missing = [v for v in model.graph.output if not v.type.tensor_type.HasField("shape")]
    for value in missing:
        kind = value.type.tensor_type.elem_type
        value.CopyFrom(onnx.helper.make_tensor_value_info(value.name, kind, shapes[value.name]))
    return bool(missing)


def _tensor(node: Any, side: str, path: Path, *, stays_open: bool, shape: Any = None) -> Tensor:
    element = str(node.type).removeprefix("tensor(").removesuffix(")")
    kind = {"float": "float32", "double": "float64"}.get(element, element)
    sizes: list[Any] = list(node.shape) if shape is None else shape
    if stays_open:
        sizes = [size if isinstance(size, int) else -1 for size in sizes]
    return fixed_tensor(node.name, sizes, kind, side=side, path=path)
