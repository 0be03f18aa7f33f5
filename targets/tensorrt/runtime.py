"""Runs ONNX artifacts on ONNX Runtime's TensorRT provider, with CUDA below it and nothing else.

The engine is built from the graph on the device, at the first start, which takes minutes; the next
start reads it from a cache. ONNX Runtime does not notice that an upgrade made a cached engine
stale, so the cache's folder is named after everything that the engine depends on
(:mod:`~edgeml.targets.tensorrt.caches`). What was measured to build it is of use to other models of
the device, too: see :mod:`~edgeml.targets.tensorrt.timing`.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeml.errors import RefusedError
from edgeml.targets.onnx import runtime as onnx
from edgeml.targets.onnx.runtime import open_with
from edgeml.targets.onnx_cuda.runtime import PRECISE
from edgeml.targets.runtime import Session
from edgeml.targets.tensorrt import caches, timing
from edgeml.targets.tensorrt.caches import Engine

_PREFIX = "trt_"
_CACHE = "trt_engine_cache_path"
_TIMING = "trt_timing_cache_path"
_TF32 = "NVIDIA_TF32_OVERRIDE"

# What ONNX Runtime says of a file of its own that it cannot read, and which files those are. It
# writes them in place, so that a power cut leaves half of one.
_SPOILT = {"timing cache": "*.timing", "deserialize engine from cache": "*.engine"}

# Each names the hardware or the driver's version, where it exists: the Jetson (an SD card may move
# to another), its release, and the driver.
_DEVICE_FILES = ("proc/device-tree/model", "etc/nv_tegra_release", "proc/driver/nvidia/version")
_TENSORRT = ("tensorrt", "tensorrt-cu12-libs", "tensorrt-cu13-libs")


def open_session(entry: Path, *, threads: int, options: Mapping[str, str]) -> Session:
    """Loads an ``.onnx`` file on TensorRT; builds its engine where the cache has none.

    Args:
        entry: the model.
        threads: for what stays on the CPU.
        options: ``session.…`` entries, the provider's own ``trt_…`` options, and
            :data:`~edgeml.targets.tensorrt.caches.FOLDER`.

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
    engine = engine_of(entry, given)
    root = Path(options.get(caches.FOLDER) or _of_the_user())
    folder = root / str(engine)
    handle = caches.hold(folder)
    given |= {_CACHE: str(folder), _TIMING: str(folder)}
    try:
        session = _load(load, folder, root / engine.timing)
    except BaseException:
        os.close(handle)
        raise
    weakref.finalize(session, os.close, handle)  # in use until then
    with contextlib.suppress(OSError):
        caches.loaded(folder)
    return session


def _load(load: Callable[[], Session], folder: Path, shared: Path) -> Session:
    """From a folder's engine, or by a build with what others have measured."""
    with contextlib.suppress(OSError):  # then it takes longer
        timing.lend(shared, folder)
    before = timing.state(folder)
    try:
        session = load()
    except RefusedError as error:
        spoilt = [files for what, files in _SPOILT.items() if what in str(error)]
        if not spoilt:
            raise
        # Cut short by a power cut, or another TensorRT's: it costs time, and not the model.
        for path in folder.glob(spoilt[0]):
            path.unlink()
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


def engine_of(entry: Path, options: Mapping[str, str], *, system: Path = Path("/")) -> Engine:
    """Where the engine of this model lies, on this device with these versions and options.

    What TensorRT measures to build it goes by the settings alone, whatever the model and ONNX
    Runtime: NVIDIA's developer guide ("The Timing Cache") has it depend on the device, the versions
    of CUDA and TensorRT, and the settings of the build.

    Args:
        entry: the model.
        options: of the provider.
        system: root of the device's files.
    """
    model = hashlib.sha256(entry.read_bytes()).hexdigest()
    settings, runtime = _options(options) + _device(system), _versions("onnxruntime-gpu")
    return Engine(caches.model_of(model), _digest(settings, 16), _digest(runtime, 8))


def _of_the_user() -> Path:
    import platformdirs  # an agent's worker is told its folder

    return platformdirs.user_cache_path("edgeml") / "tensorrt"


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


def _digest(facts: Sequence[str], digits: int) -> str:
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:digits]


def _gpus(folder: Path) -> list[str]:
    """Their models. What else the driver tells of them changes from one start to the next, as the
    interrupt does, or is known only once somebody has used the GPU, as its UUID and BIOS are."""
    return [
        line
        for path in sorted(folder.glob("*/information"))
        for line in path.read_text(errors="replace").splitlines()
        if line.startswith("Model:")
    ]
