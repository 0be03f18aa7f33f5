"""Runs ONNX artifacts on ONNX Runtime's CUDA provider, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from edgeml.errors import RefusedError, SourceError
from edgeml.targets.onnx import runtime as onnx
from edgeml.targets.onnx.runtime import open_with
from edgeml.targets.onnx_cuda.captured import CapturedSession
from edgeml.targets.runtime import Session

_PREFIX = "cuda_"

# TF32 rounds what goes into a product to 10 bits of mantissa. Proven was float32: on an H200
# MobileNetV2 fell from cosine 1 to .99985, short of the golden vectors' .9999, and one frame at a
# time was 1.52 ms in place of 1.41.
PRECISE = {"use_tf32": "0"}
"""The CUDA provider's options, unless an artifact says otherwise."""


_GRAPH = "enable_cuda_graph"


def open_session(entry: Path, *, threads: int, options: Mapping[str, str]) -> Session:
    """Loads an ``.onnx`` file on the GPU.

    Its kernels are recorded as a CUDA graph where that can be done: not with control flow, shapes
    that depend on values, or nodes on the CPU. Then they are launched one by one.

    Args:
        entry: the model.
        threads: for what stays on the CPU.
        options: ``session.…`` entries, and options of the CUDA provider with ``cuda_`` before
            their names (``cuda_device_id``). ``cuda_enable_cuda_graph`` of 0 wants no graph,
            of 1 nothing else.

    Raises:
        RefusedError: the provider did not start, or more nodes would fall back to the CPU than
            ``placement.share`` allows.
        SourceError: the file is no ONNX model.
    """
    given = {k.removeprefix(_PREFIX): v for k, v in options.items() if k.startswith(_PREFIX)}
    given = PRECISE | given

    def opened(wrap: Callable[[Any, Any], Session] | None, **more: str) -> Session:
        providers = [("CUDAExecutionProvider", given | more)]
        return open_with(providers, entry, threads=threads, options=options, wrap=wrap)

    if given.get(_GRAPH) != "0":
        recorded = partial(CapturedSession, device=_device(given))
        try:
            return opened(recorded, **{_GRAPH: "1"})
        except RefusedError:
            if given.get(_GRAPH) == "1":
                raise
    return opened(None)


def library() -> Any:
    """Imports ONNX Runtime."""
    return onnx.library()


def _device(given: Mapping[str, str]) -> int:
    number = given.get("device_id", "0")
    if not number.isdecimal():
        raise SourceError(
            f"The option cuda_device_id is {number!r}", expected="the GPU's number, such as 0"
        )
    return int(number)
