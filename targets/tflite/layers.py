"""The layers of LiteRT artifacts: their names, what they compute, and the noise that int8 adds.

Both artifacts run on LiteRT's own kernels with every tensor kept; XNNPACK shows only its ends.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edgeml.targets import sources
from edgeml.targets.compiling import CompileJob
from edgeml.targets.fronts import before_logarithms
from edgeml.targets.layers import LayerSignal, SignalJob
from edgeml.targets.origins import with_origins
from edgeml.targets.runtime import Array
from edgeml.targets.signals import Feeds, Layer, Values, compare, few, kept_together

_WEIGHTED = {
    "CONV_2D",
    "DEPTHWISE_CONV_2D",
    "TRANSPOSE_CONV",
    "FULLY_CONNECTED",
    "BATCH_MATMUL",
    "EMBEDDING_LOOKUP",
}

# Parts of the names that TensorFlow's converter gives to a fused layer: the one of its weights.
_OF_WEIGHTS = re.compile(r"convolution|depthwise|MatMul|BiasAdd", re.IGNORECASE)


class _Operator(msgspec.Struct, frozen=True):
    layer: Layer
    tensor: str
    outputs: tuple[str, ...]
    size: int


def signals(job: SignalJob) -> tuple[LayerSignal, ...]:
    """Noise of each layer; see :mod:`edgeml.targets.layers`."""
    path = job.exact.files[0]
    operators = _operators(path)
    layers = with_origins([op.layer for op in operators], [op.size for op in operators], job.job)
    return compare(
        layers,
        _values(path, operators, job.exact.inputs),
        _values(job.quantized.files[0], operators, job.quantized.inputs),
        few(job.samples, job.job.inputs),
    )


def scopes_kept(path: Path, inputs: dict[str, str], job: CompileJob) -> tuple[str, ...]:
    """Patterns, one an operator, for what stays float; as the quantizer matches them.

    Args:
        path: of the float model.
        inputs: the source's names of its inputs to those of its signature.
        job: with ``keep_float`` and calibration samples.
    """
    if not job.keep_float and not job.spectra:
        return ()
    operators = _operators(path)
    layers = [op.layer for op in operators]
    kept = before_logarithms(layers, job.spectra)
    if job.keep_float:
        assert job.calibration is not None
        values = _values(path, operators, inputs)
        kept += kept_together(job.keep_float, layers, values, few(job.calibration, job.inputs))
    # A scope is the names of all that an operator makes, each with a semicolon behind it.
    by_name = {op.layer.name: "".join(f"{name};" for name in op.outputs) for op in operators}
    return tuple(f"^{re.escape(by_name[name])}$" for name in dict.fromkeys(kept))


def _operators(path: Path) -> list[_Operator]:
    interpreter = _interpreter(path)
    details: dict[int, Any] = {each["index"]: each for each in interpreter.get_tensor_details()}
    every: list[dict[str, Any]] = interpreter._get_ops_details()  # noqa: SLF001 - no other way
    ops = [op for op in every if len(op["outputs"])]
    tensors = [str(details[int(op["outputs"][0])]["name"]) for op in ops]
    labels = _labels(tensors, [str(op["op_name"]) for op in ops])
    made: dict[int, str] = {}
    found: list[_Operator] = []
    for op, tensor, label in zip(ops, tensors, labels, strict=True):
        outputs = [int(index) for index in op["outputs"]]
        kind = str(op["op_name"])
        reads = dict.fromkeys(made[int(i)] for i in op["inputs"] if int(i) in made)
        layer = Layer(
            name=label,
            operator=kind,
            reads=tuple(reads),
            module=_keras_layer(tensor),
            weighted=kind in _WEIGHTED,
        )
        names = tuple(str(details[index]["name"]) for index in outputs)
        size = math.prod(map(int, details[outputs[0]]["shape"]))
        found.append(_Operator(layer, tensor, names, size))
        made |= dict.fromkeys(outputs, label)
    return found


def _labels(tensors: Sequence[str], kinds: Sequence[str]) -> list[str]:
    """A short name for each operator that stays the same as long as the float model does.

    TensorFlow's names say where a layer comes from; litert-torch's name nothing but a wrapper.
    """
    short = [tensor.partition(";")[0] for tensor in tensors]
    seen = Counter(short)
    return [
        name if seen[name] == 1 and "<locals>" not in name else f"{kind.lower()}_{index}"
        for index, (name, kind) in enumerate(zip(short, kinds, strict=True))
    ]


def _keras_layer(tensor: str) -> str:
    parts = [part for part in tensor.split(";") if _OF_WEIGHTS.search(part) and "/" in part]
    return parts[0].rpartition("/")[0] if parts else ""


def _values(path: Path, operators: Sequence[_Operator], inputs: dict[str, str]) -> Values:
    interpreter = _interpreter(path)
    signature: Any = interpreter.get_signature_runner()
    where = {name: int(each["index"]) for name, each in signature.get_input_details().items()}
    by_name: dict[str, Any] = {}
    for each in interpreter.get_tensor_details():
        # Beside a tensor of integers may stand its float copy under the same name.
        if each["name"] not in by_name or each["quantization_parameters"]["scales"].size:
            by_name[each["name"]] = each
    shown = {op.layer.name: by_name[op.tensor] for op in operators if op.tensor in by_name}

    def run(feeds: Feeds) -> dict[str, Array]:
        for name, array in feeds.items():
            interpreter.set_tensor(where[inputs[name]], array)
        interpreter.invoke()
        arrays = {name: _plain(interpreter, each) for name, each in shown.items()}
        return {name: array for name, array in arrays.items() if array.dtype.kind == "f"}

    return run


def _plain(interpreter: Any, detail: dict[str, Any]) -> Array:
    array: Array = interpreter.get_tensor(detail["index"])
    parameters = detail["quantization_parameters"]
    if array.dtype.kind == "f" or not parameters["scales"].size:
        return array
    return (array.astype(np.float32) - parameters["zero_points"][0]) * parameters["scales"][0]


def _interpreter(path: Path) -> Any:
    module = sources.framework("ai_edge_litert.interpreter")
    interpreter = module.Interpreter(
        model_path=str(path),
        num_threads=1,
        experimental_op_resolver_type=module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    return interpreter
