"""Runs ONNX artifacts on ONNX Runtime's TensorRT provider, with CUDA below it and nothing else.

The engine is built from the graph on the device, at the first start, which takes minutes; the next
start reads it from a cache. ONNX Runtime does not notice that an upgrade made a cached engine
stale, so the cache's folder is named after everything that the engine depends on.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
from collections.abc import Mapping
from pathlib import Path

import platformdirs

from edgeml.targets.onnx.runtime import open_with
from edgeml.targets.onnx_cuda.runtime import PRECISE
from edgeml.targets.runtime import Session

_PREFIX = "trt_"
_CACHE = "trt_engine_cache_path"
_TIMING = "trt_timing_cache_path"
_TF32 = "NVIDIA_TF32_OVERRIDE"

# Each names the hardware or the driver's version, where it exists: the Jetson (an SD card may move
# to another), its release, and the driver.
_DEVICE_FILES = ("proc/device-tree/model", "etc/nv_tegra_release", "proc/driver/nvidia/version")
_RUNTIMES = ("onnxruntime-gpu", "tensorrt", "tensorrt-cu12-libs", "tensorrt-cu13-libs")


def open_session(entry: Path, *, threads: int, options: Mapping[str, str]) -> Session:
    """Loads an ``.onnx`` file on TensorRT; builds its engine where the cache has none.

    Args:
        entry: the model.
        threads: for what stays on the CPU.
        options: ``session.…`` entries and the provider's own ``trt_…`` options. Where the engine
            cache is on and no folder is given, one in the user's cache folder is used.

    Raises:
        RefusedError: the provider did not start, or more nodes would fall back to the CPU than
            ``placement.share`` allows.
        SourceError: the file is no ONNX model.
    """
    # The provider has no option for TF32, which TensorRT takes for float32 by default; NVIDIA's
    # libraries look at this when they are loaded, each before anything else.
    os.environ.setdefault(_TF32, "0")
    given = {key: value for key, value in options.items() if key.startswith(_PREFIX)}
    if given.get("trt_engine_cache_enable") == "1" and _CACHE not in given:
        folder = platformdirs.user_cache_path("edgeml") / "tensorrt" / engine_key(entry, given)
        folder.mkdir(parents=True, exist_ok=True)
        given |= {_CACHE: str(folder), _TIMING: str(folder)}
    return open_with(
        [("TensorrtExecutionProvider", given), ("CUDAExecutionProvider", PRECISE)],
        entry,
        threads=threads,
        options=options,
    )


def engine_key(entry: Path, options: Mapping[str, str], *, system: Path = Path("/")) -> str:
    """A name for the engines of this model on this device with these versions and options.

    The digest takes in the model's bytes, the options, the versions of ONNX Runtime and TensorRT,
    and what the system says of the driver, the Jetson, its release and the GPUs.

    Args:
        entry: the model.
        options: of the provider.
        system: root of the device's files.
    """
    digest = hashlib.sha256(hashlib.sha256(entry.read_bytes()).digest())
    facts = [f"{key}={value}" for key, value in sorted(options.items())]
    facts.append(f"{_TF32}={os.environ.get(_TF32, '')}")
    for name in _RUNTIMES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            facts.append(f"{name} {importlib.metadata.version(name)}")
    # JetPack brings TensorRT as a system library, whose file name carries the version.
    facts += [path.name for path in sorted((system / "usr/lib").glob("*/libnvinfer.so.*"))]
    for path in [system / name for name in _DEVICE_FILES]:
        if path.is_file():
            facts.append(path.read_text(errors="replace"))
    facts += _gpus(system / "proc/driver/nvidia/gpus")
    digest.update("\n".join(facts).encode())
    return digest.hexdigest()[:32]


def _gpus(folder: Path) -> list[str]:
    """Their models. What else the driver tells of them changes from one start to the next, as the
    interrupt does, or is known only once somebody has used the GPU, as its UUID and BIOS are."""
    return [
        line
        for path in sorted(folder.glob("*/information"))
        for line in path.read_text(errors="replace").splitlines()
        if line.startswith("Model:")
    ]
