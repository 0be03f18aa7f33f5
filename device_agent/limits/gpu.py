"""A memory budget as options of a GPU's runtime: on a Jetson the GPU takes from the same memory.

No control group counts what the GPU's driver allocates, so the runtime must be told itself. The
names are those of the artifacts' options, :mod:`edgeml.targets.onnx_cuda.runtime` and
:mod:`edgeml.targets.tensorrt.runtime`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

GPU_TARGETS = ("onnx-cuda", "tensorrt")

WORKSPACE_SHARE = 0.5
"""Of the budget, what TensorRT may use as scratch memory: weights and the runtime need the rest."""

_TEGRA = Path("/etc/nv_tegra_release")
_MODEL = Path("/proc/device-tree/model")


def shares_memory(tegra: Path = _TEGRA, model: Path = _MODEL) -> bool:
    """Whether this machine's GPU has no memory of its own: a Jetson."""
    if tegra.exists():
        return True
    try:
        return "jetson" in model.read_text(errors="replace").lower()
    except OSError:
        return False


def within(
    options: Mapping[str, str], target: str, limit_bytes: int | None, *, shared: bool
) -> dict[str, str]:
    """An artifact's options with the memory limit in them. What the bundle sets lower stays.

    Args:
        options: of the artifact.
        target: that runs it.
        limit_bytes: of the model; None for no limit.
        shared: whether the GPU's memory is the machine's.
    """
    if limit_bytes is None or not shared or target not in GPU_TARGETS:
        return dict(options)
    limits = {"cuda_gpu_mem_limit": limit_bytes}
    if target == "tensorrt":
        limits = {"trt_max_workspace_size": int(limit_bytes * WORKSPACE_SHARE)}
    return {
        **options,
        **{name: str(min(limit, int(options.get(name, limit)))) for name, limit in limits.items()},
    }
