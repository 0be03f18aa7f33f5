"""Makes ONNX artifacts for ONNX Runtime's TensorRT provider, which builds its engine on the device.

Precision stands in the graph: symmetric QDQ for int8 and float16 tensors with casts for fp16.
TensorRT 11 no longer has calibrators, and what stands in the graph serves 10 and 11 alike.
"""

from __future__ import annotations

import msgspec

from edgeml.targets.compiling import CompileJob, CompileResult
from edgeml.targets.onnx.compile import compile_graph

# TensorRT 10 takes a tactic of lower precision only where the builder is allowed to; 11 goes by
# the graph and ignores these.
_BUILDER = {
    "fp32": {},
    "fp16": {"trt_fp16_enable": "1"},
    "int8": {"trt_int8_enable": "1", "trt_fp16_enable": "1"},
    "mixed": {"trt_int8_enable": "1"},  # what stays float does so for want of precision
}


def compile(job: CompileJob) -> CompileResult:  # noqa: A001 - the name that all targets share
    """Makes one ``.onnx``. Shapes are fixed, so the provider needs no optimization profiles."""
    result = compile_graph(job, symmetric=True)
    return msgspec.structs.replace(result, options=dict(_BUILDER[job.precision]))
