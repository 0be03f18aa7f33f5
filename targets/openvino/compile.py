"""Makes the precisions of OpenVINO artifacts (IR), with NNCF for all but float."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

from edgeml.errors import RefusedError
from edgeml.targets import sources
from edgeml.targets.compiling import CompileJob, CompileResult
from edgeml.targets.frameworks import absent, threads
from edgeml.targets.openvino.convert import float_model
from edgeml.targets.openvino.layers import WEIGHTED, name_operations, operations_kept
from edgeml.targets.openvino.mend import widen
from edgeml.targets.openvino.reports import withhold
from edgeml.targets.registry import CALIBRATED, SourceKind

# The session option for the activations that share a range in a product with packed weights.
_RANGES = "DYNAMIC_QUANTIZATION_GROUP_SIZE"

# NNCF and OpenVINO's converter import other frameworks, where they can, to see whether the model is
# one of theirs: a third of a second of a core for ONNX and for NNCF's part for torch.
_UNNEEDED: Mapping[SourceKind, tuple[str, ...]] = {
    "torch": ("onnx", "nncf.torch"),
    "savedmodel": ("onnx", "torch"),
}

_GROUP = 32
"""Weights that share a scale in four bits."""

# MobileNetV2 has 53 of them and takes 60 samples in a minute and a half, against ten seconds.
_BIAS_CORRECTED_LAYERS = 32


def compile(job: CompileJob) -> CompileResult:  # noqa: A001 - the name that all targets share
    """Makes one IR: an ``.xml`` and its ``.bin``."""
    withhold()
    ov = sources.framework("openvino")
    with absent(*_UNNEEDED.get(job.source_kind, ("torch",))):
        return _made(ov, job)


def _made(ov: Any, job: CompileJob) -> CompileResult:
    exact: Any = float_model(job)
    name_operations(exact)
    model: Any = exact.clone()
    count = 0
    options: dict[str, str] = {}
    if job.precision in CALIBRATED:
        count = sources.sample_count(job)
        model = _static(model, job, count)
        widen(model)
    elif job.precision not in {"fp32", "fp16"}:
        model = _weights(model, job)
        options[_RANGES] = "32" if job.precision == "int8-dynamic" else "0"
    name_operations(model)  # those that the quantizer put in
    entry = job.workdir / f"model-{job.precision}.xml"
    ov.save_model(model, str(entry), compress_to_fp16=job.precision == "fp16")
    _tighten(entry)
    return CompileResult(
        files=(entry, entry.with_suffix(".bin")),
        inputs={name: name for name in job.inputs},
        outputs={name: name for name in job.outputs},
        options=options,
        calibration_samples=count,
    )


def _tighten(xml: Path) -> None:
    """Drops the blanks between tags: a sixth of the .xml, which is most of a small model.

    No ``<`` stands in XML but in front of a tag, so nothing else can be hit.
    """
    xml.write_bytes(re.sub(rb">\s+<", b"><", xml.read_bytes()))


def _weights(model: Any, job: CompileJob) -> Any:
    """Weights in fewer bits, symmetric, which need no samples.

    OpenVINO unpacks those of convolutions when the model is loaded, and multiplies matrices from
    the packed ones. There it takes ranges of activations while it runs, in groups of 32, unless
    told not to; ``int8-dynamic`` asks for it. Cosine to the float model and p50 ms of three layers
    of 512 to 640 neurons: float 1, .365; 8 bits .99998, .245; dynamic .99995, .225; 4 bits .994,
    .23. Zero points (INT8_ASYM) cost 15 kB of .xml in ResNet-8 and brought nothing.

    Raises:
        RefusedError: the model has no matrix product with fixed weights, and the precision is
            about those.
    """
    tools = sources.framework("nncf")
    precision = job.precision
    scope = _ignored(tools, operations_kept(model, job))
    products = [operation for operation in model.get_ops() if _multiplies(operation)]
    if precision != "int8-weights" and not products:
        raise RefusedError(
            f"{precision} has nothing to do in this model: OpenVINO has it for matrix products "
            "with fixed weights only, and the model has none",
            remedy="Ask for int8, with calibration data, or for int8-weights.",
        )
    if precision != "int4-weights":
        return tools.compress_weights(
            model, mode=tools.CompressWeightsMode.INT8_SYM, ignored_scope=scope
        )
    return tools.compress_weights(
        model,
        mode=tools.CompressWeightsMode.INT4_SYM,
        ignored_scope=scope,
        group_size=_GROUP,
        all_layers=True,
        backup_mode=tools.BackupMode.INT8_SYM,
        advanced_parameters=tools.AdvancedCompressionParameters(
            # Where the inputs of a layer are no multiple: the next smaller power of two, else one
            # scale for all of them.
            group_size_fallback_mode=tools.GroupSizeFallbackMode.ADJUST,
            min_adjusted_group_size=8,
        ),
    )


def _ignored(tools: Any, names: list[str]) -> Any:
    return tools.IgnoredScope(names=names, validate=False) if names else None


def _multiplies(operation: Any) -> bool:
    inputs = operation.inputs()
    return operation.get_type_name() == "MatMul" and any(
        value.get_source_output().get_node().get_type_name() == "Constant" for value in inputs
    )


def _static(model: Any, job: CompileJob, count: int) -> Any:
    """Weights per channel and activations per tensor in int8, by NNCF.

    NNCF's stock settings (fast bias correction, ranges as means over samples) cost most of what
    int8 costs here. Cosine to the float model and agreement of its decision, 100 samples, for the
    stock settings, then with ranges as plain minimum and maximum and no bias correction, then with
    the accurate bias correction as well: ResNet-8 .955/.83, .992/.95, .996/.93; a digits
    classifier .963/.98, .9997/1, .99996/1; DS-CNN .9986/.99, .9990/1, .9993/1. The accurate one
    runs the model once for each layer and sample, so it is left to models of few layers.
    """
    tools = sources.framework("nncf")
    estimators = sources.framework("nncf.quantization.range_estimator")
    layers = sum(op.get_type_name() in WEIGHTED for op in model.get_ops())
    scope = _ignored(tools, operations_kept(model, job))
    with _on_few_threads(sources.framework("openvino")):
        return tools.quantize(
            model,
            tools.Dataset(list(sources.samples(job))),
            preset=tools.QuantizationPreset.MIXED,
            subset_size=count,
            fast_bias_correction=False,
            ignored_scope=scope,
            advanced_parameters=tools.AdvancedQuantizationParameters(
                activations_range_estimator_params=estimators.RangeEstimatorParametersSet.MINMAX,
                disable_bias_correction=layers > _BIAS_CORRECTED_LAYERS,
            ),
        )


@contextlib.contextmanager
def _on_few_threads(ov: Any) -> Generator[None]:
    """While the block lasts, a new ``openvino.Core`` computes on half of the cores.

    NNCF makes its own, which would take all of them, while the source model runs on another. The
    artifact is the same; MobileNetV2's int8 takes a tenth less of a core.
    """
    usual = ov.Core

    def modest() -> Any:
        core = usual()
        core.set_property("CPU", {"INFERENCE_NUM_THREADS": threads()})
        return core

    ov.Core = modest
    try:
        yield
    finally:
        ov.Core = usual
