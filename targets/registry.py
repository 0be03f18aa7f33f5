"""The targets as data, and what they make, answered before anything heavy is imported.

:func:`can_make` answers from a row of the table alone, with ``None`` for yes or with a
:class:`Refusal`, so that a doomed request fails at once and a caller can list reasons without
catching anything. Whether an artifact runs on a machine is :mod:`edgeml.targets.host`'s to say.

Adding a target is a folder and a row.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Literal

import msgspec

from edgeml.bundle.manifest import Precision
from edgeml.errors import UsageError

SourceKind = Literal["torch", "savedmodel", "onnx", "tflite", "classical"]
"""``classical`` is an ONNX graph with operators of ai.onnx.ml, as trees and pipelines become."""

SOURCE_KINDS: tuple[SourceKind, ...] = ("torch", "savedmodel", "onnx", "tflite", "classical")
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")
"""Those that every target makes."""

CALIBRATED: frozenset[Precision] = frozenset({"int8", "int16x8", "mixed"})
"""Those that need samples: the ranges of a model's values are measured on them."""


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Why something cannot be made or run, and what would change that."""

    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.reason} {self.remedy}"


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the registry.

    Attributes:
        name: what users write after ``-t``.
        title: what people call it.
        sources: kinds of source model that the converter reads.
        precisions: precisions that the converter makes.
        auto: those that are tried where nobody names one.
        spare: of those, ones that another stands for: the runtime computes both with the same
            kernels, and the other takes fewer bytes. One is looked at only where the other does
            not hold.
        compile: dotted path of the module with ``compile(job)``; heavy, toolchain only.
        runtime: dotted path of the module with ``open_session(...)``, and ``library()``, which
            imports the runtime itself; light, for the device.
        layers: dotted path of the module with ``signals(job)``; empty where the runtime shows
            nothing of its layers.
        packages: distributions of which any one is the runtime.
        providers: ONNX Runtime execution providers in order of preference; empty elsewhere.
        needs_nvidia: whether an NVIDIA device and its driver must be present.
        libraries: shared libraries that the runtime loads beside its own, as ``find_library``
            names, each with the distributions that carry it in a wheel.
        runs_on: the only operating system that has the runtime, as ``platform.system`` calls it;
            empty where any has. Elsewhere an artifact is made and cannot be checked by running it.
        options: session options that every artifact of the target carries by default.
        extra: the extra of edgeml that brings the runtime; :func:`edgeml.targets.host.to_install`
            knows the machine's own.
        bridges: source kind to the toolchain that its conversion goes through on its way.
        refusals: source kind to the reason and the remedy, for each kind not in ``sources``.
        without: likewise, for precisions.
    """

    name: str
    title: str
    sources: frozenset[SourceKind]
    precisions: tuple[Precision, ...]
    compile: str
    runtime: str
    packages: tuple[str, ...]
    extra: str
    auto: tuple[Precision, ...] = ("fp32", "int8")
    spare: Mapping[Precision, Precision] = msgspec.field(default_factory=dict[Precision, Precision])
    layers: str = ""
    providers: tuple[str, ...] = ()
    needs_nvidia: bool = False
    libraries: Mapping[str, tuple[str, ...]] = msgspec.field(
        default_factory=dict[str, tuple[str, ...]]
    )
    runs_on: str = ""
    options: Mapping[str, str] = msgspec.field(default_factory=dict[str, str])
    bridges: Mapping[SourceKind, str] = msgspec.field(default_factory=dict[SourceKind, str])
    refusals: Mapping[SourceKind, Refusal] = msgspec.field(
        default_factory=dict[SourceKind, Refusal]
    )
    without: Mapping[Precision, Refusal] = msgspec.field(default_factory=dict[Precision, Refusal])


_ALL: frozenset[SourceKind] = frozenset(SOURCE_KINDS)

_CLASSICAL = Refusal(
    reason="Trees, linear models and scalers are made in fp32 alone: fewer bits would move the "
    "thresholds that they decide by, and there is next to nothing to save.",
    remedy="Ask for fp32; auto makes it.",
)

# ONNX Runtime places what a provider lacks on the CPU without a word. Refuse instead; an artifact
# whose owner accepts a mixed session can carry "0" here.
_STRICT = {"session.disable_cpu_ep_fallback": "1"}

_SHARED: tuple[Precision, ...] = (*PRECISIONS, "mixed", "int8-weights", "int4-weights")

_NO_INT16X8 = Refusal(
    reason="It has no kernels for activations of 16 bits: it would round to them and then compute "
    "in float32, slower than fp32 and no smaller than int8-weights.",
    remedy="Ask for int8, for int8-weights, or for mixed; LiteRT (tflite) has int16x8.",
)

_WEIGHTS_ON_GPU = Refusal(
    reason="The provider would unpack the weights when it starts: the file would be smaller, "
    "nothing else.",
    remedy="Ask for fp16, which halves the memory as well, or for int8.",
)
_NVIDIA: Mapping[Precision, Refusal] = {
    "int16x8": _NO_INT16X8,
    "int8-dynamic": Refusal(
        reason="Ranges that are taken while it runs have no kernels on the GPU: those layers "
        "would go to the CPU.",
        remedy="Ask for int8, with calibration data, or for fp16.",
    ),
    "int8-weights": _WEIGHTS_ON_GPU,
    "int4-weights": _WEIGHTS_ON_GPU,
}

TARGETS: Mapping[str, Target] = {
    row.name: row
    for row in (
        Target(
            name="tflite",
            title="LiteRT (TensorFlow Lite), CPU with XNNPACK",
            sources=_ALL,
            precisions=(*_SHARED, "int8-dynamic", "int16x8"),
            layers="edgeml.targets.tflite.layers",
            compile="edgeml.targets.tflite.compile",
            runtime="edgeml.targets.tflite.runtime",
            packages=("ai-edge-litert", "tflite-runtime"),
            extra="tflite",
            bridges={"onnx": "onnx2tf", "classical": "onnx2tf"},
        ),
        Target(
            name="openvino",
            title="OpenVINO, CPU",
            sources=_ALL,
            precisions=(*_SHARED, "int8-dynamic"),
            # float16 is computed as float32 is and half as large: what OpenVINO saves by default.
            auto=("fp32", "fp16", "int8"),
            spare={"fp32": "fp16"},
            without={"int16x8": _NO_INT16X8},
            layers="edgeml.targets.openvino.layers",
            compile="edgeml.targets.openvino.compile",
            runtime="edgeml.targets.openvino.runtime",
            packages=("openvino",),
            extra="openvino",
            # Where the CPU has AMX, OpenVINO computes float32 models in bfloat16 unless told not
            # to: parity proven on one machine would not hold on another.
            options={"INFERENCE_PRECISION_HINT": "f32"},
        ),
        Target(
            name="onnx",
            title="ONNX Runtime, CPU",
            sources=_ALL,
            precisions=(*_SHARED, "int8-dynamic"),
            without={"int16x8": _NO_INT16X8},
            layers="edgeml.targets.onnx.layers",
            compile="edgeml.targets.onnx.compile",
            runtime="edgeml.targets.onnx.runtime",
            packages=("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino"),
            extra="onnx",
            providers=("CPUExecutionProvider",),
        ),
        Target(
            name="onnx-cuda",
            title="ONNX Runtime, CUDA (Jetson and NVIDIA GPUs)",
            sources=_ALL,
            precisions=(*PRECISIONS, "mixed"),
            # The provider has no int8 kernels: it computes such layers in float32, with rounding
            # between them, 1.6 to 2.1 times as late on an H200. int8 is TensorRT's.
            auto=("fp32", "fp16"),
            without=_NVIDIA,
            layers="edgeml.targets.onnx.layers",
            compile="edgeml.targets.onnx_cuda.compile",
            runtime="edgeml.targets.onnx_cuda.runtime",
            packages=("onnxruntime-gpu",),
            extra="nvidia",
            providers=("CUDAExecutionProvider",),
            needs_nvidia=True,
            libraries={"cuda": ()},
            options=_STRICT,
        ),
        Target(
            name="tensorrt",
            title="ONNX Runtime, TensorRT (Jetson and NVIDIA GPUs)",
            sources=_ALL,
            precisions=(*PRECISIONS, "mixed"),
            without=_NVIDIA,
            layers="edgeml.targets.onnx.layers",
            compile="edgeml.targets.tensorrt.compile",
            runtime="edgeml.targets.tensorrt.runtime",
            packages=("onnxruntime-gpu",),
            extra="nvidia",
            providers=("TensorrtExecutionProvider", "CUDAExecutionProvider"),
            needs_nvidia=True,
            libraries={
                "cuda": (),
                "nvinfer": ("tensorrt", "tensorrt-cu12-libs", "tensorrt-cu13-libs"),
            },
            # Engines belong to one device, one driver and one TensorRT: built there, kept there.
            options={
                **_STRICT,
                "trt_engine_cache_enable": "1",
                "trt_timing_cache_enable": "1",
            },
        ),
        Target(
            name="executorch",
            title="ExecuTorch, CPU with XNNPACK",
            sources=frozenset({"torch"}),
            precisions=("fp32", "int8", "mixed", "int8-dynamic"),
            layers="edgeml.targets.executorch.layers",
            compile="edgeml.targets.executorch.compile",
            runtime="edgeml.targets.executorch.runtime",
            packages=("executorch",),
            extra="executorch",
            refusals={
                "savedmodel": Refusal(
                    reason="ExecuTorch takes programs of torch.export alone, and a TensorFlow "
                    "graph does not become one.",
                    remedy="Export to tflite, which runs on the same devices with the same XNNPACK "
                    "kernels; a Keras 3 model can also be loaded with KERAS_BACKEND=torch in a "
                    "factory, which makes it a PyTorch module (FILE.py:FACTORY).",
                ),
                "onnx": Refusal(
                    reason="ExecuTorch takes programs of torch.export alone, and nothing that is "
                    "kept up turns ONNX into one.",
                    remedy="Give the PyTorch model that the ONNX came from (FILE.py:FACTORY or "
                    ".pt2), or export to onnx or tflite.",
                ),
                "tflite": Refusal(
                    reason="ExecuTorch takes programs of torch.export alone, and a .tflite does "
                    "not become one.",
                    remedy="Export to tflite, which runs on the same devices with the same XNNPACK "
                    "kernels.",
                ),
                "classical": Refusal(
                    reason="ExecuTorch takes programs of torch.export alone, and a model of "
                    "scikit-learn, XGBoost or LightGBM does not become one.",
                    remedy="Export to onnx, openvino or tflite.",
                ),
            },
        ),
        Target(
            name="coreml",
            title="Core ML (macOS 13 and iOS 16 on)",
            sources=frozenset({"torch", "savedmodel"}),
            precisions=("fp32", "fp16", "int8-weights"),
            compile="edgeml.targets.coreml.compile",
            runtime="edgeml.targets.coreml.runtime",
            packages=("coremltools",),
            extra="coreml",
            runs_on="Darwin",
            refusals={
                "onnx": Refusal(
                    reason="Core ML's converter has read no ONNX since coremltools 6.",
                    remedy="Give the model that the ONNX came from: FILE.py:FACTORY or .pt2 for "
                    "PyTorch; .keras, .h5 or a SavedModel folder for TensorFlow.",
                ),
                "tflite": Refusal(
                    reason="Core ML's converter reads no .tflite.",
                    remedy="Give the model that it was made from (.keras, .h5 or a SavedModel "
                    "folder); or export to tflite, which runs on Apple's devices as well.",
                ),
                "classical": Refusal(
                    reason="Core ML's converter reads scikit-learn up to 1.5 and XGBoost up to "
                    "1.4 alone, and no ONNX.",
                    remedy="Export to onnx, which runs on Apple's devices as well.",
                ),
            },
        ),
    )
}


def target(name: str) -> Target:
    """The row of a target.

    Raises:
        UsageError: there is no such target; near matches are named.
    """
    row = TARGETS.get(name)
    if row is not None:
        return row
    near = difflib.get_close_matches(name, TARGETS, n=2, cutoff=0.5)
    raise UsageError(
        f"There is no target {name!r}",
        expected=f"one of {', '.join(TARGETS)}",
        remedy=f"Did you mean {' or '.join(near)}?" if near else "See `edgeml targets`.",
    )


def can_make(
    row: Target | str, source_kind: SourceKind, precision: Precision = "fp32"
) -> Refusal | None:
    """Whether a target's converter takes this kind of source, decided from the table alone."""
    row = target(row) if isinstance(row, str) else row
    if source_kind not in row.sources:
        return row.refusals.get(source_kind) or Refusal(
            reason=f"{row.title} has no converter for such a source.",
            remedy="See `edgeml targets` for those that it has.",
        )
    if source_kind == "classical" and precision != "fp32":
        return _CLASSICAL
    if precision not in row.precisions:
        return row.without.get(precision) or Refusal(
            reason=f"{row.title} has no {precision} artifacts.",
            remedy=f"Ask for one of {', '.join(row.precisions)}.",
        )
    return None
