"""The layers of ONNX artifacts: what they compute, and the noise that int8 adds.

A layer is a node of the float artifact, under the name of what it makes. Both graphs run on the CPU
with those values as further outputs, whatever target they are for.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edgeml.targets import sources
from edgeml.targets.blame import users_line
from edgeml.targets.compiling import CompileJob
from edgeml.targets.fronts import before_logarithms
from edgeml.targets.layers import LayerSignal, SignalJob
from edgeml.targets.onnx.runtime import open_session
from edgeml.targets.origins import with_origins
from edgeml.targets.runtime import Array
from edgeml.targets.signals import Feeds, Layer, Values, compare, few, kept_together

_WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "MatMul", "Gather", "LSTM", "GRU", "RNN"}

# Operators that unpack weights, and shape arithmetic: no layers.
_NO_LAYERS = {"Cast", "Constant", "DequantizeLinear", "Identity", "QuantizeLinear", "Shape"}

_CLIPS = {"Clip", "Relu"}
_ROUNDED_BEFORE_CLIPS = {"Add", "Conv", "ConvTranspose", "Gemm", "MatMul"}


def signals(job: SignalJob) -> tuple[LayerSignal, ...]:
    """Noise of each layer; see :mod:`edgeml.targets.layers`."""
    onnx = sources.framework("onnx")
    path = job.exact.files[0]
    layers = _layers(onnx.load(str(path)).graph)
    names = [layer.name for layer in layers]
    exact = _values(path, names, job.exact.options)
    samples = list(few(job.samples, job.job.inputs))
    first = exact(samples[0])
    shown = [int(np.size(first[name])) if name in first else 0 for name in names]
    return compare(
        _placed(with_origins(layers, shown, job.job), job.job),
        exact,
        _values(job.quantized.files[0], names, job.quantized.options),
        samples,
    )


def named(model: Any) -> Any:
    """The model with a name of its own for each node: that of what it makes."""
    for node in model.graph.node:
        node.name = next((name for name in node.output if name), node.name)
    return model


def nodes_kept(model: Any, path: Path, job: CompileJob) -> list[str]:
    """The nodes that stay float: those of ``mixed``, and spectra in front of the model.

    Args:
        model: the float graph, :func:`named`.
        path: of that graph.
        job: with calibration samples where ``keep_float`` names layers.
    """
    layers = _layers(model.graph)
    kept = before_logarithms(layers, job.spectra)
    if job.keep_float:
        assert job.calibration is not None
        exact = _values(path, [layer.name for layer in layers], {})
        kept += kept_together(job.keep_float, layers, exact, few(job.calibration, job.inputs))
    clipped = _clipped(model.graph)
    return [node for name in kept for node in (name, *clipped.get(name, ()))]


def _layers(graph: Any) -> list[Layer]:
    """The layers in the order in which they run; one that is clipped goes by the clipping's name.

    The quantizer lets a layer round where its clipping ends, and drops the clipping.
    """
    constants = {tensor.name for tensor in graph.initializer}
    clipped = {inner: name for name, (inner,) in _clipped(graph).items()}
    behind: dict[str, tuple[str, ...]] = {}  # what an operator that is no layer reads
    found: list[Layer] = []
    for node in graph.node:
        values = [value for value in node.input if value and value not in constants]
        reads = (name for value in values for name in behind.get(value, (value,)))
        reads = tuple(dict.fromkeys(reads))
        if node.op_type in _NO_LAYERS or not any(node.output):
            behind |= dict.fromkeys(node.output, reads)
            continue
        name = str(next(value for value in node.output if value))
        behind |= dict.fromkeys((value for value in node.output if value != name), (name,))
        if name in clipped.values():
            continue
        found.append(
            Layer(
                name=clipped.get(name, name),
                operator=node.op_type,
                reads=reads,
                channel_axis=1,
                weighted=node.op_type in _WEIGHTED,
            )
        )
    return found


def _clipped(graph: Any) -> dict[str, tuple[str]]:
    """What a clipping makes, to what it clips, where nothing else reads that."""
    readers = Counter(value for node in graph.node for value in node.input)
    readers.update(value.name for value in graph.output)
    makers = {value: node for node in graph.node for value in node.output}
    return {
        node.output[0]: (node.input[0],)
        for node in graph.node
        if node.op_type in _CLIPS
        and readers[node.input[0]] == 1
        and node.input[0] in makers
        and makers[node.input[0]].op_type in _ROUNDED_BEFORE_CLIPS
    }


def _placed(layers: Sequence[Layer], job: CompileJob) -> tuple[Layer, ...]:
    """Module and line where the source is an ONNX graph that torch's exporter wrote them into."""
    if job.source_kind != "onnx":
        return tuple(layers)
    onnx = sources.framework("onnx")
    model = onnx.load(str(job.source), load_external_data=False)
    told = {
        name: {each.key: each.value for each in node.metadata_props}
        for node in model.graph.node
        for name in node.output
    }
    return tuple(
        msgspec.structs.replace(
            layer,
            module=_module(told.get(layer.name, {}).get("pkg.torch.onnx.name_scopes", "")),
            line=users_line(told.get(layer.name, {}).get("pkg.torch.onnx.stack_trace", "")),
        )
        for layer in layers
    )


def _module(scopes: str) -> str:
    """Of ``"['', 'features', 'features.1', 'relu']"``, whose last names the operator."""
    path: list[str] = ast.literal_eval(scopes) if scopes.startswith("[") else []
    return path[-2] if len(path) > 1 else ""


def _values(path: Path, names: Sequence[str], options: dict[str, str]) -> Values:
    file, shown = _showing(path, names)
    inner = {key: value for key, value in options.items() if key.startswith("session.x")}
    session = open_session(file, threads=1, options=inner)
    file.unlink()

    def run(feeds: Feeds) -> dict[str, Array]:
        made = session.run(feeds)
        return {name: made[value] for name, value in shown.items()}

    return run


def _showing(path: Path, names: Sequence[str]) -> tuple[Path, dict[str, str]]:
    """A graph with layers' values as outputs, and which of them shows which layer."""
    onnx = sources.framework("onnx")
    model = onnx.load(str(path))
    graph: Any = onnx.shape_inference.infer_shapes(model).graph
    made = {value for node in graph.node for value in node.output}
    types = {
        each.name: each.type.tensor_type.elem_type
        for each in (*graph.value_info, *graph.output)
        if each.type.HasField("tensor_type") and each.name in made
    }
    have = {value.name for value in graph.output}
    shown: dict[str, str] = {}
    for name in names:
        # What others read of a layer in int8 is its rounded value.
        for value in (f"{name}_DequantizeLinear_Output", name):
            if types.get(value) == onnx.TensorProto.FLOAT:
                shown[name] = value
                break
    for value in dict.fromkeys(shown.values()):
        if value not in have:
            model.graph.output.append(
                onnx.helper.make_tensor_value_info(value, onnx.TensorProto.FLOAT, None)
            )
    file = path.with_name(f"{path.stem}-layers.onnx")
    onnx.save(model, str(file))
    return file, shown
