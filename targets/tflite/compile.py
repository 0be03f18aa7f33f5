"""Makes the precisions of LiteRT artifacts with ai-edge-quantizer.

Every precision is cut from one float32 conversion, which convert.py makes. Inputs and outputs stay
as the source has them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgeml.targets import sources
from edgeml.targets.compiling import CompileJob, CompileResult
from edgeml.targets.tflite.convert import Float, float_model
from edgeml.targets.tflite.layers import scopes_kept

# Those whose ranges are measured on samples.
_STATIC = {"int8", "int16x8", "mixed"}

# By the quantizer's names for operators: the operands that are input, weights and bias.
_BIASED = {
    "CONV_2D": (0, 1, 2),
    "DEPTHWISE_CONV_2D": (0, 1, 2),
    "FULLY_CONNECTED": (0, 1, 2),
    "CONV_2D_TRANSPOSE": (2, 1, 3),
}

# Half of int32: the products are added to the bias in 32 bits.
_LARGEST_BIAS = 2**30

# The quantizer takes smaller ranges of activations for this one.
_LEAST_RANGE = 1e-9


def compile(job: CompileJob) -> CompileResult:  # noqa: A001 - the name that all targets share
    """Makes one ``.tflite``."""
    model = float_model(job)
    entry = job.workdir / f"model-{job.precision}.tflite"
    count = 0
    if job.precision == "fp32":
        entry.write_bytes(model.path.read_bytes())
    elif job.precision in _STATIC:
        entry.write_bytes(_static(model, job))
        count = sources.sample_count(job)
    else:
        entry.write_bytes(_weights(model, job))
    return CompileResult(
        files=(entry,), inputs=model.inputs, outputs=model.outputs, calibration_samples=count
    )


def _weights(model: Float, job: CompileJob) -> bytes:
    """The precisions that change weights alone, and need no samples.

    In ``int8-dynamic`` the runtime quantizes activations, one range a call; in the others it
    unpacks the weights when it starts and computes in float32. Weights of 4 bits, which XNNPACK
    leaves to LiteRT's own kernels, are no bargain (p50 ms, beside weights of 8 bits: ResNet-8 1.9,
    .36; DS-CNN .34, .07), and nets this small lose much (cosine to the float model: ResNet-8 .53,
    DS-CNN .991, a digits classifier .997). Clipped by OCTAV ResNet-8 comes to .65, the other two to
    .982 and .996; by MSE all three are lower.
    """
    qtyping = sources.framework("ai_edge_quantizer.qtyping")
    quantizer = sources.framework("ai_edge_quantizer.quantizer")

    every = qtyping.TFLOperationName.ALL_SUPPORTED
    maker: Any = quantizer.Quantizer(str(model.path))
    if job.precision == "fp16":
        maker.update_quantization_recipe(
            regex=".*",
            operation_name=every,
            op_config=qtyping.OpQuantizationConfig(
                weight_tensor_config=qtyping.TensorQuantizationConfig(
                    num_bits=16, dtype=qtyping.TensorDataType.FLOAT
                ),
                compute_precision=qtyping.ComputePrecision.FLOAT,
                explicit_dequantize=True,
            ),
            algorithm_key="float_casting",
        )
    elif job.precision == "int8-dynamic":
        maker.add_dynamic_config(regex=".*", operation_name=every, num_bits=8)
    else:
        maker.add_weight_only_config(regex=".*", operation_name=every, num_bits=8)
        if job.precision == "int4-weights":
            # The last pattern that an operator can follow counts: LiteRT has no depthwise or
            # transposed convolution with weights of 4 bits.
            maker.add_weight_only_config(regex="", operation_name=every, num_bits=4)
    _keep(maker, model, job)
    return bytes(maker.quantize(enable_progress_report=False).quantized_model)


def _keep(maker: Any, model: Float, job: CompileJob) -> None:
    """Has the quantizer leave alone what stays float."""
    qtyping = sources.framework("ai_edge_quantizer.qtyping")
    for scope in scopes_kept(model.path, model.inputs, job):
        maker.update_quantization_recipe(
            regex=scope,
            operation_name=qtyping.TFLOperationName.ALL_SUPPORTED,
            algorithm_key="no_quantize",
        )


def _static(model: Float, job: CompileJob) -> bytes:
    """Weights per channel in int8, activations per tensor in int8 or int16, calibrated.

    The quantizer's own ``calibrate`` smooths each tensor's range with a moving average of weight
    .95, which forgets extremes and clips them ever after. The plain minimum and maximum, measured
    on trained models with 100 samples (cosine to the float model; agreement of the decision):
    ResNet-8 .962 to .989, .87 to .91; DS-CNN .9976 to .9987; a digits classifier .9962 to .9998.
    That equals what TensorFlow's own int8 converter makes of the same SavedModels (ResNet-8 .989,
    DS-CNN .9990), so one quantizer serves both sources. Weights clipped by OCTAV or MSE were not
    better beyond noise.
    """
    calibrator = sources.framework("ai_edge_quantizer.calibrator")
    qtyping = sources.framework("ai_edge_quantizer.qtyping")
    quantizer = sources.framework("ai_edge_quantizer.quantizer")
    recipe_manager = sources.framework("ai_edge_quantizer.recipe_manager")
    qsv_utils = sources.framework("ai_edge_quantizer.utils.qsv_utils")

    wide = job.precision == "int16x8"
    maker: Any = quantizer.Quantizer(str(model.path))
    maker.add_static_config(
        regex=".*",
        operation_name=qtyping.TFLOperationName.ALL_SUPPORTED,
        activation_num_bits=16 if wide else 8,
        weight_num_bits=8,
    )
    for end in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
        maker.update_quantization_recipe(
            regex=".*", operation_name=end, algorithm_key="no_quantize"
        )
    _keep(maker, model, job)
    recipes: Any = recipe_manager.RecipeManager()
    recipes.load_quantization_recipe(maker.get_quantization_recipe())
    ranges: Any = calibrator.Calibrator(
        memoryview(model.path.read_bytes()),
        num_threads=1,
        qsv_update_func=qsv_utils.min_max_update,
    )
    # A list, since the calibrator goes through them once more to count them.
    feeds = [
        {model.inputs[name]: array for name, array in sample.items()}
        for sample in sources.samples(job)
    ]
    ranges.calibrate({_signature(model.path): feeds}, recipes)
    statistics: dict[str, Any] = ranges.get_model_qsvs()
    if not wide:  # whose biases have 64 bits
        _make_room_for_biases(model.path, statistics)
    made = maker.quantize(statistics, enable_progress_report=False)
    return bytes(made.quantized_model)


def _make_room_for_biases(path: Path, ranges: dict[str, Any]) -> None:
    """Widens the ranges of weights where a channel's bias would not fit into int32.

    A bias is stored in steps of its input's step times its channel's weight step. Where weights or
    input are next to nothing (dead channels with a folded batch norm; everything in an untrained
    MobileNet) the quantizer clips it in silence: with weights of 0, at some 1e-4. Coarser weights
    cost such a channel nothing, since it computes its bias. TensorFlow's and ONNX Runtime's
    quantizers do the same. MobileNetV2 at 96, 20 photos, cosine to the float model: 0.5 wide with
    a tenth of its depthwise channels dead .801 to .973; 1.0 untrained, with a head whose input is
    1e-7 and whose bias is .03, -.002 to .99999. Models whose biases fit are left as they are.

    Args:
        path: of the float model.
        ranges: ``min`` and ``max`` of activations by tensor name; those of the weights concerned
            are added, one a channel. Where there are none the quantizer takes the weights' own.
    """
    utils = sources.framework("ai_edge_quantizer.utils.tfl_flatbuffer_utils")

    model: Any = utils.read_model(str(path))
    for graph in model.subgraphs:
        for op in graph.operators:
            code = model.operatorCodes[op.opcodeIndex].builtinCode
            operator = utils.TFL_OP_CODE_TO_NAME.get(code)
            if operator not in _BIASED:
                continue
            feed, weight, bias, _ = utils.parse_fc_bmm_conv_tensors(
                op, graph.tensors, *_BIASED[operator]
            )
            inside = ranges.get(utils.get_tensor_name(feed), {})
            weights = utils.get_tensor_data(weight, model.buffers)
            biases = None if bias is None else utils.get_tensor_data(bias, model.buffers)
            if weights is None or biases is None or "max" not in inside:
                continue
            low, high = np.minimum(inside["min"], 0), np.maximum(inside["max"], 0)
            step = max(float(np.max(high - low)), _LEAST_RANGE) / 255
            needed = 127 * np.abs(biases.astype(np.float64)) / (_LARGEST_BIAS * step)
            axis = utils.TFL_OP_TO_WEIGHT_QUANTIZED_DIM[operator]
            others = tuple(other for other in range(weights.ndim) if other != axis)
            largest = np.abs(weights).max(axis=others, keepdims=True)
            name = utils.get_tensor_name(weight)
            if name in ranges:  # two operators may share weights
                largest = np.maximum(largest, ranges[name]["max"])
            if needed.size == largest.size and (needed.reshape(largest.shape) > largest).any():
                bound = np.maximum(needed.reshape(largest.shape), largest).astype(np.float32)
                ranges[name] = {"min": -bound, "max": bound}


def _signature(path: Path) -> str:
    interpreter = sources.framework("ai_edge_litert.interpreter").Interpreter(model_path=str(path))
    signatures: Any = interpreter.get_signature_list()
    return str(next(iter(signatures)))
