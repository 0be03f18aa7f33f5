"""Runs ONNX artifacts through ONNX Runtime: on the CPU here, and for the NVIDIA targets as well.

ONNX Runtime lists the providers that it was built with and, when one cannot start, carries on with
the CPU. :func:`open_with` looks at what it got after the session was made and refuses anything
else than what was asked for: see :mod:`edgeml.targets.onnx.placement`.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeml.errors import RefusedError, SourceError
from edgeml.targets.onnx import placement
from edgeml.targets.runtime import Array, Session, TensorInfo, dtype_name

Provider = tuple[str, dict[str, str]]

_CPU = "CPUExecutionProvider"
_SESSION = "session."

# ONNX Runtime makes the float biases of an int8 graph int32, as its kernels for the CPU want them.
# CUDA has no DequantizeLinear of int32, so that on an H200 each layer's went to the CPU, and every
# int8 artifact was refused; TensorRT has none either.
NOT_FOR_GPUS = ["WeightBiasQuantization"]
_DTYPES = {"float": "float32", "double": "float64"}


def open_session(entry: Path, *, threads: int, options: Mapping[str, str]) -> Session:
    """Loads an ``.onnx`` file on the CPU.

    Args:
        entry: the model.
        threads: within an operator; operators run one after another.
        options: session configuration entries, ``session.…``.

    Raises:
        SourceError: the file is no ONNX model, or an option is none of these.
    """
    unknown = [key for key in options if not key.startswith(_SESSION)]
    if unknown:
        raise SourceError(f"onnx has no session option {unknown}", expected="options session.*")
    if saturates():
        options = {"session.x64quantprecision": "1", **options}
    return open_with([(_CPU, {})], entry, threads=threads, options=options)


def saturates(machine: str = platform.machine(), cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether ONNX Runtime's fast int8 kernels overflow on this CPU.

    On x86 without VNNI they add pairs of 8-bit products in 16 bits, which saturates.
    ``session.x64quantprecision`` chooses slower exact ones. It is not harmless elsewhere: on a CPU
    with VNNI the results were the same, and 1.3 to 2 times as late.
    """
    if machine not in {"x86_64", "AMD64"}:
        return False
    flags = cpuinfo.read_text(errors="replace") if cpuinfo.is_file() else ""
    return "avx512_vnni" not in flags and "avx_vnni" not in flags


def open_with(
    providers: Sequence[Provider],
    entry: Path,
    *,
    threads: int,
    options: Mapping[str, str],
    wrap: Callable[[Any, Any], Session] | None = None,
) -> Session:
    """Loads an ``.onnx`` file on the first of some providers, or not at all.

    Args:
        providers: name and options of each, best first.
        entry: the model.
        threads: within an operator.
        options: session configuration entries (``session.…``) and ``placement.share``; others
            are ignored.
        wrap: what becomes of ONNX Runtime and its session; None for the usual one.

    Raises:
        RefusedError: the session would run on another provider than the first one, or would leave
            more nodes to others than the options allow.
        SourceError: the file is no ONNX model, or an option is wrong.
    """
    runtime = library()
    wanted = providers[0][0]
    if wanted != _CPU:
        _load_nvidia_wheels(runtime, tensorrt=wanted == "TensorrtExecutionProvider")
    available: list[str] = runtime.get_available_providers()
    if wanted not in available:
        from edgeml.targets.host import to_install

        raise RefusedError(
            f"This build of ONNX Runtime has no {wanted}; it has {', '.join(available)}",
            remedy=f"pip uninstall onnxruntime, then {to_install('nvidia')}",
        )
    settings = runtime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 3
    least = placement.least_share(options)
    names = wanted != _CPU and placement.tells(runtime)
    if names:  # its own refusal would name no node
        options = {**options, placement.RECORD: "1", placement.STRICT: "0"}
    for key, value in options.items():
        if key.startswith(_SESSION):
            settings.add_session_config_entry(key, value)
    try:
        session = runtime.InferenceSession(
            str(entry),
            settings,
            providers=[name for name, _ in providers],
            provider_options=[dict(given) for _, given in providers],
            enable_fallback=0,  # else it tries again without the provider that failed
            **({} if wanted == _CPU else {"disabled_optimizers": NOT_FOR_GPUS}),
        )
    except Exception as error:
        raise _refusal(entry, wanted, error) from error
    # Otherwise a provider that fails later is replaced, session and all, in the middle of a run.
    session.disable_fallback()
    found = placement.nodes(session) if names else []
    asked = [name for name, _ in providers]
    placement.check(asked, session.get_providers(), found, least)
    return wrap(runtime, session) if wrap else _OrtSession(session, runtime.RunOptions())


class _OrtSession:
    def __init__(self, session: Any, options: Any) -> None:
        self._session: Any = session
        self._options: Any = options
        self.inputs = tuple(tensor_info(node) for node in session.get_inputs())
        self.outputs = tuple(tensor_info(node) for node in session.get_outputs())
        self._names = [info.name for info in self.outputs]

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        if self._options.terminate:  # of an earlier run, which was broken off
            self._options.terminate = False
        try:
            results = self._session.run(self._names, feeds, self._options)
        except Exception as error:
            raise refusal_to_run(error) from error
        return dict(zip(self._names, results, strict=True))

    def cancel(self) -> None:
        self._options.terminate = True

    def close(self) -> None:
        self._session = None


def library() -> Any:
    """Imports ONNX Runtime."""
    # Since 1.29 ONNX Runtime tells its maker of every session, on Linux too, and leaves an
    # identifier of the device on the disk. Not from here. It looks once, when it is imported.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    return importlib.import_module("onnxruntime")


def _load_nvidia_wheels(runtime: Any, *, tensorrt: bool) -> None:
    """CUDA, cuDNN and TensorRT as wheels (``onnxruntime-gpu[cuda,cudnn]``, ``tensorrt``) lie where
    the loader does not look. Where they are the system's, as on a Jetson, this finds nothing to do.
    """
    if hasattr(runtime, "preload_dlls"):
        # What it did not find it prints; what is missing in the end, the session's refusal tells.
        with contextlib.redirect_stdout(io.StringIO()):
            runtime.preload_dlls()
    if tensorrt:
        with contextlib.suppress(ImportError):
            importlib.import_module("tensorrt_libs")


def tensor_info(node: Any) -> TensorInfo:
    """An input or output as ONNX Runtime describes it."""
    shape = tuple(axis if isinstance(axis, int) else -1 for axis in node.shape)
    element: str = node.type.removeprefix("tensor(").removesuffix(")")
    return TensorInfo(str(node.name), shape, dtype_name(_DTYPES.get(element, element)))


def refusal_to_run(error: Exception) -> RefusedError:
    """What to say of a run that ONNX Runtime gave up."""
    text = _plain(error)
    node = re.search(r"while running (\w+) node\. Name:'([^']*)' Status Message: (.*)", text)
    if node is None:
        found = f"ONNX Runtime cannot run the model: {text[:300]}"
    else:
        operator, name, why = node.groups()
        found = f"ONNX Runtime cannot run {operator}{name and f' (node {name!r})'}: {why[:300]}"
    return RefusedError(
        found,
        remedy="It has the operator, but not for these shapes, types or values: change them in the "
        "model, or export to another target.",
    )


def _plain(error: Exception) -> str:
    """ONNX Runtime's message without the places and signatures of its C++ functions."""
    text = " ".join(str(error).split())
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : (Load model from \S+ failed:)?", "", text)
    # Of the GPU's libraries what failed, and not through which templates the word of it came.
    text = re.sub(r"/onnxruntime_src/.*?(\w+ failure -?\d+: [^;]*\w)( ;.*)?$", r"\1", text)
    return re.sub(r"/onnxruntime_src/\S+ (?:[^()]*\([^()]*\) )?(?=[A-Z]|\S+ was false)", "", text)


def _refusal(entry: Path, wanted: str, error: Exception) -> Exception:
    text = _plain(error)
    kind = type(error).__name__
    if kind in {"InvalidProtobuf", "NoSuchFile", "ModelRequiresCompilation"}:
        return SourceError(
            f"{entry.name} cannot be read as an ONNX model: {text[:300]}",
            expected="an artifact for an ONNX target",
            remedy="Export the model again.",
        )
    if kind == "InvalidGraph":
        return RefusedError(
            f"ONNX Runtime does not take the graph of {entry.name}: "
            f"{re.sub('^.*?(This is an invalid model|Error:)[:. ]*', '', text)[:300]}",
            remedy="Where an operator or an attribute of it is newer than this ONNX Runtime, "
            "export the model for an older opset; or export to another target.",
        )
    if "fallback" in text.lower():
        return RefusedError(
            f"{wanted} did not start, or lacks operators of {entry.name}, and the CPU would have "
            f"taken their place: {text[:300]}",
            remedy="Check the versions of the GPU's driver and libraries; where they are right, "
            "accept the CPU's part with the session option session.disable_cpu_ep_fallback=0, or "
            "use the onnx target on this machine.",
        )
    if "out of memory" in text:
        return RefusedError(
            f"ONNX Runtime cannot load {entry.name} on {wanted}: {text[:300]}",
            remedy="Other programs have the GPU's memory (nvidia-smi tells which), or the model is "
            "too large for it.",
        )
    return RefusedError(
        f"ONNX Runtime cannot load {entry.name} on {wanted}: {text[:300]}",
        remedy="Use another target's artifact on this machine.",
    )
