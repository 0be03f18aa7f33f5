"""Where a quantized artifact parts from its float twin, layer by layer.

A target's ``layers.py`` offers ``signals(job: SignalJob) -> tuple[LayerSignal, ...]``, in the order
in which the layers run: each layer's output in the float artifact and in the quantized one, on the
same samples. The exporter reads from it which layers must stay float, and shows it to a person
where int8 collapses.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Protocol, cast

import msgspec

from edgeml.errors import RefusedError
from edgeml.targets.compiling import CompileJob, CompileResult
from edgeml.targets.registry import target


class SignalJob(msgspec.Struct, frozen=True, kw_only=True):
    """Two artifacts of one model and one target.

    Attributes:
        job: of the quantized one; its ``source`` tells which module a layer comes from.
        exact: the float artifact.
        quantized: the other one.
        samples: an ``.npz`` with an array [n, ...] an input, under the source's names; few are
            enough.
    """

    job: CompileJob
    exact: CompileResult
    quantized: CompileResult
    samples: Path


class LayerSignal(msgspec.Struct, frozen=True, kw_only=True):
    """One layer.

    Attributes:
        name: unique in the artifact, and what ``CompileJob.keep_float`` takes.
        operator: as the target calls it.
        snr_db: 10·log10 of the float output's energy over the energy of the difference, both over
            all samples; infinite where there is no difference.
        input_snr_db: the lowest of the layers that it reads; infinite at the model's inputs. A
            layer whose own is much lower is where the noise comes from.
        module: the source's path to it, such as ``features.3.conv``; empty where unknown.
        line: file and line of the source; empty where unknown.
        shape: of the output.
    """

    name: str
    operator: str
    snr_db: float
    input_snr_db: float
    module: str = ""
    line: str = ""
    shape: tuple[int, ...] = ()


class _Layers(Protocol):
    def signals(self, job: SignalJob) -> tuple[LayerSignal, ...]: ...


def signals_here(name: str, job: SignalJob) -> tuple[LayerSignal, ...]:
    """Compares the two artifacts in this process.

    Raises:
        RefusedError: the target's runtime shows nothing of what goes on inside.
    """
    row = target(name)
    if not row.layers:
        raise RefusedError(f"{row.title} shows nothing of what its layers compute")
    return cast("_Layers", importlib.import_module(row.layers)).signals(job)
