"""Makes ONNX artifacts for ONNX Runtime on the CPU, and the graphs of the NVIDIA targets.

The float graph comes from convert.py and prepare.py, weights in fewer bits from weights.py. Inputs
and outputs stay as the source has them; int8 is QDQ, per channel, from ONNX Runtime's static
quantizer.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from edgeml.errors import EdgemlError, RefusedError
from edgeml.targets import sources
from edgeml.targets.compiling import CompileJob, CompileResult
from edgeml.targets.onnx.convert import float_model
from edgeml.targets.onnx.layers import named, nodes_kept
from edgeml.targets.onnx.prepare import prepared
from edgeml.targets.onnx.ranges import found_ranges
from edgeml.targets.onnx.runtime import open_session
from edgeml.targets.onnx.weights import OPTIONS, packed
from edgeml.targets.registry import CALIBRATED

# Read by every ONNX Runtime since 1.18.
_IR_VERSION = 10

# How ONNX Runtime says that it has no kernel, or has never heard of an operator.
_MISSING = (
    r"Could not find an implementation for (\w+)\(\d+\)",
    r"([\w.:]+)\(-1\) is not a registered function/op",
)

# Residual sums have a wider range than their terms: with Add quantized, ResNet-8 fell from cosine
# .995 to .989 and agreement .93 to .92 (symmetric: .989 to .964, .92 to .84), and was no faster.
# Softmax and Sigmoid end in [0, 1] however wide they begin, and TensorRT wants Softmax in float.
_FLOAT = {"Add", "Mul", "Sigmoid", "Softmax"}


def compile(job: CompileJob) -> CompileResult:  # noqa: A001 - the name that all targets share
    """Makes one ``.onnx`` for the CPU.

    int8 has unsigned activations and signed weights (U8S8). Signed activations gave the same
    accuracy and were slower on x86 with VNNI (ms, best of 300: ResNet-8 .60 for .31, MobileNetV2
    15.5 for 9.6; DS-CNN the same). U8S8 saturates on x86 without VNNI, for which the runtime
    chooses exact kernels (see there). Halving the weights' range (``reduce_range``) instead would
    cost every device a bit of every weight: ResNet-8 cosine .983 for .995, agreement .91 for .93.
    """
    return compile_graph(job)


def compile_graph(job: CompileJob, *, symmetric: bool = False) -> CompileResult:
    """Makes one ``.onnx``.

    Args:
        job: the job.
        symmetric: for TensorRT and CUDA: activations symmetric as well as weights, so that every
            zero point is 0, and biases left in float; and arithmetic in float16 for fp16, where a
            CPU, which has none, gets float16 weights that it unpacks when it starts (p50 ms in
            float16 and so: ResNet-8 .36, .28; DS-CNN .18, .09; MobileNetV2 22, 12).

    Raises:
        RefusedError: ONNX Runtime lacks an operator, or the graph has nothing that the precision
            is about.
    """
    onnx = sources.framework("onnx")

    source = float_model(job, plain=symmetric)
    path = prepared(source)
    entry = job.workdir / f"model-{job.precision}.onnx"
    count = 0
    options: dict[str, str] = {}
    if job.precision in CALIBRATED:
        count = sources.sample_count(job)
        _static(path, entry, job, symmetric=symmetric)
    elif job.precision == "int8-dynamic":
        _dynamic(path, entry, job)
    elif job.precision == "fp16" and symmetric:
        _half(path, entry, job)
    else:
        model = onnx.load(str(path))
        if job.precision != "fp32":
            model = packed(named(model), job.precision, keep=nodes_kept(model, path, job))
        onnx.save(model, str(entry))
        options = OPTIONS if job.precision in {"int8-weights", "int4-weights"} else {}
    model = onnx.load(str(entry))
    model.ir_version = min(model.ir_version, _IR_VERSION)
    del model.graph.value_info[:]  # the quantizer leaves shapes of values that are gone
    onnx.checker.check_model(model)
    onnx.save(model, str(entry))
    _check(entry, source, options)
    return CompileResult(
        files=(entry,),
        inputs={name: name for name in job.inputs},
        outputs={name: name for name in job.outputs},
        options=options,
        calibration_samples=count,
    )


def _check(entry: Path, path: Path, options: dict[str, str]) -> None:
    """Opens the graph on the CPU, so that an operator that ONNX Runtime lacks shows here."""
    try:
        open_session(entry, threads=1, options=options).close()
    except EdgemlError as error:
        for pattern in _MISSING:
            found = re.search(pattern, error.found)
            if found is not None:
                operator = found.group(1)
                place = sources.locate_onnx(path, operator.rpartition(":")[2])
                sources.refuse_operator("ONNX Runtime", operator, place, error)
        raise


def _half(path: Path, entry: Path, job: CompileJob) -> None:
    """float16 weights and arithmetic, with float32 at the inputs and outputs."""
    onnx = sources.framework("onnx")
    float16 = sources.framework("onnxruntime.transformers.float16")

    model = named(onnx.load(str(path)))
    half = float16.convert_float_to_float16(
        model, keep_io_types=True, node_block_list=nodes_kept(model, path, job)
    )
    graph = sources.framework("onnxruntime.transformers.onnx_model").OnnxModel(half)
    graph.topological_sort()  # its casts stand at the end of the list of nodes
    onnx.save(graph.model, str(entry))


def _static(path: Path, entry: Path, job: CompileJob, *, symmetric: bool) -> None:
    onnx = sources.framework("onnx")
    tools = sources.framework("onnxruntime.quantization")
    options: dict[str, Any] = {"WeightSymmetric": True, "ActivationSymmetric": symmetric}
    if symmetric:
        # TensorRT takes pre-quantized weights behind a DequantizeLinear, but no int32 biases.
        options |= {"QuantizeBias": False, "DedicatedQDQPair": True}
    model = named(onnx.load(str(path)))
    types = _quantizable(model, tools)
    reader = _reader(tools.CalibrationDataReader, job)
    tools.quantize_static(
        model,
        str(entry),
        calibration_cache_path=found_ranges(model, types, reader, job.workdir / "ranges"),
        quant_format=tools.QuantFormat.QDQ,
        per_channel=True,
        activation_type=tools.QuantType.QInt8 if symmetric else tools.QuantType.QUInt8,
        weight_type=tools.QuantType.QInt8,
        calibrate_method=tools.CalibrationMethod.MinMax,
        op_types_to_quantize=types,
        nodes_to_exclude=nodes_kept(model, path, job),
        extra_options=options,
    )


def _dynamic(path: Path, entry: Path, job: CompileJob) -> None:
    """Matrix products in int8, with the range of what goes into them taken on every run.

    Convolutions stay float: ONNX Runtime's dynamic one (ConvInteger) took 15 to 25 times as long
    (p50 ms: ResNet-8 4.2 for .28, DS-CNN 2.1 for .09).
    """
    onnx = sources.framework("onnx")
    tools = sources.framework("onnxruntime.quantization")
    model = onnx.load(str(path))
    constants = {tensor.name for tensor in model.graph.initializer}
    if not any(
        node.op_type in {"MatMul", "Gemm"} and node.input[1] in constants
        for node in model.graph.node
    ):
        raise RefusedError(
            "int8-dynamic has nothing to do in this model: ONNX Runtime's is quick for matrix "
            "products with fixed weights only, and the model has none",
            remedy="Ask for int8, with calibration data, or for int8-weights.",
        )
    model = named(model)
    tools.quantize_dynamic(
        model,
        str(entry),
        op_types_to_quantize=["MatMul"],  # which every Gemm becomes first
        nodes_to_exclude=nodes_kept(model, path, job),
        per_channel=True,
        weight_type=tools.QuantType.QInt8,
    )


def _quantizable(model: Any, tools: Any) -> list[str]:
    """The operator types of the graph that are quantized: all that can be but :data:`_FLOAT`."""
    known: list[str] = [*tools.registry.QDQRegistry, *tools.registry.QLinearOpsRegistry]
    present = {node.op_type for node in model.graph.node}
    return sorted((set(known) & present) - _FLOAT)


def _reader(base: Any, job: CompileJob) -> Any:
    """Hands the samples to the calibrator one at a time; ranges are kept, tensors are not."""
    left = sources.samples(job)

    class Reader(base):
        def get_next(self) -> Any:
            return next(left, None)

    return Reader()
