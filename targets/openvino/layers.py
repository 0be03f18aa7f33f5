"""The layers of OpenVINO artifacts: their names, what they compute, and the noise that int8 adds.

A layer is an operation of the model, under its friendly name. Both artifacts run on the CPU with
those values as further outputs.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeml.targets import sources
from edgeml.targets.compiling import CompileJob
from edgeml.targets.fronts import before_logarithms
from edgeml.targets.layers import LayerSignal, SignalJob
from edgeml.targets.origins import with_origins
from edgeml.targets.runtime import Array
from edgeml.targets.signals import Feeds, Layer, Values, compare, few, kept_together

WEIGHTED = {"Convolution", "GroupConvolution", "ConvolutionBackpropData", "MatMul", "Gather"}

# What feeds, ends or rounds: no layers.
_NO_LAYERS = {"Constant", "Convert", "FakeQuantize", "Parameter", "Result", "ShapeOf"}

# OpenVINO computes these in one kernel with the layer before, and NNCF rounds behind them all.
_FUSED = {"Add", "Clamp", "Elu", "HSwish", "Multiply", "PRelu", "Relu", "Sigmoid", "Swish", "Tanh"}

# How OpenVINO names what its converter left unnamed; the number counts up within the process.
_COUNTED = re.compile(r"[A-Za-z]+\d*_\d+")


def signals(job: SignalJob) -> tuple[LayerSignal, ...]:
    """Noise of each layer; see :mod:`edgeml.targets.layers`."""
    core: Any = sources.framework("openvino").Core()
    exact, quantized = (core.read_model(str(made.files[0])) for made in (job.exact, job.quantized))
    layers, sizes = _layers(exact)
    names = [layer.name for layer in layers]
    return compare(
        with_origins(layers, sizes, job.job),
        _values(core, exact, names, job.exact.inputs, job.exact.options),
        _values(core, quantized, names, job.quantized.inputs, job.quantized.options),
        few(job.samples, job.job.inputs),
    )


def name_operations(model: Any) -> None:
    """Gives operations without a name of the model's own one that is the same in every process."""
    operations: list[Any] = list(model.get_ordered_ops())
    taken = {str(operation.get_friendly_name()) for operation in operations}
    counts = Counter[str]()
    for operation in operations:
        if _COUNTED.fullmatch(operation.get_friendly_name()):
            kind = str(operation.get_type_name())
            counts[kind] += 1
            while f"{kind}.{counts[kind]}" in taken:
                counts[kind] += 1
            operation.set_friendly_name(f"{kind}.{counts[kind]}")


def operations_kept(model: Any, job: CompileJob) -> list[str]:
    """The operations that stay float.

    Args:
        model: the float model, named.
        job: with ``keep_float`` and calibration samples.
    """
    layers, _ = _layers(model)
    kept = before_logarithms(layers, job.spectra)
    if job.keep_float:
        assert job.calibration is not None
        core: Any = sources.framework("openvino").Core()
        inputs = {name: name for name in job.inputs}
        exact = _values(core, model.clone(), [layer.name for layer in layers], inputs, {})
        kept += kept_together(job.keep_float, layers, exact, few(job.calibration, job.inputs))
    group = _groups(layers)
    whole = {group[name] for name in kept}
    return [layer.name for layer in layers if group[layer.name] in whole]


def _groups(layers: Sequence[Layer]) -> dict[str, str]:
    """Each layer's first of those that are computed in one kernel with it."""
    readers = Counter(name for layer in layers for name in layer.reads)
    group: dict[str, str] = {}
    for layer in layers:
        alone = len(layer.reads) == 1 and readers[layer.reads[0]] == 1
        fused = alone and layer.operator in _FUSED
        group[layer.name] = group[layer.reads[0]] if fused else layer.name
    return group


def _layers(model: Any) -> tuple[list[Layer], list[int]]:
    """The layers in the order in which they run, and how many numbers each makes."""
    behind: dict[str, tuple[str, ...]] = {}  # what an operation that is no layer reads
    ends: set[str] = set()
    found: list[Layer] = []
    sizes: list[int] = []
    for operation in model.get_ordered_ops():
        name = str(operation.get_friendly_name())
        read: list[str] = [
            str(value.get_source_output().get_node().get_friendly_name())
            for value in operation.inputs()
        ]
        reads = tuple(dict.fromkeys(each for value in read for each in behind[value]))
        kind = str(operation.get_type_name())
        if kind == "Parameter":
            behind[name] = (name,)
            ends.add(name)
            continue
        if kind in _NO_LAYERS or not reads:  # or it is computed from constants alone
            behind[name] = reads
            continue
        behind[name] = (name,)
        shape = operation.get_output_partial_shape(0)
        sizes.append(math.prod(map(int, shape.to_shape())) if shape.is_static else 0)
        found.append(
            Layer(
                name=name,
                operator=kind,
                reads=tuple(each for each in reads if each not in ends),
                channel_axis=1,
                weighted=kind in WEIGHTED,
            )
        )
    return found, sizes


def _values(
    core: Any,
    model: Any,
    names: Sequence[str],
    inputs: dict[str, str],
    options: dict[str, str],
) -> Values:
    wanted = set(names)
    ports: dict[str, Any] = {}
    for operation in model.get_ordered_ops():
        name = str(operation.get_friendly_name())
        if name not in wanted or str(operation.get_output_element_type(0).get_type_name()) != "f32":
            continue
        port = operation.output(0)
        rounded = (each.get_node() for each in port.get_target_inputs())
        # What others read of a layer in int8 is its rounded value.
        shown = next((each for each in rounded if each.get_type_name() == "FakeQuantize"), None)
        ports[name] = port if shown is None else shown.output(0)
    if ports:
        model.add_outputs(list(ports.values()))
    # A value that was an output before is not added again.
    where = {
        (source.get_node().get_friendly_name(), source.get_index()): index
        for index, source in enumerate(output.get_node().input_value(0) for output in model.outputs)
    }
    shows = {
        name: where[port.get_node().get_friendly_name(), port.get_index()]
        for name, port in ports.items()
    }
    request = core.compile_model(
        model, "CPU", {"INFERENCE_NUM_THREADS": "1", "INFERENCE_PRECISION_HINT": "f32", **options}
    ).create_infer_request()

    def run(feeds: Feeds) -> dict[str, Array]:
        made = request.infer({inputs[name]: array for name, array in feeds.items()})
        return {name: np.array(made[index]) for name, index in shows.items()}

    return run
