"""Jobs and results of the converters.

A converter module offers ``compile(job: CompileJob) -> CompileResult`` and raises
:class:`~edgeml.errors.RefusedError` for an operator that its target lacks, naming the operator and
the module that it comes from. A converter pulls in torch or TensorFlow, prints what it likes and
may be killed for memory: the exporter runs :func:`compile_here` in a child process whose standard
streams are a log. The precisions of one target belong in one child, which then pays for the imports
(5 to 15 s) and for the float conversion once.
"""

from __future__ import annotations

import importlib
import time
from pathlib import Path
from typing import Protocol, cast

import msgspec

from edgeml.bundle.manifest import Precision
from edgeml.errors import EdgemlError, SourceError, ToolchainError
from edgeml.targets.registry import CALIBRATED, SourceKind, target


class CompileJob(msgspec.Struct, frozen=True, kw_only=True):
    """One artifact to be made.

    Attributes:
        source_kind: what ``source`` is.
        source: a ``.pt2`` of ``torch.export.save`` (float32, batch 1), a SavedModel folder with a
            serving signature, or an ``.onnx`` file.
        precision: of the artifact. Inputs and outputs keep the source's dtype whatever it is.
        inputs: the source's input names. Torch: one for each input of the program, in order.
            SavedModel and ONNX: the signature's or graph's own names.
        outputs: likewise for the outputs.
        calibration: a folder with ``0.npy``, ``1.npy``…, an array an input in the order of
            ``inputs``, first axis samples; needed for int8.
        keep_float: layers that stay float in ``mixed``, by the names of
            :class:`edgeml.targets.layers.LayerSignal`.
        spectra: how many spectra are made in front of the model: what leads up to their logarithms
            stays float in every precision (:mod:`edgeml.targets.fronts`).
        bridge: the interpreter of the toolchain that the registry's ``bridges`` names for this
            target and kind; None where it names none.
        workdir: where the artifact and intermediate files go; jobs may share it.
    """

    source_kind: SourceKind
    source: Path
    precision: Precision
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    workdir: Path
    calibration: Path | None = None
    keep_float: tuple[str, ...] = ()
    spectra: int = 0
    bridge: Path | None = None


class CompileResult(msgspec.Struct, frozen=True, kw_only=True):
    """One artifact made.

    Attributes:
        files: the first is what a session opens; the rest lie beside it.
        inputs: source name to runtime name.
        outputs: likewise.
        options: session options that the artifact needs, the target's defaults among them.
        calibration_samples: how many samples the quantizer saw; 0 where it needed none.
        seconds: wall-clock time of the conversion, imports left out.
    """

    files: tuple[Path, ...]
    inputs: dict[str, str]
    outputs: dict[str, str]
    options: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    calibration_samples: int = 0
    seconds: float = 0.0


class _Converter(Protocol):
    def compile(self, job: CompileJob) -> CompileResult: ...


def compile_here(name: str, job: CompileJob) -> CompileResult:
    """Runs one job in this process.

    Raises:
        RefusedError: the target does not take this source, precision or an operator of the model.
        SourceError: the model or the calibration data cannot be used.
        ToolchainError: the converter failed in a way that it did not explain.
    """
    row = target(name)
    if job.precision in CALIBRATED and job.calibration is None:
        raise SourceError(
            f"{job.precision} was asked for without calibration data",
            expected="real samples of what the model will see: their range decides the rounding of "
            "every layer, and random data would make an artifact that is wrong in silence",
            remedy="Give them with --calibration, or ask for fp32, fp16 or a precision that rounds "
            "weights alone.",
        )
    job.workdir.mkdir(parents=True, exist_ok=True)
    converter = cast("_Converter", importlib.import_module(row.compile))
    start = time.perf_counter()
    try:
        result = converter.compile(job)
    except EdgemlError:
        raise
    except MemoryError as error:
        raise ToolchainError(
            f"The converter for {name} ran out of memory", remedy="Give it a machine with more."
        ) from error
    except Exception as error:
        raise ToolchainError(
            f"The converter for {name} failed at {job.precision}: {first_line(error)}",
            remedy="Its own messages are in the log.",
        ) from error
    return msgspec.structs.replace(
        result,
        options={**row.options, **result.options},
        seconds=round(time.perf_counter() - start, 3),
    )


def first_line(error: BaseException) -> str:
    """The first line of an error's text that says something, at most 300 characters."""
    for line in str(error).splitlines():
        text = line.strip()
        if text:
            return text[:300]
    return type(error).__name__
