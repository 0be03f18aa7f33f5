"""Runs ONNX artifacts on ONNX Runtime's TensorRT provider, with CUDA below it and nothing else.

The engine is built from the graph on the device, at the first start, which takes minutes; the next
start reads it from a cache. ONNX Runtime does not notice that an upgrade made a cached engine
stale, so the cache's folder is named after everything that the engine depends on. What was measured
to build it is of use to other models of the device, too: see
:mod:`~edgeml.targets.tensorrt.timing`.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import platformdirs

from edgeml.errors import RefusedError
from edgeml.targets.onnx import runtime as onnx
from edgeml.targets.onnx.runtime import open_with
from edgeml.targets.onnx_cuda.runtime import PRECISE
from edgeml.targets.runtime import Session
from edgeml.targets.tensorrt import timing

_PREFIX = "trt_"
_CACHE = "trt_engine_cache_path"
_TIMING = "trt_timing_cache_path"
_TF32 = "NVIDIA_TF32_OVERRIDE"

# Each names the hardware or the driver's version, where it exists: the Jetson (an SD card may move
# to another), its release, and the driver.
_DEVICE_FILES = ("proc/device-tree/model", "etc/nv_tegra_release", "proc/driver/nvidia/version")
_TENSORRT = ("tensorrt", "tensorrt-cu12-libs", "tensorrt-cu13-libs")


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
    library()
    given = {key: value for key, value in options.items() if key.startswith(_PREFIX)}

    def load() -> Session:
        return open_with(
            [("TensorrtExecutionProvider", given), ("CUDAExecutionProvider", PRECISE)],
            entry,
            threads=threads,
            options=options,
        )

    if given.get("trt_engine_cache_enable") != "1" or _CACHE in given:
        return load()
    caches = platformdirs.user_cache_path("edgeml") / "tensorrt"
    folder, shared = caches / engine_key(entry, given), caches / timing_key(given)
    folder.mkdir(parents=True, exist_ok=True)
    given |= {_CACHE: str(folder), _TIMING: str(folder)}
    with contextlib.suppress(OSError):  # then it takes longer
        timing.lend(shared, folder)
    before = timing.state(folder)
    try:
        session = load()
    except RefusedError as error:
        if "timing cache" not in str(error):
            raise
        timing.forget(folder)  # cut short, or another TensorRT's: it costs time, and not the model
        session = load()
    with contextlib.suppress(OSError):
        timing.give_back(folder, shared, before=before)
    return session


def library() -> Any:
    """Imports ONNX Runtime."""
    # The provider has no option for TF32, which TensorRT takes for float32 by default; NVIDIA's
    # libraries look at this when they are loaded, each before anything else.
    os.environ.setdefault(_TF32, "0")
    return onnx.library()


def engine_key(entry: Path, options: Mapping[str, str], *, system: Path = Path("/")) -> str:
    """A name for the engines of this model on this device with these versions and options.

    The digest takes in the model's bytes, the options, the versions of ONNX Runtime and TensorRT,
    and what the system says of the driver, the Jetson, its release and the GPUs.

    Args:
        entry: the model.
        options: of the provider.
        system: root of the device's files.
    """
    model = hashlib.sha256(entry.read_bytes()).digest()
    return _name(model, _options(options) + _versions("onnxruntime-gpu") + _device(system))


def timing_key(options: Mapping[str, str], *, system: Path = Path("/")) -> str:
    """A name for what TensorRT has measured on this device with these options, for any model and by
    any ONNX Runtime.

    NVIDIA's developer guide ("The Timing Cache") has it depend on the device, the versions of CUDA
    and TensorRT, and the settings of the build.

    Args:
        options: of the provider.
        system: root of the device's files.
    """
    return f"timing-{_name(b'', _options(options) + _device(system))}"


def _options(options: Mapping[str, str]) -> list[str]:
    facts = [f"{key}={value}" for key, value in sorted(options.items())]
    return [*facts, f"{_TF32}={os.environ.get(_TF32, '')}"]


def _device(system: Path) -> list[str]:
    """TensorRT, the driver, the Jetson, its release and the GPUs."""
    facts = _versions(*_TENSORRT)
    # JetPack brings TensorRT as a system library, whose file name carries the version.
    facts += [path.name for path in sorted((system / "usr/lib").glob("*/libnvinfer.so.*"))]
    for path in [system / name for name in _DEVICE_FILES]:
        if path.is_file():
            facts.append(path.read_text(errors="replace"))
    return facts + _gpus(system / "proc/driver/nvidia/gpus")


def _versions(*packages: str) -> list[str]:
    """Of those that are installed."""
    found: list[str] = []
    for name in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{name} {importlib.metadata.version(name)}")
    return found


def _name(model: bytes, facts: Sequence[str]) -> str:
    digest = hashlib.sha256(model)
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
