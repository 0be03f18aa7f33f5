"""Runs ONNX artifacts on ONNX Runtime's CUDA provider, and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgeml.targets.onnx.runtime import open_with
from edgeml.targets.runtime import Session

_PREFIX = "cuda_"


def open_session(entry: Path, *, threads: int, options: Mapping[str, str]) -> Session:
    """Loads an ``.onnx`` file on the GPU.

    Args:
        entry: the model.
        threads: for what stays on the CPU.
        options: ``session.…`` entries, and options of the CUDA provider with ``cuda_`` before
            their names (``cuda_device_id``).

    Raises:
        RefusedError: the provider did not start, or more nodes would fall back to the CPU than
            ``placement.share`` allows.
        SourceError: the file is no ONNX model.
    """
    given = {k.removeprefix(_PREFIX): v for k, v in options.items() if k.startswith(_PREFIX)}
    return open_with([("CUDAExecutionProvider", given)], entry, threads=threads, options=options)
