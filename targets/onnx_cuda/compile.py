"""Makes ONNX artifacts for ONNX Runtime's CUDA provider: symmetric graphs, as for TensorRT."""

from __future__ import annotations

from edgeml.targets.compiling import CompileJob, CompileResult
from edgeml.targets.onnx.compile import compile_graph


def compile(job: CompileJob) -> CompileResult:  # noqa: A001 - the name that all targets share
    """Makes one ``.onnx``; int8 is the same graph as TensorRT's, so that either can run it."""
    return compile_graph(job, symmetric=True)
